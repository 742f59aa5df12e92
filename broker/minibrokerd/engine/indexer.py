"""What the side index of each segment is to say: gathered as batches are read by a start, or become safe."""

from __future__ import annotations

from collections.abc import Sequence

from minibrokerd.bodies.shelves import tell_places
from minibrokerd.core.durable.digest import Digest
from minibrokerd.core.model.records import Meta
from minibrokerd.log.seam import Batch, Digested, Place, Record


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
        tell_places(records, place)
        self._add(records, place)

    def segments(self) -> list[int]:
        """Return the segments of which there is a digest, in their order."""
        return sorted(self._digests)

    def take(self, segment: int) -> bytes:
        """Return what there is to say of a segment, beside what was taken before."""
        digest = self._digests.pop(segment, None)
        return b"" if digest is None else digest.seal()

    def _add(self, records: Sequence[Record], place: Place) -> None:
        digest, offset = self._of(place.segment), place.offset
        for record in records:
            says = record.says
            assert isinstance(says, Meta), "the core has emitted it, or replayed it"
            digest.add(record, says, offset)
            offset += record.size()

    def _of(self, segment: int) -> Digest:
        digest = self._digests.get(segment)
        if digest is None:
            digest = self._digests[segment] = Digest()
        return digest
