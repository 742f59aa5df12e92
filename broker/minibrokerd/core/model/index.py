"""Where a message waits, by its id: what stands in no order of ids is found here.

The spans that were published and have no key need no entry: they stand in the order of their ids (lanes.py).
What came back, has a key or a delay has one, in shelves of 1,024 sequences. So a look-up costs a look at two
shelves, and a listing can go on behind any id, whatever came and went meanwhile.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Final

from minibrokerd.core.model.messages import Block, Item, Message
from minibrokerd.core.model.standing import Standing

if TYPE_CHECKING:
    from minibrokerd.core.model.queues import Queue

SHELF_BITS: Final = (
    10  # a span has at most 1,000 messages: it begins on its shelf or on the one before
)
_ORIGIN_BITS: Final = 64


class Index:
    """Items by the id of their first message; `home` is the origin of nearly all of them.

    What is here is noted in `standing`, too, so that copying forward finds it.
    """

    __slots__ = ("_home", "_order", "_shelves", "_standing", "queue")

    def __init__(self, home: int, standing: Standing, queue: Queue | None) -> None:
        """`queue` is whose items these are; None: of no queue any more."""
        self.queue = queue
        self._standing = standing
        self._home = home
        self._shelves: dict[int, dict[int, Item]] = {}
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
        shelf[item.first] = item
        self._standing.items += 1
        self._standing.add(item, self)

    def add_all(self, messages: Sequence[Message]) -> None:
        """Enter messages that wait here now: a shelf is looked for once for those that share it."""
        for number, group in groupby(messages, key=self._shelf_number):
            shelf = self._shelves.get(number)
            if shelf is None:
                shelf = self._new_shelf(number)
            for message in group:
                shelf[message.sequence] = message
        self._standing.add_all(messages, self)

    def _new_shelf(self, number: int) -> dict[int, Item]:
        shelf = self._shelves[number] = {}
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
        del shelf[item.first]
        if not shelf:
            del self._shelves[number]
        self._standing.items -= 1
        self._standing.discard(item)
        return True

    def has(self, item: Item) -> bool:
        """Whether this item is here."""
        shelf = self._shelves.get(self._shelf_of(item.block.origin, item.first))
        return shelf is not None and shelf.get(item.first) is item

    def find(self, origin: int, sequence: int) -> Item | None:
        """Return the item that has a message."""
        number = self._shelf_of(origin, sequence)
        shelf = self._shelves.get(number)
        if shelf is not None and (item := shelf.get(sequence)) is not None:
            return item
        for each in (shelf, self._shelves.get(number - 1)):
            for item in each.values() if each is not None else ():
                if item.first <= sequence < item.stop and item.block.origin == origin:
                    return item
        return None

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
                items = sorted(shelf.values(), key=_first)
                yield [i for i in items if i.stop > sequence or i.block.origin != origin]

    def _shelf_of(self, origin: int, sequence: int) -> int:
        number = sequence >> SHELF_BITS
        return number if origin == self._home else number | origin << _ORIGIN_BITS


def _first(item: Item) -> int:
    return item.first
