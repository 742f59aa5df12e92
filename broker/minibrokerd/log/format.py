"""The bytes of the log: batch headers, record heads, and the linear scan that reads them back.

Pure: bytes in, values out. It opens no file and knows no clock, so every cut and every flipped bit
can be tried in memory. The layout is docs/architecture.md, section 5; this module is its only
reader and writer. Numbers are little-endian, batches start on 8-byte boundaries, zeros end a
segment.

Every byte is covered once: the header by its own checksum, the record heads by one in the header,
each payload by one in its head, and what is zero by definition is compared with zero.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from struct import Struct
from typing import Final
from zlib import crc32

import msgpack

from minibrokerd.log.log_versions import FORMAT_VERSION
from minibrokerd.log.seam import BATCH_HEADER_BYTES, RECORD_HEAD_BYTES, Record

MAGIC: Final = b"MBB1"
ALIGNMENT: Final = 8
SEGMENT_RECORD: Final = 1  # the record type of the log's own batches (section 6)
OWN_BATCH_BYTES: Final = 144  # an upper bound: header, head and a SEGMENT record, padded
LARGEST_SEGMENT_BYTES: Final = 1024 * 1024 * 1024
LARGEST_BATCH_BYTES: Final = 24 * 1024 * 1024  # of records; a frame of 16 MiB and what rides along

_HEADER: Final = Struct("<4sI16sQQIIIB3sIIIIQQ")
_CHECKED: Final = Struct("<16sQQIIIB3sIIIIQQ")  # of that, what its checksum covers
_RECORD: Final = Struct("<IIB3sI")
_CHECKED_FROM: Final = 8  # the header checksum covers what follows the magic and itself
_NO_BYTES: Final = bytes(3)
# Of each record type, in its checksum. The factor is odd, so no two are alike; and of those that were tried it is
# the one where no type below 64 has the crc of a lone bit in a record of up to 24 MiB.
_TYPE_MARKS: Final = tuple(type_ * 0xE6546B65 & 0xFFFFFFFF for type_ in range(256))
assert _HEADER.size == BATCH_HEADER_BYTES == _CHECKED_FROM + _CHECKED.size
assert _RECORD.size == RECORD_HEAD_BYTES


class Kind(IntEnum):
    """What a batch is for; all but DATA are the log's own and hold one SEGMENT record."""

    DATA = 0
    SEGMENT = 1
    MARKER = 2
    FOOTER = 3


@dataclass(frozen=True, slots=True)
class Origin:
    """Which file a batch belongs to; stale bytes of a recycled file carry another origin."""

    store_id: bytes
    segment: int
    generation: int


@dataclass(slots=True)  # not frozen: one is made per append, and a frozen one costs 1 us more
class Header:
    """The header of a batch, field for field (section 5); `heads_checksum` is its content."""

    origin: Origin
    number: int
    synced: int
    epoch: int
    kind: Kind
    body_bytes: int
    record_count: int
    heads_checksum: int
    now_ms: int
    unix_ms: int

    @property
    def batch_bytes(self) -> int:
        """The bytes of the whole batch in the file, header and padding included."""
        return padded(BATCH_HEADER_BYTES + self.body_bytes)


@dataclass(frozen=True, slots=True)
class SegmentInfo:
    """The fields of a SEGMENT record.

    `previous_number` and `previous_checksum` (of its record heads, so it outlives a rewrite) name
    the batch before: in another segment for the first batch of a segment, else in the same one.
    """

    format_version: int
    segment_bytes: int
    log_start: int
    previous_number: int
    previous_checksum: int
    log_id: int = 0

    def record(self) -> Record:
        """Return the record that states this."""
        fields = (
            self.format_version,
            self.segment_bytes,
            self.log_start,
            self.previous_number,
            self.previous_checksum,
            self.log_id,
        )
        return Record(SEGMENT_RECORD, msgpack.packb(fields))


@dataclass(frozen=True, slots=True)
class Found:
    """A batch that was read back and verified, and where in the segment it starts."""

    offset: int
    header: Header
    records: list[Record]


@dataclass(slots=True)
class Body:
    """Encoded records of one batch, ready to be put behind a header."""

    pieces: list[bytes | memoryview]
    body_bytes: int
    record_count: int
    heads_checksum: int
    newest_type: int  # the highest of its records
    batch_bytes: int  # of the whole batch in the file, header and padding included


def padded(size_bytes: int) -> int:
    """Return the next multiple of 8."""
    return (size_bytes + ALIGNMENT - 1) & -ALIGNMENT


def max_batch_bytes(segment_bytes: int) -> int:
    """Return how many bytes of records one batch may hold in segments of this size.

    A segment also holds its header, and room for the log's own batches at its end.
    """
    own = BATCH_HEADER_BYTES + ALIGNMENT + OWN_BATCH_BYTES + own_room(segment_bytes)
    return min(segment_bytes - own, LARGEST_BATCH_BYTES)


