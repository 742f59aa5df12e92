"""`Queue.join`: waiting until the work of a queue is done, by looks at its counters that become rarer."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from minibroker.contract.errors import Timeout, UnknownQueue
from minibroker.session.spans import Span, milliseconds

MOST_MS: Final = 366 * 86_400_000
FIRST_S: Final = (
    0.005  # between two looks; doubles while nothing changes, so that many who wait are no load
)
LONGEST_S: Final = 0.5
OPEN: Final = ("ready", "held", "begun")

Look = Callable[[float | None], dict[str, Any]]


def join(name: str, look: Look, timeout: Span | None, delayed: bool) -> None:
    """Return when nothing is left to wait for; see `Queue.join`.

    `look` returns the counters of the queue `name` within so many seconds (None: the deadline of a call).
    """
    states = (*OPEN, "delayed") if delayed else OPEN
    end = None
    if timeout is not None:
        end = time.monotonic() + milliseconds("timeout", timeout, MOST_MS) / 1000
    left: dict[str, int] = {}
    wait_s, left_s = FIRST_S, None
    while True:
        if end is not None:
            left_s = max(0.0, end - time.monotonic())
        try:
            before, left = left, _left(name, look, left_s, states)
        except Timeout as error:
            if left_s is None:
                raise
            shown = ", ".join(f"{count} {state}" for state, count in left.items()) or error
            raise Timeout(f"{name} is not done after {timeout} s: {shown}") from None
        if not left:
            return
        wait_s = FIRST_S if left != before else min(2 * wait_s, LONGEST_S)
        time.sleep(wait_s if left_s is None else min(wait_s, left_s))


def _left(name: str, look: Look, within_s: float | None, states: tuple[str, ...]) -> dict[str, int]:
    try:
        counters = look(within_s)["queues"][name]
    except UnknownQueue:
        return {}  # nothing was ever published to it
    return {state: counters[state] for state in states if counters[state]}
