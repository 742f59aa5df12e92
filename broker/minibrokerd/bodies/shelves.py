"""Extents that left memory: the places of their records in one segment of the log, 4 bytes each.

A place is one number, which only this room takes apart.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import Final

from minibrokerd.bodies.memory_extents import MemoryExtent
from minibrokerd.core.model.effects import ReadBack
from minibrokerd.core.model.extents import Extent, Shelf
from minibrokerd.log.seam import Batch, Place, Record

_OFFSET_BITS: Final = 32
_OFFSETS: Final = (1 << _OFFSET_BITS) - 1


def pack_place(place: Place) -> int:
    """Return a place as one number; no record stands at 0."""
    return place.segment << _OFFSET_BITS | place.offset


def unpack_place(place: int) -> Place:
    """Return the place that is packed in a number."""
    return Place(place >> _OFFSET_BITS, place & _OFFSETS)


class SegmentShelf:
    """Extents whose records stand in one segment, one behind the other; see `Shelf`."""

    __slots__ = ("_offsets", "_segment")

    def __init__(self, segment: int = 0, offsets: bytes = b"") -> None:
        """`offsets` are 4 bytes each, as a digest has them."""
        self._segment = segment
        self._offsets = array("I")
        self._offsets.frombytes(offsets)

    def joins(self, extent: Extent) -> bool:
        """Whether an extent stands in the same segment, behind those that are here: stretches are read in the
        order of the file.
        """
        place = unpack_place(_in_memory(extent).place)
        return self._segment == place.segment and self._offsets[-1] < place.offset

    def append(self, extent: Extent) -> None:
        """Add an extent that is stored, and joins what is here."""
        self._segment, offset = unpack_place(_in_memory(extent).place)
        self._offsets.append(offset)

    def take(self, place: int) -> bool:
        """Add the extent whose record stands at a place, if it joins what is here; any joins what is empty."""
        segment, offset = place >> _OFFSET_BITS, place & _OFFSETS
        if not self._offsets:
            self._segment = segment
        elif self._segment != segment or self._offsets[-1] >= offset:
            return False
        self._offsets.append(offset)
        return True

    def expect(self, extent: Extent) -> Extent:
        """Add an extent whose record is on its way; return what the record is to have for it."""
        self._offsets.append(0)
        return _Expected(_in_memory(extent), self, len(self._offsets) - 1)

    def placed(self, index: int, place: int) -> None:
        """Note where the record of an extent stands that was expected."""
        self._segment, self._offsets[index] = unpack_place(place)

    def absorb(self, behind: Shelf) -> bool:
        """Add all extents of another shelf whose records stand in the same segment, behind those that are here."""
        assert isinstance(behind, SegmentShelf), "this room made it"
        stand = self._segment == behind._segment and 0 < self._offsets[-1] < behind._offsets[0]
        if stand:
            self._offsets.extend(behind._offsets)
        return stand

    def split(self, index: int, keep: int) -> SegmentShelf:
        """Keep so many extents, and return those from an index on."""
        rest = SegmentShelf(self._segment)
        rest._offsets = self._offsets[index:]
        del self._offsets[keep:]
        return rest

    def stretch(self, index: int, most_bytes: int) -> int:
        """Return one behind the index of the last extent that is read together with this one."""
        return bisect_right(self._offsets, self._offsets[index] + most_bytes, index + 1)

    def place(self, index: int) -> int:
        """Return where the record of an extent stands."""
        return pack_place(Place(self._segment, self._offsets[index]))

    def stands(self, low: int, high: int) -> tuple[int, Sequence[int]]:
        """Return the segment, and where the records of some extents start in it, ascending."""
        return self._segment, self._offsets[low:high]


class _Expected(MemoryExtent):
    """An extent that is in memory until its record is safe."""

    __slots__ = ("_index", "_shelf")

    def __init__(self, extent: MemoryExtent, shelf: SegmentShelf, index: int) -> None:
        sizes = extent.lengths_bytes, extent.size - extent.blob_at
        super().__init__(extent.tail, extent.checksum, *sizes)
        self._shelf = shelf
        self._index = index

    def placed(self, place: int) -> None:
        """Tell the shelf."""
        super().placed(place)
        self._shelf.placed(self._index, place)


def _in_memory(extent: Extent) -> MemoryExtent:
    assert isinstance(extent, MemoryExtent), "this room made it"
    return extent


def stands(asked: ReadBack) -> tuple[int, Sequence[int]]:
    """Return the segment, and where the records start in it that are to be read back."""
    assert isinstance(asked.shelf, SegmentShelf), "this room made it"
    return asked.shelf.stands(asked.low, asked.high)


def places_of(batch: Batch) -> Iterator[int]:
    """Yield where each record of a batch stands; 0: in no file."""
    if batch.place is None:
        yield from repeat(0, len(batch.records))
        return
    place = pack_place(batch.place)
    for record in batch.records:
        yield place
        place += record.size_bytes


def tell_places(records: Sequence[Record], place: Place) -> None:
    """Tell the extents of a batch that is safe where their records stand; the first record stands at `place`."""
    at = pack_place(place)
    for record in records:
        if record.extent is not None:
            record.extent.placed(at)
        at += record.size_bytes
