"""The books of a bench: which messages were confirmed, which were seen, and how often. Pure.

Two bytes a message, so that millions fit and each entry costs an index.
"""

from __future__ import annotations

from typing import Final

_ROOM: Final = 2**16  # messages; the books grow by at least so many


class Ledger:
    """Counts messages by their numbers, which start at zero."""

    def __init__(self) -> None:
        self.confirmed = 0
        self.distinct = 0  # messages that were seen at least once
        self.duplicates = 0  # deliveries of messages that had been seen before
        self.waiting = 0  # confirmed, and not seen yet
        self.complete = False  # nothing is confirmed any more
        self._confirmed = bytearray()
        self._seen = bytearray()

    @property
    def balanced(self) -> bool:
        """Whether all that will ever be confirmed was seen."""
        return self.complete and not self.waiting

    def confirm(self, first: int, size: int) -> None:
        """Enter that the server promised to keep `size` messages from number `first` on."""
        stop = first + size
        if stop > len(self._confirmed):
            self._grow(stop)
        self._confirmed[first:stop] = b"\1" * size
        self.confirmed += size
        # A consumer may see a message before its publisher hears that it is safe.
        self.waiting += size - self._seen.count(1, first, stop)

    def see(self, number: int) -> None:
        """Enter that a handler began with a message."""
        if number >= len(self._seen):
            self._grow(number + 1)
        if self._seen[number]:
            self.duplicates += 1
            return
        self._seen[number] = 1
        self.distinct += 1
        self.waiting -= self._confirmed[number]

    def _grow(self, least: int) -> None:
        more = max(_ROOM, least, 2 * len(self._seen)) - len(self._seen)
        self._confirmed += bytes(more)
        self._seen += bytes(more)
