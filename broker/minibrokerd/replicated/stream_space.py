"""Whether a stream has room: what it may hold, what it was last said to hold, and what was appended since.

A stream that is full refuses acks and copies with everything else, and then nothing frees it. So publishes are
refused before that, as on a disk: as much is left apart as three segments are there.
"""

from __future__ import annotations

from typing import Final

from minibrokerd.log.replication import Replication
from minibrokerd.log.seam import RESERVE_SEGMENTS
from minibrokerd.replicated.stream import PART_BYTES, Info

# Of a message beside its body, at the most: its subject, its headers, what the store adds, and the padding.
ENTRY_BYTES: Final = 512
LEAST_STRETCHES: Final = 8  # three apart, and what lives must be able to move


class StreamSpace:
    """The room of one stream; knows nothing before `told`, and grants everything then."""

    def __init__(self, stretch_bytes: int) -> None:
        self._reserve_bytes = RESERVE_SEGMENTS * stretch_bytes
        self._most_bytes = 0  # 0: no limit
        self._used_bytes = 0
        self.info: Info | None = None  # the newest hint

    @property
    def is_limited(self) -> bool:
        """Whether the stream has an end."""
        return self._most_bytes > 0

    def told(self, info: Info) -> None:
        """Take what a server says: a hint, from which appends are counted on."""
        self.info = info
        self._most_bytes, self._used_bytes = max(info.most_bytes, 0), info.size_bytes

    def replication(self, epoch: int, lag: tuple[int, float], stalled_s: float) -> Replication:
        """Return how the log is, with what is known of the stream."""
        info = self.info
        if info is None:
            return Replication(epoch, *lag, stalled_s)
        limit_bytes, behind = max(info.most_bytes, 0), len(info.behind)
        return Replication(
            epoch, *lag, stalled_s, info.size_bytes, limit_bytes, info.leader, behind
        )

    def appended(self, size_bytes: int) -> None:
        """Count an append, which the next hint has in it."""
        self._used_bytes += stored_bytes(size_bytes)

    def has_room(self, size_bytes: int) -> bool:
        """Whether so many bytes leave alone what settlements and copies need."""
        if not self._most_bytes:
            return True
        return self._used_bytes + stored_bytes(size_bytes) + self._reserve_bytes <= self._most_bytes


def stored_bytes(size_bytes: int) -> int:
    """Return what an append of so many bytes takes at the most."""
    return size_bytes + (size_bytes // PART_BYTES + 1) * ENTRY_BYTES
