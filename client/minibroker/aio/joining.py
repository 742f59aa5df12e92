"""`Queue.join`: waiting until the work of a queue is done, by looks at its counters that become rarer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from minibroker.contract.errors import Timeout, UnknownQueue
from minibroker.session.spans import Span, milliseconds

MOST_MS: Final = 366 * 86_400_000
FIRST_S: Final = (
    0.005  # between two looks; doubles while nothing changes, so that many who wait are no load
)
LONGEST_S: Final = 0.5
OPEN: Final = ("ready", "held", "begun")

Look = Callable[[], Awaitable[dict[str, Any]]]


async def join(name: str, look: Look, timeout: Span | None, delayed: bool) -> None:
    """Return when `look` (the counters of the queue `name`) shows nothing to wait for; see `Queue.join`."""
    states = (*OPEN, "delayed") if delayed else OPEN
    limit_ms = None if timeout is None else milliseconds("timeout", timeout, MOST_MS)
    left: dict[str, int] = {}
    try:
        async with asyncio.timeout(None if limit_ms is None else limit_ms / 1000):
            wait_s = FIRST_S
            while True:
                before, left = left, await _left(name, look, states)
                if not left:
                    return
                wait_s = FIRST_S if left != before else min(2 * wait_s, LONGEST_S)
                await asyncio.sleep(wait_s)
    except TimeoutError as error:
        if isinstance(error, Timeout):
            raise  # of a look: the server did not answer
        shown = ", ".join(f"{count} {state}" for state, count in left.items())
        raise Timeout(f"{name} is not done after {timeout} s: {shown or 'no answer yet'}") from None


async def _left(name: str, look: Look, states: tuple[str, ...]) -> dict[str, int]:
    try:
        counters = (await look())["queues"][name]
    except UnknownQueue:
        return {}  # nothing was ever published to it
    return {state: counters[state] for state in states if counters[state]}
