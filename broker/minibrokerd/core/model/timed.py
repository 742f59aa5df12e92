"""Times since the start, of a bounded number of queues: what a scrape shows of each, beside what all come to.

A scraper keeps every series that it ever saw, and a histogram is many of them. So the first MOST_TIMED queues in
which something is begun have one of their own; one more has, when one of these is deleted. What all others did is
what is left of the sums (sums.py), and never falls: what a queue did before it had one of its own stays there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from minibrokerd.core.model.histogram import Histogram
from minibrokerd.core.model.times import Spread, Times

if TYPE_CHECKING:
    from minibrokerd.core.model.deliveries import Consumer
    from minibrokerd.core.model.group import Group

MOST_TIMED: Final = 100


class Lasting:
    """What is over of the times of one queue; the windows from `since_ms` on come to it when they are over."""

    __slots__ = ("idle_ms", "runs", "since_ms", "there_ms", "waits")

    def __init__(self, since_ms: int = 0) -> None:
        self.since_ms = since_ms
        self.waits = Spread()
        self.runs = Spread()
        self.there_ms = 0  # of consumers that have left: for how long they were there, in all
        self.idle_ms = 0  # and had nothing

    def add(self, times: Times | None) -> None:
        """Add a window."""
        if times is not None and times.since_ms >= self.since_ms:
            self.waits.add_all(times.waits)
            self.runs.add_all(times.runs)

    def turn(self, old: Times | None, new: Times) -> None:
        """Add the windows that a new one has no more behind it; `old` is the one before."""
        for window in windows_of(old):
            if window is not new.before:
                self.add(window)


class Timed:
    """The queues that have times of their own, by their groups."""

    __slots__ = ("ended", "left_out", "others", "shown")

    def __init__(self) -> None:
        self.shown: dict[Group, Lasting] = {}
        self.left_out = 0  # groups with times of late, and none of their own
        self.ended = Lasting()  # of queues that had some, and were deleted
        self.others = Lasting()  # only of consumers

    def __len__(self) -> int:
        return len(self.shown)

    def turn(self, group: Group, old: Times | None, new: Times) -> None:
        """Take note that a group has a new window of its times; `old` is the one before, with those behind it."""
        lasting = self.shown.get(group)
        if lasting is not None:
            lasting.turn(old, new)
        elif len(self.shown) < MOST_TIMED:
            self.shown[group] = Lasting(new.since_ms)
            self.left_out -= old is not None
        else:
            self.left_out += old is None
        if old is not None:
            old.before = None

    def rest(self, group: Group) -> None:
        """Give back the windows of a group in which nothing was of late."""
        times, group.times = group.times, None
        if times is None:
            return
        lasting = self.shown.get(group)
        if lasting is None:
            self.left_out -= 1
            return
        for window in windows_of(times):
            lasting.add(window)

    def forget(self, group: Group) -> None:
        """The queue ends."""
        self.rest(group)
        lasting = self.shown.pop(group, None)
        if lasting is not None:
            self.ended.waits.add_all(lasting.waits)
            self.ended.runs.add_all(lasting.runs)

    def left(self, group: Group, consumer: Consumer, now_ms: int) -> None:
        """A consumer of a group has left."""
        lasting = self.shown.get(group, self.others)
        lasting.there_ms += now_ms - consumer.since_ms
        lasting.idle_ms += consumer.idle_for_ms(now_ms)

    def waits(self, all: Histogram) -> Iterator[tuple[Group | None, Histogram]]:
        """Yield how long messages of each queue waited, then of the others, which come to `all` together."""
        return self._each("waits", all)

    def runs(self, all: Histogram) -> Iterator[tuple[Group | None, Histogram]]:
        """Yield how long handlers ran, likewise."""
        return self._each("runs", all)

    def _each(self, name: str, all: Histogram) -> Iterator[tuple[Group | None, Histogram]]:
        counts, total = list(all.counts), all.total
        for group, lasting in list(self.shown.items()):
            found = Histogram()
            found.add(getattr(lasting, name))
            for window in windows_of(group.times):
                if window.since_ms >= lasting.since_ms:
                    found.add(getattr(window, name))
            yield group, found
            counts = [left - count for left, count in zip(counts, found.counts, strict=True)]
            total -= found.total
        ended = getattr(self.ended, name)
        others = Histogram()
        others.counts = [left - ended.counts.get(at, 0) for at, left in enumerate(counts)]
        others.total = total - ended.total_ms
        yield None, others


def windows_of(times: Times | None) -> Iterator[Times]:
    """Yield the windows of some times, the older one first."""
    if times is not None and times.before is not None:
        yield times.before
    if times is not None:
        yield times
