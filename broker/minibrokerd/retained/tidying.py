"""Work on sealed segments that nobody waits for: small frames are joined, tails compressed, logs compacted.

In slices, one after the other, so that whoever does it can do something else in between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from minibrokerd.log.fileops import FileOps
from minibrokerd.retained.compacting import CompactionResult, Latest
from minibrokerd.retained.cutting import behind
from minibrokerd.retained.frames import Frame
from minibrokerd.retained.rewriting import Rewriting
from minibrokerd.retained.row import Row
from minibrokerd.retained.segment import Bad, Segment

SLICE_FRAMES: Final = 64
SLICE_BYTES: Final = 256 * 1024
_READ_BYTES: Final = 1024 * 1024
_PAYS_BELOW: Final = 0.9  # of the size, or half as many frames: else a segment stays as it is


class Tidying:
    """What goes on in one log: one thing at a time, begun by `begin`, done by `slice`."""

    def __init__(
        self,
        ops: FileOps,
        directory: str,
        row: Row,
        tell: Callable[[Segment, Bad], None],
        *,
        compress: bool,
    ) -> None:
        self._ops = ops
        self._directory = directory
        self._row = row
        self._tell = tell
        self._compress = compress
        self._left_alone: set[str] = set()  # damaged: as they are they may still be rescued
        self._work: Iterator[None] | None = None
        self._compacted_upto = 0

    def slice(self) -> bool:
        """Do a little; False: nothing is left to do. OSError."""
        if self._work is None:
            for segment in self._row.all[:-1]:
                if segment.generation == 1 and segment.name not in self._left_alone:
                    self._work = self._joining(segment)
                    break
            else:
                return False
        if next(self._work, self) is self:
            self._work = None
        return True

    def stop(self) -> None:
        """Leave what was begun; it may be begun again."""
        if self._work is not None:
            self._work.close()  # type: ignore[attr-defined]
            self._work = None

    def begin_compaction(self, latest: Latest, result: CompactionResult) -> None:
        """Have `slice` compact the sealed segments; `result` is filled meanwhile."""
        self.stop()
        self._work = self._compacting(latest, result)

    # -- frames are joined ----------------------------------------------------------------------

    def _joining(self, source: Segment) -> Iterator[None]:
        rewriting = Rewriting(self._ops, self._directory, source, compress=self._compress)
        try:
            count = size = 0
            for frame in self._frames(source):
                rewriting.add(frame)
                count, size = count + 1, size + frame.size
                if count % SLICE_FRAMES == 0 or size >= SLICE_BYTES:
                    yield
                    size = 0
            if not self._is_whole(source):
                return
            size = rewriting.finish().sums.size
            if size < _PAYS_BELOW * source.sums.size or 2 * rewriting.frames <= count:
                self._row.replace(source, rewriting)
            else:
                self._row.mark(source)
        finally:
            rewriting.drop()

    def _frames(self, source: Segment) -> Iterator[Frame]:
        """Yield what is in a segment, as long as it is there and verifies."""
        offset = source.low
        while offset < source.stop and self._is_whole(source):
            before = offset
            for found in source.read(offset, _READ_BYTES):
                if isinstance(found, Bad):
                    self._tell(source, found)
                    self._left_alone.add(source.name)
                    return
                offset = found.stop
                yield _above(found, source.low)
                if not self._is_whole(source):
                    return
            if offset == before:
                return

    def _is_whole(self, source: Segment) -> bool:
        return source in self._row.all and source.name not in self._left_alone

    # -- compaction -----------------------------------------------------------------------------

    def _compacting(self, latest: Latest, result: CompactionResult) -> Iterator[None]:
        sealed = self._row.all[:-1]
        for source in sealed:
            if source.stop > self._compacted_upto and result.complete:
                for count, frame in enumerate(self._frames(source)):
                    if frame.stop > self._compacted_upto and not latest.note(frame):
                        result.complete = False
                        break
                    if count % SLICE_FRAMES == 0:
                        yield
                if result.complete:
                    latest.upto = max(latest.upto, source.stop)
        for source in sealed:
            yield from self._compact(source, latest, result)
            # What is damaged is not touched, so values may be in it that a tombstone behind it ended.
            latest.tombstones_stay |= source.name in self._left_alone
        self._compacted_upto = latest.upto
        result.ended = True

    def _compact(self, source: Segment, latest: Latest, result: CompactionResult) -> Iterator[None]:
        rewriting = Rewriting(self._ops, self._directory, source, compress=self._compress)
        try:
            some = CompactionResult()
            for count, frame in enumerate(self._frames(source)):
                for rest in latest.rest_of(frame, some):
                    rewriting.add(rest)
                if count % SLICE_FRAMES == 0:
                    yield
            if some.removed and self._is_whole(source):
                size = rewriting.finish().sums.size
                self._row.replace(source, rewriting)
                result.removed += some.removed
                result.tombstones += some.tombstones
                result.freed_bytes += source.sums.size - size
                result.segments += 1
        finally:
            rewriting.drop()


def _above(frame: Frame, low: int) -> Frame:
    """Return the messages of a frame from an offset on; all, where it cannot be cut."""
    try:
        return behind(frame, low) if frame.first < low else frame
    except ValueError:
        return frame
