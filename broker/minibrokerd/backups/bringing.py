"""`minibroker restore`: a back-up becomes a data directory, whole or not at all.

It is built in a directory of its own inside the one that was asked for (a mount point could not be renamed),
raised as `log restore` raises a copy, and renamed when it is whole. Then its files move out. While either name
is there no server starts, for neither is one of a data directory. A restore that was cut short is begun again
while it was built, and brought to its end once it was whole.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Final

import msgspec

from minibrokerd.backups.manifest import Manifest
from minibrokerd.backups.retaining import bring_retained
from minibrokerd.backups.shelf import Shelf
from minibrokerd.backups.verifying import read_whole
from minibrokerd.log.directory import DataDirectory
from minibrokerd.log.failures import NotWritable
from minibrokerd.log.fileops import FileOps, write_all
from minibrokerd.rescue.restoring import Restored, restore

BUILDING: Final = "restore-unfinished"
MOVING: Final = "restore-moving"
NOTE: Final = "restored.json"  # it stays in the data directory, and says what it comes from
_PASSED_OVER: Final = frozenset({"lost+found"})


class Brought(msgspec.Struct, frozen=True):
    """What stands in the data directory now, and whether an earlier restore had brought it that far."""

    number: int
    batch: int
    began_unix_ms: int
    restored: Restored
    finished: bool = False


def bring_back(
    shelf: Shelf, number: int | None, target: Path, ops: FileOps, *, new_sessions: bool
) -> Brought:
    """Make `target` a data directory out of a back-up (None: the newest), with every number raised.

    Raises:
        NotWritable: the target is not empty, or cannot be written.
        NoBackup, BackupDamaged: there is nothing to bring back; the target is as it was.
        LogError: what was copied is no log that can be started.
    """
    moving = target / MOVING
    try:
        if moving.is_dir():  # whatever was asked for: the data directory is not ours to throw away
            return _move(target, ops, finished=True)
        _refuse(shelf, target)
        brought = _build(shelf, shelf.manifest(number), target, ops, new_sessions)
        note = msgspec.json.encode(brought)
        _write(str(target / BUILDING / NOTE), note, len(note), ops)
        _sync_directory(target / BUILDING, ops)
        ops.rename(str(target / BUILDING), str(moving))
        return _move(target, ops, finished=False)
    except OSError as exc:
        raise NotWritable(
            str(target),
            "restore into",
            str(exc),
            "make space or check its owner, then restore again",
        ) from exc


def _refuse(shelf: Shelf, target: Path) -> None:
    there = {path.name for path in target.iterdir()} if target.is_dir() else set()
    if target.resolve() == shelf.path.resolve():
        there.add("lock")
    others = there - _PASSED_OVER - {BUILDING}
    if NOTE in others:
        brought = msgspec.json.decode((target / NOTE).read_bytes(), type=Brought)
        what = f"it was restored from back-up {brought.number} before, and is whole"
    else:
        what = f"it is not empty ({min(others, default='')})"
    if others:
        raise NotWritable(str(target), "restore into", what, "name a new directory with --data-dir")


def _build(
    shelf: Shelf, manifest: Manifest, target: Path, ops: FileOps, new_sessions: bool
) -> Brought:
    building = target / BUILDING
    if building.exists():
        shutil.rmtree(building)
    ops.make_directory(str(building))
    try:
        for segment in manifest.segments:
            data = read_whole(shelf, segment.file, segment.sha256)
            _write(str(building / str(segment.name)), data, segment.size_bytes, ops)
        for name, side in manifest.side_files.items():
            data = read_whole(shelf, side.file, side.sha256)
            _write(str(building / name), data, len(data), ops)
        bring_retained(shelf, manifest, building, ops)
        _sync_directory(building, ops)
        restored = restore(DataDirectory(building, ops), ops, new_sessions=new_sessions)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    return Brought(manifest.number, manifest.batch, manifest.began_unix_ms, restored)


def _move(target: Path, ops: FileOps, *, finished: bool) -> Brought:
    """Move the files out of the directory that they were built in; done again, it goes on where it was."""
    moving = target / MOVING
    _sync_directory(target, ops)
    for name in sorted(ops.list_directory(str(moving))):
        if name != "lock":  # it names the place where it was made
            ops.rename(str(moving / name), str(target / name))
    _sync_directory(target, ops)
    brought = msgspec.json.decode((target / NOTE).read_bytes(), type=Brought)
    (moving / "lock").unlink(missing_ok=True)
    moving.rmdir()  # from here on a server starts
    _sync_directory(target, ops)
    return msgspec.structs.replace(brought, finished=finished)


def _write(path: str, data: bytes, size_bytes: int, ops: FileOps) -> None:
    descriptor = ops.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        write_all(ops, descriptor, data, 0)
        if size_bytes > len(data):
            ops.truncate(descriptor, size_bytes)
        ops.sync(descriptor)
    finally:
        ops.close(descriptor)


def _sync_directory(path: Path, ops: FileOps) -> None:
    descriptor = ops.open_directory(str(path))
    try:
        ops.sync_directory(descriptor)
    finally:
        ops.close(descriptor)


def as_map(brought: Brought) -> dict[str, object]:
    """Return it for programs."""
    return {
        "number": brought.number,
        "batch": brought.batch,
        "began_unix_ms": brought.began_unix_ms,
        **asdict(brought.restored),
        "finished_earlier": brought.finished,
    }
