"""Single records read back from their places, each verified by its own checksum."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from typing import Final

from minibrokerd.log import format as layout
from minibrokerd.log.fileops import FileOps
from minibrokerd.log.seam import RECORD_HEAD_BYTES, Record

_BEHIND_BYTES: Final = 64 * 1024  # read behind the start of the last record: most end there


def read_records(ops: FileOps, path: str, offsets: Sequence[int]) -> list[Record | None]:
    """Return the records that start at these ascending offsets; None for what does not verify.

    Raises:
        OSError: the file cannot be opened. A read that fails is a record that does not verify.
    """
    descriptor = ops.open(path, os.O_RDONLY)
    try:
        start = offsets[0]
        try:
            data = _read(ops, descriptor, start, offsets[-1] - start + _BEHIND_BYTES)
        except OSError as exc:
            if exc.errno != errno.EIO:
                raise
            return [_read_alone(ops, descriptor, offset) for offset in offsets]
        found = [layout.decode_record(data, offset - start) for offset in offsets[:-1]]
        return [*found, _read_last(ops, descriptor, offsets[-1], data[offsets[-1] - start :])]
    finally:
        ops.close(descriptor)


def read_bytes(ops: FileOps, path: str, start: int, size_bytes: int) -> bytes:
    """Return what can be read of a stretch of a file: nothing, where a sector of it is lost."""
    descriptor = ops.open(path, os.O_RDONLY)
    try:
        return _read(ops, descriptor, start, size_bytes)
    except OSError as exc:
        if exc.errno != errno.EIO:
            raise
        return b""
    finally:
        ops.close(descriptor)


def _read_alone(ops: FileOps, descriptor: int, offset: int) -> Record | None:
    # Not a byte more than it has: what cannot be read may be of the record behind it.
    try:
        return _read_last(
            ops, descriptor, offset, _read(ops, descriptor, offset, RECORD_HEAD_BYTES)
        )
    except OSError as exc:
        if exc.errno != errno.EIO:
            raise
        return None


def _read_last(ops: FileOps, descriptor: int, offset: int, data: bytes) -> Record | None:
    """Decode a record of which the end may not have been read."""
    size_bytes = layout.record_size(data)
    if len(data) < size_bytes <= layout.LARGEST_BATCH_BYTES:
        data = _read(ops, descriptor, offset, size_bytes)
    return layout.decode_record(data, 0)


def _read(ops: FileOps, descriptor: int, start: int, size_bytes: int) -> bytes:
    pieces = []
    while size_bytes > 0:
        piece = ops.read(descriptor, size_bytes, start)
        if not piece:
            break
        pieces.append(piece)
        start, size_bytes = start + len(piece), size_bytes - len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
