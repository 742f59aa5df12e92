"""How many messages a consumer has at a time, when it is to find that out by itself: `prefetch="auto"`.

What is in hand should last for 10 ms, and for the way to the server and back: so long that nobody waits for the
network, and so short that hardly anything is withheld from other consumers. How long it lasts is known without
looking at any single message: what left the buffer between two deliveries was worked off in that time, but for the
time in which somebody stood there and waited.
"""

from __future__ import annotations

from math import ceil
from typing import Final, Literal

from minibroker.contract import limits
from minibroker.session.spans import whole

Prefetch = int | Literal["auto"]  # most messages that are delivered and not settled

HAND_MS: Final = 10  # what is in hand should last so long
LOOK_MS: Final = 10  # of work; one judgement is made of it
GROWTH: Final = 8  # times, in one step: a first look sees little
MOST_WAY_MS: Final = 100  # what takes longer was no way: a connection was opened, a disk was slow
APART: Final = 1.5  # a wish nearer than that is none: each costs a request


class Pacing:
    """Judges, from one delivery to the next, how fast a consumer works."""

    def __init__(self, least: int = 1) -> None:
        """`least`: how many run at once; so many are always in hand."""
        self._least = least
        self._since_ms: int | None = None
        self._left = 0  # in the buffer, after the last delivery
        self._taken = 0
        self._idle_ms = 0.0
        self._way_ms = MOST_WAY_MS

    def answered(self, took_ms: int) -> None:
        """Note how long the server took to answer: the quickest answer says how far it is."""
        self._way_ms = min(self._way_ms, max(0, took_ms))

    def gave_back(self, count: int) -> None:
        """Note that messages left the buffer, and were not worked off."""
        self._left = max(0, self._left - count)

    def delivered(
        self, now_ms: int, count: int, left: int, prefetch: int, waiting: int, waits_ms: int
    ) -> int:
        """Note that `count` messages came on top of the `left` in the buffer; return the prefetch to have now.

        `waiting`: how many wait for a message, and for how long at the most.
        """
        if self._since_ms is None:
            self._since_ms = now_ms
        else:
            self._taken += self._left - left
            self._idle_ms += waits_ms * min(1.0, waiting / self._least)
        self._left = left + count
        took_ms = now_ms - self._since_ms
        if took_ms < LOOK_MS or not self._taken:
            return prefetch
        busy_ms = max(1.0, took_ms - self._idle_ms)
        # Twice the way: the server sends more when half of it is settled.
        lasts_ms = HAND_MS + 2 * self._way_ms
        wanted = self._least - 1 + ceil(self._taken * lasts_ms / busy_ms)
        wanted = max(self._least, min(wanted, prefetch * GROWTH, limits.MAX_PREFETCH))
        self._since_ms, self._taken, self._idle_ms = now_ms, 0, 0.0
        return wanted if wanted >= prefetch * APART or wanted * APART <= prefetch else prefetch


def prefetch_of(prefetch: Prefetch, least: int = 1) -> tuple[int, Pacing | None]:
    """Return what a consumer begins with, and what changes it; TypeError, BadValue for what is no prefetch."""
    if prefetch == "auto":
        return least, Pacing(least)
    return whole("prefetch", prefetch, 1, limits.MAX_PREFETCH), None
