"""One segment as it is read while somebody may be writing to it, and how far it verifies."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final
from zlib import crc32

from minibrokerd.backups.manifest import Segment
from minibrokerd.backups.pace import Pace
from minibrokerd.log import format as layout
from minibrokerd.log.directory import SegmentName
from minibrokerd.log.fileops import FileOps
from minibrokerd.log.format import Kind, Origin, SegmentInfo
from minibrokerd.log.log_versions import FORMAT_VERSION

PIECE_BYTES: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class Head:
    """The first batch of a segment: which file it is, what came before, and a checksum of all of it."""

    origin: Origin
    number: int
    info: SegmentInfo
    checksum: int


@dataclass(slots=True)
class Copy:
    """What was read of a segment: whole batches up to `end`, the last of them `last`.

    `whole`: no later batch follows the end, so nothing is missing in between.
    """

    head: Head
    data: bytes
    end: int
    last: int
    last_checksum: int
    last_kind: Kind
    log_start: int
    epoch: int
    whole: bool = False

    def row(self, file: str, sha256: str) -> Segment:
        """Return the row of a manifest."""
        head, info = self.head, self.head.info
        origin = head.origin
        return Segment(
            file, origin.segment, origin.generation, info.segment_bytes, self.end, sha256, head.checksum,
            self.last, self.last_checksum, info.previous_number, info.previous_checksum, self.log_start,
            self.epoch,
        )  # fmt: skip


def head_of(data: bytes, name: SegmentName) -> Head | None:
    """Return the first batch; None: the file does not begin as the segment of this name."""
    header = layout.decode_header(data, 0)
    records = layout.decode_records(data, 0, header) if header else None
    if header is None or records is None or header.kind is not Kind.SEGMENT:
        return None
    info = layout.decode_segment_info(records)
    if info is None or info.format_version > FORMAT_VERSION:
        return None
    if (header.origin.segment, header.origin.generation) != (name.number, name.generation):
        return None
    return Head(header.origin, header.number, info, crc32(data[: header.batch_bytes]))


def read_head(path: str, name: SegmentName, ops: FileOps) -> Head | None:
    """Return the first batch of a file; None: it is gone, or does not begin as this segment."""
    try:
        descriptor = ops.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        return head_of(ops.read(descriptor, layout.OWN_BATCH_BYTES, 0), name)
    finally:
        ops.close(descriptor)


def copy_of(path: str, name: SegmentName, ops: FileOps, pace: Pace) -> Copy | None:
    """Read a segment as far as it goes; None: it is gone, or does not begin as this segment."""
    try:
        descriptor = ops.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        copy = scanned(_read(ops, descriptor, 0, pace), name)
        if copy is None:
            return None
        end = -1
        # A batch was in the middle of its write, and others came while the rest was read: there it is read again.
        while not copy.whole and copy.end > end:
            end = copy.end
            copy.data = copy.data[:end] + _read(ops, descriptor, end, pace)
            _scan(copy)
        return copy
    finally:
        ops.close(descriptor)


def scanned(data: bytes, name: SegmentName) -> Copy | None:
    """Return how far `data` is the segment of this name; None: it does not begin as that."""
    head = head_of(data, name)
    if head is None:
        return None
    copy = Copy(head, data, 0, head.number - 1, 0, Kind.SEGMENT, head.info.log_start, 0)
    _scan(copy)
    return copy


def _scan(copy: Copy) -> None:
    origin = copy.head.origin
    going = True
    while going:
        for found in layout.scan(copy.data, origin, copy.last + 1, copy.end):
            header = found.header
            copy.end = found.offset + header.batch_bytes
            copy.last, copy.last_checksum = header.number, header.heads_checksum
            copy.last_kind, copy.epoch = header.kind, header.epoch
            if header.kind is not Kind.DATA:
                info = layout.decode_segment_info(found.records)
                copy.log_start = max(copy.log_start, info.log_start if info else 0)
        going = _fill_hole(copy)
    copy.whole = layout.later_header_at(copy.data, copy.end, origin, copy.last + 1) is None


def _fill_hole(copy: Copy) -> bool:
    """Whether the next batch ends in zeros in a hole of the file, so that they were not read; now they are."""
    header = layout.decode_header(copy.data, copy.end)
    if header is None or header.number != copy.last + 1:
        return False
    end = copy.end + header.batch_bytes
    if not len(copy.data) < end <= copy.head.info.segment_bytes:
        return False
    copy.data += bytes(end - len(copy.data))
    return True


def _read(ops: FileOps, descriptor: int, start: int, pace: Pace) -> bytes:
    pieces = []
    end = ops.data_end(descriptor)
    while start < end:
        piece = ops.read(descriptor, min(PIECE_BYTES, end - start), start)
        if not piece:
            break
        pieces.append(piece)
        start += len(piece)
        pace.spend(len(piece))
    return b"".join(pieces)
