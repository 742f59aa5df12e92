"""An event loop without time: a heap of timers, a queue of what is ready, and a clock that jumps.

It has the calls of asyncio's loop that the engine, the log and the connections use. Each life of a broker gets a
view of its own (`LifeLoop`); when that life ends, nothing that it had asked for happens any more.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Generator
from random import Random
from typing import Any, Final

EARLY_US: Final = 2_000  # libuv counts from the start of its turn, in whole milliseconds


class Life:
    """Something that can end: a process. It may stand still for a while; then all of it is late."""

    def __init__(self) -> None:
        self.over = False
        self.frozen_until_us = 0

    def stop_until(self, until_us: int) -> None:
        """Let it stand still until then, or for as long as it does already."""
        self.frozen_until_us = max(self.frozen_until_us, until_us)


class Handle:
    """One callback to come."""

    __slots__ = ("_when_us", "arguments", "callback", "life", "order")

    def __init__(
        self,
        when_us: int,
        count: int,
        callback: Callable[..., object],
        arguments: tuple[Any, ...],
        life: Life,
    ) -> None:
        self._when_us = when_us
        self.order = when_us, count  # also of what is late, however often its life stood still
        self.callback: Callable[..., object] | None = callback
        self.arguments = arguments
        self.life = life

    def when(self) -> float:
        """Return when it is due, in seconds of the loop's time."""
        return self._when_us / 1_000_000

    def cancel(self) -> None:
        """See to it that it does not happen."""
        self.callback = None


class Future:
    """What a coroutine of the engine waits for."""

    def __init__(self, loop: LifeLoop) -> None:
        self._loop = loop
        self._result: Any = None
        self._waiting: list[Callable[[], object]] = []
        self.is_done = False

    def set_result(self, result: object) -> None:
        """Let go on who waits."""
        self.is_done, self._result = True, result
        for callback in self._waiting:
            self._loop.call_soon(callback)

    def then(self, callback: Callable[[], object]) -> None:
        """Call when there is a result."""
        self._waiting.append(callback)

    def __await__(self) -> Generator[Future, None, Any]:
        if not self.is_done:
            yield self
        return self._result


class SimulatedLoop:
    """The time of a world, in microseconds, and everything that waits for it.

    Timers that are set for "a while" are early by up to `EARLY_US`, as those of real loops are, if there is a
    `Random` that says by how much.
    """

    def __init__(self, early: Random | None = None) -> None:
        self.early = early
        self.now_us = 0
        self.events = 0
        self._timers: list[tuple[int, tuple[int, int], Handle]] = []
        self._ready: deque[Handle] = deque()
        self._count = 0

    def at(
        self, when_us: int, life: Life, callback: Callable[..., object], *arguments: Any
    ) -> Handle:
        """Have something called at an instant."""
        handle = self._handle(max(when_us, self.now_us), life, callback, arguments)
        heapq.heappush(self._timers, (handle._when_us, handle.order, handle))
        return handle

    def soon(self, life: Life, callback: Callable[..., object], *arguments: Any) -> Handle:
        """Have something called in the next turn."""
        handle = self._handle(self.now_us, life, callback, arguments)
        self._ready.append(handle)
        return handle

    def _handle(
        self, when_us: int, life: Life, callback: Callable[..., object], arguments: tuple[Any, ...]
    ) -> Handle:
        self._count += 1
        return Handle(when_us, self._count, callback, arguments, life)

    def run_until(self, end_us: int, stop: Callable[[], bool] = lambda: False) -> None:
        """Let time pass; returns early when `stop` says so, which is asked before each step of time."""
        while True:
            if not self._ready:
                if not self._timers or self._timers[0][0] > end_us or stop():
                    break
                self.now_us = max(self.now_us, self._timers[0][0])
            while self._timers and self._timers[0][0] <= self.now_us:
                self._ready.append(heapq.heappop(self._timers)[2])
            for _ in range(len(self._ready)):
                handle = self._ready.popleft()
                if handle.callback is not None and not handle.life.over:
                    if handle.life.frozen_until_us > self.now_us:
                        due_us = handle.life.frozen_until_us
                        heapq.heappush(self._timers, (due_us, handle.order, handle))
                        continue
                    self.events += 1
                    handle.callback(*handle.arguments)
        self.now_us = max(self.now_us, end_us) if not stop() else self.now_us

    def advance(self, by_us: int) -> None:
        """Let time pass while the loop itself stands still."""
        self.now_us += by_us


class LifeLoop:
    """The loop as one process sees it, with the names of asyncio."""

    def __init__(self, loop: SimulatedLoop, life: Life) -> None:
        self.world = loop
        self.life = life

    def time(self) -> float:
        """Return the monotonic time in seconds."""
        return self.world.now_us / 1_000_000

    def call_soon(self, callback: Callable[..., object], *arguments: Any) -> Handle:
        """Have something called in the next turn."""
        return self.world.soon(self.life, callback, *arguments)

    def call_later(
        self, delay_s: float, callback: Callable[..., object], *arguments: Any
    ) -> Handle:
        """Have something called after a while."""
        when_us = self.world.now_us + max(0, round(delay_s * 1_000_000))
        if self.world.early is not None:
            when_us -= self.world.early.randrange(EARLY_US)
        return self.world.at(when_us, self.life, callback, *arguments)

    def call_at(self, when_s: float, callback: Callable[..., object], *arguments: Any) -> Handle:
        """Have something called at an instant of `time`."""
        return self.world.at(round(when_s * 1_000_000), self.life, callback, *arguments)

    def create_future(self) -> Future:
        """Return what a coroutine can wait for; see `drive`."""
        return Future(self)


def drive(coroutine: Any, done: Callable[[], object]) -> None:
    """Run a coroutine that waits for our futures only; `done` is called at its end."""
    try:
        future = coroutine.send(None)
    except StopIteration:
        done()
        return
    assert isinstance(future, Future)
    future.then(lambda: drive(coroutine, done))
