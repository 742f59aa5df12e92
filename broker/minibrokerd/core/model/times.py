"""How long messages of a queue wait and run, of late: two windows of a minute, the older of which is whole.

What is asked is about both, so about one to two minutes. A window begins with the first message that is begun or
done in it; a queue in which nothing was of late has none.
"""

from __future__ import annotations

from math import ceil
from typing import Any, Final

from minibrokerd.core.model.histogram import BUCKETS, quantile

WINDOW_MS: Final = 60_000
TARGET_MS: Final = 300_000  # within which a backlog is to be worked off, where nobody says
SHARES: Final = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


class Spread:
    """Times in ms by powers of two, as Histogram has them; only those that came take memory."""

    __slots__ = ("counts", "total_ms")

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}
        self.total_ms = 0

    def add(self, ms: int, times: int) -> None:
        """Count a time; one below zero, as of a clock that was set back, as zero."""
        exponent = ms.bit_length() if ms > 0 else 0
        self.counts[exponent] = self.counts.get(exponent, 0) + times
        if ms > 0:
            self.total_ms += ms * times

    def add_all(self, other: Spread) -> None:
        """Count all that another has."""
        for exponent, count in other.counts.items():
            self.counts[exponent] = self.counts.get(exponent, 0) + count
        self.total_ms += other.total_ms


class Times:
    """What came since `since_ms`, and in the window `before` that; `published` is what the counter said then.

    `leaves`: they are looked at again when both windows are over.
    """

    __slots__ = ("before", "leaves", "published", "runs", "since_ms", "until_ms", "waits")

    def __init__(self, now_ms: int, published: int, before: Times | None = None) -> None:
        self.since_ms = now_ms
        self.until_ms = now_ms + WINDOW_MS
        self.published = published
        self.before = before
        self.leaves = False
        self.runs = Spread()
        self.waits = Spread()

    def at(self, now_ms: int, published: int) -> Times:
        """Return the window of this time; if it is a new one, that before this is asked for no more."""
        if now_ms < self.until_ms:
            return self
        return Times(now_ms, published, None if self.is_over(now_ms) else self)

    def is_over(self, now_ms: int) -> bool:
        """Whether nothing of both windows is asked for any more."""
        return now_ms >= self.until_ms + WINDOW_MS

    def said(self, now_ms: int, published: int) -> dict[str, Any]:
        """Return what came in the last one to two minutes."""
        windows = [self] if self.before is None else [self.before, self]
        first = windows[0]
        return {
            "window_ms": max(now_ms - first.since_ms, 1),
            "published": published - first.published,
            "waits": _sums([window.waits for window in windows]),
            "runs": _sums([window.runs for window in windows]),
        }


def p95_of(times: Times | None, now_ms: int) -> tuple[int, int]:
    """Return below which time 95 of 100 waits and runs of late were, in ms; -1: there were none."""
    if times is None or times.is_over(now_ms):
        return -1, -1
    windows = [times] if times.before is None else [times.before, times]
    waits, runs = (_counts([getattr(each, name) for each in windows]) for name in ("waits", "runs"))
    share = SHARES["p95"]
    return (
        round(quantile(waits, share)) if any(waits) else -1,
        round(quantile(runs, share)) if any(runs) else -1,
    )


def handlers_for(said: dict[str, Any], backlog: int, target_ms: int) -> int | None:
    """Return how many handlers at once would work off the backlog within a time, and what comes meanwhile.

    That is the mean time of a run, times what has to be begun: the rate of publishes and backlog / target. None:
    nothing has run of late, so nobody knows how long it takes.
    """
    runs = said["runs"]
    if not runs["count"]:
        return None
    mean_ms = runs["total_ms"] / runs["count"]
    handlers: int = ceil(mean_ms * (said["published"] / said["window_ms"] + backlog / target_ms))
    return handlers


def _counts(spreads: list[Spread]) -> list[int]:
    counts = [0] * BUCKETS
    for spread in spreads:
        for exponent, count in spread.counts.items():
            counts[exponent] += count
    return counts


def _sums(spreads: list[Spread]) -> dict[str, int]:
    counts = _counts(spreads)
    said = {"count": sum(counts), "total_ms": sum(spread.total_ms for spread in spreads)}
    return said | {name: round(quantile(counts, share)) for name, share in SHARES.items()}
