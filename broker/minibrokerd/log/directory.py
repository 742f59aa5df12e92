"""The data directory: its lock, its names, its small files. What stands in segments is not known
here.

All files are private to the user that runs the server (0600 in a directory of 0700). Small files
that must still be writable on a full disk (`lock`, `state`) are made once and then overwritten in
place.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from zlib import crc32

from minibrokerd.log.failures import DirectoryCopied, DirectoryLocked, LogMoved, NotWritable
from minibrokerd.log.fileops import FileOps, read_all, write_all

KEY_BYTES: Final = 32
TORN_KEPT_BYTES: Final = 16 * 1024 * 1024

_SEGMENT: Final = re.compile(r"segment-(\d{10})-(\d{5})\.log")
_RESERVE: Final = re.compile(r"reserve-(\d+)\.log")
_INDEX: Final = re.compile(r"segment-(\d{10})-(\d{5})\.index")
_TORN: Final = re.compile(r"(?:torn|damaged)-\d+-\d+\.bin")
_TEMPORARY: Final = re.compile(r"(?:failed|key|moved|next|reserve)\.tmp")
_OWN: Final = frozenset(
    {
        "lock",
        "key",
        "state",
        "failed",
        "moved",
        "restored.json",
        "tokens",
        "tokens.lock",
        "tokens.tmp",
    }
    | {"retained"}  # the directory of retained logs: decision 66
)
_LOCK_BYTES: Final = 4_096  # of the lock file: who holds it, and where
_LINE_BYTES: Final = 64  # the small text files: one line, padded, with its checksum
_IGNORED: Final = frozenset({"lost+found"})  # an empty mount point has it


@dataclass(frozen=True, slots=True, order=True)
class SegmentName:
    """The number and the generation in the name of a segment file."""

    number: int
    generation: int

    def __str__(self) -> str:
        return f"segment-{self.number:010d}-{self.generation:05d}.log"

    @property
    def index(self) -> str:
        """The name of its side index."""
        return f"segment-{self.number:010d}-{self.generation:05d}.index"


@dataclass(frozen=True, slots=True)
class Listing:
    """The entries of a data directory by what their names say."""

    segments: list[SegmentName]
    reserve: list[str]
    temporary: list[str]
    indexes: list[str]
    foreign: list[str]


@dataclass(frozen=True, slots=True)
class State:
    """What the file `state` says: whether the log was closed, and the newest segment that was
    begun.
    """

    clean: bool
    segment: int


class DataDirectory:
    """One open, locked data directory.

    Raises (in `open`):
        DirectoryLocked: another server holds it.
        DirectoryCopied: another server holds the directory that this is a copy of.
        LogMoved: its log was moved elsewhere.
        NotWritable: it cannot be made or written, or holds files that are not ours.
    """

    def __init__(
        self, path: str | os.PathLike[str], ops: FileOps, *, adopts_copy: bool = False
    ) -> None:
        """`adopts_copy`: open it although it is a copy of one that a server runs on."""
        self.copied_from = ""  # the path of the original, if this is a copy of another directory
        self._adopts_copy = adopts_copy
        self.path = os.fspath(path)
        self.ops = ops
        self.session_key = b""
        self._descriptor = -1
        self._lock = -1
        self._state = -1

    def open(self) -> None:
        """Make the directory if it is missing, lock it, read or make its key."""
        try:
            if not self.ops.exists(self.at("key")):  # the key is made after all of this is synced
                self.ops.make_directory(self.path)
            self._descriptor = self.ops.open_directory(self.path)
            self._take_lock()
            self._refuse_moved()
            self.session_key = self._read_or_make_key()
        except OSError as exc:
            self.close()
            raise NotWritable(
                self.path, "use the data directory", str(exc), "check owner, mode and mount"
            ) from exc
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of everything, the lock last."""
        for descriptor in (self._state, self._descriptor, self._lock):
            if descriptor >= 0:
                self.ops.close(descriptor)
        self._state = self._descriptor = self._lock = -1

    def at(self, name: object) -> str:
        """Return the path of an entry."""
        return os.path.join(self.path, str(name))

    def has(self, name: str) -> bool:
        """Whether there is an entry of this name."""
        return self.ops.exists(self.at(name))

    def sync(self) -> None:
        """Return when the entries are on the disk.

        Raises:
            OSError: the sync failed, or the directory was deleted or replaced under the server.
        """
        self.check()
        self.ops.sync_directory(self._descriptor)

    def check(self) -> None:
        """Return if this is still the directory that is found under its path, with its lock, and can be written.

        Raises:
            OSError: it is not; whatever is written now would be gone, or be found by nobody.
        """
        try:
            is_there = self.ops.is_at(self._descriptor, self.path)
        except FileNotFoundError as exc:
            text = "the data directory was removed or moved while the server ran"
            raise OSError(errno.ESTALE, text, self.path) from exc
        if not is_there:
            text = "the data directory was replaced by another one while the server ran"
            raise OSError(errno.ESTALE, text, self.path)
        if self._lock >= 0 and not self.ops.is_linked(self._lock):
            raise OSError(
                errno.ESTALE, "the lock was removed while the server ran", self.at("lock")
            )
        if self.ops.is_read_only(self._descriptor):
            text = "the file system of the data directory is read-only now"
            raise OSError(errno.EROFS, text, self.path)

    def listing(self) -> Listing:
        """Return the entries, segments in order of number and generation."""
        found = Listing([], [], [], [], [])
        for name in sorted(self.ops.list_directory(self.path)):
            if match := _SEGMENT.fullmatch(name):
                found.segments.append(SegmentName(int(match[1]), int(match[2])))
            elif _RESERVE.fullmatch(name):
                found.reserve.append(name)
            elif _TEMPORARY.fullmatch(name):
                found.temporary.append(name)
            elif _INDEX.fullmatch(name):
                found.indexes.append(name)
            elif name not in _OWN | _IGNORED and not _TORN.fullmatch(name):
                found.foreign.append(name)
        found.segments.sort()
        return found

    def read_state(self) -> State | None:
        """Return what `state` says; None if it is missing or unreadable, which counts as not
        closed.
        """
        words = self._read_line("state")
        if words is None or len(words) != 2 or words[0] not in ("clean", "running"):
            return None
        return State(words[0] == "clean", int(words[1]))

    def write_state(self, state: State) -> None:
        """Overwrite `state` in place and sync it: it costs no space, so it works on a full disk."""
        if self._state < 0:
            self._state = self.ops.open(self.at("state"), os.O_RDWR | os.O_CREAT)
        word = "clean" if state.clean else "running"
        write_all(self.ops, self._state, _line(f"{word} {state.segment}"), 0)
        self.ops.sync(self._state)

    def read_failed(self) -> int | None:
        """Return the number in `failed`: the last batch that was safe at a fail-stop; None: no
        failure.

        Raises:
            NotWritable: the file is there and cannot be understood.
        """
        if not self.ops.exists(self.at("failed")):
            return None
        words = self._read_line("failed")
        if words is None or len(words) != 2 or words[0] != "synced":
            raise NotWritable(
                self.at("failed"), "read", "its checksum does not hold", "check the disk"
            )
        return int(words[1])

    def write_failed(self, last_synced: int) -> None:
        """Note the last batch that is safe, so that no later start can end below it unnoticed."""
        # Under another name first: half of a note, after a crash or on a full disk, would stop every start.
        try:
            self.write_file("failed.tmp", _line(f"synced {last_synced}"))
        except OSError:
            self._remove_if_there("failed.tmp")
            raise
        self.ops.rename(self.at("failed.tmp"), self.at("failed"))
        self.sync()

    def forget_failed(self) -> None:
        """Remove `failed`; called when a start has gone beyond it."""
        if self.ops.exists(self.at("failed")):
            self.ops.unlink(self.at("failed"))
            self.sync()

    def keep_torn(self, segment: int, offset: int, data: bytes | memoryview) -> str | None:
        """Keep torn bytes aside, 16 MiB at most; return the name, None if there is no space."""
        return self._keep(f"torn-{segment}-{offset}.bin", data)

    def keep_damaged(self, segment: int, offset: int, data: bytes | memoryview) -> str | None:
        """As `keep_torn`, for a record that had been synced and does not verify any more."""
        return self._keep(f"damaged-{segment}-{offset}.bin", data)

    def _keep(self, name: str, data: bytes | memoryview) -> str | None:
        try:
            self._write_data(name, data[:TORN_KEPT_BYTES])
        except OSError as exc:
            if exc.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            self._remove_if_there(
                name
            )  # a start on a full disk goes on: nobody was told of these bytes
            return None
        self.sync()  # outside: a directory whose sync failed is never one that only lacks space
        return name

    def write_file(self, name: str, data: bytes | memoryview) -> None:
        """Write a small file whole and sync it and its entry."""
        self._write_data(name, data)
        self.sync()

    def _write_data(self, name: str, data: bytes | memoryview) -> None:
        descriptor = self.ops.open(self.at(name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            write_all(self.ops, descriptor, data, 0)
            self.ops.sync(descriptor)
        finally:
            self.ops.close(descriptor)

    def remove(self, names: Iterable[str]) -> None:
        """Remove entries of ours; the removal is durable with the next `sync`."""
        for name in names:
            self.ops.unlink(self.at(name))

    def _take_lock(self) -> None:
        if not self.ops.exists(self.at("lock")) and (foreign := self.listing().foreign):
            raise NotWritable(
                self.path,
                "use as a data directory",
                f"it holds {foreign[0]!r}, which is not ours",
                "choose an empty directory",
            )
        self._lock = self.ops.open(self.at("lock"), os.O_RDWR | os.O_CREAT)
        try:
            self.ops.lock(self._lock)
        except BlockingIOError:
            pid = self.ops.read(self._lock, 20, 0).strip()
            raise DirectoryLocked(self.path, int(pid) if pid.isdigit() else 0) from None
        self._look_for_twin()
        number = self.ops.file_number(self._lock)
        line = f"{os.getpid():<19}\n{number} {os.path.realpath(self.path)}\n"
        write_all(self.ops, self._lock, line.encode(errors="surrogateescape"), 0)

    def _look_for_twin(self) -> None:
        """Tell a copy: its lock file says another number than it has. One that was moved keeps it, or is alone."""
        text = self.ops.read(self._lock, _LOCK_BYTES, 20).decode(errors="surrogateescape")
        number, _, path = text.partition("\n")[0].partition(" ")
        if not path or not number.isdecimal():
            return  # as 0.1.0 wrote it
        if int(number) != self.ops.file_number(self._lock):
            self.copied_from = path
        other = os.path.join(path, "lock")
        if not self._adopts_copy and self.ops.is_locked(other, int(number), self._lock):
            raise DirectoryCopied(self.path, path)

    def _read_or_make_key(self) -> bytes:
        path = self.at("key")
        if self.ops.exists(path):
            key = self._read("key", KEY_BYTES + 1)
            if len(key) != KEY_BYTES:
                raise NotWritable(
                    path, "read the session key", f"it has {len(key)} bytes, not {KEY_BYTES}",
                    "remove it: sessions that are still alive will have to start anew",
                )  # fmt: skip
            return key
        return self._make_key()

    def renew_key(self) -> None:
        """Make another session key."""
        self.session_key = self._make_key()

    def write_key(self, key: bytes) -> None:
        """Have this session key: that of another directory, or of a stream."""
        self.write_file("key.tmp", key)
        self.ops.rename(self.at("key.tmp"), self.at("key"))
        self.sync()
        self.session_key = key

    def write_moved(self, to: str) -> None:
        """Note that the log is elsewhere now; no server opens this directory any more."""
        self.write_file("moved.tmp", to.encode(errors="surrogateescape") + b"\n")
        self.ops.rename(self.at("moved.tmp"), self.at("moved"))
        self.sync()

    def was_left(self) -> bool:
        """Return whether the log is elsewhere now."""
        return self.ops.exists(self.at("moved"))

    def _refuse_moved(self) -> None:
        if self.was_left():
            to = self._read("moved", _LOCK_BYTES).decode(errors="surrogateescape").strip()
            raise LogMoved(self.path, to, f"remove {self.at('moved')}")

    def _make_key(self) -> bytes:
        key = self.ops.random_bytes(KEY_BYTES)
        self.write_key(key)
        return key

    def _read(self, name: str, size_bytes: int) -> bytes:
        descriptor = self.ops.open(self.at(name), os.O_RDONLY)
        try:
            return read_all(self.ops, descriptor, size_bytes)
        finally:
            self.ops.close(descriptor)

    def _read_line(self, name: str) -> list[str] | None:
        if not self.ops.exists(self.at(name)):
            return None
        text = self._read(name, _LINE_BYTES)
        words = text.decode("ascii", "replace").split()
        if len(words) < 2 or _line(" ".join(words[:-1])) != text:
            return None
        return words[:-1]

    def _remove_if_there(self, name: str) -> None:
        if self.ops.exists(self.at(name)):
            self.ops.unlink(self.at(name))


def _line(text: str) -> bytes:
    return f"{text} {crc32(text.encode()):08x}".ljust(_LINE_BYTES - 1).encode() + b"\n"
