"""Waits until a point in time more precisely than an event loop does.

Timers of an event loop are late by up to a millisecond or two, which is more than a publish takes. An interval
timer of the kernel is late by some 0.1 ms; its signal wakes the loop like a socket does. Needs the main thread.
"""

from __future__ import annotations

import asyncio
import signal
from collections import deque
from time import perf_counter_ns
from typing import Final

GRAIN_NS: Final = 200_000  # a finer one costs more turns of the loop than it is worth


class Pacer:
    """Releases waiters when they are due; they must come in the order of their times."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._loop.add_signal_handler(signal.SIGALRM, self._release)

    async def until(self, due_ns: int) -> None:
        """Return at `due_ns` of `perf_counter_ns`, or a little later."""
        future: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append((due_ns, future))
        if len(self._waiting) == 1:
            self._arm()
        await future

    def close(self) -> None:
        """Stop the timer; whoever waits is not released any more."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        self._loop.remove_signal_handler(signal.SIGALRM)

    def _arm(self) -> None:
        left_ns = max(self._waiting[0][0] - perf_counter_ns(), GRAIN_NS)
        signal.setitimer(signal.ITIMER_REAL, left_ns / 1e9)

    def _release(self) -> None:
        waiting, now_ns = self._waiting, perf_counter_ns()
        while waiting and waiting[0][0] <= now_ns:
            _, future = waiting.popleft()
            if not future.done():
                future.set_result(None)
        if waiting:
            self._arm()
