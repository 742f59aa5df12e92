"""Waiting for what becomes of a broker in process: until it is stepped, and until nothing is under way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Watch:
    """Notes each step of a broker, which any thread may do, from entering to leaving."""

    def __init__(self, watchers: set[Callable[[], object]]) -> None:
        self._watchers = watchers
        self._loop = asyncio.get_running_loop()
        self._stepped = asyncio.Event()
        self._steps = 0

    def __enter__(self) -> Watch:
        self._watchers.add(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        self._watchers.discard(self._note)

    def _note(self) -> None:
        self._steps += 1
        self._loop.call_soon_threadsafe(self._stepped.set)

    async def step(self, timeout_s: float) -> bool:
        """Return when there was a step since the last call; False: there was none in this time."""
        try:
            async with asyncio.timeout(max(0.0, timeout_s)):
                await self._stepped.wait()
        except TimeoutError:
            return False
        self._stepped.clear()
        return True

    async def quiet(self, turns: int) -> None:
        """Return when the event loop has turned so many times without a step."""
        left = turns
        while left:
            steps = self._steps
            await asyncio.sleep(0)
            left = left - 1 if steps == self._steps else turns
