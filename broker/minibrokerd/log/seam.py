"""The seam between the engine and whatever keeps the log: records, batches, `Log` and `SegmentStore`.

A batch is the unit of atomicity and of syncing: all of its records are there after a crash, or
none. One batch is under way at a time. Numbers of batches grow over the life of a data directory;
within a run the engine counts on from `Log.next_number`. The log's own batches (headers, markers,
footers) take numbers on disk too, so there they run ahead: no record may name one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from enum import Enum
from typing import NamedTuple, Protocol

from minibrokerd.log.failures import LogError
from minibrokerd.log.sizes import Sizes

Meanwhile = Callable[[], Callable[[], None] | None]  # see `Log.append`


def nothing() -> None:
    """What there is to do meanwhile: nothing."""


class Tail(Protocol):
    """Raw bytes of a record that somebody else keeps; they never change."""

    @property
    def tail(self) -> bytes | memoryview:
        """The bytes."""
        ...

    @property
    def checksum(self) -> int:
        """Their crc32."""
        ...

    def placed(self, place: int) -> None:
        """Learn where the record stands, once it is safe."""
        ...


class Record:
    """One outcome, as the core states it: a type, packed fields, raw bytes that travel unchanged.

    `tail` is empty except for records that carry message bodies or runs. `tail_checksum` is its crc32 if that was
    computed when the bytes came in, so that they are summed once (None: the log sums them). `says` is what `meta`
    was packed from, for whoever digests the batch (None: decode it). Bodies come with their `extent`, which has
    tail and checksum. `size_bytes` are those of the record in a batch, its head included.
    """

    __slots__ = ("extent", "meta", "says", "size_bytes", "tail", "tail_checksum", "type")

    def __init__(
        self,
        type: int,
        meta: bytes,
        tail: bytes | memoryview = b"",
        tail_checksum: int | None = None,
        says: object = None,
        extent: Tail | None = None,
    ) -> None:
        self.type = type
        self.meta = meta
        self.says = says
        self.extent = extent
        if extent is not None:
            tail, tail_checksum = extent.tail, extent.checksum
        self.tail = tail
        self.tail_checksum = tail_checksum
        self.size_bytes = RECORD_HEAD_BYTES + len(meta) + len(tail)


RECORD_HEAD_BYTES = 16
BATCH_HEADER_BYTES = 88
RESERVE_SEGMENTS = 3  # never used for publishes


class Batch:
    """Records that are appended and synced together.

    `now_ms` is the log time and `unix_ms` the wall time at which the batch was closed. `place` says
    where the first record of a batch that was read back stands.
    """

    __slots__ = ("now_ms", "number", "place", "records", "unix_ms")

    def __init__(
        self,
        number: int,
        records: list[Record],
        now_ms: int,
        unix_ms: int,
        place: Place | None = None,
    ) -> None:
        self.number = number
        self.records = records
        self.now_ms = now_ms
        self.unix_ms = unix_ms
        self.place = place


class Place(NamedTuple):
    """Where a record stands: the number of its segment, and the byte at which its head starts there."""

    segment: int
    offset: int


class Digested(NamedTuple):
    """What batches up to `number` say, without their bodies: a part of a side index, instead of these batches.

    `payload` is what the engine gave to `SegmentStore.keep_digest`. Bodies stand in `segment`, and are read when
    they are needed. `complete`: the index says all that is in the segment.
    """

    segment: int
    number: int
    now_ms: int
    payload: bytes
    complete: bool

    def __str__(self) -> str:
        return f"the side index of segment {self.segment}"


class Room(Enum):
    """The answer of a log that is asked for room before the core applies a publish."""

    GRANTED = "granted"
    WAIT = "wait"  # allocation is under way; `on_room` is called when the answer may have changed
    REFUSED = "refused"  # allocation failed (a full disk): refuse the publish, it is retried later


class Elsewhere(Exception):
    """This machine does not have the records that were asked for, or not as they were written; the log has.

    `fetch`, called in the event loop, brings them, with None for what does not verify there either. It takes as
    long as that takes, and may be cancelled.
    """

    def __init__(self, fetch: Callable[[], Awaitable[list[Record | None]]]) -> None:
        super().__init__("they are elsewhere")
        self.fetch = fetch


class GivenUp(Exception):
    """The segment was trimmed since a place in it was named: what lives of it stands elsewhere."""

    def __init__(self, segment: int) -> None:
        super().__init__(f"segment {segment} was given up")


class Leadership(Protocol):
    """Whether another process may lead the log by now, without that this one has heard of it."""

    is_watched: Callable[
        [], bool
    ]  # asked by the log: whether anybody goes by what this broker says
    on_news: Callable[[], object]  # called when it may have changed

    @property
    def renew(self) -> Callable[[], object]:
        """Called to find out soon; `on_news` follows."""
        ...

    @property
    def is_over(self) -> bool:
        """Whether nothing may be handed out any more, until it is known that this process still leads."""
        ...


class Log(Protocol):
    """What the engine needs of a log, of whatever kind. All calls come from the event loop's thread.

    Life: construct; `recover()` to its end, once; `lead(...)`; appends; `close(...)`. What names a segment means a
    stretch of the log that is given up as a whole: where the log is files, each is one.
    """

    sizes: Sizes  # what a batch, an apply, a frame and a message may have
    epoch: int  # of whoever leads; raised by `lead`, durably
    store_id: bytes  # 16 random bytes, made with the log
    now_ms: int  # after `recover`: the highest log time in the log, its own batches included
    next_number: int  # of the batch that is appended next; after `lead`
    clean: bool  # after `recover`: the log ended with a clean stop, or is new

    @property
    def segments(self) -> SegmentStore | None:
        """The directory that the log has for itself, if it has one."""
        ...

    @property
    def leadership(self) -> Leadership | None:
        """How long this process may act as the one that leads; None: nobody else can."""
        ...

    @property
    def session_key(self) -> bytes:
        """32 random bytes for session secrets, kept beside the log; known after `recover`."""
        ...

    @property
    def recovered_percent(self) -> int:
        """How much of the log `recover` has read."""
        ...

    def recover(self) -> Iterator[Batch | Digested | None]:
        """Yield every batch of data, or digests instead of some, oldest first; writes nothing.

        None: nothing is there yet, and whoever starts may look whether to go on.

        Batches that are digested are not verified one by one, except in the newest segment.
        """
        ...

    def lead(
        self,
        now_ms: int,
        unix_ms: int,
        on_synced: Callable[[int], None],
        on_room: Callable[[], None],
        on_failed: Callable[[BaseException], None],
    ) -> None:
        """Be the one that appends from here on, under a new epoch, durably; blocks, before the port opens.

        The callbacks are called in the event loop's thread. `on_failed` is final: the log takes
        nothing more, and the process must end (a failed sync is never retried).

        Raises:
            LogError: this log cannot be led; nothing is called back.
        """
        ...

    def append(
        self,
        batch: Batch,
        expected: int,
        wait_us: int = 0,
        meanwhile: Meanwhile = nothing,
        *,
        is_small: bool = False,
    ) -> bool:
        """Write and sync one batch behind the batch `expected`; `on_synced(batch.number)` follows. One at a time.

        `expected` is the number of the batch that this process appended last, at first `next_number - 1`.
        A log that ends with another one has another leader: nothing is written, and `on_failed(Deposed)` follows.

        A log that is quick may wait for the sync, up to `wait_us`, after a call of `meanwhile`. True: synced, and
        no `on_synced` follows. What `meanwhile` returned may have been called then, by the thread that synced:
        this thread was waiting. A batch that `is_small`, while little else happens, it may write and sync in this
        thread; then it waits for the sync however long that takes.
        """
        ...

    def room_for(self, size_bytes: int) -> Room:
        """Whether records of so many bytes have room: those of a publish, and all that were not appended yet.

        Nothing is noted: it is asked again with what has become of the records by then.
        """
        ...

    @property
    def last_place(self) -> Place | None:
        """Where the first record of the newest synced batch stands; None: it cannot be read back."""
        ...

    def read(self, segment: int, offsets: Sequence[int]) -> list[Record | None]:
        """Return the records that start at these ascending offsets; None for one that does not verify.

        Blocks for a disk, never for a network, and may be called in any thread.

        Raises:
            Elsewhere: this machine does not have all of them.
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

    def trim(self, upto: int, now_ms: int, unix_ms: int, done: Callable[[], None]) -> None:
        """Give up the segments whose batches are `upto` or older, once the log says durably that it starts later.

        Whatever in them is still needed stands in batches that are synced. `done` is called
        when they are gone.
        """
        ...

    def close(self, now_ms: int, unix_ms: int) -> None:
        """Say durably that this was a clean stop; blocks. Called with no batch under way."""
        ...