def segment_bytes_for(batch_bytes: int) -> int:
    """Return the size of a segment into which a batch of so many bytes fits."""
    return -(-(batch_bytes + OWN_BATCH_BYTES + 4 * OWN_BATCH_BYTES) // 4096) * 4096


def own_room(segment_bytes: int) -> int:
    """Return the bytes at the end of a segment that data may not use: markers and footers always
    fit.
    """
    return min(4 * OWN_BATCH_BYTES, segment_bytes // 4)


def encode_body(records: Sequence[Record]) -> Body:
    """Encode records; the checksum of a tail is taken from the record where it is known."""
    pieces: list[bytes | memoryview] = []
    body_bytes = heads_checksum = newest_type = 0
    for record in records:
        if record.type > newest_type:
            newest_type = record.type
        meta, tail = record.meta, record.tail
        meta_bytes = len(meta)
        payload_bytes = meta_bytes + len(tail)
        tail_checksum = record.tail_checksum
        if tail_checksum is None:
            tail_checksum = crc32(tail)
        checksum = crc32(meta, tail_checksum) ^ _TYPE_MARKS[record.type]
        head = _RECORD.pack(payload_bytes, meta_bytes, record.type, _NO_BYTES, checksum)
        heads_checksum = crc32(head, heads_checksum)
        pieces += (head, meta, tail)
        body_bytes += RECORD_HEAD_BYTES + payload_bytes
    batch_bytes = (BATCH_HEADER_BYTES + body_bytes + ALIGNMENT - 1) & -ALIGNMENT  # as `padded`
    return Body(pieces, body_bytes, len(records), heads_checksum, newest_type, batch_bytes)


def encode_header(header: Header) -> bytes:
    """Return the 88 bytes of a batch header."""
    origin = header.origin
    checked = _CHECKED.pack(
        origin.store_id,
        header.number,
        header.synced,
        header.epoch,
        origin.segment,
        origin.generation,
        header.kind,
        _NO_BYTES,
        header.body_bytes,
        header.record_count,
        header.heads_checksum,
        0,
        header.now_ms,
        header.unix_ms,
    )
    return MAGIC + crc32(checked).to_bytes(4, "little") + checked


def encode_batch(header: Header, body: Body) -> bytes:
    """Return the bytes of a whole batch, padding included."""
    padding = bytes(body.batch_bytes - BATCH_HEADER_BYTES - body.body_bytes)
    return b"".join((encode_header(header), *body.pieces, padding))


def encode_moved(data: bytes, end: int, origin: Origin) -> Iterator[bytes]:
    """Yield the batches of `data` up to `end` as they stand in another file: same content, new
    origin.
    """
    for offset, header in headers(data, end):
        body = data[offset + BATCH_HEADER_BYTES : offset + header.batch_bytes]
        yield encode_header(replace(header, origin=origin)) + body


def decode_header(data: bytes, offset: int) -> Header | None:
    """Return the batch header at `offset`; None if there is none whose checksum holds."""
    if len(data) - offset < BATCH_HEADER_BYTES or data[offset : offset + 4] != MAGIC:
        return None
    (_, checksum, store_id, number, synced, epoch, segment, generation, kind, no_bytes, *rest) = (
        _HEADER.unpack_from(data, offset)
    )
    body_bytes, record_count, heads_checksum, zero, now_ms, unix_ms = rest
    checked = memoryview(data)[offset + _CHECKED_FROM : offset + BATCH_HEADER_BYTES]
    if crc32(checked) != checksum or no_bytes != _NO_BYTES or zero or kind > Kind.FOOTER:
        return None
    return Header(
        Origin(store_id, segment, generation),
        number,
        synced,
        epoch,
        Kind(kind),
        body_bytes,
        record_count,
        heads_checksum,
        now_ms,
        unix_ms,
    )


def decode_records(data: bytes, offset: int, header: Header) -> list[Record] | None:
    """Return the records of the batch at `offset`; None if a byte of them or of the padding is
    wrong.
    """
    at = offset + BATCH_HEADER_BYTES
    end = at + header.body_bytes
    batch_end = offset + header.batch_bytes
    if batch_end > len(data) or any(data[end:batch_end]):
        return None
    view = memoryview(data)
    records: list[Record] = []
    heads_checksum = 0
    while end - at >= RECORD_HEAD_BYTES:
        payload_bytes, meta_bytes, type_, no_bytes, checksum = _RECORD.unpack_from(data, at)
        heads_checksum = crc32(view[at : at + RECORD_HEAD_BYTES], heads_checksum)
        meta_from = at + RECORD_HEAD_BYTES
        at = meta_from + payload_bytes
        if at > end or meta_bytes > payload_bytes or no_bytes != _NO_BYTES:
            return None
        meta, tail = data[meta_from : meta_from + meta_bytes], data[meta_from + meta_bytes : at]
        tail_checksum = crc32(tail)
        if not _holds(checksum, type_, meta, tail_checksum):
            return None
        records.append(Record(type_, meta, tail, tail_checksum))
    if (at, len(records), heads_checksum) != (end, header.record_count, header.heads_checksum):
        return None
    return records


def record_size(data: bytes) -> int:
    """Return the bytes of the record that `data` begins with, as its head says; not verified."""
    if len(data) < RECORD_HEAD_BYTES:
        return RECORD_HEAD_BYTES
    return RECORD_HEAD_BYTES + int.from_bytes(data[:4], "little")


def record_at(data: bytes, at: int, end: int) -> tuple[Record, bool, int] | None:
    """Return the one record at `at`, whether its own checksum holds, and where it ends.

    None: its head names no bytes, or more than there are up to `end`.
    """
    meta_from = at + RECORD_HEAD_BYTES
    if end < meta_from:
        return None
    payload_bytes, meta_bytes, type_, no_bytes, checksum = _RECORD.unpack_from(data, at)
    stop = meta_from + payload_bytes
    if not payload_bytes or stop > end or meta_bytes > payload_bytes:
        return None
    meta, tail = data[meta_from : meta_from + meta_bytes], data[meta_from + meta_bytes : stop]
    tail_checksum = crc32(tail)
    holds = _holds(checksum, type_, meta, tail_checksum) and no_bytes == _NO_BYTES
    return Record(type_, meta, tail, tail_checksum), holds, stop


def _holds(checksum: int, type_: int, meta: bytes, tail_checksum: int) -> bool:
    """Whether a record is as it was written.

    Logs of 0.1.0 do not cover the type, and are told by that. No single bit that turns makes one of the other:
    no type in use is 0, and the marks are nothing that a flipped bit adds to a crc (tests/log/test_log_format.py).
    """
    plain = crc32(meta, tail_checksum)
    return checksum in (plain ^ _TYPE_MARKS[type_], plain)


def decode_record(data: bytes, offset: int) -> Record | None:
    """Return the one record at `offset`, by its own checksum; None if it does not verify."""
    found = record_at(data, offset, len(data))
    return found[0] if found is not None and found[1] else None


def decode_segment_info(records: Sequence[Record]) -> SegmentInfo | None:
    """Return what a batch of the log itself states; None if it is not of a known shape.

    Of a newer format only the version is read; the other fields are zero.
    """
    if len(records) != 1:
        return None
    record = records[0]
    try:
        fields = msgpack.unpackb(record.meta, use_list=False)
    except ValueError:  # every error of unpackb on bytes that are no msgpack is one
        return None
    if record.type != SEGMENT_RECORD or not isinstance(fields, tuple) or not fields:
        return None
    if not all(type(field) is int for field in fields[:1]):
        return None
    if fields[0] > FORMAT_VERSION:
        return SegmentInfo(fields[0], 0, 0, 0, 0)
    if len(fields) != 6 or not all(type(field) is int for field in fields):
        return None
    return SegmentInfo(*fields)


def scan(data: bytes, origin: Origin, first_number: int, offset: int = 0) -> Iterator[Found]:
    """Yield the batches of a segment from `offset` on, up to the first bytes that are not the next
    one.
    """
    number = first_number
    while True:
        header = decode_header(data, offset)
        if header is None or header.origin != origin or header.number != number:
            return
        records = decode_records(data, offset, header)
        if records is None:
            return
        yield Found(offset, header, records)
        offset += header.batch_bytes
        number += 1


def headers(data: bytes, end: int, offset: int = 0) -> Iterator[tuple[int, Header]]:
    """Yield offset and header of the batches up to `end`, without looking at their records."""
    while offset < end and (header := decode_header(data, offset)) is not None:
        yield offset, header
        offset += header.batch_bytes


def last_nonzero(data: bytes, start: int) -> int:
    """Return the offset just behind the last byte from `start` on that is not zero, or `start`."""
    block = len(_ZEROS)
    end = len(data)
    while end > start:
        begin = max(start, end - block)
        piece = data[begin:end]
        if piece != _ZEROS[: end - begin]:
            return begin + len(piece.rstrip(b"\0"))
        end = begin
    return start


def later_header(data: bytes, start: int, origin: Origin | None, number: int) -> Header | None:
    """Return a valid header of this origin (None: any) from `start` on that is numbered above
    `number`.

    Such a batch was written after the sync of `number` had returned: a bad batch before it is
    damage.
    """
    at = later_header_at(data, start, origin, number)
    return None if at is None else decode_header(data, at)


def later_header_at(data: bytes, start: int, origin: Origin | None, number: int) -> int | None:
    """As `later_header`, but return where it is."""
    at = data.find(MAGIC, start)
    while at >= 0:
        if at % ALIGNMENT == 0:
            header = decode_header(data, at)
            if header and origin in (None, header.origin) and header.number > number:
                return at
        at = data.find(MAGIC, at + 1)
    return None


_ZEROS: Final = bytes(64 * 1024)
