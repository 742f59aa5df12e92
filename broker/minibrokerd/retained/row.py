"""The segments of a log in their order: what is added, deleted, renamed or replaced.

`all` is a tuple that is replaced whole, so any thread may look at it. What is taken out of it is deleted after
that: a reader that does not find a file looks again.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Sequence
from threading import Lock
from typing import Final

from minibrokerd.log.fileops import FileOps
from minibrokerd.retained.rewriting import Rewriting
from minibrokerd.retained.segment import NAME, Scanned, Segment, keys_in

POINTED: Final = 64  # segments that keep their points in memory: 25 KB each, of 64 MiB


class Row:
    """The segments in one directory; the last one is appended to."""

    def __init__(self, ops: FileOps, directory: str) -> None:
        self._ops = ops
        self._directory = directory
        self._descriptor = -1
        self._renaming = Lock()
        self._pointed: deque[Segment] = deque()
        self.all: tuple[Segment, ...] = ()
        self.entries_unsynced = False
        self.size_bytes = 0
        self.messages = 0

    # -- start and end --------------------------------------------------------------------------

    def open(self) -> None:
        """Find the segments, and remove what a crash left of other work; the last one is not looked into."""
        self._ops.make_directory(self._directory)
        self._descriptor = self._ops.open_directory(self._directory)
        names = self._ops.list_directory(self._directory)
        found = tuple(Segment(self._ops, self._directory, *key) for key in keys_in(names))
        ours = {name for segment in found for name in (segment.name, segment.index_name)}
        for name in names:
            if name not in ours and (NAME.fullmatch(name) or name.endswith(".tmp")):
                self._ops.unlink(os.path.join(self._directory, name))
        for segment in found[:-1]:
            if not segment.load():
                segment.rebuild()
        self.all = found
        self.entries_unsynced = True

    def close(self) -> None:
        """Let go of the directory."""
        if self._descriptor >= 0:
            self._ops.close(self._descriptor)
        self._descriptor = -1

    def sync(self) -> None:
        """Return when the entries of the directory are on the disk. OSError."""
        if self.entries_unsynced:
            self._ops.sync_directory(self._descriptor)
            self.entries_unsynced = False

    def count(self) -> None:
        """Add up what there is."""
        self.size_bytes = sum(each.sums.size for each in self.all)
        self.messages = sum(each.sums.messages for each in self.all)

    # -- looks ----------------------------------------------------------------------------------

    @property
    def first(self) -> int:
        """The offset of the first message there is; `stop` if there is none."""
        segments = self.all
        return next((each.first for each in segments if each.sums.messages), segments[-1].stop)

    @property
    def stop(self) -> int:
        """The offset behind the last message."""
        return self.all[-1].stop

    def look_again(self, segments: Sequence[Segment]) -> None:
        """Return if what a reader did not find was deleted or got another name meanwhile; else raise OSError."""
        with self._renaming:
            if segments is self.all:
                raise FileNotFoundError(errno.ENOENT, "a segment is missing", self._directory)

    def used(self, segment: Segment) -> None:
        """Note that somebody reads a segment: the points of others may leave memory."""
        if segment not in self._pointed:
            self._pointed.append(segment)
            if len(self._pointed) > POINTED:
                other = self._pointed.popleft()
                if other is not self.all[-1]:
                    other.forget_points()

    # -- changes: from one thread ---------------------------------------------------------------

    def add(self, segment: Segment) -> None:
        """Have a segment, whose file was made, behind all others."""
        self.entries_unsynced = True
        self.all = (*self.all, segment)

    def delete(self, count: int) -> None:
        """Delete so many segments from the front. OSError."""
        gone, self.all = self.all[:count], self.all[count:]
        for segment in gone:
            self._unlink(segment)
        self.count()

    def cut(self, low: int) -> None:
        """Have nothing below `low` in the first segment: a new name says it. OSError."""
        front = self.all[0]
        renamed = Segment(self._ops, self._directory, low, front.generation)
        renamed.take(front.scanned(low), front.sums.size)
        self._rename(front, renamed)
        self.count()

    def mark(self, segment: Segment) -> None:
        """Have a segment be of the next generation as it is. OSError."""
        marked = Segment(self._ops, self._directory, segment.low, segment.generation + 1)
        marked.take(Scanned(segment.low, segment.sums, segment.points), segment.sums.size)
        self._rename(segment, marked)

    def replace(self, segment: Segment, rewriting: Rewriting) -> None:
        """Have what was written anew in place of a segment; nothing, if nothing was written. OSError."""
        target = rewriting.target
        at = self.all.index(segment)
        if target.sums.messages:
            rewriting.install()
            self._ops.sync_directory(self._descriptor)
            self.all = (*self.all[:at], target, *self.all[at + 1 :])
            target.forget_points()
        else:
            rewriting.drop()
            self.all = (*self.all[:at], *self.all[at + 1 :])
        self._unlink(segment)
        self.count()

    def _rename(self, segment: Segment, renamed: Segment) -> None:
        at, is_last = self.all.index(segment), segment is self.all[-1]
        with self._renaming:
            self._ops.rename(segment.path(segment.name), renamed.path(renamed.name))
            self.all = (*self.all[:at], renamed, *self.all[at + 1 :])
        if self._ops.exists(segment.path(segment.index_name)):
            self._ops.unlink(segment.path(segment.index_name))
        if not is_last:
            renamed.write_index()
            renamed.forget_points()
        self.entries_unsynced = True

    def _unlink(self, segment: Segment) -> None:
        self._ops.unlink(segment.path(segment.name))
        if self._ops.exists(segment.path(segment.index_name)):
            self._ops.unlink(segment.path(segment.index_name))
        self.entries_unsynced = True
