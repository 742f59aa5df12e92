"""Where a message waits, by its id: what stands in no order of ids is found here.

The spans that were published and have no key need no entry: they stand in the order of their ids (lanes.py).
What came back, has a key or a delay has one, on shelves of 1,024 sequences (shelf.py). So a look-up costs looks at
two shelves, and a listing can go on behind any id, whatever came and went meanwhile.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, ClassVar, Final

from minibrokerd.core.model.footprints import MESSAGE_OBJECT_BYTES, SPAN_OBJECT_BYTES
from minibrokerd.core.model.messages import Block, Item, Message, Span
from minibrokerd.core.model.shelf import SHELF_BITS, Shelf
from minibrokerd.core.model.standing import Standing

if TYPE_CHECKING:
    from minibrokerd.core.model.queues import Queue

_ORIGIN_BITS: Final = 64


class Index:
    """Items by the id of their first message; `home` is the origin of nearly all of them.

    Its shelves are noted in `standing`, so that copying forward finds what they have.
    """

    more_bytes: ClassVar[int] = 0  # of memory, for each item: what it has beside its place here
    __slots__ = ("_home", "_order", "_shelves", "_standing", "queue")

    def __init__(self, home: int, standing: Standing, queue: Queue | None) -> None:
        """`queue` is whose items these are; None: of no queue any more."""
        self.queue = queue
        self._standing = standing
        self._home = home
        self._shelves: dict[int, Shelf] = {}
        self._order: (
            list[int] | None
        ) = []  # the shelves that are there, and some that were; None: unknown

    def __bool__(self) -> bool:
        return bool(self._shelves)

    def add(self, item: Item) -> None:
        """Enter an item that waits here now."""
        number = item.first >> SHELF_BITS
        if item.block.origin != self._home:
            number |= item.block.origin << _ORIGIN_BITS
        shelf = self._shelves.get(number)
        if shelf is None:
            shelf = self._new_shelf(number)
        shelf.put(item)
        self._standing.item_bytes += item.memory_bytes + self.more_bytes
        if item.block.batch < shelf.low:
            self._standing.lower(shelf, item.block.batch)

    def add_all(self, messages: Sequence[Message]) -> None:
        """Enter messages that wait here now: a shelf is looked for once for those that share it."""
        for number, group in groupby(messages, key=self._shelf_number):
            shelf = self._shelves.get(number)
            if shelf is None:
                shelf = self._new_shelf(number)
            for message in group:
                shelf.put(message)
                if message.block.batch < shelf.low:
                    self._standing.lower(shelf, message.block.batch)
        self._standing.item_bytes += len(messages) * (MESSAGE_OBJECT_BYTES + self.more_bytes)

    def _new_shelf(self, number: int) -> Shelf:
        shelf = self._shelves[number] = Shelf(self)
        if self._order is not None:
            if self._order and number <= self._order[-1]:
                self._order = None
            else:
                self._order.append(number)
        return shelf

    def _shelf_number(self, message: Message) -> int:
        return self._shelf_of(message.block.origin, message.sequence)

    def discard(self, item: Item) -> bool:
        """Take an item out; False: it was not here."""
        number = self._shelf_of(item.block.origin, item.first)
        shelf = self._shelves.get(number)
        if shelf is None or shelf.get(item.first) is not item:
            return False
        shelf.remove(item.first)
        standing = self._standing
        if not shelf.count:
            del self._shelves[number]
            standing.forget(shelf)
        standing.item_bytes -= item.memory_bytes + self.more_bytes
        if item.block.batch <= standing.upto:
            standing.took_old = True
        return True

    def discard_all(self, spans: Sequence[Span]) -> None:
        """Take out spans that are here: a shelf is looked for once for neighbours that share it."""
        block, standing = spans[0].block, self._standing
        firsts = [span.first for span in spans if span.block is block]
        if len(firsts) == len(spans) and min(firsts) >> SHELF_BITS == max(firsts) >> SHELF_BITS:
            self._clear(
                self._shelf_of(block.origin, firsts[0]), firsts
            )  # as of most rounds of keys
            if block.batch <= standing.upto:
                standing.took_old = True
        else:
            self._discard_apart(spans)
        standing.item_bytes -= len(spans) * (SPAN_OBJECT_BYTES + self.more_bytes)

    def _discard_apart(self, spans: Sequence[Span]) -> None:
        """Take out spans of several publishes, or shelves."""
        standing, block, far, last = self._standing, None, 0, -1
        firsts: list[int] = []
        for span in spans:
            if span.block is not block:
                block = span.block
                far = block.origin << _ORIGIN_BITS if block.origin != self._home else 0
                if block.batch <= standing.upto:
                    standing.took_old = True
            first = span.first
            number = first >> SHELF_BITS | far
            if number != last:
                self._clear(last, firsts)
                last, firsts = number, []
            firsts.append(first)
        self._clear(last, firsts)

    def _clear(self, number: int, firsts: list[int]) -> None:
        if firsts:
            shelf = self._shelves[number]
            shelf.remove_all(firsts)
            if not shelf.count:
                del self._shelves[number]
                self._standing.forget(shelf)

    def has(self, item: Item) -> bool:
        """Whether this item is here."""
        shelf = self._shelves.get(self._shelf_of(item.block.origin, item.first))
        return shelf is not None and shelf.get(item.first) is item

    def find(self, origin: int, sequence: int) -> Item | None:
        """Return the item that has a message."""
        number = self._shelf_of(origin, sequence)
        shelf = self._shelves.get(number)
        item = shelf.before(sequence) if shelf is not None else None
        if item is None:
            shelf = self._shelves.get(number - 1)
            item = shelf.before(-1) if shelf is not None else None
        return item if item is not None and sequence < item.stop else None

    def origins(self) -> set[int]:
        """Return of which other origins than `home` there is something; 0 may be among them."""
        return {number >> _ORIGIN_BITS for number in self._shelves}

    def items_of(self, block: Block) -> list[Item]:
        """Return the items of a block."""
        found: list[Item] = []
        at, stop = block.first, block.first + block.count if self._shelves else 0
        while at < stop:
            shelf = self._shelves.get(self._shelf_of(block.origin, at))
            item = shelf.get(at) if shelf is not None else None
            if item is not None and item.block is block:
                found.append(item)
            at = item.stop if item is not None else at + 1
        return found

    def after(self, origin: int, sequence: int) -> Iterator[list[Item]]:
        """Yield what has messages from this id on, by ids, a shelf at a time; those of `home` first."""
        if self._order is None:
            self._order = sorted(self._shelves)
        elif len(self._order) > 2 * len(self._shelves) + 100:
            self._order = [number for number in self._order if number in self._shelves]
        order = self._order
        at = bisect_left(order, self._shelf_of(origin, sequence) - 1)
        for number in order[at:]:
            shelf = self._shelves.get(number)
            if shelf is not None:
                items = shelf.values()
                yield [i for i in items if i.stop > sequence or i.block.origin != origin]

    def _shelf_of(self, origin: int, sequence: int) -> int:
        number = sequence >> SHELF_BITS
        return number if origin == self._home else number | origin << _ORIGIN_BITS
