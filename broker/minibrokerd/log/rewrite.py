"""The last segment of an unclean log, written again under its own number and a higher generation.

What a recovery has read may stand in the page cache only, and the torn bytes behind it must never
be read as a later batch. So before anything is served, the segment is copied into zeros, synced and
renamed into place; each step can be the last one before a crash, and the next start finds one whole
state.
"""

from __future__ import annotations

import os
from typing import Final
from zlib import crc32

from minibrokerd.log import format as layout
from minibrokerd.log.allocation import Allocation
from minibrokerd.log.directory import DataDirectory, SegmentName
from minibrokerd.log.fileops import FileOps, write_all
from minibrokerd.log.format import Origin
from minibrokerd.log.recovery import RecoveryReport, Segment
from minibrokerd.log.tail import OpenSegment

_CHUNK_BYTES: Final = 1024 * 1024


def rewrite(
    last: Segment,
    report: RecoveryReport,
    directory: DataDirectory,
    ops: FileOps,
    allocation: Allocation,
) -> tuple[OpenSegment, int, int]:
    """Put a copy of `last` up to its end in its place; its torn bytes go to a side file.

    Returns the new segment, the crc32 of its batches, and that of those which its side index had.

    Raises:
        OSError: a step failed; the old file counts as long as the new one has not its name.
    """
    if report.torn_bytes:
        torn = memoryview(last.data)[last.end : last.end + report.torn_bytes]
        report.torn_kept = directory.keep_torn(last.name.number, last.end, torn)
    size_bytes = last.info.segment_bytes
    descriptor, zeroed = allocation.take(size_bytes)
    name = SegmentName(last.name.number, last.name.generation + 1)
    origin = Origin(last.header.origin.store_id, name.number, name.generation)
    try:
        position, checksum, indexed = _copy(last, origin, ops, descriptor)
        ops.sync(descriptor)
        ops.rename(directory.at("next.tmp"), directory.at(name))
        directory.sync()
    except BaseException:
        ops.close(descriptor)
        raise
    allocation.leftovers.append(str(last.name))
    return OpenSegment(name, descriptor, size_bytes, position, zeroed), checksum, indexed


def reopen(last: Segment, directory: DataDirectory, ops: FileOps) -> OpenSegment:
    """Open the last segment of a log that was closed, to go on behind its footer."""
    descriptor = ops.open(directory.at(last.name), os.O_RDWR)
    return OpenSegment(last.name, descriptor, last.info.segment_bytes, last.end, last.end)


def _copy(last: Segment, origin: Origin, ops: FileOps, descriptor: int) -> tuple[int, int, int]:
    indexed_bytes = last.slices[-1].region.stop if last.slices else 0
    position = checksum = indexed = 0
    chunk: list[bytes] = []
    chunk_bytes = 0
    for piece in layout.encode_moved(last.data, last.end, origin):
        chunk.append(piece)
        chunk_bytes += len(piece)
        end = position + chunk_bytes
        if chunk_bytes >= _CHUNK_BYTES or end in (indexed_bytes, last.end):
            data = b"".join(chunk)
            write_all(ops, descriptor, data, position)
            checksum = crc32(data, checksum)
            position, chunk, chunk_bytes = end, [], 0
            if end == indexed_bytes:
                indexed = checksum
    return position, checksum, indexed
