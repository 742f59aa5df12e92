"""The bytes of a batch (docs/architecture.md, section 5), in memory: written, cut, flipped."""

from __future__ import annotations

import pytest
from log_world import NOW_MS, UNIX_MS, record

from minibrokerd.log import format as layout
from minibrokerd.log.format import Header, Kind, Origin, SegmentInfo
from minibrokerd.log.seam import BATCH_HEADER_BYTES, Record

STORE = bytes(range(16))
ORIGIN = Origin(STORE, 2, 1)

# Written by hand from the tables of the page: batch 7 of segment 2, one record of type 4 with the
# meta [42] and the tail "hello", one byte of padding.
GOLDEN = bytes.fromhex(
    "4d 42 42 31 77 c6 19 6a 00 01 02 03 04 05 06 07"
    "08 09 0a 0b 0c 0d 0e 0f 07 00 00 00 00 00 00 00"
    "06 00 00 00 00 00 00 00 03 00 00 00 02 00 00 00"
    "01 00 00 00 00 00 00 00 17 00 00 00 01 00 00 00"
    "c2 03 7e 3a 00 00 00 00 e8 03 00 00 00 00 00 00"
    "00 68 e5 cf 8b 01 00 00 07 00 00 00 02 00 00 00"
    "04 00 00 00 e6 c2 05 39 91 2a 68 65 6c 6c 6f 00"
)


def batch(number: int, records: list[Record], origin: Origin = ORIGIN) -> bytes:
    """Return the bytes of a data batch."""
    body = layout.encode_body(records)
    sizes = (body.body_bytes, body.record_count, body.heads_checksum)
    header = Header(origin, number, number - 1, 3, Kind.DATA, *sizes, NOW_MS, UNIX_MS)
    return layout.encode_batch(header, body)


def tails(data: bytes, first_number: int = 7) -> list[list[bytes]]:
    """Return what a scan finds."""
    found = layout.scan(data, ORIGIN, first_number)
    return [[bytes(record.tail) for record in item.records] for item in found]


def test_a_batch_is_written_as_the_page_says() -> None:
    assert batch(7, [record(b"hello", meta=b"\x91\x2a")]) == GOLDEN


def test_the_golden_batch_is_read_back() -> None:
    (found,) = layout.scan(GOLDEN, ORIGIN, 7)
    header = found.header
    assert (header.number, header.synced, header.epoch, header.kind) == (7, 6, 3, Kind.DATA)
    assert (header.now_ms, header.unix_ms) == (1000, 1_700_000_000_000)
    (only,) = found.records
    assert (only.type, only.meta, only.tail) == (4, b"\x91\x2a", b"hello")
    assert only.tail_checksum == record(b"hello").tail_checksum


