"""What is ready in a queue, in the order in which it is handed out.

A lane has the messages of one key; those without a key share the default lane. Within a lane order is
(ready_at_ms, sequence): fresh spans arrive in that order and wait in a deque, what came back waits in a heap
beside it. Lanes take turns, so one busy key cannot keep the others waiting.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from itertools import islice
from typing import Any, Final, NoReturn

from minibrokerd.core.cold import ColdRun
from minibrokerd.core.index import Index
from minibrokerd.core.messages import Item, Span

MOST_SWEPT: Final = (
    20_000  # entries that one sweep looks at; of a longer heap, dead ones go as they come up
)


class Lane:
    """The ready messages of one key: first `fresh`, then `cold`, then `late`, each in order.

    What is cold left memory (cold.py), which only happens in the lane of those without a key. `returned` stands
    beside the three. `reading` is set while what comes next is read back.
    """

    __slots__ = ("cold", "dead", "fresh", "index", "key", "late", "reading", "returned", "seen")

    def __init__(self, key: str, index: Index) -> None:
        """`index` has what is `returned`, and all that has a key."""
        self.key = key
        self.index = index
        self.dead = 0  # entries of `returned` whose items were taken out by their ids
        self.fresh: deque[Span] = deque()
        self.cold: deque[ColdRun] = deque()
        self.late: deque[Span] = deque()
        self.reading = False
        self.returned: list[tuple[int, int, int, Item]] = []
        self.seen = (0, 0, 0)  # by `unseen`: for which batch, and up to which place

    def __bool__(self) -> bool:
        return bool(self.fresh or self.returned or self.cold or self.late)

    @property
    def is_waiting(self) -> bool:
        """Whether what comes next is not in memory."""
        if not self.cold or self.fresh:
            return False
        run = self.cold[0]
        return not self.returned or self.returned[0][:3] > (run.ready_at_ms, run.queue, run.first)

    def enter(self, span: Span) -> None:
        """Append a fresh span; spans of a key mostly enter in order of (ready_at_ms, sequence)."""
        line = self.late if self.late or self.cold else self.fresh
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
            self.late.clear()

    def take(self, most: int) -> Item:
        """Remove and return what comes next: up to `most` messages of one span, or one message.

        Not called while `is_waiting`.
        """
        if self._returned_first():
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

    def take_one(self, item: Item, sequence: int) -> Item:
        """Remove and return one message of an item that the index has here; the rest of it goes back."""
        self.index.discard(item)
        at = self._place_in(self.fresh, item.first)
        if at is not None and self.fresh[at] is item:
            del self.fresh[at]
        else:
            self.dead += 1
            self._drop_dead()
        return self._cut_out(item, sequence)

    def span_of(self, sequence: int) -> tuple[deque[Span], int] | None:
        """Return line and place of the span that has a message, of those that stand in the order of ids."""
        for line in (self.fresh, self.late):
            at = self._place_in(line, sequence)
            if at is not None and line[at].stop > sequence:
                return line, at
        return None

    def run_of(self, sequence: int) -> ColdRun | None:
        """Return the run that has a message which left memory, and has not ended."""
        at = bisect_right(self.cold, sequence, key=_first) - 1
        run = self.cold[at] if at >= 0 else None
        return run if run is not None and run.waits(sequence) else None

    @staticmethod
    def _place_in(line: deque[Span], sequence: int) -> int | None:
        at = bisect_right(line, sequence, key=_first) - 1
        return at if at >= 0 else None

    def free_some(self, most: int) -> int:
        """Drop up to `most` items of a lane that is out of use; return how many."""
        dropped = 0
        for line in (self.fresh, self.cold, self.late):
            while line and dropped < most:
                line.popleft()
                dropped += 1
        from_heap = min(most - dropped, len(self.returned))
        del self.returned[len(self.returned) - from_heap :]
        return dropped + from_heap

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
            try:
                for last in islice(line, start, None):
                    yield last
            finally:
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

    def _cut_out(self, item: Item, sequence: int) -> Item:
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


class Lanes:
    """All lanes of a queue, and the turn they take."""

    __slots__ = ("_home", "_keyed", "_turn", "default", "index", "ready")

    def __init__(self, home: int) -> None:
        """`home` is the origin of what is published to the queue, or of what dies in its source."""
        self._home = home
        self.index = Index(home)
        self.default = Lane("", self.index)
        self._keyed: dict[str, Lane] = {}
        self._turn: deque[Lane] = deque()  # the lanes that have something, each once
        self.ready = 0  # messages in all lanes

    def enter(self, span: Span) -> None:
        """Append a fresh span to its lane."""
        lane = self._lane(span.key)
        if not lane:
            self._turn.append(lane)
        lane.enter(span)
        self.ready += span.stop - span.first

    def enter_cold(self, run: ColdRun) -> None:
        """Append a run of messages that are not in memory; a start finds them in order."""
        lane = self.default
        if not lane:
            self._turn.append(lane)
        for span in lane.late:  # they came from a segment without an index, between two with one
            lane.put_back(span)
        lane.late.clear()
        lane.cold.append(run)
        self.ready += run.left

    def leave_if_empty(self, lane: Lane) -> None:
        """Take a lane out of the turn when the last it had was taken out or set aside, not delivered."""
        if not lane:
            self._turn.remove(lane)
            self._keyed.pop(lane.key, None)

    def put_back(self, item: Item) -> None:
        """Put what came back to its place in its lane."""
        lane = self._lane(item.key)
        if not lane:
            self._turn.append(lane)
        lane.put_back(item)
        self.ready += item.stop - item.first

    def take(self, most: int, most_bytes: int) -> list[Item]:
        """Remove and return what comes next: at most `most` messages, and about `most_bytes`.

        At least one message is returned, whatever its size, unless what comes next is not in memory; `ready`
        must not be 0.
        """
        turn = self._turn
        items: list[Item] = []
        while most and turn:
            lane = turn[0]
            if lane.cold and lane.is_waiting:
                if len(turn) == 1:
                    break
                turn.rotate(-1)  # there is one such lane at the most
                continue
            # Alone, a lane gives whole spans; with others it gives one message and the turn goes on.
            item = lane.take(most if len(turn) == 1 else 1)
            size = item.block.bytes_of(item.first, item.stop)
            if size > most_bytes and (items or item.stop - item.first > 1):
                fitting = self._fit(lane, item, most_bytes, first=not items)
                if fitting is None:
                    break
                item, most = fitting, 0
            items.append(item)
            most_bytes -= size
            count = item.stop - item.first
            self.ready -= count
            most = max(most - count, 0)
            turn.popleft()
            if lane:
                turn.append(lane)
            elif lane.key:
                del self._keyed[lane.key]
        return items

    def take_one(self, origin: int, sequence: int) -> Item | None:
        """Remove and return a message as an item of its own; None: it is not here, or not in memory."""
        item = self.index.find(origin, sequence)
        if item is not None:
            lane = self._keyed[item.key] if item.key else self.default
            single = lane.take_one(item, sequence)
        else:
            lane = self.default
            found = lane.span_of(sequence) if origin == self._home else None
            if found is None:
                return None
            line, at = found
            span = line[at]
            del line[at]
            single = lane._cut_out(span, sequence)
        self.ready -= 1
        self.leave_if_empty(lane)
        return single

    def find(self, origin: int, sequence: int) -> Item | ColdRun | None:
        """Return what has a message that is ready: an item, or the run of places that it is in."""
        item = self.index.find(origin, sequence)
        if item is not None or origin != self._home:
            return item
        found = self.default.span_of(sequence)
        return found[0][found[1]] if found is not None else self.default.run_of(sequence)

    @property
    def turns(self) -> int:
        """How many lanes have something."""
        return len(self._turn)

    def in_order(self, sequence: int) -> Iterator[Span | ColdRun]:
        """Yield what has no entry in the index and has messages from `sequence` on, in the order of ids."""
        lane = self.default
        lines: list[Any] = [lane.fresh, lane.cold, lane.late]
        for line in lines:
            at = bisect_right(line, sequence, key=_first)
            for each in islice(line, max(at - 1, 0), None):
                if each.stop > sequence:
                    yield each

    def free_some(self, most: int) -> bool:
        """Drop up to about `most` items of lanes that are out of use; True: nothing is left.

        A million objects freed at once would stop the loop for a tenth of a second.
        """
        self._turn.clear()
        while most > 0 and (self.default or self._keyed):
            lane = self.default or self._keyed.popitem()[1]
            most -= 1 + lane.free_some(most)
            if lane and lane.key:
                self._keyed[lane.key] = lane
        return not self.default and not self._keyed

    def items(self) -> Iterator[Item]:
        """Yield everything that is ready, lane by lane."""
        for lane in self._all():
            yield from lane.items()

    def unseen(self, upto: int) -> Iterator[Span]:
        """Yield the fresh spans of all lanes that were not yielded for this `upto` before."""
        for lane in self._all():
            yield from lane.unseen(upto)

    def returned(self) -> Iterator[Item]:
        """Yield what is ready and came back to its place."""
        for lane in self._all():
            yield from lane.came_back()

    def _all(self) -> Iterator[Lane]:
        yield self.default
        yield from self._keyed.values()

    def _lane(self, key: str) -> Lane:
        if not key:
            return self.default
        lane = self._keyed.get(key)
        if lane is None:
            lane = self._keyed[key] = Lane(key, self.index)
        return lane

    @staticmethod
    def _fit(lane: Lane, item: Item, most_bytes: int, *, first: bool) -> Item | None:
        """Cut `item` to what fits and put the rest back; None if nothing of it does."""
        fits = _fitting(item, most_bytes) if isinstance(item, Span) else 0
        if not fits and first:
            fits = 1
        if not fits:
            lane.put_back(item)
            return None
        if isinstance(item, Span) and fits < item.stop - item.first:
            lane.put_back(item.cut(item.first + fits))
        return item


class _NoLanes(Lanes):
    """The lanes of every queue that has nothing: `Queue.wake` comes before the first message."""

    __slots__ = ()

    def _lane(self, key: str) -> NoReturn:
        raise AssertionError("a queue at rest was given a message")

    def enter_cold(self, run: ColdRun) -> NoReturn:
        """Refuse: it would be in all queues."""
        self._lane("")


NO_LANES: Final[Lanes] = _NoLanes(0)


def _place(span: Span) -> tuple[int, int]:
    return span.ready_at_ms, span.first


def _first(item: Span | ColdRun) -> int:
    return item.first


def _fitting(span: Span, most_bytes: int) -> int:
    low, high = 0, span.stop - span.first
    while low < high:
        middle = (low + high + 1) // 2
        if span.block.bytes_of(span.first, span.first + middle) <= most_bytes:
            low = middle
        else:
            high = middle - 1
    return low
