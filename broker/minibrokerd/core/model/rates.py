"""A rate: so many messages in each period, a bucket of tokens for each name (a key, or empty: the queue itself).

A bucket is one number, the time up to which its tokens are taken (the generic cell rate algorithm): it needs no
timer to fill, and one that is full again is forgotten. Times are log times in ms. A token is there at its time; a
hand-out is woken by a tick of 8 ms, so what is late by less loses nothing.
"""

from __future__ import annotations

from math import ceil
from typing import Final

from minibrokerd.core.model.wheel import TICK_MS

KEPT_MS: Final = 8_000  # buckets are forgotten in two halves, each of which is at least so old
ROUNDING: Final = 1e-6  # of a token


class Rate:
    """The buckets of one rate: `burst` tokens each, and `count` more in `period_ms`."""

    __slots__ = ("_new", "_old", "_turns_at_ms", "ahead_ms", "interval_ms", "says")

    def __init__(self, count: int, period_ms: int, burst: int) -> None:
        self.says = count, period_ms, burst
        self.interval_ms = period_ms / count
        self.ahead_ms = (burst - 1) * self.interval_ms
        self._new: dict[str, float] = {}
        self._old: dict[str, float] = {}
        self._turns_at_ms = 0.0

    def __len__(self) -> int:
        return len(self._new.keys() | self._old.keys())

    def room(self, name: str, now_ms: int) -> int:
        """Return how many tokens there are now."""
        left_ms = now_ms + self.ahead_ms - self._taken_to(name, now_ms)
        return int(left_ms / self.interval_ms + ROUNDING) + 1 if left_ms >= -ROUNDING else 0

    def due_ms(self, name: str, now_ms: int) -> int:
        """Return when there is a token; not after now: there is one."""
        return self.due_after(self._taken_to(name, now_ms))

    def due_after(self, taken_to: float) -> int:
        """Return when there is a token of a name whose tokens are taken up to then."""
        return ceil(taken_to - self.ahead_ms - ROUNDING)

    def take(self, name: str, count: int, now_ms: int) -> float:
        """Take tokens; a negative count gives them back. Return up to when they are taken."""
        taken_to = self._new.get(name)
        if taken_to is None or now_ms >= self._turns_at_ms or taken_to < now_ms - TICK_MS:
            taken_to = self._taken_to(name, now_ms)
            self._turn(now_ms)
        taken_to += count * self.interval_ms
        self._new[name] = taken_to
        return taken_to

    def put(self, name: str, taken_to: float, now_ms: int) -> None:
        """Let the tokens of a name be taken up to a time."""
        self._turn(now_ms)
        self._new[name] = taken_to

    def _turn(self, now_ms: int) -> None:
        """Forget the buckets that are full again, half of them, if it is time for that."""
        if now_ms >= self._turns_at_ms:
            self._old, self._new = self._new, {}
            full_ms = max(self.ahead_ms + 2 * self.interval_ms, KEPT_MS)
            self._turns_at_ms = now_ms + full_ms

    def _taken_to(self, name: str, now_ms: int) -> float:
        taken_to = self._new.get(name)
        if taken_to is None:
            taken_to = self._old.get(name, 0.0)
        return max(taken_to, now_ms - TICK_MS)


def rate_of(count: int, period_ms: int, burst: int) -> Rate | None:
    """Return the rate that settings ask for; None: none."""
    return Rate(count, period_ms, burst) if count else None
