"""One key of a queue that limits its keys, pauses one, or gives one a weight."""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING, Final

import msgspec

from minibrokerd.core.model.messages import Item, Message
from minibrokerd.core.model.wheel import Timer

if TYPE_CHECKING:
    from minibrokerd.core.model.key_circuits import KeyCircuit

FOR_EVER_MS: Final = 2**62  # until when a key is paused that waits for a word
Place = tuple[int, int]  # origin and sequence


class Key(msgspec.Struct, eq=False):
    """How many messages of a key are in work, which came back and hold their place, and what was set for it."""

    # A struct of msgspec is made in a third of the time: where a key is limited, one is made for most messages.
    name: str
    work: int = 0
    back: dict[Place, Message] | None = None
    _order: list[Place] | None = None  # a heap of those, and of some that went
    paused_ms: int = 0  # until when (log time); 0: it is not
    timer: Timer | None = None  # looks whether it is open
    weight: int = 1
    circuit: KeyCircuit | None = None  # one that is not closed
    left: int = 0  # messages that it may hand out in this turn beyond the present one

    @property
    def is_needed(self) -> bool:
        """Whether there is something to know of it."""
        return bool(self.work) or not self.is_plain

    @property
    def is_plain(self) -> bool:
        """Whether there is nothing to know of it but what is in work, as of nearly all keys."""
        return not (
            self.back
            or self.paused_ms
            or self.timer is not None
            or self.weight > 1
            or self.circuit is not None
        )

    def first(self) -> Message | None:
        """Return the one of those that came back whose turn is next."""
        if not self.back:
            return None
        assert self._order is not None
        while self._order[0] not in self.back:
            heappop(self._order)
        return self.back[self._order[0]]

    def came_back(self, message: Message) -> None:
        """Let a message hold its place."""
        if self.back is None:
            self.back, self._order = {}, []
        place = message.block.origin, message.sequence
        if place not in self.back:
            assert self._order is not None
            heappush(self._order, place)
        self.back[place] = message

    def went(self, item: Item) -> bool:
        """Let an item hold no place any more; False: it did not."""
        if not self.back or self.back.pop((item.block.origin, item.first), None) is None:
            return False
        if not self.back:
            self.back = self._order = None
        return True


def is_back(item: Item) -> bool:
    """Return whether a message that waits was in work before; one that is dead waits for nobody of its key."""
    return isinstance(item, Message) and bool(item.charged or item.releases) and not item.dead
