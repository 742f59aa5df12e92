"""The clock of a broker in process: it goes as others do, or stands still, and can be moved on."""

from __future__ import annotations

import time

from minibrokerd.engine.clock import Clock


class MovableClock(Clock):
    """Log time and wall time, which move together; one object for all lives of a broker."""

    def __init__(self) -> None:
        self._moved_ms = 0
        self._stopped: tuple[int, int] | None = None  # monotonic and wall time at which it stands
        self._offset_ms = -_monotonic_ms()

    def starting_at(self, base_ms: int) -> MovableClock:
        """Return this clock, moved on to `base_ms` if it is behind."""
        self._moved_ms += max(0, base_ms - self.now_ms())
        return self

    def start(self) -> None:
        """Go on: log time does not begin again with a restart."""

    def now_ms(self) -> int:
        """Return the log time."""
        now_ms = _monotonic_ms() if self._stopped is None else self._stopped[0]
        return self._offset_ms + now_ms + self._moved_ms

    def unix_ms(self) -> int:  # type: ignore[override]
        """Return the wall time."""
        now_ms = time.time_ns() // 1_000_000 if self._stopped is None else self._stopped[1]
        return now_ms + self._moved_ms

    def stop(self) -> None:
        """Stand still; only `move` goes on from here."""
        if self._stopped is None:
            self._stopped = _monotonic_ms(), time.time_ns() // 1_000_000

    def move(self, ms: int) -> None:
        """Go on by so much at once."""
        self._moved_ms += ms


def _monotonic_ms() -> int:
    return time.monotonic_ns() // 1_000_000
