"""What is ready in a queue, in the order in which it is handed out.

A lane has the messages of one key; those without a key share the default lane. Within a lane order is
(ready_at_ms, sequence): fresh spans arrive in that order and wait in a deque, what came back waits in a heap
beside it. Lanes take turns, so one busy key cannot keep the others waiting.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from heapq import heapify, heappop, heappush

from minibrokerd.core.messages import Item, Span


class Lane:
    """The ready messages of one key."""

    __slots__ = ("fresh", "key", "returned")

    def __init__(self, key: str) -> None:
        self.key = key
        self.fresh: deque[Span] = deque()
        self.returned: list[tuple[int, int, int, Item]] = []

    def __bool__(self) -> bool:
        return bool(self.fresh or self.returned)

    def head(self) -> Item | None:
        """Return what comes next, leaving it in its place."""
        if self._returned_first():
            return self.returned[0][3]
        return self.fresh[0] if self.fresh else None

    def take(self, most: int) -> Item:
        """Remove and return what comes next: up to `most` messages of one span, or one message."""
        if self._returned_first():
            item = heappop(self.returned)[3]
            if item.stop - item.first > most and isinstance(item, Span):
                rest = item.cut(item.first + most)
                self.put_back(rest)
            return item
        span = self.fresh[0]
        if span.stop - span.first <= most:
            return self.fresh.popleft()
        self.fresh[0] = span.cut(span.first + most)
        return span

    def put_back(self, item: Item) -> None:
        """Put what came back to its place by (ready_at_ms, origin, sequence)."""
        heappush(self.returned, (item.ready_at_ms, item.block.origin, item.first, item))

    def remove(self, origin: int, sequence: int) -> Item | None:
        """Take one message out, wherever it stands; None if it is not here. Linear: for rare use."""
        for entry in self.returned:
            item = entry[3]
            if item.block.origin == origin and item.first <= sequence < item.stop:
                self.returned.remove(entry)
                heapify(self.returned)
                return self._single(item, sequence)
        for index, span in enumerate(self.fresh):
            if span.block.origin == origin and span.first <= sequence < span.stop:
                del self.fresh[index]
                return self._single(span, sequence)
        return None

    def items(self) -> Iterator[Item]:
        """Yield everything in the lane, in no particular order of the two parts."""
        yield from self.fresh
        for entry in self.returned:
            yield entry[3]

    def _single(self, item: Item, sequence: int) -> Item:
        if isinstance(item, Span):
            if item.first < sequence:
                rest = item.cut(sequence)
                self.put_back(item)
                item = rest
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

    __slots__ = ("_default", "_keyed", "_turn", "ready")

    def __init__(self) -> None:
        self._default = Lane("")
        self._keyed: dict[str, Lane] = {}
        self._turn: deque[Lane] = deque()  # the lanes that have something, each once
        self.ready = 0  # messages in all lanes

    def enter(self, span: Span) -> None:
        """Append a fresh span; spans of a key mostly enter in order of (ready_at_ms, sequence)."""
        lane = self._lane(span.key)
        if not lane:
            self._turn.append(lane)
        if lane.fresh and lane.fresh[-1].ready_at_ms > span.ready_at_ms:
            lane.put_back(span)  # its sync took longer than a later publish that needed none
        else:
            lane.fresh.append(span)
        self.ready += span.stop - span.first

    def put_back(self, item: Item) -> None:
        """Put what came back to its place in its lane."""
        lane = self._lane(item.key)
        if not lane:
            self._turn.append(lane)
        lane.put_back(item)
        self.ready += item.stop - item.first

    def take(self, most: int, most_bytes: int) -> list[Item]:
        """Remove and return what comes next: at most `most` messages, and about `most_bytes`.

        At least one message is returned, whatever its size; `ready` must not be 0.
        """
        turn = self._turn
        items: list[Item] = []
        while most and turn:
            lane = turn[0]
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

    def remove(self, key: str | None, origin: int, sequence: int) -> Item | None:
        """Take one message out of the lane of `key` (None: of whichever has it); None: not here."""
        lanes = list(self._all()) if key is None else [self._lane(key)]
        for lane in lanes:
            item = lane.remove(origin, sequence)
            if item is not None:
                self.ready -= 1
                if not lane:
                    self._turn.remove(lane)
                return item
        return None

    def free_some(self, most: int) -> bool:
        """Drop up to about `most` items of lanes that are out of use; True: nothing is left.

        A million objects freed at once would stop the loop for a tenth of a second.
        """
        for lane in list(self._all()):
            while most and lane.fresh:
                lane.fresh.popleft()
                most -= 1
            del lane.returned[max(len(lane.returned) - most, 0) :]
            if not lane and lane.key:
                del self._keyed[lane.key]
            most = max(most - 1, 0)
            if not most:
                return False
        return not self._default and not self._keyed

    def items(self) -> Iterator[Item]:
        """Yield everything that is ready, lane by lane."""
        for lane in self._all():
            yield from lane.items()

    def _all(self) -> Iterator[Lane]:
        yield self._default
        yield from self._keyed.values()

    def _lane(self, key: str) -> Lane:
        if not key:
            return self._default
        lane = self._keyed.get(key)
        if lane is None:
            lane = self._keyed[key] = Lane(key)
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


def _fitting(span: Span, most_bytes: int) -> int:
    low, high = 0, span.stop - span.first
    while low < high:
        middle = (low + high + 1) // 2
        if span.block.bytes_of(span.first, span.first + middle) <= most_bytes:
            low = middle
        else:
            high = middle - 1
    return low
