"""A segment that may be damaged, as pieces: whole batches, and what is left of the others.

Pure: bytes in, values out. Recovery stops at the first bytes that do not verify; a check and a salvage go on.
Where the header of a batch holds, its size is certain, so the next batch is found behind it. Where it does not,
the next one is looked for on the 8-byte boundaries. A message may hold the bytes of an older log: a header counts
only if it is of this file and numbered above the batch that is missing, so it was written after that one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from zlib import crc32

from minibrokerd.log import format as layout
from minibrokerd.log.format import Header, Origin
from minibrokerd.log.seam import BATCH_HEADER_BYTES, RECORD_HEAD_BYTES, Record

_NO_BYTES: Final = bytes(3)


@dataclass(frozen=True, slots=True)
class Found:
    """A record of a damaged batch: whether its own checksum holds, and the bytes it stands in."""

    record: Record
    holds: bool
    end: int


@dataclass(frozen=True, slots=True)
class Piece:
    """The bytes from `start` to `end`: a whole batch, or one that does not verify.

    `header` is None if that does not hold. `records` are those whose own checksum holds, `broken` those of which
    only the place is known. `typed`: their heads hold too, so that their types are certain.
    """

    start: int
    end: int
    header: Header | None
    records: list[Record]
    broken: list[Record]
    whole: bool
    typed: bool


def pieces(data: bytes, origin: Origin) -> Iterator[Piece]:
    """Yield what stands in a segment file of this origin, from its first byte to its last that is not zero."""
    at, number = 0, 0
    while True:
        header = layout.decode_header(data, at)
        if header is not None and header.origin == origin and header.number > number:
            yield _batch(data, at, header)
            at, number = at + header.batch_bytes, header.number
            continue
        following = layout.later_header_at(data, at, origin, number + 1 if number else 0)
        end = following if following is not None else layout.last_nonzero(data, at)
        if end > at:
            yield _headless(data, at, end)
        if following is None:
            return
        at = following


def _batch(data: bytes, at: int, header: Header) -> Piece:
    records = layout.decode_records(data, at, header)
    end = min(at + header.batch_bytes, len(data))
    if records is not None:
        return Piece(at, end, header, records, [], True, True)
    stop = min(at + BATCH_HEADER_BYTES + header.body_bytes, len(data))
    found = _records(data, at + BATCH_HEADER_BYTES, stop, header.record_count)
    typed = _heads_hold(data, at + BATCH_HEADER_BYTES, stop, header)
    return _piece(at, end, header, found, typed)


def _headless(data: bytes, at: int, end: int) -> Piece:
    found = _records(data, at + BATCH_HEADER_BYTES, end, None)
    # Without a header nothing says where records end, so bytes that are no record are not counted as one.
    while found and not found[-1].holds:
        found.pop()
    return _piece(at, end, None, found, typed=False)


def _piece(at: int, end: int, header: Header | None, found: list[Found], typed: bool) -> Piece:
    good = [each.record for each in found if each.holds]
    bad = [each.record for each in found if not each.holds]
    return Piece(at, end, header, good, bad, False, typed)


def _heads_hold(data: bytes, at: int, end: int, header: Header) -> bool:
    checksum = count = 0
    while end - at >= RECORD_HEAD_BYTES:
        checksum = crc32(data[at : at + RECORD_HEAD_BYTES], checksum)
        at += RECORD_HEAD_BYTES + int.from_bytes(data[at : at + 4], "little")
        count += 1
    return (at, count, checksum) == (end, header.record_count, header.heads_checksum)


def _records(data: bytes, at: int, end: int, count: int | None) -> list[Found]:
    """Return the records from `at` on: behind one that does not hold, those that follow by its size, or, where
    that is wrong and the header says how many there are, those that fill the batch to its end.
    """
    found: list[Found] = []
    while end - at >= RECORD_HEAD_BYTES:
        record = _record_at(data, at, end)
        if record is None:
            return found + (_fill(data, at, end, count - len(found) - 1) if count else [])
        if not record.holds and record.end != end:
            following = _record_at(data, record.end, end)
            if following is None or not following.holds:
                rest = _fill(data, at, end, count - len(found) - 1) if count else []
                if rest:
                    return [*found, record, *rest]
        found.append(record)
        at = record.end
    return found


def _record_at(data: bytes, at: int, end: int) -> Found | None:
    """Return the record whose head is at `at`; None if that names more bytes than there are."""
    found = layout.record_at(data, at, end)
    return None if found is None else Found(*found)


def _fill(data: bytes, start: int, end: int, count: int) -> list[Found]:
    """Return the last `count` records of a batch: they hold, one behind the other, up to its end exactly.

    The number is what keeps a message that looks like a record from being taken for one.
    """
    for at in range(start + 1, end - RECORD_HEAD_BYTES + 1) if count > 0 else ():
        if data[at + 9 : at + 12] != _NO_BYTES:
            continue
        chain = _chain(data, at, end, count)
        if chain is not None:
            return chain
    return []


def _chain(data: bytes, at: int, end: int, count: int) -> list[Found] | None:
    chain: list[Found] = []
    while len(chain) < count:
        record = _record_at(data, at, end)
        if record is None or not record.holds:
            return None
        chain.append(record)
        at = record.end
    return chain if at == end else None
