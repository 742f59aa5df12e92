"""What the side index of each segment is to say: gathered as batches are read by a start, or become safe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from minibrokerd.bodies.shelves import pack_place, tell_places
from minibrokerd.core.durable.digest import Digest
from minibrokerd.core.model.records import Meta
from minibrokerd.log.seam import Batch, Digested, Place, Record, SegmentStore

# Of a segment, between two slices of its side index. What follows the last one is read record by record at a
# start: 4,096 records take about 0.2 s.
SLICE_BYTES: Final = 8 * 1024 * 1024
SLICE_RECORDS: Final = 4_096


class Indexer:
    """The digest of each segment that has records which are in no side index yet."""

    def __init__(self) -> None:
        self._digests: dict[int, Digest] = {}

    def replayed(self, part: Batch | Digested) -> None:
        """Take what a start has read and the core has replayed."""
        if isinstance(part, Batch):
            if part.place is not None:
                self._add(part.records, part.place)
        elif not part.complete:  # more of this segment follows
            self._of(part.segment).adopt(part.payload)

    def placed(self, records: Sequence[Record], place: Place) -> None:
        """Take the records of a batch that is safe, and tell their extents where they stand; before `Synced`."""
        self._add(records, place)

    def segments(self) -> list[int]:
        """Return the segments of which there is a digest, in their order."""
        return sorted(self._digests)

    def take(self, segment: int) -> bytes:
        """Return what there is to say of a segment, beside what was taken before."""
        digest = self._digests.pop(segment, None)
        return b"" if digest is None else digest.seal()

    def _add(self, records: Sequence[Record], place: Place) -> None:
        segment, offset = place
        digest, at = self._digests.get(segment), pack_place(place)
        if digest is None:
            digest = self._of(segment)
        for record in records:
            says = record.says
            assert isinstance(says, Meta), "the core has emitted it, or replayed it"
            if record.extent is not None:
                record.extent.placed(at)
            digest.add(record, says, offset)
            offset, at = offset + record.size_bytes, at + record.size_bytes

    def _of(self, segment: int) -> Digest:
        digest = self._digests.get(segment)
        if digest is None:
            digest = self._digests[segment] = Digest()
        return digest


class Slices(Indexer):
    """Tells a segment store what each long stretch of a segment says, if there is one."""

    def __init__(self, segments: SegmentStore | None) -> None:
        super().__init__()
        self._segments = segments
        self._place = Place(0, 0)  # up to where the segment that is written is in its side index
        self._unsliced = 0  # records behind that place

    def replayed(self, part: Batch | Digested) -> None:
        """Take what a start has read and the core has replayed."""
        if self._segments is not None:
            super().replayed(part)

    def opened(self, place: Place | None) -> None:
        """The log is appendable, behind a place: index what was read of it without one."""
        self._place = place or self._place
        for segment in self.segments():
            self._keep(segment)

    def placed(self, records: Sequence[Record], place: Place) -> None:
        """Take the records of a batch that is safe, and tell their extents where they stand; before `Synced`."""
        if self._segments is None:
            tell_places(records, place)
            return
        self._add(records, place)
        self._unsliced += len(records)
        before = self._place
        if place.segment != before.segment:
            self._keep(before.segment)
            self._place, self._unsliced = Place(place.segment, 0), len(records)
        elif place.offset - before.offset >= SLICE_BYTES or self._unsliced >= SLICE_RECORDS:
            self._keep(place.segment)
            self._place, self._unsliced = place, 0

    def close(self) -> None:
        """Index what is left, before the footer."""
        if self._place.segment and self._segments is not None:
            self._keep(self._place.segment)

    def _keep(self, segment: int) -> None:
        assert self._segments is not None, "nothing was gathered"
        self._segments.keep_digest(segment, self.take(segment))
