"""All deadlines of a client in one table, so that one timer is enough.

A timer for each call costs more than the call (asyncio.timeout: 425,000 publishes a second became
132,000). Here an entry is a dict insertion, and most are taken out again before they are due. Entries
share slots of `SLOT_MS`; a slot is due when its end has passed, so a deadline is never early and at
most one slot late.
"""

from __future__ import annotations

import heapq
from typing import Final, Generic, TypeVar

SLOT_MS: Final = 8

Item = TypeVar("Item")


class Deadlines(Generic[Item]):
    """A set of items, each with the time in ms at which it is due; the clock comes in."""

    __slots__ = ("_newest", "_order", "_slots")

    def __init__(self) -> None:
        self._slots: dict[int, dict[Item, None]] = {}
        self._order: list[int] = []  # heap of the slots in use, and of some that are not any more
        self._newest = 0  # the slot that was made last: it may be empty, as it is mostly the next one to be used

    def __len__(self) -> int:
        return len(self._order)

    def add(self, item: Item, when_ms: int) -> int:
        """Add `item`, due at `when_ms`, and return its slot, which `discard` takes."""
        slot = -(-when_ms // SLOT_MS)
        members = self._slots.get(slot)
        if members is None:
            if self._newest in self._slots and not self._slots[self._newest]:
                del self._slots[self._newest]
            self._newest = slot
            self._slots[slot] = {item: None}
            heapq.heappush(self._order, slot)
            if len(self._order) > 64 + 2 * len(self._slots):
                self._order = list(self._slots)
                heapq.heapify(self._order)
        else:
            members[item] = None
        return slot

    def discard(self, item: Item, slot: int) -> None:
        """Take `item` out, if it is still there; a slot that is empty goes, too."""
        members = self._slots.get(slot)
        if members is not None:
            members.pop(item, None)
            if not members and slot != self._newest:
                del self._slots[slot]

    def next_ms(self) -> int | None:
        """Return when the next item is due, or None if there is none."""
        while self._order and not self._slots.get(self._order[0]):
            self._slots.pop(heapq.heappop(self._order), None)
        return self._order[0] * SLOT_MS if self._order else None

    def pop_due(self, now_ms: int) -> list[Item]:
        """Take out and return the items that are due at `now_ms`, the earliest first."""
        due: list[Item] = []
        while self._order and self._order[0] * SLOT_MS <= now_ms:
            due.extend(self._slots.pop(heapq.heappop(self._order), ()))
        return due
