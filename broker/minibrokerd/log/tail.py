"""The end of the log, where the next batch goes: numbers, position, rotation to the next segment.

Used by one thread at a time: by `FileLog.start`, then by the writer thread. Every append is written
and synced before it returns; there is never a second unsynced batch.
"""

from __future__ import annotations

import os
from collections import deque
from dataclasses import dataclass, field, replace
from typing import Final
from zlib import crc32

from minibrokerd.log import format as layout
from minibrokerd.log.allocation import SLICE_BYTES, Allocation, zero_slice
from minibrokerd.log.directory import DataDirectory, SegmentName, State
from minibrokerd.log.fileops import FileOps, write_all, write_all_synced
from minibrokerd.log.format import Header, Kind, Origin, SegmentInfo
from minibrokerd.log.index import Region, Slice, encode_slice
from minibrokerd.log.log_versions import version_of
from minibrokerd.log.seam import BATCH_HEADER_BYTES

_NEXT_FROM: Final = 0.25  # how full a segment is when the one after it is allocated
_NEXT_WHOLE: Final = 0.9  # and when that one is zeroed to its end


@dataclass(slots=True)
class OpenSegment:
    """The segment that is written: its file, its size, the end of its batches and of its zeros."""

    name: SegmentName
    descriptor: int
    size_bytes: int
    position: int
    zeroed: int
    origin: Origin | None = None  # of its batches, once one was written
    data_stop: int = field(init=False)  # where data batches end: what is behind is the log's own

    def __post_init__(self) -> None:
        self.data_stop = self.size_bytes - layout.own_room(self.size_bytes)


@dataclass(frozen=True, slots=True)
class Sealed:
    """A segment that is full: its file, and the newest batch in it, by the engine's numbers."""

    name: SegmentName
    size_bytes: int
    upto: int


