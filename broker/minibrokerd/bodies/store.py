"""What the core asks for extents and shelves: of records that are read, and of what digests name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final
from zlib import crc32

from minibrokerd.bodies.memory_extents import MemoryExtent
from minibrokerd.bodies.schemas import Schema
from minibrokerd.bodies.shelves import SegmentShelf, pack_place, places_of, unpack_place
from minibrokerd.bodies.tails import LENGTHS_BYTES, sizes_in
from minibrokerd.log.seam import Batch, Digested, Place, Record

_ONE_EMPTY: Final = b"\xc4\x00\xc4\x08" + bytes(LENGTHS_BYTES) + b"\xc4\x00"


def _nothing_to_read(segment: int, offset: int) -> Record:
    raise AssertionError(f"the record at byte {offset} of segment {segment} is asked for")


class BodyStore:
    """Makes extents and shelves; see `Bodies`."""

    def __init__(self, read: Callable[[int, int], Record] = _nothing_to_read) -> None:
        """`read(segment, offset)` returns a record of a log that has digests, during a start."""
        self._read = read
        self.nothing: Final = MemoryExtent(_ONE_EMPTY, crc32(_ONE_EMPTY), LENGTHS_BYTES, 0)

    def extent(self, record: Record, place: int) -> MemoryExtent:
        """Return the bytes that a record brings along, which stands at this place."""
        tail = bytes(record.tail)
        checksum = crc32(tail) if record.tail_checksum is None else record.tail_checksum
        extent = MemoryExtent(tail, checksum, *sizes_in(tail))
        extent.place = place
        return extent

    def shelf(self) -> SegmentShelf:
        """Return a shelf for what leaves memory."""
        return SegmentShelf()

    def places(self, batch: Batch) -> Iterator[int]:
        """Yield where each record of a batch stands that was read."""
        return places_of(batch)

    def shelf_of(self, part: Digested, places: bytes) -> SegmentShelf:
        """Return the extents that a digest names by their places."""
        return SegmentShelf(part.segment, places)

    def place_of(self, part: Digested, place: int) -> int:
        """Return the place that a digest names."""
        return pack_place(Place(part.segment, place))

    def read(self, place: int) -> Record:
        """Return the record at a place."""
        return self._read(*unpack_place(place))

    def schema(self, text: bytes) -> Schema:
        """Return what checks bodies by a JSON Schema; ValueError, NoChecker as `Bodies.schema`."""
        return Schema(text)

    def told(self, place: int) -> tuple[int, int]:
        """Return a place in two numbers that an operator can use."""
        return unpack_place(place)
