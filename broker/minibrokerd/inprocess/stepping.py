"""An event loop that somebody else turns: what the engine and its connections use of asyncio's, and no more."""

from __future__ import annotations

import heapq
import time
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from functools import partial
from itertools import count
from typing import Any


class Timer:
    """A call that is due at a time."""

    __slots__ = ("_when_s", "call")

    def __init__(self, when_s: float, call: Callable[[], object]) -> None:
        self._when_s = when_s
        self.call: Callable[[], object] | None = call

    def when(self) -> float:
        """Return when it is due, in seconds of the loop's time."""
        return self._when_s

    def cancel(self) -> None:
        """Never call it."""
        self.call = None


class Waited:
    """What a coroutine of the engine waits for; see `SteppedLoop.finish`."""

    def __init__(self) -> None:
        self._is_done = False

    def set_result(self, result: object) -> None:
        """Let go on who waits."""
        self._is_done = True

    def __await__(self) -> Generator[None, None, None]:
        while not self._is_done:
            yield


class SteppedLoop:
    """Calls what is due when `run` is called; its time is the monotonic clock."""

    def __init__(self, time_s: Callable[[], float] = time.monotonic) -> None:
        self.time = time_s
        self._ready: deque[Callable[[], object]] = deque()
        self._timers: list[tuple[float, int, Timer]] = []
        self._numbers = count()  # of two timers of one instant the older is first

    def call_soon(self, call: Callable[..., object], *arguments: Any) -> None:
        """Call in this `run`, after what is ready now."""
        self._ready.append(partial(call, *arguments))

    def call_at(self, when_s: float, call: Callable[..., object], *arguments: Any) -> Timer:
        """Call when that time has come."""
        timer = Timer(when_s, partial(call, *arguments))
        heapq.heappush(self._timers, (when_s, next(self._numbers), timer))
        return timer

    def call_later(self, delay_s: float, call: Callable[..., object], *arguments: Any) -> Timer:
        """Call after a while."""
        return self.call_at(self.time() + delay_s, call, *arguments)

    def create_future(self) -> Waited:
        """Return what a coroutine can wait for."""
        return Waited()

    def finish(self, coroutine: Coroutine[None, None, object]) -> None:
        """Step until a coroutine has ended, which waits for nothing but what `run` does."""
        while True:
            try:
                coroutine.send(None)
            except StopIteration:
                return
            self.run()

    def clear(self) -> None:
        """Call nothing of what was asked for so far."""
        self._ready.clear()
        self._timers.clear()

    def run(self) -> None:
        """Call everything that is ready or due, and what becomes ready of it."""
        ready, timers = self._ready, self._timers
        while True:
            while timers and timers[0][0] <= self.time():
                call = heapq.heappop(timers)[2].call
                if call is not None:
                    ready.append(call)
            if not ready:
                return
            while ready:
                ready.popleft()()

    def next_s(self) -> float | None:
        """Return when the next timer is due, in seconds of the loop's time; None: there is none."""
        timers = self._timers
        while timers and timers[0][2].call is None:
            heapq.heappop(timers)
        return timers[0][0] if timers else None