class Tail:
    """Appends batches to the newest segment and goes on in a new one when it is full.

    `last_number` is the newest synced batch on disk, `last_kind` its kind, `last_data` the newest one of
    data by the engine's number, `last_offset` where its records start. `sealed` are the full segments, oldest
    first. `region` is what of the current segment is in no index yet, `ended` the same of full ones.
    """

    def __init__(
        self, directory: DataDirectory, ops: FileOps, allocation: Allocation, store_id: bytes
    ) -> None:
        self.store_id = store_id
        self.epoch = 0
        self.log_start = 1
        self.format_version = 1  # of the current segment
        self._newest_type = layout.SEGMENT_RECORD  # the highest of the records appended so far
        self.last_number = 0
        self.last_safe = 0  # of those, the newest that a start finds: its segment has its name
        self.last_checksum = 0
        self.last_kind = Kind.FOOTER
        self.last_data = 0
        self.last_offset = 0
        self.sealed: deque[Sealed] = deque()
        self.sealed_bytes = 0  # of all these
        self.region = self._region(0, 0, 0)
        self.ended: dict[int, Region] = {}
        self._index_bytes: dict[int, int] = {}  # of the indexes written so far, by segment
        self.segment: OpenSegment | None = None
        self._directory = directory
        self._ops = ops
        self._allocation = allocation

    @property
    def room_bytes(self) -> int:
        """What data batches may still take of the current segment."""
        segment = self.segment
        return 0 if segment is None else segment.data_stop - segment.position

    def append(self, number: int, body: layout.Body, now_ms: int, unix_ms: int) -> None:
        """Write and sync one batch of data, which the engine calls `number`.

        Raises:
            OSError: it cannot be known what is on the disk; nothing may be appended any more.
        """
        if body.batch_bytes > self.room_bytes:
            self.begin_segment(now_ms, unix_ms, layout.segment_bytes_for(body.batch_bytes))
        self._write(Kind.DATA, body, now_ms, unix_ms)
        if body.newest_type > self._newest_type:
            self._newest_type = body.newest_type
        self.last_safe = self.last_number
        self.last_data = number
        assert self.segment is not None
        self.last_offset = self.segment.position - body.batch_bytes + BATCH_HEADER_BYTES

    def append_own(self, kind: Kind, now_ms: int, unix_ms: int) -> None:
        """Write and sync a header, marker or footer in the current segment, or in a new one."""
        segment = self.segment
        if segment is None or segment.position + layout.OWN_BATCH_BYTES > segment.size_bytes:
            self.begin_segment(now_ms, unix_ms)
            if kind is Kind.SEGMENT:
                return
        self._write(kind, self._own_body(), now_ms, unix_ms)
        self.last_safe = self.last_number

    def begin_segment(self, now_ms: int, unix_ms: int, least_bytes: int = 0) -> None:
        """Go on in a new segment: it is one once its header and its name are synced.

        It is larger than others where one record needs that: a copy of what was written when segments were larger.
        """
        full = self.segment
        number = full.name.number + 1 if full else 1
        size_bytes = max(self._allocation.segment_bytes, least_bytes)
        descriptor, zeroed = self._allocation.take(size_bytes)
        self.close()
        name = SegmentName(number, 1)
        if full is not None:
            self.ended[full.name.number] = self.region
        self.segment = OpenSegment(name, descriptor, size_bytes, 0, zeroed)
        self.region = self._region(0, 0, 0)
        self.format_version = max(self.format_version, version_of(self._newest_type))
        self._write(Kind.SEGMENT, self._own_body(), now_ms, unix_ms)
        self._ops.rename(self._directory.at("next.tmp"), self._directory.at(name))
        self._directory.sync()
        self.last_safe = self.last_number  # of a header without its name nobody knows
        self._directory.write_state(State(False, number))
        if full is not None:
            self.sealed.append(Sealed(full.name, full.size_bytes, self.last_data))
            self.sealed_bytes += full.size_bytes

    def free(self, upto: int, now_ms: int, unix_ms: int) -> None:
        """Let the log start behind the segments whose batches are `upto` or older, then recycle their files.

        The new start is synced first: until then a crash finds the log whole, and afterwards leftovers.
        """
        freed = [sealed for sealed in self.sealed if sealed.upto <= upto]
        if not freed:
            return
        self.log_start = freed[-1].name.number + 1
        self.append_own(Kind.MARKER, now_ms, unix_ms)
        for sealed in freed:
            self._allocation.recycle(str(sealed.name))
            self.forget_index(sealed.name)
            self.sealed.popleft()
            self.sealed_bytes -= sealed.size_bytes
        self._directory.sync()

    def adopt(self, region: Region, ended: dict[int, Region], indexes: dict[int, int]) -> None:
        """Take over what a start found: the bytes of the current segment, full ones without an index, indexes."""
        self.region, self.ended, self._index_bytes = region, ended, indexes

    def repeat_index(self, slices: list[Slice], checksum: int) -> None:
        """Write for a segment that was rewritten what the index of the old file says, as one slice.

        `checksum` is that of these bytes now. It is there until the engine tells what all of the segment says,
        which is longer and takes its place: a start that is killed before does not make the next one slow.
        """
        segment = self.segment
        assert segment is not None
        region = replace(slices[-1].region, start=0, checksum=checksum)
        payload = b"".join(part.payload for part in slices)
        self._keep(segment.name, region, payload, complete=False)
        if self._index_bytes[segment.name.number] > 0:
            self._index_bytes[segment.name.number] = 0

    def name_of(self, number: int) -> SegmentName | None:
        """Return the name of a segment; None if it is freed, or not known yet. In any thread."""
        segment = self.segment
        if segment is not None and segment.name.number == number:
            return segment.name
        return next((s.name for s in self.sealed.copy() if s.name.number == number), None)

    def keep_digest(self, number: int, payload: bytes) -> None:
        """Append a slice to the index of a segment: what was written of it since the last one.

        An index is a help and no more: where there is no room for it, there is none.
        """
        segment = self.segment
        assert segment is not None
        if number == segment.name.number:
            if not payload and self.region.start == self.region.stop:
                return
            self._keep(segment.name, self.region, payload, complete=False)
            self.region = self._region(segment.position, segment.position, 0)
        elif number in self.ended:
            name = self.name_of(number)
            if name is not None:
                self._keep(name, self.ended[number], payload, complete=True)
            del self.ended[number]

    def _keep(self, name: SegmentName, region: Region, payload: bytes, *, complete: bool) -> None:
        origin = Origin(self.store_id, name.number, name.generation)
        data = encode_slice(origin, Slice(region, complete, payload))
        at = self._index_bytes.get(name.number, 0)
        if at < 0:
            return
        try:
            descriptor = self._ops.open(self._directory.at(name.index), os.O_RDWR | os.O_CREAT)
            try:
                write_all(self._ops, descriptor, data, at)
            finally:
                self._ops.close(descriptor)
        except OSError:  # whatever it was, the segment has everything
            self._index_bytes[name.number] = -1
            return
        self._index_bytes[name.number] = at + len(data)

    def forget_index(self, name: SegmentName) -> None:
        """Remove the index of a segment, if it has one."""
        written_bytes = self._index_bytes.pop(name.number, 0)
        path = self._directory.at(name.index)
        # Where writing it failed there may be a part of one, or none.
        if written_bytes > 0 or (written_bytes < 0 and self._ops.exists(path)):
            self._ops.unlink(path)
        self.ended.pop(name.number, None)

    def _region(self, start: int, stop: int, checksum: int) -> Region:
        return Region(
            start,
            stop,
            checksum,
            self.last_number,
            self.last_checksum,
            self.epoch,
            self.log_start,
            0,
            self.last_kind,
        )

    def zero_ahead(self) -> bool:
        """Do one slice of the work ahead, if some is due: zeros here, then the next segment."""
        segment = self.segment
        if segment is None:
            return False
        segment.zeroed = max(segment.zeroed, segment.position)
        if segment.zeroed < min(segment.size_bytes, segment.position + SLICE_BYTES):
            segment.zeroed = zero_slice(
                self._ops, segment.descriptor, segment.zeroed, segment.size_bytes
            )
            return True
        fill = segment.position / segment.size_bytes
        if fill >= _NEXT_FROM and not self._allocation.next_ready and not self._allocation.failed:
            return self._allocation.prepare_next()
        return self._allocation.zero_next((fill - _NEXT_FROM) / (_NEXT_WHOLE - _NEXT_FROM))

    def close(self) -> None:
        """Close the file of the current segment."""
        if self.segment is not None:
            self._ops.close(self.segment.descriptor)
            self.segment = None

    def _own_body(self) -> layout.Body:
        assert self.segment is not None
        info = SegmentInfo(
            self.format_version,
            self.segment.size_bytes,
            self.log_start,
            self.last_number,
            self.last_checksum,
        )
        return layout.encode_body([info.record()])

    def _write(self, kind: Kind, body: layout.Body, now_ms: int, unix_ms: int) -> None:
        segment = self.segment
        assert segment is not None
        if segment.origin is None:
            name = segment.name
            segment.origin = Origin(self.store_id, name.number, name.generation)
        header = Header(
            segment.origin,
            self.last_number + 1,
            self.last_number,
            self.epoch,
            kind,
            body.body_bytes,
            body.record_count,
            body.heads_checksum,
            now_ms,
            unix_ms,
        )
        data = layout.encode_batch(header, body)
        write_all_synced(self._ops, segment.descriptor, data, segment.position)
        segment.position += len(data)
        self.last_number, self.last_checksum = header.number, header.heads_checksum
        self.last_kind = kind
        region = self.region
        region.stop, region.checksum = segment.position, crc32(data, region.checksum)
        region.last_number, region.last_checksum = header.number, header.heads_checksum
        region.epoch, region.log_start, region.kind = self.epoch, self.log_start, kind
        region.now_ms = max(region.now_ms, now_ms)
