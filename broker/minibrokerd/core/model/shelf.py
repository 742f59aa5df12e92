"""Items of an index whose first messages have nearly the same ids: found by the id, and by how old they are.

A shelf is small while it has few, and 8 bytes for an item when it has many. Copying forward knows the shelf and
not each item: `low` says that nothing in it stands in an older batch. What was published together stands in one
shelf and, nearly always, in a few batches, so little that is new is looked at to find what is old.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from minibrokerd.core.model.messages import NEVER, Item

if TYPE_CHECKING:
    from minibrokerd.core.model.index import Index

# A span has at most 1,000 messages: it begins on its shelf or on the one before.
SHELF_BITS: Final = 10
_MASK: Final = (1 << SHELF_BITS) - 1
MANY: Final = 100  # from here on a shelf has a slot for each sequence
FEW: Final = 30  # and down to here


class Shelf:
    """Items by their first sequence. `noted` is the batch under which it stands in the buckets of `Standing`.

    `upto` and `at` belong to a pass that looks at it in several steps: up to which batch, and from which place on.
    """

    __slots__ = ("_few", "_slots", "at", "count", "index", "low", "noted", "upto")

    def __init__(self, index: Index) -> None:
        self.index = index
        self.count = 0
        self.low = self.noted = NEVER
        self.upto = self.at = 0
        self._few: dict[int, Item] = {}
        self._slots: list[Item | None] | None = None

    def put(self, item: Item) -> None:
        """Enter an item; there is none at its place."""
        first = item.first
        self.count += 1
        if self._slots is not None:
            self._slots[first & _MASK] = item
            return
        self._few[first & _MASK] = item
        if self.count > MANY:
            self._slots = list(map(self._few.get, range(1 << SHELF_BITS)))
            self._few = {}

    def get(self, sequence: int) -> Item | None:
        """Return the item whose first message is this one."""
        if self._slots is not None:
            return self._slots[sequence & _MASK]
        return self._few.get(sequence & _MASK)

    def remove(self, sequence: int) -> None:
        """Take out the item whose first message is this one; it is here."""
        self.count -= 1
        if self._slots is None:
            del self._few[sequence & _MASK]
            return
        self._slots[sequence & _MASK] = None
        if self.count < FEW:
            self._make_few()

    def remove_all(self, sequences: Sequence[int]) -> None:
        """Take out the items whose first messages are these; they are here."""
        slots = self._slots
        if slots is None:
            for sequence in sequences:
                self.remove(sequence)
            return
        for sequence in sequences:
            slots[sequence & _MASK] = None
        self.count -= len(sequences)
        if self.count < FEW:
            self._make_few()

    def _make_few(self) -> None:
        self._few = dict(self.from_place(0))
        self._slots = None

    def before(self, sequence: int) -> Item | None:
        """Return the last item whose first message is not behind this one; -1: of all that are here."""
        at = sequence & _MASK
        if self._slots is None:
            place = max((place for place in self._few if place <= at), default=None)
            return None if place is None else self._few[place]
        while at >= 0:
            item = self._slots[at]
            if item is not None:
                return item
            at -= 1
        return None

    def values(self) -> list[Item]:
        """Return the items by their ids."""
        return [item for _, item in self.from_place(0)]

    def from_place(self, at: int) -> Iterator[tuple[int, Item]]:
        """Yield (place, item) from a place on, 0 to 1,023; nothing may change meanwhile."""
        if self._slots is None:
            for place in sorted(self._few):
                if place >= at:
                    yield place, self._few[place]
            return
        for place in range(at, len(self._slots)):
            item = self._slots[place]
            if item is not None:
                yield place, item
