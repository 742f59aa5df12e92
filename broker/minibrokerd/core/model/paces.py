"""How fast queues hand out, as looks at them saw: what will be asked for soon is to be in memory by then.

Only queues that may have much in memory are looked at, and only by whoever lets messages leave it.
"""

from __future__ import annotations

from typing import Final

WINDOW_MS: Final = 250  # between two looks that count
SOON_MS: Final = 5_000  # what is handed out by then stays


class Pace:
    """How many messages a queue hands out in a second; unknown until it was looked at for a while."""

    __slots__ = ("_delivered", "_is_known", "_per_s", "_since_ms")

    def __init__(self, now_ms: int, delivered: int) -> None:
        """`delivered` is how many it ever handed out."""
        self._since_ms = now_ms
        self._delivered = delivered
        self._per_s = 0
        self._is_known = False

    def soon(self, now_ms: int, delivered: int) -> int | None:
        """Return how many messages will be handed out soon, at a guess; None: it is not known yet.

        Who pauses for a moment goes on as before: in each window a pace falls by half at most.
        """
        passed_ms = now_ms - self._since_ms
        if passed_ms >= WINDOW_MS:
            per_s = (delivered - self._delivered) * 1_000 // passed_ms
            self._per_s = max(per_s, self._per_s >> min(passed_ms // WINDOW_MS, 64))
            self._since_ms, self._delivered, self._is_known = now_ms, delivered, True
        return self._per_s * SOON_MS // 1_000 if self._is_known else None
