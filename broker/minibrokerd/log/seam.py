"""The seam between the engine and whatever keeps the log: records, batches, and the `Log` protocol.

A batch is the unit of atomicity and of syncing: all of its records are there after a crash, or
none. One batch is under way at a time. Numbers of batches grow over the life of a data directory;
within a run the engine counts on from `Log.next_number`. The log's own batches (headers, markers,
footers) take numbers on disk too, so there they run ahead: no record may name one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import Enum
from typing import Protocol


class Record:
    """One outcome, as the core states it: a type, packed fields, raw bytes that travel unchanged.

    `tail` is empty except for records that carry message bodies. `tail_checksum` is crc32 of the
    tail (0 for an empty one); the session computed it when the bytes came in, so they are summed
    once.
    """

    __slots__ = ("meta", "tail", "tail_checksum", "type")

    def __init__(
        self, type: int, meta: bytes, tail: bytes | memoryview = b"", tail_checksum: int = 0
    ) -> None:
        self.type = type
        self.meta = meta
        self.tail = tail
        self.tail_checksum = tail_checksum

    def size(self) -> int:
        """Return the bytes of this record in a batch, its head included."""
        return RECORD_HEAD_BYTES + len(self.meta) + len(self.tail)


RECORD_HEAD_BYTES = 16
BATCH_HEADER_BYTES = 88


class Batch:
    """Records that are appended and synced together.

    `now_ms` is the log time and `unix_ms` the wall time at which the batch was closed.
    """

    __slots__ = ("now_ms", "number", "records", "unix_ms")

    def __init__(self, number: int, records: list[Record], now_ms: int, unix_ms: int) -> None:
        self.number = number
        self.records = records
        self.now_ms = now_ms
        self.unix_ms = unix_ms


class Room(Enum):
    """The answer of a log that is asked for room before the core applies a publish."""

    GRANTED = "granted"
    WAIT = "wait"  # allocation is under way; `on_room` is called when the answer may have changed
    REFUSED = "refused"  # allocation failed (a full disk): refuse the publish, it is retried later


class Log(Protocol):
    """What the engine needs of a log. All calls come from the event loop's thread.

    Life: construct; `recover()` to its end, once; `start(...)`; appends; `close(...)`.
    """

    max_batch_bytes: int  # of the records of one batch; the engine closes a batch before it
    epoch: int  # boot epoch; raised and synced by `start`
    store_id: bytes  # 16 random bytes, made with the directory
    now_ms: int  # after `recover`: the highest log time in the log, its own batches included
    next_number: int  # of the batch that is appended next; after `start`
    clean: bool  # after `recover`: the log ended with the footer of a clean stop, or is new

    @property
    def session_key(self) -> bytes:
        """32 random bytes for session secrets, kept beside the log; known after `recover`."""
        ...

    def recover(self) -> Iterator[Batch]:
        """Yield every batch of data, oldest first; reads and verifies, and writes nothing."""
        ...

    def start(
        self,
        now_ms: int,
        unix_ms: int,
        on_synced: Callable[[int], None],
        on_room: Callable[[], None],
        on_failed: Callable[[BaseException], None],
    ) -> None:
        """Make the log appendable under a new epoch, durably; blocks, before the port opens.

        The callbacks are called in the event loop's thread. `on_failed` is final: the log takes
        nothing more, and the process must end (a failed sync is never retried).
        """
        ...

    def append(self, batch: Batch) -> None:
        """Write and sync one batch; `on_synced(batch.number)` follows. One batch at a time."""
        ...

    def append_now(self, batch: Batch, wait_us: int, meanwhile: Callable[[], None]) -> bool:
        """As `append`, but wait up to `wait_us` for the sync, after a call of `meanwhile`.

        True: synced, and no `on_synced` follows.
        """
        ...

    def room_for(self, size_bytes: int, waiting_bytes: int = 0) -> Room:
        """Ask for room for a publish of `size_bytes` (record sizes), to be applied at once if GRANTED.

        `waiting_bytes` is what was applied before and not appended yet. The log keeps no count of its own: how
        much a publish takes, if anything, is known only when it was applied.
        """
        ...

    @property
    def disk_bytes(self) -> int:
        """The bytes of all segments, the reserve apart."""
        ...

    @property
    def segment_bytes(self) -> int:
        """The bytes of a new segment; 0: there are no segments."""
        ...

    @property
    def oldest_upto(self) -> int | None:
        """The newest batch in the oldest segment; None while that one is still written."""
        ...

    def free(self, upto: int, now_ms: int, unix_ms: int, done: Callable[[], None]) -> None:
        """Give up the segments whose batches are `upto` or older.

        Whatever in them is still needed stands in batches that are synced. `done` is called
        when they are gone.
        """
        ...

    def mark(self, now_ms: int, unix_ms: int) -> None:
        """Write the marker batch of an idle log: it names the last synced batch."""
        ...

    def close(self, now_ms: int, unix_ms: int) -> None:
        """Write the footer of a clean stop and sync it; blocks. Called with no batch under way."""
        ...
