"""The files of retained logs in a back-up: they are copied behind the log, so what it has given away is there.

What was archived since the log was copied is in both: the archive knows its messages by their offsets. A segment
never changes under its name but for the newest, which grows, so what was copied before is not read again. A server
that deletes, or writes anew, takes files away meanwhile: then the log is looked at again.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final
from zlib import crc32

from minibrokerd.backups.failures import Unsettled
from minibrokerd.backups.manifest import Manifest, RetainedSegment
from minibrokerd.backups.pace import Pace
from minibrokerd.backups.shelf import Shelf
from minibrokerd.backups.verifying import read_whole
from minibrokerd.log.fileops import FileOps, write_all
from minibrokerd.retained.checking import look_at, read_segment
from minibrokerd.retained.segment import newest_of
from minibrokerd.retained.shelf import Retained

DIRECTORY: Final = "retained"
ROUNDS: Final = 50
_END_BYTES: Final = 64 * 1024


def take_retained(
    source: Path, shelf: Shelf, ops: FileOps, pace: Pace, older: list[Manifest]
) -> tuple[list[RetainedSegment], int]:
    """Put all retained logs of a data directory on the shelf; return their rows, and the bytes that were written.

    Raises:
        Unsettled: files went faster than they were copied.
        NotWritable, OSError: as `back_up`.
    """
    known = {(row.log, row.name, row.bytes): row for each in older for row in each.retained}
    retained = Retained(ops, str(source / DIRECTORY))
    rows: list[RetainedSegment] = []
    copied = 0
    for number in retained.numbers():
        for _ in range(ROUNDS):
            try:
                found, some = _take_log(retained.path(number), number, shelf, ops, pace, known)
            except FileNotFoundError:
                continue
            rows += found
            copied += some
            break
        else:
            raise Unsettled(retained.path(number), ROUNDS)
    return rows, copied


def _take_log(
    path: str,
    number: int,
    shelf: Shelf,
    ops: FileOps,
    pace: Pace,
    known: dict[tuple[int, str, int], RetainedSegment],
) -> tuple[list[RetainedSegment], int]:
    rows, copied = [], 0
    names = newest_of(ops.list_directory(path)) if ops.exists(path) else []
    for name in names:
        at, size = os.path.join(path, name), ops.size(os.path.join(path, name))
        row = known.get((number, name, size))
        if row is None or row.ends != _ends_of(ops, at, size) or not shelf.has(row.file, row.bytes):
            data = read_segment(ops, at)
            if name == names[-1]:  # it grows, and its end may be under way
                data = data[: look_at(memoryview(data), is_newest=True).end]
            stem = f"retained-{number}-{name.removesuffix('.segment')}"
            file, sha256 = shelf.put(stem, ".segment", memoryview(data), pace)
            ends = crc32(data[-_END_BYTES:], crc32(data[:_END_BYTES]))
            row = RetainedSegment(number, name, file, len(data), sha256, ends)
            known[number, name, len(data)] = row
            copied += len(data)
        rows.append(row)
    if not all(ops.exists(os.path.join(path, name)) for name in names):
        # A tombstone that went meanwhile must not be missing where what it ended is not.
        raise FileNotFoundError
    return rows, copied


def _ends_of(ops: FileOps, path: str, size: int) -> int:
    descriptor = ops.open(path, os.O_RDONLY)
    try:
        first = ops.read(descriptor, _END_BYTES, 0)
        return crc32(ops.read(descriptor, _END_BYTES, max(size - _END_BYTES, 0)), crc32(first))
    finally:
        ops.close(descriptor)


def bring_retained(shelf: Shelf, manifest: Manifest, building: Path, ops: FileOps) -> None:
    """Write the retained logs of a back-up into a data directory that is being built.

    Raises:
        BackupDamaged: a file is not as it was written.
        OSError: it cannot be written.
    """
    retained = Retained(ops, str(building / DIRECTORY))
    for row in manifest.retained:
        path = retained.path(row.log)
        if not ops.exists(path):
            ops.make_directory(path)
        data = read_whole(shelf, row.file, row.sha256)
        descriptor = ops.open(os.path.join(path, row.name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            write_all(ops, descriptor, data, 0)
            ops.sync(descriptor)
        finally:
            ops.close(descriptor)
    for number in retained.numbers():
        retained.get(number)  # which makes the indexes, so that the first start need not
    retained.close()
