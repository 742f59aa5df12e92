"""Physical room ahead of need: the reserve, the next segment, and what the loop may grant from
them.

A reserve of three segments is never used for publishes, so that acks can always be logged. The next
segment is allocated and zero-filled in slices while the current one fills: a sync into a
zero-filled file moves no metadata, and zeroing 64 MiB at once would hold every confirm up for 33
ms.

Files are handled by the thread that writes; the loop only reads `reserve_count`, `next_ready`,
`failed`.
"""

from __future__ import annotations

import errno
import os
from typing import Final

from minibrokerd.log.directory import DataDirectory
from minibrokerd.log.fileops import FileOps, write_all
from minibrokerd.log.seam import RESERVE_SEGMENTS

SLICE_BYTES: Final = 512 * 1024
_ZEROS: Final = bytes(SLICE_BYTES)
# Of space, or of descriptors: it is tried again, and meanwhile publishes are refused.
_NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE})


class Allocation:
    """The reserve and the next segment of one data directory.

    `failed` is the error of the last attempt to allocate (a full disk), None while all is well.
    """

    def __init__(self, directory: DataDirectory, ops: FileOps, segment_bytes: int) -> None:
        self.segment_bytes = segment_bytes
        self.failed: OSError | None = None
        self.leftovers: list[str] = []  # files to be recycled once the port is open
        self._directory = directory
        self._ops = ops
        self.reserve: list[str] = []  # its files
        self._next = -1  # descriptor of `next.tmp`
        self._next_zeroed = 0

    @property
    def reserve_count(self) -> int:
        """How many reserve segments there are."""
        return len(self.reserve)

    @property
    def expected_count(self) -> int:
        """As `reserve_count`, with what a start left to be recycled in a moment."""
        return min(self.reserve_count + len(self.leftovers), RESERVE_SEGMENTS)

    @property
    def next_ready(self) -> bool:
        """Whether a segment stands ready to follow the current one."""
        return self._next >= 0

    @property
    def whole(self) -> bool:
        """Whether nothing is missing: the reserve is whole and the next segment stands ready."""
        return self.next_ready and self.reserve_count >= RESERVE_SEGMENTS

    def adopt(self, reserve: list[str], temporary: list[str]) -> None:
        """Take over the reserve that a start found, and make what was never of the log part of it."""
        for name in reserve:
            path = self._directory.at(name)
            if self._ops.size(path) == self.segment_bytes <= self._ops.allocated(path):
                self.reserve.append(name)
            else:
                self._directory.remove([name])
        for name in temporary:
            self.recycle(name)

    def recycle(self, name: str) -> None:
        """Turn a file whose bytes count no more into reserve, or remove it if the reserve is whole.

        It is zeroed under its old name first: what is named reserve reads as zeros, also after a
        crash.
        """
        path = self._directory.at(name)
        if self.reserve_count >= RESERVE_SEGMENTS or self._ops.size(path) != self.segment_bytes:
            self._ops.unlink(path)
            return
        try:
            descriptor = self._ops.open(path, os.O_RDWR)
        except OSError as exc:
            if exc.errno not in _NO_SPACE:
                raise
            self._ops.unlink(path)  # no descriptor is left: the reserve is filled another time
            return
        try:
            # Not only what reads as something else: the zeros of a sync that failed stand in the page cache alone.
            write_all(self._ops, descriptor, bytes(self._ops.data_end(descriptor)), 0)
            self._ops.sync(descriptor)
        finally:
            self._ops.close(descriptor)
        self._add_reserve(path)

    def tidy(self) -> None:
        """Recycle what the start left for later, and make the reserve whole."""
        while self.leftovers:
            self.recycle(self.leftovers[-1])
            self.leftovers.pop()  # not before: it counts as reserve all the time
        self.fill_reserve()

    def fill_reserve(self) -> bool:
        """Allocate until the reserve is whole; False: no space, `failed` says why."""
        try:
            while self.reserve_count < RESERVE_SEGMENTS:
                self._ops.close(self._allocate("reserve.tmp", self.segment_bytes))
                self._add_reserve(self._directory.at("reserve.tmp"))
        except OSError as exc:
            return self._out_of_space(exc)
        return True

    def prepare_next(self) -> bool:
        """Allocate the reserve, then the next segment; False: no space, `failed` says why."""
        if not self.fill_reserve():
            return False
        if not self.next_ready:
            try:
                self._next = self._allocate("next.tmp", self.segment_bytes)
            except OSError as exc:
                return self._out_of_space(exc)
            self._next_zeroed = 0
        self.failed = None  # not before: the loop may read it at any time
        return True

    def zero_next(self, share: float) -> bool:
        """Zero one more slice of the next segment if less than `share` of it (0 to 1) is zeroed."""
        goal = min(1.0, share) * self.segment_bytes
        if not self.next_ready or self._next_zeroed >= goal:
            return False
        self._next_zeroed = zero_slice(self._ops, self._next, self._next_zeroed, self.segment_bytes)
        return True

    def take(self, size_bytes: int) -> tuple[int, int]:
        """Return (descriptor, bytes zeroed) of `next.tmp`, `size_bytes` long and reading as zeros.

        The next segment if it is ready, else one of the reserve, else a new file.

        Raises:
            OSError: there is neither a reserve nor space.
        """
        taken, zeroed = self._next, self._next_zeroed
        self._next, self._next_zeroed = -1, 0
        if taken < 0:
            path = self._directory.at("next.tmp")
            if self.reserve:
                self._ops.rename(self._directory.at(self.reserve[-1]), path)
                self.reserve.pop()
                taken = self._ops.open(path, os.O_RDWR)
            else:
                taken = self._allocate("next.tmp", size_bytes)
        if size_bytes != self.segment_bytes:  # the setting changed since that segment was made
            self._ops.truncate(taken, size_bytes)
            self._ops.allocate(taken, size_bytes)
        return taken, min(zeroed, size_bytes)

    def close(self) -> None:
        """Let go of the next segment's file; the next start makes it part of the reserve."""
        if self.next_ready:
            self._ops.close(self._next)
            self._next = -1

    def _allocate(self, name: str, size_bytes: int) -> int:
        path = self._directory.at(name)
        descriptor = self._ops.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        try:
            self._ops.allocate(descriptor, size_bytes)
            self._ops.sync(descriptor)
        except BaseException:
            self._ops.close(descriptor)
            self._ops.unlink(path)  # what it got of the disk is somebody else's last room
            raise
        return descriptor

    def _add_reserve(self, path: str) -> None:
        number = 1 + max((int(name[8:-4]) for name in self.reserve), default=0)
        name = f"reserve-{number}.log"
        self._ops.rename(path, self._directory.at(name))
        self.reserve.append(name)

    def _out_of_space(self, exc: OSError) -> bool:
        if exc.errno not in _NO_SPACE:
            raise exc
        self.failed = exc
        return False


def zero_slice(ops: FileOps, descriptor: int, zeroed: int, end: int) -> int:
    """Zero and sync one slice from `zeroed` on; return where the zeros end now."""
    size = min(SLICE_BYTES, end - zeroed)
    write_all(ops, descriptor, _ZEROS if size == SLICE_BYTES else _ZEROS[:size], zeroed)
    ops.sync(descriptor)
    return zeroed + size
