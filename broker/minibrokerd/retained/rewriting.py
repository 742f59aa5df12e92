"""A sealed segment written anew under the next generation: small frames joined, tails compressed where it pays.

It is written beside the old one, under a name that a start removes, and takes its place by a rename when it is on
the disk. So a crash leaves one of the two, and never both.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Final

from minibrokerd.log.fileops import FileOps, write_all
from minibrokerd.retained.fewer import Joiner
from minibrokerd.retained.frames import COMPRESSED, SYNCED_BEFORE, Bytes, Frame, encode_frame
from minibrokerd.retained.packing import packed
from minibrokerd.retained.segment import Segment

_WRITE_BYTES: Final = 1024 * 1024
# The log of the broker is synced on the same disk: never have it wait for the whole of a segment.
_SYNC_BYTES: Final = 4 * 1024 * 1024


class Rewriting:
    """One segment that is being written; `finish` or `drop` ends it."""

    def __init__(self, ops: FileOps, directory: str, source: Segment, *, compress: bool) -> None:
        self._ops = ops
        self._compress = compress
        self.target = Segment(ops, directory, source.low, source.generation + 1)
        self._path = self.target.path(self.target.name + ".tmp")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        self._descriptor = ops.open(self._path, flags)
        self._joiner = Joiner()
        self._pieces: list[Bytes] = []
        self._pieces_bytes = self._unsynced_bytes = self._written_bytes = 0
        self.frames = 0

    def add(self, frame: Frame) -> None:
        """Take the next frame. OSError."""
        self._put(self._joiner.add(frame))

    def finish(self) -> Segment:
        """Return what was written, which is on the disk now, but for its name. OSError."""
        self._put(self._joiner.rest())
        self._write()
        self._ops.sync(self._descriptor)
        self._close()
        return self.target

    def install(self) -> None:
        """Give it its name; not synced. OSError."""
        self.target.write_index()
        self._ops.rename(self._path, self.target.path(self.target.name))

    def drop(self) -> None:
        """Forget what was written."""
        self._close()
        if self._ops.exists(self._path):
            self._ops.unlink(self._path)

    def _close(self) -> None:
        if self._descriptor >= 0:
            self._ops.close(self._descriptor)
            self._descriptor = -1

    def _put(self, frames: Iterable[Frame]) -> None:
        for frame in frames:
            tail = packed(frame.tail) if self._compress else None
            flags = SYNCED_BEFORE if tail is None else SYNCED_BEFORE | COMPRESSED
            pieces = encode_frame(frame, flags, tail)
            size = sum(map(len, pieces))
            self.target.add(frame, self.target.sums.size + size)
            self._pieces += pieces
            self._pieces_bytes += size
            self.frames += 1
        if self._pieces_bytes >= _WRITE_BYTES:
            self._write()

    def _write(self) -> None:
        data = b"".join(self._pieces)
        write_all(self._ops, self._descriptor, data, self._written_bytes)
        self._written_bytes += len(data)
        self._unsynced_bytes += len(data)
        self._pieces, self._pieces_bytes = [], 0
        if self._unsynced_bytes >= _SYNC_BYTES:
            self._ops.sync(self._descriptor)
            self._unsynced_bytes = 0
