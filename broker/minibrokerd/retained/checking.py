"""Whether the files of retained logs are as they were written; read without a lock, or of a copy."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from zlib import crc32

from minibrokerd.log.fileops import FileOps, read_all
from minibrokerd.retained.frames import HEAD, SYNCED_BEFORE, head_at
from minibrokerd.retained.segment import newest_of
from minibrokerd.retained.shelf import ASIDE


@dataclass(slots=True)
class Looked:
    """What the bytes of a segment are: whole frames up to `end`, but for `damages` (start, end) within.

    Behind `end` stands what a crash leaves of the last append: only in the segment that is appended to.
    """

    frames: int = 0
    messages: int = 0
    end: int = 0
    damages: list[tuple[int, int]] = field(default_factory=list)


def look_at(data: memoryview, *, is_newest: bool) -> Looked:
    """Judge the bytes of a segment; what is not whole at the end of the newest one is torn, not damaged."""
    looked = Looked()
    at, waiting = 0, list[tuple[int, int]]()
    while at < len(data):
        head = head_at(data, at, at)
        if head is None or head.end > len(data):
            waiting.append((at, len(data)))
            break
        if crc32(data[at + HEAD.size : head.end]) != head.checksum:
            waiting.append((at, head.end))
        else:
            looked.frames += 1
            looked.messages += head.stop - head.first
            if head.flags & SYNCED_BEFORE or not waiting:
                looked.damages += waiting
                waiting.clear()
                looked.end = head.end
        at = head.end
    if not is_newest:
        looked.damages += waiting
        looked.end = len(data)
    return looked


@dataclass(slots=True)
class LogLooked:
    """One retained log: what is in it, each (file, start, end) that is damaged, and whether its end is torn."""

    number: int
    segments: int = 0
    messages: int = 0
    damages: list[tuple[str, int, int]] = field(default_factory=list)
    torn: bool = False


def check_logs(ops: FileOps, directory: str) -> Iterator[LogLooked]:
    """Yield what is found of each log in `directory`. OSError; what a server deletes meanwhile is passed over."""
    if not ops.exists(directory):
        return
    for number in sorted(int(name) for name in ops.list_directory(directory) if name.isdecimal()):
        found = LogLooked(number)
        path = os.path.join(directory, str(number))
        names = newest_of(ops.list_directory(path)) if ops.exists(path) else []
        for name in names:
            try:
                data = read_segment(ops, os.path.join(path, name))
            except FileNotFoundError:
                continue
            looked = look_at(memoryview(data), is_newest=name == names[-1])
            found.segments += 1
            found.messages += looked.messages
            found.damages += [(name, start, end) for start, end in looked.damages]
            found.torn |= looked.end < len(data)
        yield found


def asides(ops: FileOps, directory: str) -> list[str]:
    """Return the names in `directory` of logs that starts did not know, and kept aside. OSError."""
    if not ops.exists(directory):
        return []
    names = (name.partition(ASIDE) for name in ops.list_directory(directory))
    return sorted("".join(parts) for parts in names if parts[0].isdecimal() and parts[1])


def read_segment(ops: FileOps, path: str) -> bytes:
    """Return the content of a segment. OSError."""
    size = ops.size(path)
    descriptor = ops.open(path, os.O_RDONLY)
    try:
        return read_all(ops, descriptor, size)
    finally:
        ops.close(descriptor)
