"""One retained log on disk: its segments, the newest of which is appended to.

One thread calls what changes something; any other may read at the same time. It looks at a tuple of segments that
is replaced whole, and at sums that are changed last, so no lock is held over the disk.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Sequence
from typing import Final

from minibrokerd.log.fileops import FileOps, write_all
from minibrokerd.process.logs import events
from minibrokerd.retained.compacting import MOST_KEYS, CompactionResult, KeysOf, Latest
from minibrokerd.retained.cutting import behind
from minibrokerd.retained.cutting import keys_of as keys_in
from minibrokerd.retained.fewer import in_fewer
from minibrokerd.retained.frames import SYNCED_BEFORE, Bytes, Chunk, Frame, Head, encode_frame
from minibrokerd.retained.row import Row
from minibrokerd.retained.segment import Bad, Scanned, Segment, walk
from minibrokerd.retained.tidying import Tidying

SEGMENT_BYTES: Final = 64 * 1024 * 1024
# Of what a setting keeps, so much is in one segment at the most: what is too old goes in whole segments.
PARTS: Final = 8
# A newest segment that is sealed for a compaction has so many bytes, or a message that is so old.
SEALED_BYTES: Final = 64 * 1024
SEALED_AFTER_MS: Final = 3_600_000
# Of the newest segment that a start reads at the most, and what was not synced.
INDEX_BYTES: Final = 1024 * 1024


class RetainedFiles:
    """The files of one retained log, in a directory of their own."""

    def __init__(
        self,
        ops: FileOps,
        directory: str,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        compress: bool = True,
    ) -> None:
        self._ops = ops
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._descriptor = -1
        self._unsynced = self._end_is_dirty = False
        # A sync did: nobody knows what is on the disk, and nothing may be appended.
        self.has_failed = False
        self._indexed_bytes = 0  # of the newest segment
        self._told: set[tuple[str, int]] = set()
        self._row = Row(ops, directory)
        self._tidying = Tidying(ops, directory, self._row, self._tell, compress=compress)
        self.damaged = 0  # places that did not verify when they were read

    # -- start and end --------------------------------------------------------------------------

    def open(self) -> None:
        """Make the directory if it is not there, and find out what it holds; blocks.

        What was not synced when the power went is cut off the newest segment.

        Raises:
            OSError: the disk does not do it.
        """
        row = self._row
        row.open()
        if row.all:
            newest = row.all[-1]
            self._descriptor = self._ops.open(newest.path(newest.name), os.O_RDWR)
            self._recover(newest)
        else:
            self._make(0)
        self._ops.sync(self._descriptor)
        row.sync()
        row.count()

    def close(self) -> None:
        """Close the files; nothing is synced. The next start reads the less of them the more was."""
        self._tidying.stop()
        if self._descriptor >= 0:
            if not self.has_failed and not self._unsynced:
                self._write_index()
            self._ops.close(self._descriptor)
        self._descriptor = -1
        self._row.close()

    def _recover(self, segment: Segment) -> None:
        """Read the newest segment and cut off what was never synced."""
        segment.load_part()
        start, size = segment.sums.size, self._ops.size(segment.path(segment.name))
        scanned, cut = Scanned(segment.low, segment.sums, segment.points), size
        waiting: list[Head] = []
        bad: Bad | None = None
        for found in walk(self._ops, self._descriptor, size, start):
            if isinstance(found, Bad):
                bad = bad or found
            elif bad is not None and not found.flags & SYNCED_BEFORE:
                waiting.append(found)
            else:  # whatever does not verify before this one was on the disk once: damage, not a torn end
                bad = None
                for head in (*waiting, found):
                    scanned.add(head)
                waiting = []
        if bad is not None:
            cut = bad.position
            self._ops.truncate(self._descriptor, cut)
            events.info("retained_cut", path=segment.path(segment.name), bytes=size - cut)
        segment.take(scanned, cut)
        self._indexed_bytes = start

    # -- what there is --------------------------------------------------------------------------

    @property
    def first(self) -> int:
        """The offset of the first message there is; `stop` if there is none."""
        return self._row.first

    @property
    def stop(self) -> int:
        """The offset behind the last message."""
        return self._row.stop

    @property
    def size_bytes(self) -> int:
        """Bytes of all segments."""
        return self._row.size_bytes

    @property
    def messages(self) -> int:
        """Messages there are."""
        return self._row.messages

    def read(self, offset: int, most_bytes: int) -> Chunk:
        """Return frames from the one that holds `offset`, or the next there is, up to `most_bytes` of them.

        One at least, however large, if there is any; what does not verify is skipped, told and counted.

        Raises:
            OSError: the disk does not do it.
            Unreadable: they are compressed, and there is no library for that.
        """
        while True:
            segments = self._row.all
            try:
                return self._read(segments, max(offset, self.first), most_bytes)
            except FileNotFoundError:
                self._row.look_again(segments)

    def _read(self, segments: Sequence[Segment], offset: int, most_bytes: int) -> Chunk:
        frames: list[Frame] = []
        skipped, stop = 0, segments[-1].stop  # what is behind may be written while this reads
        at = max(bisect_right(segments, offset, key=lambda each: each.low) - 1, 0)
        for segment in segments[at:]:
            self._row.used(segment)
            for found in segment.read(offset, most_bytes):
                if isinstance(found, Bad):
                    skipped += max(found.stop - max(found.first, offset), 0)
                    self._tell(segment, found)
                else:
                    frames.append(found)
                offset = max(offset, found.stop)
            if frames:
                break
        if not frames:
            offset = max(offset, stop)
        return Chunk(frames, offset, offset >= self.stop, skipped)

    def messages_from(self, offset: int) -> int:
        """Return about how many messages there are from an offset on; in one segment gaps do not count."""
        return sum(
            min(each.sums.messages, max(each.stop - max(offset, each.first), 0))
            for each in self._row.all
        )

    def offset_at(self, unix_ms: int) -> int:
        """Return the first offset that was published at or after that time; `stop`: none was. OSError."""
        while True:
            segments = self._row.all
            try:
                for segment in segments:
                    if segment.sums.messages and segment.sums.newest_unix_ms >= unix_ms:
                        return max(segment.offset_at(unix_ms), self.first)
                return segments[-1].stop
            except FileNotFoundError:
                self._row.look_again(segments)

    # -- writing --------------------------------------------------------------------------------

    def append(self, frames: Sequence[Frame]) -> None:
        """Write frames behind all others, in fewer if they are small; they are safe after `sync`.

        What came before is ignored, so it may come again in other frames.

        Raises:
            OSError: the disk does not do it; nothing counts of what was not written whole.
            ValueError: part of a frame came before, and it cannot be cut.
        """
        assert not self.has_failed, "a sync failed: nobody knows what is on the disk"
        stop = self.stop
        group: list[Frame] = []
        size = self._row.all[-1].sums.size
        for frame in in_fewer(frames):
            if frame.stop <= stop:
                continue
            if frame.first < stop:
                frame = behind(frame, stop)
            if size and size + frame.size > self._segment_bytes:
                self._write(group)
                self._seal()
                group, size = [], 0
            group.append(frame)
            size += frame.size
            stop = frame.stop
        self._write(group)

    def _write(self, frames: Sequence[Frame]) -> None:
        if not frames:
            return
        segment = self._row.all[-1]
        start = segment.sums.size
        if self._end_is_dirty:
            self._ops.truncate(self._descriptor, start)
        pieces: list[Bytes] = []
        for frame in frames:
            first_since = not pieces and not self._unsynced
            pieces += encode_frame(frame, SYNCED_BEFORE if first_since else 0)
        self._unsynced = self._end_is_dirty = True
        write_all(self._ops, self._descriptor, b"".join(pieces), start)
        self._end_is_dirty = False
        for frame in frames:
            segment.add(frame, segment.sums.size + frame.size)
            self._row.messages += frame.count
            self._row.size_bytes += frame.size

    def sync(self) -> None:
        """Return when all that was appended is on the disk.

        Raises:
            OSError: nobody knows what is on the disk, and nothing may be appended any more.
        """
        try:
            if self._unsynced:
                self._ops.sync(self._descriptor)
            self._row.sync()
        except OSError:
            self.has_failed = True
            raise
        self._unsynced = False
        if self._row.all[-1].sums.size >= self._indexed_bytes + INDEX_BYTES:
            self._write_index()

    def _write_index(self) -> None:
        self._row.all[-1].write_index()
        self._indexed_bytes = self._row.all[-1].sums.size

    def _seal(self, low: int | None = None) -> None:
        """Go on in a new segment, which may have offsets from `low` on. OSError: all is as before."""
        self.sync()
        self._write_index()
        sealed = self._row.all[-1]
        self._make(self.stop if low is None else low)
        sealed.forget_points()

    def _make(self, low: int) -> None:
        newest = Segment(self._ops, self._directory, low)
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC
        descriptor = self._ops.open(newest.path(newest.name), flags)
        if self._descriptor >= 0:
            self._ops.close(self._descriptor)
        self._descriptor, self._indexed_bytes = descriptor, 0
        self._row.add(newest)

    # -- deleting -------------------------------------------------------------------------------

    def retain(
        self, unix_ms: int, retention_ms: int, retention_bytes: int, retention_messages: int
    ) -> int:
        """Delete whole segments from the front that are not to be kept any more; return how many messages went.

        Each bound counts if it is above 0. At least so many bytes or messages stay, and at most an eighth more,
        about; what is older than `retention_ms` goes at the latest an eighth of it later. OSError.
        """
        self._seal_for(unix_ms, retention_ms, retention_bytes, retention_messages)
        segments, size, messages = self._row.all, self.size_bytes, self.messages
        gone = 0
        for segment in segments[:-1]:
            sums = segment.sums
            size, messages = size - sums.size, messages - sums.messages
            if not (
                (retention_ms and sums.newest_unix_ms < unix_ms - retention_ms)
                or (retention_bytes and size >= retention_bytes)
                or (retention_messages and messages >= retention_messages)
            ):
                break
            gone += 1
        before = self.messages
        if gone:
            self._row.delete(gone)
        return before - self.messages

    def _seal_for(self, unix_ms: int, ms: int, size_bytes: int, messages: int) -> None:
        sums = self._row.all[-1].sums
        if sums.messages and (
            (ms and sums.oldest_unix_ms < unix_ms - max(ms // PARTS, 1))
            or (size_bytes and sums.size > size_bytes // PARTS)
            or (messages and sums.messages > messages // PARTS)
        ):
            self._seal()

    def trim(self, below: int) -> None:
        """Delete what is below an offset: whole segments, and what is left of it in one is not read any more.

        When this returns `first` is at least that, also after a crash; if all goes, so is `stop`. OSError.
        """
        if below <= self.first:
            self._row.sync()  # what was below it may have been deleted a moment ago
            return
        if below > self.stop or (below == self.stop and self._row.all[-1].sums.size):
            self._seal(below)
        self.sync()
        gone = sum(each.stop <= below for each in self._row.all[:-1])
        if gone:
            self._row.delete(gone)
        front = self._row.all[0]
        if front.low < below and front.sums.size:
            self._row.cut(below)
            if len(self._row.all) == 1:
                self._indexed_bytes = 0
        self._row.sync()

    # -- work that nobody waits for -------------------------------------------------------------

    def work_ahead(self) -> bool:
        """Do a slice of what makes sealed segments smaller and faster to read; False: nothing is left to do.

        A slice is some 64 frames as they came, and now and then the sync of 4 MiB. OSError.
        """
        return self._tidying.slice()

    def seal_to_compact(self, unix_ms: int) -> int:
        """Seal the newest segment if it is not small, or old; return below which offset all is sealed. OSError.

        A segment for each compaction would be thousands of tiny ones.
        """
        sums = self._row.all[-1].sums
        if sums.messages and (
            sums.size >= SEALED_BYTES or unix_ms - sums.oldest_unix_ms >= SEALED_AFTER_MS
        ):
            self._seal()
        return self._row.all[-1].low

    def begin_compaction(
        self,
        unix_ms: int,
        tombstone_ms: int,
        keys_of: KeysOf = keys_in,
        *,
        most_keys: int = MOST_KEYS,
        seal: bool = False,
    ) -> CompactionResult:
        """Have `work_ahead` compact the sealed segments; with `seal` also what was appended so far. OSError.

        Of the messages with one key the last one stays, and one without a key. An empty body ends its key, and
        goes itself `tombstone_ms` after it was published. The result is filled meanwhile.
        """
        if seal and self._row.all[-1].sums.messages:
            self._seal()
        result = CompactionResult()
        self._tidying.begin_compaction(Latest(keys_of, unix_ms - tombstone_ms, most_keys), result)
        return result

    def compact(
        self,
        unix_ms: int,
        tombstone_ms: int,
        keys_of: KeysOf = keys_in,
        *,
        most_keys: int = MOST_KEYS,
        seal: bool = False,
    ) -> CompactionResult:
        """As `begin_compaction`, and return when it is done. OSError."""
        result = self.begin_compaction(
            unix_ms, tombstone_ms, keys_of, most_keys=most_keys, seal=seal
        )
        while not result.ended:
            self._tidying.slice()
        return result

    def _tell(self, segment: Segment, bad: Bad) -> None:
        place = segment.name, bad.position
        if place not in self._told:
            self._told.add(place)
            self.damaged += 1
            path = segment.path(segment.name)
            events.error(
                "retained_damage", path=path, position=bad.position, first=bad.first, stop=bad.stop
            )
