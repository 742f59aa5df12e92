"""What is delayed in a queue, by its id: items of their own, and sheaves of what was published together."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Final, cast

from minibrokerd.core.model.footprints import TIMER_BYTES
from minibrokerd.core.model.index import Index
from minibrokerd.core.model.messages import Block, Item
from minibrokerd.core.model.sheaf import Sheaf
from minibrokerd.core.model.standing import Standing

if TYPE_CHECKING:
    from minibrokerd.core.model.queues import Queue

SOME: Final = 100  # spans of a sheaf that are made together, for who looks at all of it


class Later(Index):
    """An index of what is delayed. What is asked of it by an id is asked of its sheaves, too.

    A span of a sheaf that it returns is of nobody: the sheaf has its messages until they are taken out.
    """

    more_bytes = TIMER_BYTES
    __slots__ = ("_sheaves",)

    def __init__(self, home: int, standing: Standing, queue: Queue | None) -> None:
        """As an index."""
        super().__init__(home, standing, queue)
        self._sheaves: Index | None = None  # most queues never have one

    def add_sheaf(self, sheaf: Sheaf) -> None:
        """Enter a sheaf that waits here now."""
        if self._sheaves is None:
            self._sheaves = Index(self._home, self._standing, self.queue)
        self._sheaves.add(cast("Item", sheaf))

    def discard_sheaf(self, sheaf: Sheaf) -> None:
        """Take out a sheaf; it is here."""
        assert self._sheaves is not None
        self._sheaves.discard(cast("Item", sheaf))

    def leave(self) -> None:
        """It is out of use: nothing that it has is to be copied any more."""
        self.queue = None
        if self._sheaves is not None:
            self._sheaves.queue = None

    def find(self, origin: int, sequence: int) -> Item | None:
        """Return the item that has a message; of one in a sheaf, a span that has nothing else."""
        item = Index.find(self, origin, sequence)
        if item is not None or not self._sheaves:
            return item
        sheaf = cast("Sheaf | None", self._sheaves.find(origin, sequence))
        return None if sheaf is None else sheaf.find(sequence)

    def items_of(self, block: Block) -> list[Item]:
        """Return the items of a block."""
        found = Index.items_of(self, block)
        at, stop = block.first, block.first + block.count if self._sheaves else 0
        while self._sheaves and at < stop:
            sheaf = cast("Sheaf | None", self._sheaves.find(block.origin, at))
            if sheaf is not None and sheaf.block is block:
                found += sheaf.spans()
            at = sheaf.stop if sheaf is not None else at + 1
        return found

    def in_sheaves(self, origin: int, sequence: int) -> Iterator[list[Item]]:
        """Yield what sheaves have from this id on, by ids, some at a time; as `after` does for all else."""
        for sheaves in self._sheaves.after(origin, sequence) if self._sheaves else ():
            for sheaf in cast("list[Sheaf]", sheaves):
                spans = sheaf.spans(sequence if sheaf.block.origin == origin else 0)
                while some := list[Item](islice(spans, SOME)):
                    yield some


NO_LATER: Final = Later(0, Standing(), None)  # of a queue at rest
