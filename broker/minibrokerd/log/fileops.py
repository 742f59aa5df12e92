"""The system calls of the log, as one small object: tests replace it to make the n-th call fail, or by a disk in
memory. Nothing else of the log calls the system.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable
from typing import Final

# Directories far above that we may not read, or whose file system keeps no entries, were not made by us.
_NOT_OURS: Final = frozenset({errno.EACCES, errno.EPERM, errno.EINVAL, errno.EROFS})
READ_BYTES: Final = 64 * 1024 * 1024  # per call: a segment of the default size is read in one


class FileOps:
    """Plain calls of the operating system; each raises OSError as the call itself does."""

    def open(self, path: str, flags: int) -> int:
        """Open `path`, private to this user if it is created, and return the descriptor."""
        return os.open(path, flags | os.O_CLOEXEC, 0o600)

    def close(self, descriptor: int) -> None:
        """Close the descriptor."""
        os.close(descriptor)

    def read(self, descriptor: int, size_bytes: int, offset: int) -> bytes:
        """Return up to `size_bytes` from `offset`."""
        return os.pread(descriptor, size_bytes, offset)

    def exists(self, path: str) -> bool:
        """Whether there is such an entry. A disk that cannot tell is an error: `os.path.exists` would say no."""
        try:
            os.stat(path)
        except FileNotFoundError:
            return False
        return True

    def size(self, path: str) -> int:
        """Return the size of the file in bytes."""
        return os.stat(path).st_size

    def allocated(self, path: str) -> int:
        """Return how many bytes of physical space the file has."""
        return os.stat(path).st_blocks * 512

    def data_end(self, descriptor: int) -> int:
        """Return where the last part of the file ends that was ever written: behind it are zeros.

        A segment is allocated whole and written from the front, so most of a young one is a hole that
        need not be read (measured: 64 MiB of it cost a start 0.3 s). Where the file system does not
        tell, it is the size.
        """
        end = 0
        while True:
            try:
                start = os.lseek(descriptor, end, os.SEEK_DATA)
            except OSError as exc:
                if exc.errno == errno.ENXIO:  # no data from here on
                    return end
                raise
            end = os.lseek(descriptor, start, os.SEEK_HOLE)

    def write(self, descriptor: int, data: bytes | memoryview, offset: int) -> int:
        """Write at `offset` and return how many bytes were taken, maybe fewer than given."""
        return os.pwrite(descriptor, data, offset)

    def write_synced(self, descriptor: int, data: bytes | memoryview, offset: int) -> int:
        """As `write`, but return when the bytes are on the disk: one call for write and fdatasync.

        Each system call is a turn at the interpreter lock that a busy loop gives up late. Where the
        file system does not know the flag, two calls do.
        """
        try:
            return os.pwritev(descriptor, [data], offset, os.RWF_DSYNC)
        except OSError as exc:
            if exc.errno not in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
                raise
        taken = os.pwrite(descriptor, data, offset)
        os.fdatasync(descriptor)
        return taken

    def sync(self, descriptor: int) -> None:
        """Return when the data of the file is on the disk."""
        os.fdatasync(descriptor)

    def sync_directory(self, descriptor: int) -> None:
        """Return when the entries of the directory are on the disk."""
        os.fsync(descriptor)

    def allocate(self, descriptor: int, size_bytes: int) -> None:
        """Give the file `size_bytes` of physical space that reads as zeros where nothing was
        written.
        """
        os.posix_fallocate(descriptor, 0, size_bytes)

    def truncate(self, descriptor: int, size_bytes: int) -> None:
        """Cut or extend the file to `size_bytes`."""
        os.ftruncate(descriptor, size_bytes)

    def rename(self, old: str, new: str) -> None:
        """Rename, replacing what `new` was."""
        os.rename(old, new)

    def unlink(self, path: str) -> None:
        """Remove the entry."""
        os.unlink(path)

    def remove_directory(self, path: str) -> None:
        """Remove an empty directory."""
        os.rmdir(path)

    def make_directory(self, path: str) -> None:
        """Make the directory, private to this user, with those above it, and put their entries on the disk.

        Also the entries of those that are there already: a start that was killed may have made them, and
        what it did not sync would be gone with everything in it.
        """
        path = os.path.abspath(path)
        made = not os.path.isdir(path)
        if made:
            os.makedirs(path, 0o700)
        while (parent := os.path.dirname(path)) != path:
            try:
                self._sync_entries(parent)
            except OSError as exc:
                if made or exc.errno not in _NOT_OURS:
                    raise
            path, made = parent, False

    def _sync_entries(self, path: str) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self.sync_directory(descriptor)
        finally:
            os.close(descriptor)

    def open_directory(self, path: str) -> int:
        """Open a directory for `sync_directory`, and make it private to this user if it is his."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            if stat.S_IMODE(status.st_mode) & 0o077 and status.st_uid == os.geteuid():
                os.fchmod(descriptor, 0o700)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def is_at(self, descriptor: int, path: str) -> bool:
        """Return whether the open directory is the one that is found under `path` now."""
        ours, there = os.fstat(descriptor), os.stat(path)
        return (ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino)

    def is_linked(self, descriptor: int) -> bool:
        """Return whether the open file has a name in any directory."""
        return os.fstat(descriptor).st_nlink > 0

    def is_read_only(self, descriptor: int) -> bool:
        """Return whether the file system of an open file takes no changes now."""
        return bool(os.fstatvfs(descriptor).f_flag & os.ST_RDONLY)

    def list_directory(self, path: str) -> list[str]:
        """Return the names in a directory, in any order."""
        return os.listdir(path)

    def lock(self, descriptor: int) -> None:
        """Lock the file until the descriptor is closed.

        Raises:
            BlockingIOError: somebody else has locked it.
        """
        # flock, not POSIX record locks: those end when any descriptor of the file is closed.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def file_number(self, descriptor: int) -> int:
        """Return the number of an open file: it stays when the file is renamed, and a copy has another."""
        return os.fstat(descriptor).st_ino

    def is_locked(self, path: str, number: int, not_this: int) -> bool:
        """Return whether the file at `path` has this number and is locked, and is not the open one.

        A file that cannot be opened counts as not locked: nothing is known of it.
        """
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            there, ours = os.fstat(descriptor), os.fstat(not_this)
            if there.st_ino != number or (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino):
                return False
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def random_bytes(self, size_bytes: int) -> bytes:
        """Return bytes that nobody can foretell, for keys and ids."""
        return os.urandom(size_bytes)


