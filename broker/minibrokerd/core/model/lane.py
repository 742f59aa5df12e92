"""The ready messages of one key, or of those without a key, in the order in which they are handed out.

Order is (ready_at_ms, sequence): fresh spans arrive in that order and wait in a deque, what came back waits in a
heap beside it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from heapq import heapify, heappop, heappush
from itertools import islice
from typing import Any, Final, cast

from minibrokerd.core.model.cold import ColdRun
from minibrokerd.core.model.index import Index
from minibrokerd.core.model.messages import Block, Item, Message, Span

# What a lane has where it has nothing: a deque takes 624 bytes. They stay empty, whatever is put into them.
NO_SPANS: Final[deque[Span]] = deque(maxlen=0)
NO_RUNS: Final[deque[ColdRun]] = deque(maxlen=0)
# Entries that one sweep looks at; of a longer heap, dead ones go as they come up.
MOST_SWEPT: Final = 20_000


class Lane:
    """The ready messages of one key: first `fresh`, then `cold`, then `late`, each in order.

    What is cold left memory (cold.py), which only happens in the lane of those without a key. `returned` stands
    beside the three. `reading` is set while what comes next is read back.
    """

    __slots__ = (
        "before", "behind",
        "cold", "dead", "fresh", "index", "key", "late", "reading", "returned", "seen",
    )  # fmt: skip
    before: Any  # its neighbours in the turn (turn.py)
    behind: Any

    def __init__(self, key: str, index: Index) -> None:
        """`index` has what is `returned`, and all that has a key."""
        self.key = key
        self.index = index
        self.before = self.behind = None
        self.dead = 0  # entries of `returned` whose items were taken out by their ids
        self.fresh: deque[Span] = deque()
        self.cold = NO_RUNS
        self.late = NO_SPANS
        self.reading = False
        self.returned: list[tuple[int, int, int, Item]] = []
        self.seen = (0, 0, 0)  # by `unseen`: for which batch, and up to which place

    def __bool__(self) -> bool:
        return bool(self.fresh or self.returned or self.cold or self.late)

    @property
    def oldest_ms(self) -> int | None:
        """Since when the one that is ready for the longest is (log time); None: nothing is ready."""
        if self.fresh and not (self.returned or self.cold or self.late):  # nearly always
            return self.fresh[0].ready_at_ms
        lines: tuple[Sequence[Span | ColdRun], ...] = (self.fresh, self.cold, self.late)
        firsts = [line[0].ready_at_ms for line in lines if line]
        if self.returned:
            firsts.append(self.returned[0][0])
        return min(firsts, default=None)

    @property
    def next_count(self) -> int:
        """How many messages the piece has that comes next, all ready since the same instant."""
        if self._returned_first():
            item = self.returned[0][3]
        elif self.fresh:
            item = self.fresh[0]
        else:
            return 1  # it is not in memory
        return item.stop - item.first

    @property
    def is_waiting(self) -> bool:
        """Whether what comes next is not in memory."""
        if not self.cold or self.fresh:
            return False
        run = self.cold[0]
        return not self.returned or self.returned[0][:3] > (run.ready_at_ms, run.queue, run.first)

    def enter(self, span: Span) -> None:
        """Append a fresh span; spans of a key mostly enter in order of (ready_at_ms, sequence)."""
        if self.cold and not self.late:
            self.late = deque()
        line = self.late if self.cold else self.fresh
        last = line[-1] if line else self.cold[-1] if self.cold else None
        if last and (last.ready_at_ms, last.first) > (span.ready_at_ms, span.first):
            self.put_back(span)  # its sync took longer than a later publish that needed none
        else:
            line.append(span)
            if self.key:
                self.index.add(span)

    def close_up(self) -> None:
        """Let the late ones follow the fresh ones when nothing cold is left between them."""
        if not self.cold and self.late:
            self.fresh.extend(self.late)
            self.late = NO_SPANS

    def take(self, most: int) -> Item:
        """Remove and return what comes next: up to `most` messages of one span, or one message.

        Not called while `is_waiting`.
        """
        if self.returned and self._returned_first():
            item = self._pop()
            if item.stop - item.first > most and isinstance(item, Span):
                rest = item.cut(item.first + most)
                self.put_back(rest)
            return item
        span = self.fresh[0]
        if self.key:
            self.index.discard(span)
        if span.stop - span.first <= most:
            return self.fresh.popleft()
        rest = self.fresh[0] = span.cut(span.first + most)
        if self.key:
            self.index.add(rest)
        return span

    def _pop(self) -> Item:
        item = heappop(self.returned)[3]
        self.index.discard(item)
        if self.dead:
            self._drop_dead()
        return item

    def _drop_dead(self) -> None:
        """See to it that the first that came back is there: what was taken out by its id left its entry."""
        returned = self.returned
        while returned and not self._is_live(returned[0]):
            heappop(returned)
            self.dead -= 1
        if self.dead > len(returned) // 2 and len(returned) <= MOST_SWEPT:
            # An item that was taken out and came back at the same instant has two entries that are alike.
            live = {id(entry[3]): entry for entry in returned if self._is_live(entry)}
            self.returned = list(live.values())
            heapify(self.returned)
            self.dead = 0

    def _is_live(self, entry: tuple[int, int, int, Item]) -> bool:
        return entry[0] == entry[3].ready_at_ms and self.index.has(entry[3])

    def put_back(self, item: Item) -> None:
        """Put what came back to its place by (ready_at_ms, origin, sequence)."""
        heappush(self.returned, (item.ready_at_ms, item.block.origin, item.first, item))
        self.index.add(item)

    def put_all_back(self, messages: Sequence[Message]) -> None:
        """Put messages that came back to their places."""
        returned = self.returned
        for message in messages:
            sequence = message.sequence
            heappush(returned, (message.ready_at_ms, message.block.origin, sequence, message))
        self.index.add_all(messages)

    def take_one(self, item: Item, sequence: int) -> Item:
        """Remove and return one message of an item that the index has here; the rest of it goes back."""
        self.take_out(item)
        return self.cut_out(item, sequence)

    def take_out(self, item: Item) -> None:
        """Remove an item that the index has here."""
        self.index.discard(item)
        at = self._place_in(self.fresh, item.first)
        if at is not None and self.fresh[at] is item:
            del self.fresh[at]
        else:
            self.dead += 1
            self._drop_dead()

    def spans_in(self, block: Block) -> list[Item]:
        """Return the spans of a block, of those that stand in the order of ids."""
        found: list[Item] = []
        for line in (self.fresh, self.late):
            at = max(self._place_in(line, block.first) or 0, 0)
            while at < len(line) and line[at].first < block.first + block.count:
                if line[at].block is block:
                    found.append(line[at])
                at += 1
        return found

    def span_of(self, sequence: int) -> tuple[deque[Span], int] | None:
        """Return line and place of the span that has a message, of those that stand in the order of ids."""
        for line in (self.fresh, self.late):
            at = self._place_in(line, sequence)
            if at is not None and line[at].stop > sequence:
                return line, at
        return None

    def run_of(self, sequence: int) -> ColdRun | None:
        """Return the run that has a message which left memory, and has not ended."""
        at = bisect_right(self.cold, sequence, key=first_of) - 1
        run = self.cold[at] if at >= 0 else None
        return run if run is not None and run.waits(sequence) else None

    @staticmethod
    def _place_in(line: deque[Span], sequence: int) -> int | None:
        at = bisect_right(line, sequence, key=first_of) - 1
        return at if at >= 0 else None

    def free_some(self, most: int, drop: Callable[[Item | ColdRun], object]) -> int:
        """Take up to `most` items out of a lane that is out of use, and `drop` them; return how many."""
        dropped = 0
        for line in (self.fresh, self.cold, self.late):
            while line and dropped < most:
                item = line.popleft()
                dropped += 1
                drop(item)
                if self.key and not isinstance(item, ColdRun):
                    self.index.discard(item)
        while self.returned and dropped < most:
            entry = self.returned.pop()
            dropped += 1
            if self._is_live(entry):
                drop(entry[3])
                self.index.discard(entry[3])
        return dropped

    def unseen(self, upto: int) -> Iterator[Span]:
        """Yield the spans that were not yielded for this `upto` before; may be left at any time.

        A span keeps its place among the others: it is taken from the left, or cut there, and others come on
        the right. Late ones are not looked at before the cold ones have no more to do with `upto`.
        """
        lines = [self.fresh]
        if not any(run.batch <= upto for run in self.cold):
            lines.append(self.late)
        for line in lines:
            last, start = None, 0
            if self.seen[0] == upto:
                start = bisect_right(line, self.seen[1:], key=_place)
            line.rotate(
                -start
            )  # in C, by whole blocks: passing over the first ones takes ten times as long
            try:
                for last in islice(line, len(line) - start):
                    yield last
            finally:
                line.rotate(start)
                if last is not None:
                    self.seen = (upto, *_place(last))

    def items(self) -> Iterator[Item]:
        """Yield everything in memory of the lane, in no particular order of the parts."""
        yield from self.fresh
        yield from self.late
        yield from self.came_back()

    def came_back(self) -> Iterator[Item]:
        """Yield what came back to its place, in no order."""
        seen: set[int] = set()
        for entry in self.returned:
            if not self.dead:
                yield entry[3]
            elif id(entry[3]) not in seen and self._is_live(entry):
                seen.add(id(entry[3]))
                yield entry[3]

    def cut_out(self, item: Item, sequence: int) -> Item:
        """Return a single message of an item that was taken out; the rest of it goes back to its place."""
        if isinstance(item, Span):
            if sequence > item.first:
                before, item = item, item.cut(sequence)
                self.put_back(before)
            if item.stop > sequence + 1:
                self.put_back(item.cut(sequence + 1))
        return item

    def _returned_first(self) -> bool:
        if not self.returned:
            return False
        if not self.fresh:
            return True
        ready_at_ms, _, first, _ = self.returned[0]
        span = self.fresh[0]
        return (ready_at_ms, first) < (span.ready_at_ms, span.first)


class KeyLane(Lane):
    """The lane of a key: there may be very many, with a message each, so one that has none is small."""

    __slots__ = ()

    def __init__(self, key: str, index: Index) -> None:
        self.key = key
        self.index = index
        self.before = self.behind = None
        self.dead = 0
        self.fresh = NO_SPANS
        self.cold = NO_RUNS
        self.late = NO_SPANS
        self.reading = False
        self.returned = []
        self.seen = (0, 0, 0)

    @classmethod
    def of(cls, span: Span, index: Index) -> KeyLane:
        """Return the lane of a span that waited alone, and is in the index."""
        lane = cls(span.key, index)
        lane.fresh = cast("deque[Span]", [span])
        return lane

    def enter(self, span: Span) -> None:
        """Append a fresh span; one alone stands in a list, for a deque takes 600 bytes more."""
        if not self.fresh:
            self.fresh = cast("deque[Span]", [span])
            self.index.add(span)
            return
        if _is_list(self.fresh):
            self.fresh = deque(self.fresh)
        super().enter(span)

    def take(self, most: int) -> Item:
        """Remove and return what comes next, as any lane does."""
        fresh = self.fresh
        if fresh and not (self.returned and self._returned_first()):
            span = fresh[0]
            if span.stop - span.first <= most:
                if _is_list(fresh):
                    self.fresh = NO_SPANS
                else:
                    fresh.popleft()
                self.index.discard(span)
                return span
        return super().take(most)

    def drop_first(self) -> bool:
        """Remove what came first of those that never came back, all that it has; return whether it has more.

        The index is left to the caller.
        """
        fresh = self.fresh
        if type(fresh) is deque:
            fresh.popleft()
            return bool(fresh)
        self.fresh = NO_SPANS
        return False

    def free_some(self, most: int, drop: Callable[[Item | ColdRun], object]) -> int:
        """Take items out of a lane that is out of use, as any lane does."""
        if _is_list(self.fresh):
            self.fresh = deque(self.fresh)
        return super().free_some(most, drop)


def first_of(each: Span | ColdRun) -> int:
    """Return the lowest sequence that waits here, to search a line by it.

    What a run has lost at its start can be another run in front of it, when it was written again.
    """
    return each.first if isinstance(each, Span) else each.start


def _place(span: Span) -> tuple[int, int]:
    return span.ready_at_ms, span.first


def _is_list(line: object) -> bool:
    return type(line) is list


def fit(lane: Lane, item: Item, most_bytes: int, *, first: bool) -> Item | None:
    """Cut an item of a lane to what fits and put the rest back; None: nothing fits, and it is not the first."""
    fits = _fitting(item, most_bytes) if isinstance(item, Span) else 0
    if not fits and first:
        fits = 1
    if not fits:
        lane.put_back(item)
        return None
    if isinstance(item, Span) and fits < item.stop - item.first:
        lane.put_back(item.cut(item.first + fits))
    return item


def _fitting(span: Span, most_bytes: int) -> int:
    low, high = 0, span.stop - span.first
    while low < high:
        middle = (low + high + 1) // 2
        if span.block.bytes_of(span.first, span.first + middle) <= most_bytes:
            low = middle
        else:
            high = middle - 1
    return low