def test_every_flipped_bit_of_a_batch_is_seen() -> None:
    """Padding and the zeros of the headers too."""
    for bit in range(len(GOLDEN) * 8):
        flipped = bytearray(GOLDEN)
        flipped[bit // 8] ^= 1 << bit % 8
        assert tails(bytes(flipped)) == [], f"bit {bit}"


def test_a_record_of_another_batch_that_verifies_does_not_pass_for_one_of_this() -> None:
    """Files are used again, so a write that got lost may leave a whole record of the same size in its place."""
    ours = batch(7, [record(b"one"), record(b"two")])
    start, size = BATCH_HEADER_BYTES, record(b"one").size_bytes
    head, one, two = ours[:start], ours[start : start + size], ours[start + size :][:size]
    stale = head + two + one + ours[start + 2 * size :]
    assert stale != ours
    assert tails(ours) == [[b"one", b"two"]]
    assert tails(stale) == []


def test_no_flipped_bit_makes_a_record_one_of_an_older_release() -> None:
    """A bit that turns n bits before the end of a record adds x^n to its crc; a mark must be none of these.

    The 200 million places of the largest batch were tried once; here it is those of small records.
    """
    marks = set(layout._TYPE_MARKS[1:64])
    added = 1  # shifted once for each bit from the end on, as zlib has it: reflected
    for _ in range(300_000):
        added = added >> 1 ^ (0xEDB88320 if added & 1 else 0)
        assert added not in marks


def test_a_batch_is_there_as_a_whole_or_not_at_all() -> None:
    """Every cut, zeros behind it: whole valid records inside of a cut batch do not count."""
    first, second = batch(7, [record(b"a")]), batch(8, [record(b"b"), record(b"c" * 30)])
    for cut in range(len(second)):
        assert tails(first + second[:cut]) == [[b"a"]]
        missing = second[cut:].strip(b"\0")
        if missing:
            assert tails(first + second[:cut] + bytes(len(second) - cut)) == [[b"a"]], cut
    assert tails(first + second) == [[b"a"], [b"b", b"c" * 30]]


@pytest.mark.parametrize(
    "stale",
    [
        pytest.param(batch(8, [record(b"old")], Origin(STORE, 1, 1)), id="other segment"),
        pytest.param(batch(8, [record(b"old")], Origin(STORE, 2, 0)), id="other generation"),
        pytest.param(batch(8, [record(b"old")], Origin(bytes(16), 2, 1)), id="other store"),
        pytest.param(batch(6, [record(b"old")]), id="lower number"),
        pytest.param(batch(7, [record(b"old")]), id="same number"),
        pytest.param(batch(9, [record(b"gap")]), id="number left out"),
    ],
)
def test_what_is_not_the_next_batch_of_this_file_ends_the_scan(stale: bytes) -> None:
    assert tails(batch(7, [record(b"a")]) + stale) == [[b"a"]]


def test_a_length_beyond_the_file_allocates_nothing() -> None:
    body = layout.encode_body([record(b"a")])
    header = Header(ORIGIN, 7, 6, 3, Kind.DATA, 2**32 - 1, 1, body.heads_checksum, 1, 1)
    data = layout.encode_header(header) + b"".join(body.pieces)
    assert tails(data) == []


def test_a_later_header_is_evidence_only_from_the_same_file_and_aligned() -> None:
    later = batch(9, [record(b"later")])
    assert layout.later_header(bytes(64) + later, 8, ORIGIN, 8) is not None
    assert layout.later_header(bytes(64) + later, 8, ORIGIN, 9) is None
    assert layout.later_header(bytes(63) + later, 8, ORIGIN, 8) is None
    assert layout.later_header(bytes(64) + later, 8, Origin(STORE, 3, 1), 8) is None


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, 200_000])
@pytest.mark.parametrize("start", [0, 1, 70_000])
def test_the_last_byte_that_is_not_zero_is_found(size: int, start: int) -> None:
    if size > start:
        data = bytes(size - 1) + b"\1" + bytes(100_000)
        assert layout.last_nonzero(data, start) == size
    assert layout.last_nonzero(bytes(size + 100_000), start) == start


@pytest.mark.parametrize(
    "meta", [b"", b"\x90", b"\xc1", b"\x92\x01\x02", b"\x96\x01\x01\x01\x01\x01\xc0"]
)
def test_a_segment_record_of_another_shape_is_refused(meta: bytes) -> None:
    assert layout.decode_segment_info([Record(1, meta)]) is None


def test_of_a_newer_format_only_the_version_is_read() -> None:
    newer = layout.decode_segment_info([Record(1, b"\x92\x63\xa3new")])
    assert newer is not None
    assert newer.format_version == 99


def test_the_bound_of_the_logs_own_batches_holds() -> None:
    largest = SegmentInfo(2**32 - 1, 2**32 - 1, 2**32 - 1, 2**64 - 1, 2**32 - 1, 2**32 - 1)
    body = layout.encode_body([largest.record()])
    assert body.batch_bytes <= layout.OWN_BATCH_BYTES


@pytest.mark.parametrize("segment_bytes", [4096, 65_536, 64 * 1024 * 1024])
def test_the_largest_batch_fits_a_fresh_segment(segment_bytes: int) -> None:
    largest = layout.padded(88 + layout.max_batch_bytes(segment_bytes))
    room = segment_bytes - layout.OWN_BATCH_BYTES - layout.own_room(segment_bytes)
    assert largest <= room
