"""A disk in memory that forgets what was not synced, files and directory entries alike.

`SimulatedDisk` stands in for `FileOps`. A file has its content as programs see it, what of it is surely on the
disk, and the changes in between in their order; a directory likewise. What a crash may leave of the changes is
decided by whoever reads them (`pending`), not here. Times and faults are somebody else's, too: subclass it.

One directory is enough for a log: paths are told apart by their last part. Those of retained logs are below it,
each in one of its own, with entries that are synced apart from all others: their names begin with `retained/`.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from random import Random

from minibrokerd.log.fileops import FileOps

PAGE_BYTES = 4096
DIRECTORY = 3  # the descriptor of the directory of the log
RETAINED = "retained"


def name_of(path: str) -> str:
    """Return the name of an entry: with the directories from `retained` on, where it is below that."""
    _, mark, rest = path.partition(f"/{RETAINED}/")
    return f"{RETAINED}/{rest}" if mark else os.path.basename(path)


def directory_of(name: str) -> str:
    """Return the directory of an entry; empty: that of the log."""
    return name.rpartition("/")[0]


@dataclass(frozen=True, slots=True)
class Change:
    """One unsynced change of a file's content: bytes written, or (`data` is None) its new size or space."""

    offset: int
    data: bytes | None
    size_bytes: int = 0
    allocates: bool = False


@dataclass(frozen=True, slots=True)
class EntryChange:
    """One unsynced change of the directory: `name` is this file from now on, `gone` is no entry any more."""

    name: str | None
    file: File | None
    gone: str | None


class File:
    """A file apart from its name; `data` is what programs see, `durable` what a crash leaves at least."""

    __slots__ = ("allocated", "data", "durable", "durable_allocated", "pending")

    def __init__(self, data: bytes = b"", allocated: int | None = None) -> None:
        self.data: bytes | bytearray = data
        self.durable: bytes | bytearray = data
        self.allocated = self.durable_allocated = len(data) if allocated is None else allocated
        self.pending: list[Change] = []

    def change(self, change: Change) -> None:
        """Make a change that is not synced."""
        self.data = applied(self.data, change)
        self.allocated = allocated(self.allocated, change)
        self.pending.append(change)

    def sync(self) -> None:
        """Make all changes durable."""
        if self.pending:
            self.durable = bytes(self.data)
            self.durable_allocated = self.allocated
            self.pending = []

    def sync_range(self, begin: int, end: int) -> None:
        """Make durable what stands in this range; the rest of older changes stays pending."""
        write = Change(begin, bytes(self.data[begin:end]))
        self.durable = applied(self.durable, write)
        self.durable_allocated = allocated(self.durable_allocated, write)
        self.pending = [rest for change in self.pending for rest in _outside(change, begin, end)]

    def copy(self) -> File:
        """Return a file that goes its own way from here on."""
        twin = File(bytes(self.durable), self.durable_allocated)
        twin.data, twin.allocated = bytes(self.data), self.allocated
        twin.pending = list(self.pending)
        return twin


def applied(data: bytes | bytearray, change: Change) -> bytes | bytearray:
    """Return the content after a change; a given bytearray is changed and returned."""
    if change.data is None:
        if change.allocates:
            return data if len(data) >= change.size_bytes else _grown(data, change.size_bytes)
        return (
            data[: change.size_bytes]
            if len(data) >= change.size_bytes
            else _grown(data, change.size_bytes)
        )
    end = change.offset + len(change.data)
    data = data if isinstance(data, bytearray) else bytearray(data)
    if len(data) < change.offset:
        data.extend(bytes(change.offset - len(data)))
    data[change.offset : end] = change.data
    return data


def allocated(before: int, change: Change) -> int:
    """Return the physical space after a change."""
    if change.data is None:
        return (
            max(before, change.size_bytes) if change.allocates else min(before, change.size_bytes)
        )
    return max(before, change.offset + len(change.data))


def _grown(data: bytes | bytearray, size_bytes: int) -> bytes | bytearray:
    return data + bytes(size_bytes - len(data))


def _outside(change: Change, begin: int, end: int) -> Iterator[Change]:
    """Yield what is left of a change when this range of the file is durable."""
    if change.data is None:
        yield change
        return
    before, after = max(begin - change.offset, 0), max(end - change.offset, 0)
    if head := change.data[:before]:
        yield Change(change.offset, head)
    if tail := change.data[max(after, before) :]:
        yield Change(change.offset + len(change.data) - len(tail), tail)


