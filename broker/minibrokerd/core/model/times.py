"""How long messages of a queue wait and run, of late: two windows of a minute, the older of which is whole.

What is asked is about both, so about one to two minutes. A window begins with the first message that is begun or
done in it; a queue in which nothing was of late has none.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from minibrokerd.core.model.histogram import BUCKETS, quantile

if TYPE_CHECKING:
    from minibrokerd.core.model.group import Group
    from minibrokerd.core.model.state import Store

WINDOW_MS: Final = 60_000
TARGET_MS: Final = 300_000  # within which a backlog is to be worked off, where nobody says
SHARES: Final = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


class Spread:
    """Times in ms by powers of two, as Histogram has them; only those that came take memory.

    The shortest and the longest are known as they came: else one attempt of 8.2 s would be said to take up to 16.
    """

    __slots__ = ("counts", "least_ms", "most_ms", "total_ms")

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}
        self.total_ms = 0
        self.least_ms: float = math.inf
        self.most_ms = 0

    def add(self, ms: int, times: int) -> None:
        """Count a time; one below zero, as of a clock that was set back, as zero."""
        if ms <= 0:
            self.counts[0] = self.counts.get(0, 0) + times
            self.least_ms = 0
            return
        exponent = ms.bit_length()
        self.counts[exponent] = self.counts.get(exponent, 0) + times
        self.total_ms += ms * times
        if ms > self.most_ms:
            self.most_ms = ms
        if ms < self.least_ms:
            self.least_ms = ms

    def add_all(self, other: Spread) -> None:
        """Count all that another has."""
        for exponent, count in other.counts.items():
            self.counts[exponent] = self.counts.get(exponent, 0) + count
        self.total_ms += other.total_ms
        self.least_ms = min(self.least_ms, other.least_ms)
        self.most_ms = max(self.most_ms, other.most_ms)

    def below(self, share: float) -> int:
        """Return the time below which this share of them was, in ms; 0: there were none."""
        counts = [self.counts.get(exponent, 0) for exponent in range(BUCKETS)]
        return round(quantile(counts, share, self.least_ms, self.most_ms))


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


def times_of(store: Store, group: Group) -> Times:
    """Return where a time of now is to be noted."""
    times = group.times
    if times is None or store.now_ms >= times.until_ms:
        published = group.counters["published"]
        old = times
        times = Times(store.now_ms, published) if old is None else old.at(store.now_ms, published)
        store.sums.timed.turn(group, old, times)
        group.times = times
    return times


def p95_of(times: Times | None, now_ms: int) -> tuple[int, int]:
    """Return below which time 95 of 100 waits and runs of late were, in ms; -1: there were none."""
    if times is None or times.is_over(now_ms):
        return -1, -1
    windows = [times] if times.before is None else [times.before, times]
    waits, runs = (
        _together([getattr(each, name) for each in windows]) for name in ("waits", "runs")
    )
    share = SHARES["p95"]
    return (
        waits.below(share) if waits.counts else -1,
        runs.below(share) if runs.counts else -1,
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
    handlers: int = math.ceil(
        mean_ms * (said["published"] / said["window_ms"] + backlog / target_ms)
    )
    return handlers


def _together(spreads: list[Spread]) -> Spread:
    if len(spreads) == 1:
        return spreads[0]
    together = Spread()
    for spread in spreads:
        together.add_all(spread)
    return together


def _sums(spreads: list[Spread]) -> dict[str, int]:
    found = _together(spreads)
    said = {"count": sum(found.counts.values()), "total_ms": found.total_ms}
    return said | {name: found.below(share) for name, share in SHARES.items()}
