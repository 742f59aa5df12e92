"""The disk of a world: it fails, fills up, is slow, and dies in the middle of a call, as the seed has it.

What a power cut leaves of what was not synced is chosen among the states of tests/cuts: each piece persisted,
dropped, torn at a byte, in part of its sectors, garbage, or zeros. A killed process leaves everything.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from random import Random

from sim_rot import Rot
from states import Crash, disk_of

from support.simulated_disk import (
    Change,
    EntryChange,
    File,
    SimulatedDisk,
    allocated,
    applied,
    directory_of,
    entered,
)

MODES = ("lost", "reverted", "late", "nospace")  # what a failed sync may leave, and say


class PowerCut(BaseException):
    """The process ended in this call; nothing that follows reaches the disk."""


class FaultyDisk(SimulatedDisk):
    """See the head of this module. `note` is told of every call that changes something, and of every fault.

    `dies_in` counts down the changing calls until the process dies (0: it does not); `sync_fault` is how the next
    sync fails; `full`, `read_only`, `no_files` hold until they are cleared, `bad_reads` counts reads that fail.
    """

    def __init__(self, seed: int, note: Callable[[str], None]) -> None:
        super().__init__(seed=seed)
        self.note = note
        self.random = Random(seed + 1)
        self.dies_in = 0
        self.dead = False
        self.strict = False
        self.sync_fault = ""
        self.late_fault = False
        self.full = 0  # errno
        self.read_only = False
        self.no_files = False
        self.short_writes = 0.0
        self.bad_reads = 0
        self.flips = 0
        self.flipped = ""  # the segment of the newest of them
        self.rot = Rot(self.random)
        self.faults = 0

    # -- how a process ends ---------------------------------------------------------------------

    def restart(self, power: bool) -> None:
        """Let the next process have the disk; after a power cut only what it left."""
        self.let_go()
        self.dead, self.dies_in = False, 0
        self.sync_fault, self.late_fault = "", False
        if power:
            twin = self.copy()
            if self.strict:  # the directory keeps its order: a journal
                keep = self.random.randint(0, len(twin.pending))
                for change in twin.pending[:keep]:
                    entered(twin.durable_entries, change)
                twin.entries, twin.pending = dict(twin.durable_entries), []
            left = disk_of(Crash(twin, self.random).one())
            self.entries, self.durable_entries, self.pending = (
                left.entries, left.durable_entries, [],
            )  # fmt: skip

    def clear(self) -> None:
        """Be whole again."""
        self.full, self.read_only, self.no_files, self.short_writes = 0, False, False, 0.0
        self.sync_fault, self.late_fault = "", False
        self.bad_reads = self.flips = 0

    def rot_somewhere(self, *, unreadable: bool) -> None:
        """Let a bit turn in a file that is written no more, or a sector be lost; until `restore`."""
        names = [n for n in self.entries if n.endswith(".index") and not directory_of(n)]
        names += self._older_segments()
        if not names:
            return
        name = self.random.choice(sorted(names))
        if self.rot.turn(name, self.entries[name], unreadable=unreadable):
            self.faults += 1
            self.note(f"fault rot {name} {self.rot.turned[name].at}")

    def rot_retained(self) -> None:
        """Let a bit turn in a segment of a retained log; until `restore`, if it is there under its name then."""
        names = sorted(n for n in self.entries if directory_of(n) and n.endswith(".segment"))
        if not names:
            return
        name = self.random.choice(names)
        beside = [each for each in names if directory_of(each) == directory_of(name)]
        if self.rot.turn_retained(name, beside, self.entries[name]):
            self.faults += 1
            self.note(f"fault rot {name} {self.rot.turned[name].at}")

    @property
    def rotten(self) -> set[str]:
        """The files that have a bit that turned, or a sector that cannot be read."""
        return set(self.rot.turned)

    def restore(self) -> None:
        """Have every file be as it was written."""
        self.rot.restore(self.entries)

    def _older_segments(self) -> list[str]:
        """Return the segments below the newest number: in the newest a turned bit may look like a torn end."""
        segments = sorted(
            n for n in self.entries if n.startswith("segment-") and n.endswith(".log")
        )
        return [name for name in segments if name[:18] != segments[-1][:18]]

    @property
    def open_count(self) -> int:
        """How many files are open."""
        return len(self._open)

    def _step(self, what: str) -> bool:
        """Count a changing call; True: the process dies in the middle of it."""
        if self.dead:
            raise PowerCut
        self.note(what)
        if self.dies_in:
            self.dies_in -= 1
            if not self.dies_in:
                self.dead = True
                return True
        return False

    def _change(self, what: str, change: Callable[[], None]) -> None:
        dies = self._step(what)
        before = dies and self.random.random() < 0.5
        if not before:
            change()
        if dies:
            raise PowerCut

    def _fault(self, code: int, what: str) -> OSError:
        self.faults += 1
        self.note(f"fault {what}")
        return OSError(code, os.strerror(code))

    # -- calls ----------------------------------------------------------------------------------

    def open(self, path: str, flags: int) -> int:
        """Open, if there are descriptors left."""
        if self.no_files:
            raise self._fault(errno.EMFILE, "open")
        made = flags & os.O_CREAT and os.path.basename(path) not in self.entries
        if made and self.read_only:
            raise self._fault(errno.EROFS, "open")
        if made and self._step(f"create {os.path.basename(path)}"):
            raise PowerCut
        return super().open(path, flags)

    def read(self, descriptor: int, size_bytes: int, offset: int) -> bytes:
        """Read, maybe in vain, maybe what was not written."""
        file = self._open[descriptor]
        if self.rot.hides(file, offset, size_bytes):
            raise self._fault(errno.EIO, "read of a lost sector")
        if self.bad_reads:
            self.bad_reads -= 1
            if not self._is_retained(file):  # whoever reads these tries again
                self.rot.suspect(file, offset)
            raise self._fault(errno.EIO, "read")
        data = super().read(descriptor, size_bytes, offset)
        return self._flip(file, data, offset) if self.flips else data

    def _is_retained(self, file: File) -> bool:
        """Whether a file is one of a retained log."""
        return any(other is file and directory_of(name) for name, other in self.entries.items())

    def _flip(self, file: File, data: bytes, offset: int) -> bytes:
        """Turn one bit of what was read of an older segment, or of an index."""
        names = [name for name, other in self.entries.items() if other is file]
        if names and directory_of(names[0]):
            return data
        old = names and (names[0] in self._older_segments() or names[0].endswith(".index"))
        if not old or names[0] in self.rot.turned or not data.rstrip(b"\0"):
            return data
        self.flips -= 1
        self.faults += 1
        if names[0].endswith(".log"):
            self.flipped = names[0]
        self.note(f"fault flip {names[0]} at {offset}")
        return self.rot.spoil(data, file, offset)

    def write(self, descriptor: int, data: bytes | memoryview, offset: int) -> int:
        """Write, maybe short, maybe not at all; half of it if the process dies of it."""
        self._check_room(descriptor, len(data), offset)
        if len(data) > 1 and self.random.random() < self.short_writes:
            self.faults += 1
            data = memoryview(data)[: self.random.randint(1, len(data) - 1)]
        if self._step(f"write {len(data)} at {offset}"):
            super().write(descriptor, memoryview(data)[: self.random.randint(0, len(data))], offset)
            raise PowerCut
        self.rot.written(self._open[descriptor], offset, len(data))
        return super().write(descriptor, data, offset)

    def write_synced(self, descriptor: int, data: bytes | memoryview, offset: int) -> int:
        """Write, then sync what was written."""
        taken = self.write(descriptor, data, offset)
        self._sync(descriptor, offset, offset + taken)
        return taken

    def _check_room(self, descriptor: int, size_bytes: int, offset: int) -> None:
        if self.dead:
            raise PowerCut
        if self.read_only:
            raise self._fault(errno.EROFS, "write")
        if self.full and offset + size_bytes > self._open[descriptor].allocated:
            raise self._fault(self.full, "write")

    def sync(self, descriptor: int) -> None:
        """Make the content of a file durable, unless that fails."""
        self._sync(descriptor, 0, 0)

    def _sync(self, descriptor: int, begin: int, end: int) -> None:
        dies = self._step("sync")
        if dies and self.random.random() < 0.5:
            raise PowerCut
        file = self._open[descriptor]
        if self.late_fault:
            self.late_fault = False
            raise self._fault(errno.EIO, "late sync")
        fault, self.sync_fault = self.sync_fault, ""
        if fault in ("lost", "nospace", "reverted"):
            self._lose(file, reverted=fault == "reverted")
            raise self._fault(errno.ENOSPC if fault == "nospace" else errno.EIO, f"sync {fault}")
        if end:
            file.sync_range(begin, end)
        else:
            _settle(file)
        self.late_fault = fault == "late"
        if dies:
            raise PowerCut

    def _lose(self, file: File, *, reverted: bool) -> None:
        """What was to be synced never will be; programs still see it, or what was there before."""
        if reverted:
            file.data, file.allocated = bytes(file.durable), file.durable_allocated
        file.pending = []

    def sync_directory(self, descriptor: int) -> None:
        """Make the entries durable, unless that fails."""
        if self.sync_fault == "lost":
            self.sync_fault = ""
            raise self._fault(errno.EIO, "sync of the directory")
        self._change("sync directory", lambda: super(FaultyDisk, self).sync_directory(descriptor))

    def allocate(self, descriptor: int, size_bytes: int) -> None:
        """Give space, if there is any."""
        if self.read_only:
            raise self._fault(errno.EROFS, "allocate")
        if self.full:
            raise self._fault(self.full, "allocate")
        self._change("allocate", lambda: super(FaultyDisk, self).allocate(descriptor, size_bytes))

    def truncate(self, descriptor: int, size_bytes: int) -> None:
        """Change the size."""
        self._change("truncate", lambda: super(FaultyDisk, self).truncate(descriptor, size_bytes))

    def rename(self, old: str, new: str) -> None:
        """Rename."""
        what = f"rename {os.path.basename(old)} {os.path.basename(new)}"
        self._change(what, lambda: super(FaultyDisk, self).rename(old, new))

    def make_directory(self, path: str) -> None:
        """Make a directory, durably; that of the log is there in every world."""
        if self.there and not self.exists(path):
            self._step(f"make {os.path.basename(path)}")
        super().make_directory(path)

    def remove_directory(self, path: str) -> None:
        """Remove a directory."""
        what = f"remove {os.path.basename(path)}"
        self._change(what, lambda: super(FaultyDisk, self).remove_directory(path))

    def unlink(self, path: str) -> None:
        """Remove the entry."""
        what = f"unlink {os.path.basename(path)}"
        self._change(what, lambda: super(FaultyDisk, self).unlink(path))


def _settle(file: File) -> None:
    """Make the pending changes durable, and those only: what an earlier sync lost stays lost."""
    durable: bytes | bytearray = bytearray(file.durable)
    for change in file.pending:
        durable = applied(durable, change)
        file.durable_allocated = allocated(file.durable_allocated, change)
    file.durable, file.pending = bytes(durable), []


__all__ = ["Change", "EntryChange", "FaultyDisk", "PowerCut"]
