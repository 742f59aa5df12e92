"""Messages that left memory: what is left of them is where their extents stand.

A run has consecutive messages of one queue, ready and without a history, whose extents are on one shelf.
It costs 8 bytes for each frame that was published (a place and a first sequence), however many messages
that had and however large they were. The rest is read back, in whole stretches, before it is needed.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import Any, Final

from minibrokerd.core.model.extents import Extent, Shelf

CHUNK_BYTES: Final = 1024 * 1024  # of the log that are read back in one go
# And frames: turning one back into messages takes about 10 us of the loop.
CHUNK_FRAMES: Final = 500


class ColdRun:
    """Frames `first` up to but not including `stop`; those before the frame with index `at` were read back.

    `gone` has the messages that have ended, as ascending intervals. `left` counts the messages that are here,
    `cost` is about how many bytes of the log they keep in use. They can be read once `batch` is synced.
    """

    __slots__ = (
        "ahead",
        "at",
        "batch",
        "cost",
        "first",
        "firsts",
        "gone",
        "left",
        "queue",
        "ready_at_ms",
        "shelf",
        "stop",
    )

    def __init__(self, queue: int, shelf: Shelf, batch: int, first: int, ready_at_ms: int) -> None:
        self.queue = queue
        self.shelf = shelf
        self.batch = batch
        self.first = self.stop = first
        self.ready_at_ms = ready_at_ms
        self.firsts = array("I")  # of each frame, less `first`
        self.at = 0
        self.ahead = 0  # of the first run: with so many spans before it in memory it is not read; 0: not known
        self.left = 0
        self.cost = 0
        self.gone: list[tuple[int, int]] = []

    def joins(self, first: int, extent: Extent) -> bool:
        """Whether a frame that begins with `first` can be appended: stretches are read in the order of the log.

        What had come back to its queue is copied forward out of order, so a later message may stand before it.
        """
        return self.stop == first and first - self.first < 2**32 and self.shelf.joins(extent)

    def append(self, count: int, cost: int) -> None:
        """Add the next `count` messages, whose extent has come onto the shelf."""
        self.firsts.append(self.stop - self.first)
        self.stop += count
        self.left += count
        self.cost += cost

    def take(self, first: int, count: int, cost: int, place: Any) -> bool:
        """Add messages whose record stands at a place, if they can be appended; see `joins`."""
        goes_on = self.stop == first and first - self.first < 2**32 and self.shelf.take(place)
        if goes_on:
            self.append(count, cost)
        return goes_on

    def bounds(self, index: int) -> tuple[int, int]:
        """Return the first and one behind the last sequence of a frame."""
        stop = self.firsts[index + 1] + self.first if index + 1 < len(self.firsts) else self.stop
        return self.first + self.firsts[index], stop

    def index_of(self, sequence: int) -> int:
        """Return the index of the frame that has a sequence of this run."""
        return bisect_right(self.firsts, sequence - self.first) - 1

    def has(self, sequence: int) -> bool:
        """Whether a message is here and has not ended."""
        if not self.first <= sequence < self.stop:
            return False
        index = bisect_right(self.gone, (sequence, 2**64)) - 1
        return index < 0 or self.gone[index][1] <= sequence

    @property
    def start(self) -> int:
        """The first sequence that was not read back and has not ended; `stop` if there is none.

        The rest of a run that was split has a frame whose start is in others, which stand in front of it.
        """
        if self.at >= len(self.firsts):
            return self.stop
        first = self.bounds(self.at)[0]
        return next(self.live(first, self.stop), (self.stop, 0))[0] if self.gone else first

    def waits(self, sequence: int) -> bool:
        """Whether a message is here, has not ended, and was not read back."""
        return sequence >= self.start and self.has(sequence)

    def end(self, first: int, stop: int) -> int:
        """Take the messages from `first` up to `stop` as ended; return how many had not before."""
        first, stop = max(first, self.first), min(stop, self.stop)
        if first >= stop:
            return 0
        ended = stop - first
        low = bisect_left(self.gone, (first, 0))
        if low and self.gone[low - 1][1] >= first:
            low -= 1
        high = low
        while high < len(self.gone) and self.gone[high][0] <= stop:
            ended -= max(min(stop, self.gone[high][1]) - max(first, self.gone[high][0]), 0)
            high += 1
        if high > low:  # intervals that touch become one
            first, stop = min(first, self.gone[low][0]), max(stop, self.gone[high - 1][1])
        self.gone[low:high] = [(first, stop)]
        self._less(ended)
        return ended

    def lack(self, first: int, stop: int) -> None:
        """Cross out messages that are in the midst of a frame, and were no part of what it costs."""
        cost = self.cost
        self.end(first, stop)
        self.cost = cost

    def live(self, first: int, stop: int) -> Iterator[tuple[int, int]]:
        """Yield the intervals between `first` and `stop` that have not ended."""
        index = max(bisect_right(self.gone, (first, 2**64)) - 1, 0)
        while first < stop:
            gone = self.gone[index] if index < len(self.gone) else (stop, stop)
            if gone[0] > first:
                yield first, min(gone[0], stop)
            first = max(first, gone[1])
            index += 1

    def absorb(self, behind: ColdRun) -> bool:
        """Take the frames of a run that begins where this one ends, if they are read together; both are safe."""
        base, stop = behind.first - self.first, self.stop
        if behind.at or behind.first != stop or base + len(behind.firsts) >= 2**32:
            return False
        if not self.shelf.absorb(behind.shelf):
            return False
        self.firsts.extend(first + base for first in behind.firsts)
        own = [(low, min(high, stop)) for low, high in self.gone]
        self.gone = own + [(max(low, stop), high) for low, high in behind.gone if high > stop]
        self.batch, self.stop = max(self.batch, behind.batch), behind.stop
        self.left, self.cost = self.left + behind.left, self.cost + behind.cost
        return True

    def split(self, at: int) -> ColdRun:
        """Keep the messages below `at` and return the others; a frame that has both is in both."""
        index = self.index_of(at)
        base = self.firsts[index]
        shared = base + self.first < at
        keep = index + shared
        shelf = self.shelf.split(index, keep)
        rest = ColdRun(self.queue, shelf, self.batch, self.first + base, self.ready_at_ms)
        rest.firsts = array("I", [first - base for first in self.firsts[index:]])
        rest.stop = self.stop
        before = sum(stop - first for first, stop in self.live(self.first, at))
        rest.left = self.left - before
        rest.cost = self.cost * rest.left // max(self.left, 1)
        rest.gone = [gone for gone in self.gone if gone[1] > rest.first]
        own_stop = self.bounds(keep - 1)[1] if keep else self.first
        del self.firsts[keep:]
        self.cost, self.left, self.stop = self.cost - rest.cost, before, own_stop
        self.gone = [gone for gone in self.gone if gone[0] < own_stop]
        if shared:
            _cross(self, at, own_stop)
            _cross(rest, rest.first, at)
        return rest

    def chunk(self, most_bytes: int = 0) -> int:
        """Return one behind the index of the last frame that is read together with the one at `at`."""
        return self.chunk_from(self.at, most_bytes)

    def chunk_from(self, index: int, most_bytes: int = 0) -> int:
        """As `chunk`, for the frame with this index."""
        most_bytes = min(most_bytes or CHUNK_BYTES, CHUNK_BYTES)
        return min(self.shelf.stretch(index, most_bytes), index + CHUNK_FRAMES)

    def read_back(self, high: int) -> int:
        """Take the frames below index `high` as read back; return the share of the cost that leaves."""
        first, stop = self.bounds(self.at)[0], self.bounds(high - 1)[1]
        count = sum(stop - first for first, stop in self.live(first, stop))
        share = self.cost * count // self.left if count < self.left else self.cost
        self.at = high
        self.left -= count
        self.cost -= share
        return share

    def _less(self, count: int) -> None:
        share = self.cost * count // self.left if count < self.left else self.cost
        self.left -= count
        self.cost -= share


def _cross(run: ColdRun, first: int, stop: int) -> None:
    """Cross messages out that are counted in another run."""
    left, cost = run.left, run.cost
    run.end(first, stop)
    run.left, run.cost = left, cost
