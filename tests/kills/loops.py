"""The event loop of a worker process: asyncio's own, or uvloop's; and how a worker lets time pass on it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from importlib.util import find_spec

LOOPS = ["asyncio"] + ["uvloop"] * (find_spec("uvloop") is not None)


def run(loop: str, main: Coroutine[object, object, None]) -> None:
    """Run `main` on a new event loop of this kind."""
    if loop == "uvloop":
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main)
    else:
        asyncio.run(main)


async def passes(event: asyncio.Event, seconds: float) -> bool:
    """Wait for `event`, at most `seconds`; return whether it is set."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
