"""How fast a back-up goes: it is spread over time, so that a server beside it has the disk, too."""

from __future__ import annotations

import time
from collections.abc import Callable


class Pace:
    """Holds up whoever spends bytes: no more than `rate_bytes` go by in a second, on the average (0: no limit).

    What was not spent in time is not made up for later: after a pause it does not go faster.
    """

    def __init__(
        self,
        rate_bytes: int = 0,
        *,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
        spent: Callable[[int], object] = lambda _: None,
    ) -> None:
        self._rate_bytes = rate_bytes
        self._clock = clock
        self._pause = pause
        self._spent = spent
        self._free_at = 0.0

    def spend(self, size_bytes: int) -> None:
        """Return when `size_bytes` may have gone by."""
        self._spent(size_bytes)
        if not self._rate_bytes:
            return
        now = self._clock()
        self._free_at = max(self._free_at, now) + size_bytes / self._rate_bytes
        if self._free_at > now:
            self._pause(self._free_at - now)
