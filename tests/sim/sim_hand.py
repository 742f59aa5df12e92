"""The thread that works on the files of retained logs, without a thread: each work takes some simulated time.

As with the thread that writes, whether its effects are on the disk at the beginning of that time or at the end is
drawn: a crash in between finds both.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random
from typing import Any

from sim_loop import LifeLoop

Done = Callable[[Any, BaseException | None], None]


class SimulatedHand:
    """See `minibrokerd.engine.archivist.Hand`. `latency_us` is asked how long each work takes."""

    def __init__(self, loop: LifeLoop, random: Random, latency_us: Callable[[], int]) -> None:
        self._loop = loop
        self._random = random
        self._latency_us = latency_us
        self._waiting: deque[tuple[Callable[[], Any], Done]] = deque()
        self._current: Callable[[], None] | None = None  # what is left of it
        self._has_ended = False

    @property
    def is_idle(self) -> bool:
        """Whether nothing is to be done."""
        return self._current is None

    def __call__(self, work: Callable[[], Any], done: Done) -> None:
        """Do it behind all that was asked for before."""
        if self._has_ended:
            return
        self._waiting.append((work, done))
        if self._current is None:
            self._next()

    def end(self) -> None:
        """What is under way is done to its end, and nobody hears of it; the rest is not."""
        self._has_ended = True
        self._waiting.clear()
        if self._current is not None:
            self._current()

    def _next(self) -> None:
        if not self._waiting:
            self._current = None
            return
        work, done = self._waiting.popleft()
        found: list[tuple[Any, BaseException | None]] = []

        def run() -> None:
            if not found:
                found.append(_outcome(work))

        self._current = run
        if self._random.random() < 0.5:
            run()
        self._loop.call_later(self._latency_us() / 1_000_000, self._ended, run, found, done)

    def _ended(
        self,
        run: Callable[[], None],
        found: list[tuple[Any, BaseException | None]],
        done: Done,
    ) -> None:
        if not self._has_ended:
            run()
            self._loop.call_soon(self._tell, done, found[0])
            self._next()

    def _tell(self, done: Done, outcome: tuple[Any, BaseException | None]) -> None:
        if not self._has_ended:
            done(*outcome)


def _outcome(work: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    try:
        return work(), None
    except Exception as error:  # noqa: BLE001 - as a thread hands it over
        return None, error
