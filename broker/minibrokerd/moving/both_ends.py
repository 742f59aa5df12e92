"""The two ends of a move, as `move.py` sees them, and how what stands at one is compared with the other.

What is moved are the batches, one by one and unchanged: message ids, tokens, sessions and outcomes are derived
from what stands in them, so all of it goes on. The store keeps its id and its key, and the epoch goes on above.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import AsyncIterator, Sequence
from enum import Enum
from typing import Final, Protocol

from minibrokerd.log.failures import LogError
from minibrokerd.log.seam import Batch
from minibrokerd.process import exits

_BATCH: Final = struct.Struct("<QQI")
_RECORD: Final = struct.Struct("<III")


class CannotMove(LogError):
    """One end is not as it must be; nothing was changed at the source, and a move may be begun again."""

    exit_code = exits.REFUSED


class WasLeft(CannotMove):
    """The target is where a log was moved away from: it says so to every start, and would go on to."""

    def __init__(self, name: str) -> None:
        super().__init__(f"cannot move to {name}: a log was moved away from there. Name a new one")


class How(Enum):
    """What is done to a log."""

    MOVE = "it is elsewhere afterwards"
    LOOK = "nothing: it is read, to say what would be moved"
    COPY = "nothing: what is there now is copied, and a broker that leads a stream goes on"


class Tally:
    """What stands in batches, summed: equal tallies are equal batches."""

    def __init__(self) -> None:
        self.batches = self.records = self.size_bytes = 0
        self._hash = hashlib.sha256()

    def add(self, batch: Batch) -> None:
        """Take the next batch; its number is the log's own affair, and is not in it."""
        self._hash.update(_BATCH.pack(batch.now_ms, batch.unix_ms, len(batch.records)))
        for record in batch.records:
            self._hash.update(_RECORD.pack(record.type, len(record.meta), len(record.tail)))
            self._hash.update(record.meta)
            self._hash.update(record.tail)
            self.size_bytes += record.size_bytes
        self.batches += 1
        self.records += len(batch.records)

    @property
    def digest(self) -> str:
        """Their SHA-256."""
        return self._hash.hexdigest()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tally):
            return NotImplemented
        return (self.batches, self.digest) == (other.batches, other.digest)

    __hash__ = None  # type: ignore[assignment]  # it changes


class Origin(Protocol):
    """The log that is moved. `open` knows its store and its key; the rest, `batches` read to its end."""

    name: str
    store_id: bytes
    session_key: bytes
    epoch: int
    now_ms: int
    unix_ms: int
    clean: bool

    async def open(self, how: How) -> None:
        """See that no server runs on it, and keep any from doing so, as far as `how` asks for it.

        Raises:
            LogError: it cannot be used, or a server runs on it.
        """
        ...

    def batches(self) -> AsyncIterator[Batch]:
        """Yield all batches, oldest first; may be called again."""
        ...

    async def hold(self) -> None:
        """See that it is as it was when it was read: nobody else has it; LogError."""
        ...

    async def moved(self, to: str) -> None:
        """Say durably that the log is elsewhere now: no server starts here any more."""
        ...

    async def close(self) -> None:
        """Let go."""
        ...


class Target(Protocol):
    """Where it is moved to."""

    name: str

    async def reserve(self, origin: Origin) -> None:
        """Keep any server from making a log of its own there, while the source is looked through; LogError."""
        ...

    async def look(self, origin: Origin) -> tuple[Tally, bool]:
        """Return what is there: of a move that was not finished, and whether it was all the same.

        Raises:
            LogError: it cannot be used, or something else is there.
        """
        ...

    async def open(self, origin: Origin) -> None:
        """Begin, or go on behind what `look` found."""
        ...

    async def append(self, batches: Sequence[Batch]) -> None:
        """Write batches behind what is there, durably."""
        ...

    def batches(self) -> AsyncIterator[Batch]:
        """Yield what is there, read back."""
        ...

    async def finish(self, origin: Origin) -> None:
        """Make it a log that a server may start on; before, none does."""
        ...

    async def close(self) -> None:
        """Let go, whatever state it is in."""
        ...
