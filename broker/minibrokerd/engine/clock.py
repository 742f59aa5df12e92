"""Time as the engine reads it, and the one timer that wakes the core."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

TURNS: Final = 4  # read, end of stream, connection lost, and one to spare


class Clock:
    """Log time and wall time, in ms. Log time goes on from the highest value found in the log."""

    def __init__(self, base_ms: int) -> None:
        self._base_ms = base_ms
        self.start()

    def start(self) -> None:
        """Let log time start (again) at its base."""
        self._offset_ms = self._base_ms - time.monotonic_ns() // 1_000_000

    def now_ms(self) -> int:
        """Return the log time."""
        return self._offset_ms + time.monotonic_ns() // 1_000_000

    @staticmethod
    def unix_ms() -> int:
        """Return the wall time."""
        return time.time_ns() // 1_000_000


class Alarm:
    """Calls `ring` once at the earliest time that it was set to (log time), some turns of the loop later.

    The loop runs timers before it reads sockets. Some turns later what was already received is applied, so an ack,
    or the end of a connection, that waited while the process was stopped wins over an expiry.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        self._loop = loop
        self._ring = ring
        self._timer: asyncio.TimerHandle | None = None
        self._at_ms = 0  # what the timer is armed for
        self._due = False  # it has fired, and rings in some turns

    def set(self, at_ms: int | None, clock: Clock) -> None:
        """Ring at `at_ms`, or before, if it was set to an earlier time; whoever is rung sets it anew."""
        if at_ms is None or self._due:
            return  # there is never more than one on its way
        if self._timer is not None:
            if at_ms >= self._at_ms:
                return
            self._timer.cancel()
        self._at_ms = at_ms
        self._timer = self._loop.call_later(max(at_ms - clock.now_ms(), 0) / 1_000, self._soon)

    def stop(self) -> None:
        """Ring no more."""
        if self._timer is not None:
            self._timer.cancel()

    def forget(self) -> None:
        """Be set to nothing; it is set anew."""
        self.stop()
        if not self._due:
            self._timer = None

    def _soon(self, turns: int = TURNS) -> None:
        self._due = True
        if turns:
            self._loop.call_soon(self._soon, turns - 1)
        else:
            self._timer, self._due = None, False
            self._ring()
