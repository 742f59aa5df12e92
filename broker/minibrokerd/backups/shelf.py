"""The place of back-ups: a directory of files that are never changed, and a manifest for each back-up.

    lock
    segment-0000000021-00001-3f2a9c0177d1e5b4.log    named by its content
    retained-17-...-2-8d0c61f2ab937e44.segment       likewise, of retained log 17
    key-..., tokens-...                              likewise
    backup-0000012-20261128T215022Z.json             back-up 12 is whole: this was written last
    *.tmp                                            of a run that did not end

Back-ups share the files that did not change. What no manifest names is of a run that was cut short: the next one
takes what it can use of it, and removes the rest when its own manifest stands.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from minibrokerd.backups.failures import BackupDamaged, NoBackup, ShelfInUse
from minibrokerd.backups.manifest import HASH_DIGITS, Manifest, SideFile, decode, encode
from minibrokerd.backups.pace import Pace
from minibrokerd.log.directory import SegmentName
from minibrokerd.log.failures import NotWritable
from minibrokerd.log.fileops import FileOps, read_all, write_all

# Written between two syncs: one of more holds up those of a server beside it.
SYNC_BYTES: Final = 4 * 1024 * 1024
MOST_BYTES: Final = 1024 * 1024 * 1024

_MANIFEST: Final = re.compile(r"backup-(\d{7})-\d{8}T\d{6}Z\.json")
_SEGMENT: Final = re.compile(r"segment-(\d{10})-(\d{5})-([0-9a-f]{16})\.log")
_RETAINED: Final = re.compile(r"retained-\d+-\d{20}-\d+-[0-9a-f]{16}\.segment")
_OURS: Final = re.compile(
    r"(?:lock|lost\+found|.*\.tmp|(?:key|tokens)-[0-9a-f]{16})|"
    + f"{_MANIFEST.pattern}|{_SEGMENT.pattern}|{_RETAINED.pattern}"
)  # fmt: skip


class Shelf:
    """One place of back-ups; opened (and locked) only by who writes to it."""

    def __init__(self, path: Path, ops: FileOps) -> None:
        self.path = path
        self.ops = ops
        self.unreadable: list[str] = []  # manifests that cannot be read, after `manifests`
        self._directory = self._lock = -1

    def open(self) -> None:
        """Make the directory if it is missing, and lock it.

        Raises:
            ShelfInUse: another back-up goes there.
            NotWritable: it cannot be made or written, or holds files that are not ours.
        """
        try:
            if not self.ops.exists(self.at("lock")):
                self.ops.make_directory(str(self.path))
            self._refuse_foreign()
            self._directory = self.ops.open_directory(str(self.path))
            self._lock = self.ops.open(self.at("lock"), os.O_RDWR | os.O_CREAT)
            self.ops.lock(self._lock)
        except BlockingIOError:
            self.close()
            raise ShelfInUse(str(self.path)) from None
        except OSError as exc:
            self.close()
            raise NotWritable(
                str(self.path), "put a back-up into", str(exc), "check owner, mode and mount"
            ) from exc

    def close(self) -> None:
        """Let go of everything, the lock last."""
        for descriptor in (self._directory, self._lock):
            if descriptor >= 0:
                self.ops.close(descriptor)
        self._directory = self._lock = -1

    def at(self, name: str) -> str:
        """Return the path of an entry."""
        return os.path.join(self.path, name)

    def manifests(self) -> list[Manifest]:
        """Return the back-ups that are there, oldest first; those that cannot be read are in `unreadable`."""
        found, self.unreadable = [], []
        for name in self._manifest_names():
            try:
                found.append(decode(self.read(name)))
            except (ValueError, OSError):
                self.unreadable.append(name)
        return sorted(found, key=lambda manifest: manifest.number)

    def manifest(self, number: int | None) -> Manifest:
        """Return one back-up, the newest if `number` is None.

        Raises:
            NoBackup: it is not there.
            BackupDamaged: it is the newest, or that of the number, and cannot be read.
        """
        found = [each for each in self.manifests() if number in (None, each.number)]
        for name in self.unreadable:
            its_number = _number_of(name)
            if its_number == number or (
                number is None and all(its_number > each.number for each in found)
            ):
                raise BackupDamaged(self.at(name), "cannot be read")
        if not found:
            raise NoBackup(str(self.path), number)
        return found[-1]

    def segments(self) -> dict[SegmentName, list[str]]:
        """Return the files of segments, those of no back-up as well, by the segment that they are of."""
        found: dict[SegmentName, list[str]] = {}
        for file in self._names():
            if match := _SEGMENT.fullmatch(file):
                found.setdefault(SegmentName(int(match[1]), int(match[2])), []).append(file)
        return found

    def has(self, name: str, size_bytes: int) -> bool:
        """Whether there is a file of this name, of this size."""
        path = self.at(name)
        return self.ops.exists(path) and self.ops.size(path) == size_bytes

    def read(self, name: str) -> bytes:
        """Return the content of a file; OSError."""
        descriptor = self.ops.open(self.at(name), os.O_RDONLY)
        try:
            return read_all(self.ops, descriptor, MOST_BYTES)
        finally:
            self.ops.close(descriptor)

    def put(self, stem: str, end: str, data: memoryview, pace: Pace) -> tuple[str, str]:
        """Write a file that is named by its content; return its name and its sha256 when it is on the disk."""
        sha256 = hashlib.sha256(data).hexdigest()
        name = f"{stem}-{sha256[:HASH_DIGITS]}{end}"
        if not self.has(name, len(data)):
            self._write(name, data, pace)
        return name, sha256

    def put_side_file(self, name: str, data: bytes) -> SideFile:
        """As `put`, of a small file of the data directory."""
        return SideFile(*self.put(name, "", memoryview(data), Pace()))

    def commit(self, manifest: Manifest) -> None:
        """Make what was put a back-up; it is one when this returns."""
        when = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(manifest.began_unix_ms / 1_000))
        name = f"backup-{manifest.number:07d}-{when}.json"
        self._write(name, memoryview(encode(manifest)), Pace())

    def next_number(self) -> int:
        """Return the number of the next back-up."""
        return 1 + max(map(_number_of, self._manifest_names()), default=0)

    def tidy(self, keep: int) -> list[int]:
        """Remove all back-ups but the newest `keep`, and files that none needs; return the removed numbers."""
        manifests = self.manifests()
        old, kept = manifests[:-keep], manifests[-keep:]
        for name in self._manifest_names():
            if _number_of(name) in {each.number for each in old}:
                self.ops.unlink(self.at(name))
        self.ops.sync_directory(self._directory)  # the files go behind the manifests that name them
        needed = {file for each in kept for file in each.files}
        for name in self._names():
            # What a manifest needs that cannot be read now, nobody knows.
            loose = not self.unreadable and name not in needed and not _MANIFEST.fullmatch(name)
            if name.endswith(".tmp") or (
                loose and name.startswith(("segment-", "retained-", "key-", "tokens-"))
            ):
                self.ops.unlink(self.at(name))
        return [each.number for each in old]

    def _write(self, name: str, data: memoryview, pace: Pace) -> None:
        try:
            self._write_synced(name, data, pace)
        except OSError as exc:
            advice = "make space or check the disk; the back-ups that are there stand"
            raise NotWritable(self.at(name), "write", str(exc), advice) from exc

    def _write_synced(self, name: str, data: memoryview, pace: Pace) -> None:
        temporary = self.at(f"{name}.tmp")
        descriptor = self.ops.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            for start in range(0, len(data), SYNC_BYTES):
                piece = data[start : start + SYNC_BYTES]
                write_all(self.ops, descriptor, piece, start)
                self.ops.sync(descriptor)
                pace.spend(len(piece))
        finally:
            self.ops.close(descriptor)
        self.ops.rename(temporary, self.at(name))
        self.ops.sync_directory(self._directory)

    def _refuse_foreign(self) -> None:
        foreign = [name for name in self._names() if not _OURS.fullmatch(name)]
        if foreign:
            raise NotWritable(
                str(self.path), "put a back-up into", f"it holds {foreign[0]!r}, which is not ours",
                "choose an empty directory",
            )  # fmt: skip

    def _names(self) -> list[str]:
        return sorted(self.ops.list_directory(str(self.path)))

    def _manifest_names(self) -> Iterator[str]:
        return filter(_MANIFEST.fullmatch, self._names())


def _number_of(manifest_name: str) -> int:
    return int(manifest_name[7:14])
