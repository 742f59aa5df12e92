"""How messages ended lately: what `explain` says of those that are not there any more.

A note of the newest endings in memory, bounded in bytes; nothing rests on it, and a start knows nothing of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final, NamedTuple

from minibroker.contract.wire import RUN

# Of runs and of what notes cost beside them; about 5,000 acks of one message.
MOST_BYTES: Final = 1024 * 1024
NOTE_BYTES: Final = 200


class Ending(NamedTuple):
    """Messages of one queue that ended together."""

    queue: str
    reason: str  # the code of a row of the table of reasons
    by: str  # the client
    unix_ms: int
    runs: bytes  # a run column


class Endings:
    """The newest endings, up to about a MiB of them."""

    __slots__ = ("_bytes", "_notes")

    def __init__(self) -> None:
        self._notes: deque[Ending] = deque()
        self._bytes = 0

    def remember(self, queue: str, reason: str, by: str, unix_ms: int, runs: bytes) -> None:
        """Keep that the messages of a run column ended; forget the oldest ones if need be."""
        self._notes.append(Ending(queue, reason, by, unix_ms, runs))
        self._bytes += len(runs) + NOTE_BYTES
        while self._bytes > MOST_BYTES:
            self._bytes -= len(self._notes.popleft().runs) + NOTE_BYTES

    def find(self, origin: int, sequence: int) -> Iterator[Ending | None]:
        """Yield None for each note that is not about this message, the newest first, then the one that is."""
        for ending in reversed(list(self._notes)):
            for _, place, first, count in RUN.iter_unpack(ending.runs):
                if place == origin and first <= sequence < first + count:
                    yield ending
                    return
            yield None
