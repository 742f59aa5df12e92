"""A small log that is written while it is copied, and calls of the system that something happens beside."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from log_world import NOW_MS, PATIENCE_SECONDS, UNIX_MS, Engine

from minibroker.contract.wire import RUN
from minibrokerd.backups.backing import BackedUp, back_up
from minibrokerd.backups.bringing import bring_back
from minibrokerd.backups.pace import Pace
from minibrokerd.backups.shelf import Shelf
from minibrokerd.core.model.records import EndMeta, decode, record
from minibrokerd.log.directory import DataDirectory
from minibrokerd.log.fileops import FileOps
from minibrokerd.log.recovery import Recovery
from minibrokerd.log.seam import Batch

SMALL = 4096


class Numbered:
    """An open log whose batches are numbered, one by one: each is the end of a session."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.written = 0
        self.engine = Engine(path, segment_bytes=SMALL).open()

    @property
    def segments(self) -> int:
        """How many segments there are."""
        return self.engine.log.disk_bytes // SMALL

    async def write(self, life: int = 1) -> None:
        """Write the next number; `life` tells two lives of a log apart."""
        engine, tail = self.engine, RUN.pack(life, 1, self.written + 1, 1) * 17
        end = record(EndMeta(1, 1, False), tail)
        engine.news.clear()
        engine.hand(Batch(engine.log.next_number, [end], NOW_MS, UNIX_MS))
        await asyncio.wait_for(engine.news.wait(), PATIENCE_SECONDS)
        self.written += 1

    async def fill(self, segments: int) -> None:
        """Write until there are so many segments more."""
        goal = self.segments + segments
        while self.segments < goal:
            await self.write()

    async def free(self) -> None:
        """Give up the oldest segment; its file is zeroed or gone when this returns."""
        upto, gone = self.engine.log.oldest_upto, asyncio.Event()
        assert upto is not None
        self.engine.log.trim(upto, NOW_MS, UNIX_MS, gone.set)
        await asyncio.wait_for(gone.wait(), PATIENCE_SECONDS)

    def crash(self) -> None:
        """End it without a footer, and start it again: the newest segment gets another generation."""
        self.engine.log.abandon()
        self.engine = Engine(self.path, segment_bytes=SMALL).open()


class Watched(FileOps):
    """Calls `happens` (in the loop, which goes on meanwhile) before some reads of a file whose name begins so."""

    def __init__(self) -> None:
        self.reads: list[tuple[str, int]] = []
        self.when: Callable[[str, int], bool] = lambda name, offset: False
        self.happens: Callable[[], object] = lambda: None
        self._names: dict[int, str] = {}

    def open(self, path: str, flags: int) -> int:
        """Open, and remember the name."""
        descriptor = super().open(path, flags)
        self._names[descriptor] = os.path.basename(path)
        return descriptor

    def read(self, descriptor: int, size_bytes: int, offset: int) -> bytes:
        """Read, after whatever is to happen before."""
        name = self._names[descriptor]
        self.reads.append((name, offset))
        if self.when(name, offset):
            self.happens()
        return super().read(descriptor, size_bytes, offset)


def take(source: Path, out: Path, ops: FileOps | None = None, *, keep: int = 7) -> BackedUp:
    """Take one back-up."""
    ops = ops or FileOps()
    shelf = Shelf(out, ops)
    shelf.open()
    try:
        return back_up(source, shelf, ops, keep=keep, pace=Pace())
    finally:
        shelf.close()


def brought(out: Path, target: Path, number: int | None = None) -> list[bytes]:
    """Restore a back-up and return what its log says."""
    bring_back(Shelf(out, FileOps()), number, target, FileOps(), new_sessions=False)
    return said(target)


def said(path: Path, ops: FileOps | None = None) -> list[bytes]:
    """Return the tails of all records of a log."""
    ops = ops or FileOps()
    recovery = Recovery(DataDirectory(path, ops), ops)
    tails = []
    for batch in recovery.batches():
        assert isinstance(batch, Batch)
        tails += [bytes(each.tail) for each in batch.records if type(decode(each)) is EndMeta]
    return tails


def numbers(tails: list[bytes]) -> list[int]:
    """Return the numbers that `Numbered` wrote."""
    return [RUN.unpack_from(tail)[2] for tail in tails]


def lives(tails: list[bytes]) -> list[int]:
    """Return in which life each was written."""
    return [RUN.unpack_from(tail)[0] for tail in tails]