def write_all(ops: FileOps, descriptor: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of `data` at `offset`, in as many calls as it takes.

    Raises:
        OSError: the call failed, or took nothing (a device that lies is a device that failed).
    """
    taken = ops.write(descriptor, data, offset)
    if taken != len(data):
        _go_on(ops.write, taken, descriptor, data, offset)


def write_all_synced(ops: FileOps, descriptor: int, data: bytes, offset: int) -> None:
    """As `write_all`, and return when all of it is on the disk.

    Raises:
        OSError: as `write_all`; after a failed sync nobody knows what is on the disk.
    """
    taken = ops.write_synced(descriptor, data, offset)
    if taken != len(data):
        _go_on(ops.write_synced, taken, descriptor, data, offset)


def _go_on(
    write: Callable[[int, bytes | memoryview, int], int],
    taken: int,
    descriptor: int,
    data: bytes | memoryview,
    offset: int,
) -> None:
    """Write what a call has left, which took so many bytes."""
    while taken != len(data):
        if not 0 < taken < len(data):
            raise OSError(errno.EIO, f"a write of {len(data)} bytes took {taken}")
        data, offset = memoryview(data)[taken:], offset + taken
        taken = write(descriptor, data, offset)


def read_all(ops: FileOps, descriptor: int, size_bytes: int) -> bytes:
    """Return the first `size_bytes` of the file, or all of it that was ever written if that is less.

    Raises:
        OSError: a read failed; its text names the offset.
    """
    pieces = []
    offset = 0
    size_bytes = min(size_bytes, ops.data_end(descriptor))
    while offset < size_bytes:
        try:
            piece = ops.read(descriptor, min(size_bytes - offset, READ_BYTES), offset)
        except OSError as exc:
            raise OSError(exc.errno, f"{exc.strerror}, at byte {offset}") from exc
        if not piece:
            break
        pieces.append(piece)
        offset += len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def sync_entries(ops: FileOps, path: str | os.PathLike[str]) -> None:
    """Return when the entries of a directory are on the disk; its rights stay as they are. OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        ops.sync_directory(descriptor)
    finally:
        os.close(descriptor)
