"""One retained log on disk: its segments, the newest of which is appended to.

One thread calls what changes something; any other may read at the same time. It looks at a tuple of segments that
is replaced whole, and at sums that are changed last, so no lock is held over the disk.
"""

from __future__ import annotations

import errno
import os
from bisect import bisect_right
from collections.abc import Sequence
from threading import Lock
from typing import Final

from minibrokerd.log.fileops import FileOps, write_all
from minibrokerd.process.logs import events
from minibrokerd.retained.frames import SYNCED_BEFORE, Bytes, Chunk, Frame, Head, encode_frame
from minibrokerd.retained.segment import NAME, Bad, Scanned, Segment, walk

SEGMENT_BYTES: Final = 64 * 1024 * 1024
# Of what a setting keeps, so much is in one segment at the most: what is too old goes in whole segments.
PARTS: Final = 8


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
        self._compress = compress
        self._segments: tuple[Segment, ...] = ()
        self._descriptor = self._directory_descriptor = -1
        self._unsynced = self._entries_unsynced = self._end_is_dirty = False
        self._failed = False
        self._renaming = Lock()
        self._told: set[tuple[str, int]] = set()
        self.size_bytes = 0
        self.messages = 0
        self.damaged = 0  # places that did not verify when they were read

    # -- start and end --------------------------------------------------------------------------

    def open(self) -> None:
        """Make the directory if it is not there, and find out what it holds; blocks.

        What was not synced when the power went is cut off the newest segment.

        Raises:
            OSError: the disk does not do it.
        """
        self._ops.make_directory(self._directory)
        self._directory_descriptor = self._ops.open_directory(self._directory)
        found = self._found()
        for segment in found[:-1]:
            if not segment.load():
                segment.rebuild()
        newest = found[-1] if found else Segment(self._ops, self._directory, 0)
        flags = os.O_RDWR | (0 if found else os.O_CREAT)
        self._descriptor = self._ops.open(newest.path(newest.name), flags)
        if found:
            self._recover(newest)
        self._ops.sync(self._descriptor)
        self._ops.sync_directory(self._directory_descriptor)
        self._segments = (*found[:-1], newest)
        self._count()

    def close(self) -> None:
        """Close the files; nothing is synced."""
        for descriptor in (self._descriptor, self._directory_descriptor):
            if descriptor >= 0:
                self._ops.close(descriptor)
        self._descriptor = self._directory_descriptor = -1

    def _found(self) -> list[Segment]:
        """Return the segments there are, and remove what is left of work that a crash ended."""
        names = self._ops.list_directory(self._directory)
        newest: dict[int, int] = {}
        for name in names:
            if (match := NAME.fullmatch(name)) and match[3] == "segment":
                low, generation = int(match[1]), int(match[2])
                newest[low] = max(generation, newest.get(low, 0))
        found = [Segment(self._ops, self._directory, *pair) for pair in sorted(newest.items())]
        ours = {name for segment in found for name in (segment.name, segment.index_name)}
        for name in names:
            if name not in ours and (NAME.fullmatch(name) or name.endswith(".tmp")):
                self._ops.unlink(self._path(name))
        return found

    def _recover(self, segment: Segment) -> None:
        """Read the newest segment and cut off what was never synced."""
        size = self._ops.size(segment.path(segment.name))
        scanned, cut = Scanned(segment.low), size
        waiting: list[Head] = []
        bad: Bad | None = None
        for found in walk(self._ops, self._descriptor, size):
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

    # -- what there is --------------------------------------------------------------------------

    @property
    def first(self) -> int:
        """The offset of the first message there is; `stop` if there is none."""
        segments = self._segments
        return next((each.first for each in segments if each.sums.messages), segments[-1].stop)

    @property
    def stop(self) -> int:
        """The offset behind the last message."""
        return self._segments[-1].stop

    def read(self, offset: int, most_bytes: int) -> Chunk:
        """Return frames from the one that holds `offset`, or the next there is, up to `most_bytes` of them.

        One at least, however large, if there is any; what does not verify is skipped, told and counted.

        Raises:
            OSError: the disk does not do it.
            Unreadable: they are compressed, and there is no library for that.
        """
        while True:
            segments = self._segments
            try:
                return self._read(segments, max(offset, self.first), most_bytes)
            except FileNotFoundError:
                self._look_again(segments)

    def _read(self, segments: Sequence[Segment], offset: int, most_bytes: int) -> Chunk:
        frames: list[Frame] = []
        skipped = 0
        at = max(bisect_right(segments, offset, key=lambda each: each.low) - 1, 0)
        for segment in segments[at:]:
            for found in segment.read(offset, most_bytes):
                if isinstance(found, Bad):
                    skipped += max(found.stop - max(found.first, offset), 0)
                    self._tell(segment, found)
                else:
                    frames.append(found)
                offset = max(offset, found.stop)
            if frames:
                break
        return Chunk(frames, offset, offset >= self.stop, skipped)

    def offset_at(self, unix_ms: int) -> int:
        """Return the first offset that was published at or after that time; `stop`: none was. OSError."""
        while True:
            segments = self._segments
            try:
                for segment in segments:
                    if segment.sums.messages and segment.sums.newest_unix_ms >= unix_ms:
                        return max(segment.offset_at(unix_ms), self.first)
                return segments[-1].stop
            except FileNotFoundError:
                self._look_again(segments)

    def _look_again(self, segments: Sequence[Segment]) -> None:
        """Return if what a reader did not find was deleted or got another name meanwhile; else raise."""
        with self._renaming:
            if segments is self._segments:
                raise FileNotFoundError(errno.ENOENT, "a segment is missing", self._directory)

    # -- writing --------------------------------------------------------------------------------

    def append(self, frames: Sequence[Frame]) -> None:
        """Write frames behind all others; they are safe after `sync`. Those that came before are ignored.

        Raises:
            OSError: the disk does not do it; nothing counts of what was not written whole.
            ValueError: a frame begins before the end of the log, and ends behind it.
        """
        assert not self._failed, "a sync failed: nobody knows what is on the disk"
        stop = self.stop
        group: list[Frame] = []
        size = self._segments[-1].sums.size
        for frame in frames:
            if frame.stop <= stop:
                continue
            if frame.first < stop:
                raise ValueError(f"messages {frame.first} to {frame.stop} overlap {stop}")
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
        segment = self._segments[-1]
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
            self.messages += frame.count
            self.size_bytes += frame.size

    def sync(self) -> None:
        """Return when all that was appended is on the disk.

        Raises:
            OSError: nobody knows what is on the disk, and nothing may be appended any more.
        """
        try:
            if self._unsynced:
                self._ops.sync(self._descriptor)
            if self._entries_unsynced:
                self._ops.sync_directory(self._directory_descriptor)
        except OSError:
            self._failed = True
            raise
        self._unsynced = self._entries_unsynced = False

    def _seal(self, low: int | None = None) -> None:
        """Go on in a new segment, which may have offsets from `low` on."""
        self.sync()
        sealed = self._segments[-1]
        sealed.write_index()
        newest = Segment(self._ops, self._directory, self.stop if low is None else low)
        path = newest.path(newest.name)
        descriptor = self._ops.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        self._ops.close(self._descriptor)
        self._descriptor, self._entries_unsynced = descriptor, True
        self._segments = (*self._segments, newest)
        sealed.forget_points()

    # -- deleting -------------------------------------------------------------------------------

    def retain(
        self, unix_ms: int, retention_ms: int, retention_bytes: int, retention_messages: int
    ) -> int:
        """Delete whole segments from the front that are not to be kept any more; return how many messages went.

        Each bound counts if it is above 0. At least so many bytes or messages stay, and at most an eighth more,
        about; what is older than `retention_ms` goes at the latest an eighth of it later. OSError.
        """
        self._seal_for(unix_ms, retention_ms, retention_bytes, retention_messages)
        segments, size, messages = self._segments, self.size_bytes, self.messages
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
            self._delete(gone)
        return before - self.messages

    def _seal_for(self, unix_ms: int, ms: int, size_bytes: int, messages: int) -> None:
        sums = self._segments[-1].sums
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
            return
        if below > self.stop or (below == self.stop and self._segments[-1].sums.size):
            self._seal(below)
        self.sync()
        segments = self._segments
        gone = sum(each.stop <= below for each in segments[:-1])
        if gone:
            self._delete(gone)
        front = self._segments[0]
        if front.low < below and front.sums.size:
            self._rename(front, below)
        self._ops.sync_directory(self._directory_descriptor)
        self._count()

    def _rename(self, front: Segment, low: int) -> None:
        renamed = Segment(self._ops, self._directory, low, front.generation)
        with self._renaming:
            self._ops.rename(front.path(front.name), front.path(renamed.name))
            renamed.take(renamed.scanned(), front.sums.size)
            self._segments = (renamed, *self._segments[1:])
        if self._ops.exists(front.path(front.index_name)):
            self._ops.unlink(front.path(front.index_name))
        if len(self._segments) > 1:
            renamed.write_index()

    def _delete(self, count: int) -> None:
        gone, self._segments = self._segments[:count], self._segments[count:]
        for segment in gone:
            self._ops.unlink(segment.path(segment.name))
            if self._ops.exists(segment.path(segment.index_name)):
                self._ops.unlink(segment.path(segment.index_name))
        self._entries_unsynced = True
        self._count()

    # -- sums -----------------------------------------------------------------------------------

    def _count(self) -> None:
        self.size_bytes = sum(each.sums.size for each in self._segments)
        self.messages = sum(each.sums.messages for each in self._segments)

    def _tell(self, segment: Segment, bad: Bad) -> None:
        place = segment.name, bad.position
        if place not in self._told:
            self._told.add(place)
            self.damaged += 1
            path = segment.path(segment.name)
            events.error(
                "retained_damage", path=path, position=bad.position, first=bad.first, stop=bad.stop
            )

    def _path(self, name: str) -> str:
        return os.path.join(self._directory, name)