class SimulatedDisk(FileOps):
    """A directory of such files, behind the calls of `FileOps`; `seed` makes its random bytes."""

    def __init__(self, files: Mapping[str, File] | None = None, seed: int = 0) -> None:
        self.there = files is not None  # whether the directory was made
        self.entries: dict[str, File] = dict(files or {})
        self.durable_entries: dict[str, File] = dict(self.entries)
        self.pending: list[EntryChange] = []
        self._open: dict[int, File] = {}
        self._locked: dict[int, File] = {}
        self.directories: set[str] = set()  # below that of the log
        self._open_directories: dict[int, str] = {}
        self._removed: list[str] = []  # directories, of which a crash may leave what was in them
        self._next = DIRECTORY + 1
        self._random = Random(seed)

    def copy(self) -> SimulatedDisk:
        """Return a disk that goes its own way from here on, with nothing open: as a kill leaves it."""
        files = (*self.durable_entries.values(), *self.entries.values())
        names = [change.file for change in self.pending if change.file is not None]
        twins = {file: file.copy() for file in dict.fromkeys((*files, *names))}
        disk = SimulatedDisk({name: twins[file] for name, file in self.entries.items()})
        disk.durable_entries = {name: twins[file] for name, file in self.durable_entries.items()}
        disk.pending = [
            EntryChange(change.name, change.file and twins[change.file], change.gone)
            for change in self.pending
        ]
        disk.there, disk.directories = self.there, set(self.directories)
        return disk

    # -- descriptors ----------------------------------------------------------------------------

    def open(self, path: str, flags: int) -> int:
        """Open a file, making or emptying it as the flags say."""
        name = name_of(path)
        file = self.entries.get(name)
        if file is None:
            if not flags & os.O_CREAT:
                raise FileNotFoundError(errno.ENOENT, "No such file", path)
            file = File()
            self._enter(EntryChange(name, file, None))
        elif flags & os.O_TRUNC and file.data:
            file.change(Change(0, None, 0))
        self._next += 1
        self._open[self._next] = file
        return self._next

    def close(self, descriptor: int) -> None:
        """Close; a lock ends with its descriptor."""
        self._locked.pop(descriptor, None)
        is_directory = self._open_directories.pop(descriptor, None) is not None
        if not is_directory and descriptor != DIRECTORY:
            del self._open[descriptor]

    def let_go(self) -> None:
        """Close everything, as the end of a process does."""
        self._open.clear()
        self._locked.clear()
        self._open_directories.clear()

    def lock(self, descriptor: int) -> None:
        """Lock the file, unless another descriptor did."""
        file = self._open[descriptor]
        if any(other is file for other in self._locked.values()):
            raise BlockingIOError(errno.EWOULDBLOCK, "locked")
        self._locked[descriptor] = file

    # -- reading --------------------------------------------------------------------------------

    def read(self, descriptor: int, size_bytes: int, offset: int) -> bytes:
        """Return what programs see."""
        return bytes(self._open[descriptor].data[offset : offset + size_bytes])

    def data_end(self, descriptor: int) -> int:
        """Return the end of the last page that is not all zeros, to programs or on the disk."""
        file = self._open[descriptor]
        end = max(len(file.data.rstrip(b"\0")), len(file.durable.rstrip(b"\0")))
        return min(-(-end // PAGE_BYTES) * PAGE_BYTES, len(file.data))

    def exists(self, path: str) -> bool:
        """Return whether there is such an entry."""
        name = name_of(path)
        return name in self.entries or self._is_directory(name)

    def _is_directory(self, name: str) -> bool:
        """Whether somebody made it, or a crash left something in it."""
        within = f"{name}/"
        return any(
            each == name or each.startswith(within) for each in (*self.directories, *self.entries)
        )

    def size(self, path: str) -> int:
        """Return the size in bytes."""
        return len(self._entry(path).data)

    def allocated(self, path: str) -> int:
        """Return the physical space in bytes."""
        return self._entry(path).allocated

    def list_directory(self, path: str) -> list[str]:
        """Return the names, in any order."""
        name = name_of(path)
        if not self._is_directory(name):
            return [each for each in self.entries if "/" not in each]
        within = f"{name}/"
        below = [each for each in (*self.directories, *self.entries) if each.startswith(within)]
        return list(dict.fromkeys(each[len(within) :].partition("/")[0] for each in below))

    def _entry(self, path: str) -> File:
        try:
            return self.entries[name_of(path)]
        except KeyError:
            raise FileNotFoundError(errno.ENOENT, "No such file", path) from None

    # -- writing --------------------------------------------------------------------------------

    def write(self, descriptor: int, data: bytes | memoryview, offset: int) -> int:
        """Write; nothing of it is durable."""
        if data:
            self._open[descriptor].change(Change(offset, bytes(data)))
        return len(data)

    def write_synced(self, descriptor: int, data: bytes | memoryview, offset: int) -> int:
        """Write, then make durable what was written."""
        taken = self.write(descriptor, data, offset)
        self.sync_range(descriptor, offset, offset + taken)
        return taken

    def sync_range(self, descriptor: int, begin: int, end: int) -> None:
        """The second half of a synced write."""
        self._open[descriptor].sync_range(begin, end)

    def sync(self, descriptor: int) -> None:
        """Make the content of a file durable."""
        self._open[descriptor].sync()

    def allocate(self, descriptor: int, size_bytes: int) -> None:
        """Give physical space; not durable."""
        self._open[descriptor].change(Change(0, None, size_bytes, allocates=True))

    def truncate(self, descriptor: int, size_bytes: int) -> None:
        """Change the size; not durable."""
        self._open[descriptor].change(Change(0, None, size_bytes))

    def rename(self, old: str, new: str) -> None:
        """Rename; not durable, but for that of a directory."""
        if name_of(old) not in self.entries and self._is_directory(name_of(old)):
            self._rename_directory(name_of(old), name_of(new))
            return
        file = self._entry(old)
        self._enter(EntryChange(name_of(new), file, name_of(old)))

    def _rename_directory(self, old: str, new: str) -> None:
        def renamed(name: str | None) -> str | None:
            is_below = name is not None and directory_of(name) == old
            return f"{new}/{name.rpartition('/')[2]}" if name is not None and is_below else name

        self.directories.discard(old)
        self.directories.add(new)
        for entries in (self.entries, self.durable_entries):
            for name in [name for name in entries if directory_of(name) == old]:
                entries[str(renamed(name))] = entries.pop(name)
        self.pending = [
            EntryChange(renamed(each.name), each.file, renamed(each.gone)) for each in self.pending
        ]

    def unlink(self, path: str) -> None:
        """Remove the entry; not durable."""
        self._entry(path)
        self._enter(EntryChange(None, None, name_of(path)))

    def _enter(self, change: EntryChange) -> None:
        entered(self.entries, change)
        self.pending.append(change)

    # -- the directory --------------------------------------------------------------------------

    def make_directory(self, path: str) -> None:
        """Make the directory, durably."""
        name = name_of(path)
        if name.startswith(f"{RETAINED}/"):
            self.directories.add(name)
        self.there = True

    def remove_directory(self, path: str) -> None:
        """Remove a directory of a retained log, which must be empty."""
        name = name_of(path)
        if any(directory_of(each) == name for each in self.entries):
            raise OSError(errno.ENOTEMPTY, "Directory not empty", path)
        self.directories.discard(name)
        self._removed.append(name)

    def open_directory(self, path: str) -> int:
        """Open a directory."""
        if not self.there:
            raise FileNotFoundError(errno.ENOENT, "No such directory", path)
        name = name_of(path)
        if name.partition("/")[0] != RETAINED:
            return DIRECTORY
        self._next += 1
        self._open_directories[self._next] = name
        return self._next

    def is_at(self, descriptor: int, path: str) -> bool:
        """Nobody replaces it."""
        return True

    def is_linked(self, descriptor: int) -> bool:
        """Nobody removes what is open."""
        return True

    def is_read_only(self, descriptor: int) -> bool:
        """Nobody mounts it anew."""
        return False

    def sync_directory(self, descriptor: int) -> None:
        """Make the entries of a directory durable."""
        name = self._open_directories.get(descriptor, "")
        settled = {name, *(each for each in self._removed if directory_of(each) == name)}
        self._removed = [each for each in self._removed if each not in settled]
        left = []
        for change in self.pending:
            if directory_of(change.name or change.gone or "") in settled:
                entered(self.durable_entries, change)
            else:
                left.append(change)
        self.pending = left

    def file_number(self, descriptor: int) -> int:
        """Nobody copies it."""
        return 1

    def is_locked(self, path: str, number: int, not_this: int) -> bool:
        """There is no other directory."""
        return False

    def random_bytes(self, size_bytes: int) -> bytes:
        """Return what the seed gives."""
        return self._random.randbytes(size_bytes)


def entered(entries: dict[str, File], change: EntryChange) -> None:
    """Apply a change to the entries."""
    if change.gone is not None:
        entries.pop(change.gone, None)
    if change.name is not None and change.file is not None:
        entries[change.name] = change.file
