"""The retained logs of a damaged data directory: every segment that can be read goes into the new one as it is.

Readers skip what does not verify, and behind that place they go on where the index of the segment knows one, so
a copy of the bytes keeps all there is to keep. What a crash may have left behind the last sync is cut off by who
opens them, as a start does.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass, field

from minibrokerd.log.fileops import FileOps, write_all
from minibrokerd.retained.checking import look_at, read_segment
from minibrokerd.retained.segment import newest_of
from minibrokerd.retained.shelf import Retained

DIRECTORY = "retained"


@dataclass(slots=True)
class LogSalvaged:
    """One retained log: what was kept, below `stop`; places that are skipped, and files that cannot be read."""

    number: int
    messages: int = 0
    stop: int = 0
    damaged: int = 0
    unread: list[str] = field(default_factory=list)


def salvage_retained(
    source: str, building: str, ops: FileOps, ended: Collection[int]
) -> list[LogSalvaged]:
    """Copy the retained logs of a data directory into another, but for those that ended; OSError: it is full."""
    there = Retained(ops, os.path.join(source, DIRECTORY))
    here = Retained(ops, os.path.join(building, DIRECTORY))
    found = [
        _copy(there.path(number), here.path(number), ops, LogSalvaged(number))
        for number in there.numbers()
        if number not in ended
    ]
    try:
        for each in found:
            each.stop = here.get(each.number).stop
    finally:
        here.close()
    return found


def _copy(source: str, target: str, ops: FileOps, salvaged: LogSalvaged) -> LogSalvaged:
    ops.make_directory(target)
    names = newest_of(ops.list_directory(source))
    for name in names:
        try:
            data = read_segment(ops, os.path.join(source, name))
        except OSError:
            salvaged.unread.append(f"{DIRECTORY}/{salvaged.number}/{name}")
            continue
        looked = look_at(memoryview(data), is_newest=name == names[-1])
        salvaged.messages += looked.messages
        salvaged.damaged += len(looked.damages)
        _write(ops, os.path.join(target, name), data)
        index = name.removesuffix(".segment") + ".index"
        if ops.exists(os.path.join(source, index)):
            try:
                data = read_segment(ops, os.path.join(source, index))
            except OSError:
                continue  # it is made anew
            _write(ops, os.path.join(target, index), data)
    return salvaged


def _write(ops: FileOps, path: str, data: bytes) -> None:
    descriptor = ops.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        write_all(ops, descriptor, data, 0)
        ops.sync(descriptor)
    finally:
        ops.close(descriptor)