class Reserve(Protocol):
    """What is kept of a disk for settlements, for copies and for a start, when publishes find it full."""

    @property
    def reserve_segments(self) -> int:
        """How many segments are left that publishes may not use: three when all is well."""
        ...

    @property
    def lacks_space(self) -> bool:
        """Whether the reserve is not whole, or the disk was full when it was last asked."""
        ...

    @property
    def rest_bytes(self) -> int:
        """What one more batch of records may take of the segment that is written; may be negative."""
        ...

    def last_room_for(self, size_bytes: int, *, copies: bool) -> bool:
        """Whether records of so many bytes leave alone what is kept of the reserve.

        That is one segment for a start, which writes the newest one again; and one for copies, unless it is copies
        that are to be written: settlements that took it would be the last ones, for nothing could be freed.
        """
        ...


class SegmentStore(Reserve, Protocol):
    """A directory of segments, beside the log that is in it. Calls as those of `Log`."""

    def keep_digest(self, segment: int, payload: bytes) -> None:
        """Keep what the batches of `segment` say that were synced since the last call for it.

        It spares the next start reading them. It is not synced, and may be lost or refused (a full disk).
        """
        ...

    def read_one(self, segment: int, offset: int) -> Record:
        """Return one record that a start needs; raises `LogError` if it does not verify."""
        ...

    def scrub(self) -> Iterator[LogError | None]:
        """Verify what `recover` did not, a stretch at each step; yield what is wrong with it.

        A step blocks for a while, and may be done in any thread, one after the other.
        """
        ...

    def mark(self, now_ms: int, unix_ms: int) -> None:
        """Write the marker batch of an idle log: it names the last synced batch."""
        ...

    def look(self) -> None:
        """Look whether the log is still where a start would find it; `on_failed` follows if not."""
        ...
