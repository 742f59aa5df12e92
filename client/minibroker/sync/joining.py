"""`Queue.join`: waiting until the work of a queue is done, by looks at its counters that become rarer."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from minibroker.contract.errors import Timeout, UnknownQueue
from minibroker.session.spans import Span, milliseconds

MOST_MS: Final = 366 * 86_400_000
FIRST_S: Final = 0.005  # between two looks; doubles while nothing changes
LONGEST_S: Final = 0.5
OPEN: Final = ("ready", "held", "begun")


def join(
    name: str, look: Callable[[], dict[str, Any]], timeout: Span | None, delayed: bool
) -> None:
    """Return when `look` (the counters of the queue `name`) shows nothing to wait for; see `Queue.join`."""
    states = (*OPEN, "delayed") if delayed else OPEN
    end = None
    if timeout is not None:
        end = time.monotonic() + milliseconds("timeout", timeout, MOST_MS) / 1000
    left, wait_s = _left(name, look, states), FIRST_S
    while left:
        if end is not None and time.monotonic() >= end:
            shown = ", ".join(f"{count} {state}" for state, count in left.items())
            raise Timeout(f"{name} is not done after {timeout} s: {shown}")
        time.sleep(wait_s if end is None else max(0.0, min(wait_s, end - time.monotonic())))
        before, left = left, _left(name, look, states)
        wait_s = FIRST_S if left != before else min(2 * wait_s, LONGEST_S)


def _left(name: str, look: Callable[[], dict[str, Any]], states: tuple[str, ...]) -> dict[str, int]:
    try:
        counters = look()["queues"][name]
    except UnknownQueue:
        return {}  # nothing was ever published to it
    return {state: counters[state] for state in states if counters[state]}
