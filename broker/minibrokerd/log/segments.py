"""The segment store of a file log: what there is beside the log in its directory, and only there.

It works on what `FileLog` works on, and has the same writer; what that appends is not its business.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Final
from zlib import crc32

from minibrokerd.log.allocation import Allocation
from minibrokerd.log.directory import DataDirectory, SegmentName
from minibrokerd.log.failures import DamagedLog
from minibrokerd.log.fileops import FileOps
from minibrokerd.log.format import ALIGNMENT, Kind
from minibrokerd.log.index import Region
from minibrokerd.log.reader import read_bytes, read_records
from minibrokerd.log.recovery import Recovery
from minibrokerd.log.seam import BATCH_HEADER_BYTES, RESERVE_SEGMENTS, Record
from minibrokerd.log.tail import Tail
from minibrokerd.log.watch import Watch
from minibrokerd.log.writer import Job, JobRunner

# A grant may need a batch of its own.
BATCH_OVERHEAD_BYTES: Final = BATCH_HEADER_BYTES + ALIGNMENT
_KEPT_FOR_START: Final = 1
_KEPT_FOR_COPIES: Final = 1
_STRETCH_BYTES: Final = 1024 * 1024  # read at once by the scrub


class Segments:
    """See `minibrokerd.log.seam.SegmentStore` for what each call means."""

    def __init__(
        self,
        directory: DataDirectory,
        ops: FileOps,
        recovery: Recovery,
        allocation: Allocation,
        tail: Tail,
        most_batch_bytes: int,
    ) -> None:
        self._directory = directory
        self._ops = ops
        self._recovery = recovery
        self._allocation = allocation
        self._tail = tail
        self._most_batch_bytes = most_batch_bytes
        self.writer: JobRunner | None = None  # while the log is led
        self.under_way_bytes = 0  # of the batch that is being written; 0: none is
        self._watch = Watch(directory, tail)
        self._looked = threading.Event()  # a look is not asked for twice
        self._looked.set()

    @property
    def reserve_segments(self) -> int:
        """How many segments acks may still use when the disk is full (three when all is well)."""
        return self._allocation.expected_count

    @property
    def lacks_space(self) -> bool:
        """Whether the reserve is not whole, or the disk was full when it was last asked."""
        made = self._allocation
        return made.failed is not None or len(made.reserve) + len(made.leftovers) < RESERVE_SEGMENTS

    @property
    def rest_bytes(self) -> int:
        """What one more batch of records may take of the segment that is written."""
        return self._tail.room_bytes - self.under_way_bytes - BATCH_OVERHEAD_BYTES

    def last_room_for(self, size_bytes: int, *, copies: bool) -> bool:
        """Whether records of so many bytes leave alone what is kept of the reserve.

        Of several segments, half may stay empty at the end, where a batch is too large for the rest.
        """
        kept = _KEPT_FOR_START if copies else _KEPT_FOR_START + _KEPT_FOR_COPIES
        spare = self.reserve_segments + self._allocation.next_ready - kept
        if spare < 0 and not copies:
            return False  # the segment that is written is the one that was kept for copies
        more_bytes = (spare + 1) * self._most_batch_bytes // 2 if spare > 0 else 0
        more_bytes -= self.under_way_bytes + BATCH_OVERHEAD_BYTES
        return size_bytes <= max(self.rest_bytes, more_bytes)

    def keep_digest(self, segment: int, payload: bytes) -> None:
        """Have the side index of a segment go on with this."""
        job = Job(lambda: self._tail.keep_digest(segment, payload), None)
        job.expect_callback()
        self.put(job)

    def read_one(self, segment: int, offset: int) -> Record:
        """Read back one record that a start needs.

        Raises:
            DamagedLog: it does not verify.
        """
        path = self._directory.at(self.name_of(segment))
        record = read_records(self._ops, path, [offset])[0]
        if record is None:
            raise DamagedLog(path, offset, 0, 0, "a record that is needed does not verify")
        return record

    def scrub(self) -> Iterator[DamagedLog | None]:
        """Read what the start took on trust, one stretch at a time; yield what is wrong with it."""
        for name, region in self._recovery.unread:
            if self._tail.name_of(name.number) == name:
                yield self._compare(name, region)

    def _compare(self, name: SegmentName, region: Region) -> DamagedLog | None:
        path, checksum, at = self._directory.at(name), 0, region.start
        try:
            while at < region.stop:
                size_bytes = min(_STRETCH_BYTES, region.stop - at)
                data = read_bytes(self._ops, path, at, size_bytes)
                checksum, at = crc32(data, checksum), at + size_bytes
        except FileNotFoundError:  # it was freed meanwhile
            return None
        except OSError as exc:
            return DamagedLog(path, at, region.last_number, 0, f"it cannot be read: {exc}")
        if checksum == region.checksum:
            return None
        what = f"bytes {region.start} to {region.stop} are not as they were written"
        return DamagedLog(path, region.start, region.last_number, 0, what)

    def mark(self, now_ms: int, unix_ms: int) -> None:
        """Name the last synced batch in a marker, unless a batch of the log itself does already."""
        if not self.under_way_bytes:
            self.put(Job(lambda: self._mark(now_ms, unix_ms), None))

    def look(self) -> None:
        """Have the writer look whether the data directory is still there; it is a failed write if not."""
        if self.writer is None:
            return
        self.writer.look()
        if self._looked.is_set():
            self._looked.clear()
            self.put(Job(self._look, None))

    def _look(self) -> None:
        self._watch.look()
        self._looked.set()

    def _mark(self, now_ms: int, unix_ms: int) -> None:
        if self._tail.last_kind is Kind.DATA:
            self._tail.append_own(Kind.MARKER, now_ms, unix_ms)

    def put(self, job: Job) -> None:
        """Have a job done by the writer."""
        assert self.writer is not None, "not led"
        self.writer.put(job)

    def name_of(self, segment: int) -> SegmentName:
        """Return the name of a segment that a place names."""
        return self._tail.name_of(segment) or self._recovery.names[segment]
