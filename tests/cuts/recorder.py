"""A recorder of what a log does to its directory, and the player that does it again to a disk in memory.

The recording is a list of plain steps in the order in which they happened. `RecordingOps` wraps any `FileOps`, the
real one too; files are named by the number of the `open` that gave their descriptor, so that two recordings of
the same work are equal, whatever disk they were made on.
"""

from __future__ import annotations

from typing import NamedTuple

from minibrokerd.log.fileops import FileOps
from support.simulated_disk import SimulatedDisk


class Step(NamedTuple):
    """One effect; a synced write is two of them, `write` and `sync_range`, for a crash may come in between.

    `handle` is the number of an open file (0: none), `old` and `path` are names, `size` is a size, a range's end
    or the flags of an open.
    """

    call: str
    handle: int = 0
    path: str = ""
    old: str = ""
    data: bytes = b""
    offset: int = 0
    size: int = 0


class RecordingOps(FileOps):
    """Passes every call on to `inner` and writes down those that change something."""

    def __init__(self, inner: FileOps) -> None:
        self.inner = inner
        self.steps: list[Step] = []
        self._handles: dict[int, int] = {}
        self._opened = 0

    def _note(self, call: str, **fields: object) -> None:
        self.steps.append(Step(call, **fields))  # type: ignore[arg-type]

    # -- what changes something -----------------------------------------------------------------

    def open(self, path: str, flags: int) -> int:
        """Note every open: it may make the file, and others name it."""
        descriptor = self.inner.open(path, flags)
        self._opened += 1
        self._handles[descriptor] = self._opened
        self._note("open", handle=self._opened, path=path.rpartition("/")[2], size=flags)
        return descriptor

    def close(self, descriptor: int) -> None:
        """Note the close of a file."""
        self.inner.close(descriptor)
        if (handle := self._handles.pop(descriptor, None)) is not None:
            self._note("close", handle=handle)

    def write(self, descriptor: int, data: bytes | memoryview, offset: int) -> int:
        """Note what was taken."""
        taken = self.inner.write(descriptor, data, offset)
        self._note_write(descriptor, data, offset, taken)
        return taken

    def write_synced(self, descriptor: int, data: bytes | memoryview, offset: int) -> int:
        """Note what was taken, then that it is safe."""
        try:
            taken = self.inner.write_synced(descriptor, data, offset)
        except OSError:
            self._note_write(descriptor, data, offset, len(data))  # written, and never safe
            raise
        self._note_write(descriptor, data, offset, taken)
        handle = self._handles[descriptor]
        self._note("sync_range", handle=handle, offset=offset, size=offset + taken)
        return taken

    def _note_write(
        self, descriptor: int, data: bytes | memoryview, offset: int, taken: int
    ) -> None:
        handle = self._handles[descriptor]
        self._note("write", handle=handle, data=bytes(data[:taken]), offset=offset)

    def sync(self, descriptor: int) -> None:
        """Note the sync of a file."""
        self.inner.sync(descriptor)
        self._note("sync", handle=self._handles[descriptor])

    def sync_directory(self, descriptor: int) -> None:
        """Note the sync of the directory."""
        self.inner.sync_directory(descriptor)
        self._note("sync_directory")

    def allocate(self, descriptor: int, size_bytes: int) -> None:
        """Note the new space."""
        self.inner.allocate(descriptor, size_bytes)
        self._note("allocate", handle=self._handles[descriptor], size=size_bytes)

    def truncate(self, descriptor: int, size_bytes: int) -> None:
        """Note the new size."""
        self.inner.truncate(descriptor, size_bytes)
        self._note("truncate", handle=self._handles[descriptor], size=size_bytes)

    def rename(self, old: str, new: str) -> None:
        """Note both names."""
        self.inner.rename(old, new)
        self._note("rename", path=new.rpartition("/")[2], old=old.rpartition("/")[2])

    def remove_directory(self, path: str) -> None:
        """Note the name; the log itself removes none."""
        self.inner.remove_directory(path)
        self._note("remove_directory", path=path.rpartition("/")[2])

    def unlink(self, path: str) -> None:
        """Note the name."""
        self.inner.unlink(path)
        self._note("unlink", path=path.rpartition("/")[2])

    def make_directory(self, path: str) -> None:
        """Note that the directory is there."""
        self.inner.make_directory(path)
        self._note("make_directory")

    # -- what changes nothing -------------------------------------------------------------------

    def read(self, descriptor: int, size_bytes: int, offset: int) -> bytes:
        """Pass on."""
        return self.inner.read(descriptor, size_bytes, offset)

    def data_end(self, descriptor: int) -> int:
        """Pass on."""
        return self.inner.data_end(descriptor)

    def exists(self, path: str) -> bool:
        """Pass on."""
        return self.inner.exists(path)

    def size(self, path: str) -> int:
        """Pass on."""
        return self.inner.size(path)

    def allocated(self, path: str) -> int:
        """Pass on."""
        return self.inner.allocated(path)

    def list_directory(self, path: str) -> list[str]:
        """Pass on."""
        return self.inner.list_directory(path)

    def open_directory(self, path: str) -> int:
        """Pass on."""
        return self.inner.open_directory(path)

    def is_at(self, descriptor: int, path: str) -> bool:
        """Pass on."""
        return self.inner.is_at(descriptor, path)

    def is_linked(self, descriptor: int) -> bool:
        """Pass on."""
        return self.inner.is_linked(descriptor)

    def is_read_only(self, descriptor: int) -> bool:
        """Pass on."""
        return self.inner.is_read_only(descriptor)

    def lock(self, descriptor: int) -> None:
        """Pass on."""
        self.inner.lock(descriptor)

    def file_number(self, descriptor: int) -> int:
        """Pass on."""
        return self.inner.file_number(descriptor)

    def is_locked(self, path: str, number: int, not_this: int) -> bool:
        """Pass on."""
        return self.inner.is_locked(path, number, not_this)

    def random_bytes(self, size_bytes: int) -> bytes:
        """Pass on."""
        return self.inner.random_bytes(size_bytes)


class Player:
    """Does recorded steps to a disk, one after the other."""

    def __init__(self, disk: SimulatedDisk) -> None:
        self.disk = disk
        self._descriptors: dict[int, int] = {}

    def play(self, step: Step) -> None:
        """Do one step."""
        disk, file = self.disk, self._descriptors.get(step.handle, -1)
        match step.call:
            case "open":
                self._descriptors[step.handle] = disk.open(step.path, step.size)
            case "close":
                disk.close(self._descriptors.pop(step.handle))
            case "write":
                disk.write(file, step.data, step.offset)
            case "sync_range":
                disk.sync_range(file, step.offset, step.size)
            case "sync":
                disk.sync(file)
            case "sync_directory":
                disk.sync_directory(0)
            case "allocate":
                disk.allocate(file, step.size)
            case "truncate":
                disk.truncate(file, step.size)
            case "rename":
                disk.rename(step.old, step.path)
            case "unlink":
                disk.unlink(step.path)
            case "make_directory":
                disk.make_directory("")
            case _:
                raise AssertionError(step.call)
