"""A small engine around a real log, and system calls that fail on demand: what the log tests share."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zlib import crc32

from minibrokerd.log.filelog import FileLog
from minibrokerd.log.fileops import FileOps
from minibrokerd.log.seam import Batch, Record, Room
from minibrokerd.log.writer import Job

SEGMENT_BYTES = 16 * 1024
PATIENCE_SECONDS = 20.0  # for events that come at once unless the code is broken
NOW_MS = 1_000
UNIX_MS = 1_700_000_000_000

Content = tuple[int, bytes, bytes]


def record(tail: bytes, meta: bytes = b"\x90", type_: int = 4) -> Record:
    """Return a record whose tail carries its right checksum."""
    return Record(type_, meta, tail, crc32(tail))


def contents(batches: list[Batch]) -> list[list[bytes]]:
    """Return the tails of the records, batch by batch."""
    return [[bytes(record.tail) for record in batch.records] for batch in batches]


class Engine:
    """Opens a log, recovers it, and appends one batch at a time.

    `recovered` is what the recovery yielded, `synced` the numbers that came by callback,
    `loop_errors` what callbacks raised.
    """

    def __init__(
        self, path: Path, *, segment_bytes: int = SEGMENT_BYTES, ops: FileOps | None = None
    ) -> None:
        self.log = FileLog(path, segment_bytes=segment_bytes, ops=ops)
        self.recovered: list[Batch] = []
        self.synced: list[int] = []
        self.news = asyncio.Event()
        self.room = asyncio.Event()
        self.failed: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        self.number = 0
        self.loop_errors: list[object] = []
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: self.loop_errors.append(context)
        )

    def recover(self) -> list[list[bytes]]:
        """Recover and return the tails, batch by batch."""
        self.recovered = [batch for batch in self.log.recover() if isinstance(batch, Batch)]
        return contents(self.recovered)

    def start(self) -> None:
        """Start the log after a recovery; returns when its thread has made the reserve whole, too."""
        self.log.lead(NOW_MS, UNIX_MS, self._on_synced, self.room.set, self._on_failed)
        tidied = Job(lambda: None, None)
        self.log._put(tidied)
        tidied.wait(PATIENCE_SECONDS)

    def open(self) -> Engine:
        """Recover and start."""
        self.recover()
        self.start()
        return self

    def batch(self, *tails: bytes) -> Batch:
        """Return the next batch, with a record per tail."""
        self.number = self.log.next_number
        return Batch(self.number, [record(tail) for tail in tails], NOW_MS, UNIX_MS)

    def hand(self, batch: Batch, *waiting: Any) -> bool:
        """Hand a batch to the log, which is to wait so long and do this meanwhile."""
        return self.log.append(batch, self.log.next_number - 1, *waiting)

    async def append(self, *tails: bytes) -> None:
        """Append a batch and wait for its callback."""
        self.news.clear()
        self.hand(self.batch(*tails))
        await asyncio.wait_for(self.news.wait(), PATIENCE_SECONDS)
        assert self.synced[-1] == self.number

    async def await_room(self, size_bytes: int) -> None:
        """Return when there is room for records of so many bytes, and so the reserve is whole."""
        while self.log.room_for(size_bytes) is not Room.GRANTED:
            self.room.clear()
            await asyncio.wait_for(self.room.wait(), PATIENCE_SECONDS)

    def close(self) -> None:
        """Close the log with a footer."""
        self.log.close(NOW_MS, UNIX_MS)

    def _on_failed(self, failure: BaseException) -> None:
        self.failed.set_result(failure)
        self.news.set()

    def _on_synced(self, number: int) -> None:
        self.synced.append(number)
        self.news.set()


class Crash(BaseException):
    """The process died here: nothing after it reaches the disk."""


class CrashingOps(FileOps):
    """Dies at the n-th call that changes something (0: never), halfway through if it is a write."""

    def __init__(self, crash_at: int = 0) -> None:
        self.crash_at = crash_at
        self.calls = 0

    def _step(self) -> bool:
        if threading.current_thread() is not threading.main_thread():
            return False  # only the start is cut short: what the writer does is not in step with it
        self.calls += 1
        if self.crash_at and self.calls > self.crash_at:
            raise Crash
        return self.calls == self.crash_at

    def _change(self, change: Callable[[], None]) -> None:
        if self._step():
            raise Crash
        change()

    def open(self, path: str, flags: int) -> int:
        """Open; creating a file is a change."""
        if flags & os.O_CREAT and self._step():
            raise Crash
        return super().open(path, flags)

    def write(self, descriptor: int, data: bytes | memoryview, offset: int) -> int:
        """Write, or write half and die."""
        if self._step():
            super().write(descriptor, memoryview(data)[: len(data) // 2], offset)
            raise Crash
        return super().write(descriptor, data, offset)

    def write_synced(self, descriptor: int, data: bytes | memoryview, offset: int) -> int:
        """Write, or write half and die."""
        if self._step():
            super().write(descriptor, memoryview(data)[: len(data) // 2], offset)
            raise Crash
        return super().write_synced(descriptor, data, offset)

    def sync(self, descriptor: int) -> None:
        """Sync or die."""
        self._change(lambda: super(CrashingOps, self).sync(descriptor))

    def sync_directory(self, descriptor: int) -> None:
        """Sync or die."""
        self._change(lambda: super(CrashingOps, self).sync_directory(descriptor))

    def allocate(self, descriptor: int, size_bytes: int) -> None:
        """Allocate or die."""
        self._change(lambda: super(CrashingOps, self).allocate(descriptor, size_bytes))

    def truncate(self, descriptor: int, size_bytes: int) -> None:
        """Cut or die."""
        self._change(lambda: super(CrashingOps, self).truncate(descriptor, size_bytes))

    def rename(self, old: str, new: str) -> None:
        """Rename or die."""
        self._change(lambda: super(CrashingOps, self).rename(old, new))

    def unlink(self, path: str) -> None:
        """Remove or die."""
        self._change(lambda: super(CrashingOps, self).unlink(path))


class FaultyOps(FileOps):
    """Fails on demand: set an attribute, from any thread.

    `sync_errors` are raised by the next synced writes, one each; `full` makes every allocation and
    creation run out of space; `short` makes each write take so many bytes at most; while `gate` is
    cleared, synced writes hang.
    """

    def __init__(self) -> None:
        self.sync_errors: list[OSError] = []
        self.full = False
        self.short: int | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.writing = threading.Event()
        self.synced_writes = 0

    def write(self, descriptor: int, data: bytes | memoryview, offset: int) -> int:
        """Write, maybe short."""
        return super().write(descriptor, memoryview(data)[: self.short], offset)

    def write_synced(self, descriptor: int, data: bytes | memoryview, offset: int) -> int:
        """Write, maybe late, short or not at all."""
        self.writing.set()
        assert self.gate.wait(PATIENCE_SECONDS)
        self.synced_writes += 1
        if self.sync_errors:
            raise self.sync_errors.pop(0)
        if self.short == 0:
            return 0
        return super().write_synced(descriptor, memoryview(data)[: self.short], offset)

    def allocate(self, descriptor: int, size_bytes: int) -> None:
        """Allocate, unless the disk is full."""
        if self.full:
            raise OSError(errno.ENOSPC, "no space left")
        super().allocate(descriptor, size_bytes)
