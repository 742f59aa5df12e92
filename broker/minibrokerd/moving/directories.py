"""A data directory as one end of a move.

A log is made under another name beside the place where it belongs, and is put there when it is whole; what a move
left that was ended is thrown away. A directory that was left has a file that says where its log went.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Final

from minibrokerd.log.directory import DataDirectory
from minibrokerd.log.failures import NotWritable
from minibrokerd.log.filelog import FileLog
from minibrokerd.log.fileops import FileOps, sync_entries
from minibrokerd.log.recovery import Recovery
from minibrokerd.log.seam import Batch, Room
from minibrokerd.moving.both_ends import CannotMove, How, Origin, Tally, WasLeft
from minibrokerd.rescue.restoring import AtOnce

SUFFIX: Final = ".moving"


class DirectoryOrigin:
    """A data directory that a log leaves."""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self.store_id = self.session_key = b""
        self.epoch = self.now_ms = self.unix_ms = 0
        self.clean = True
        self._directory = DataDirectory(path, FileOps())

    async def open(self, how: How) -> None:
        """Lock it: that alone changes nothing that a server reads."""
        self._directory.open()
        self.session_key = self._directory.session_key
        recovery = Recovery(self._directory, FileOps())
        next(recovery.batches(), None)  # the newest segment is looked at before the first batch
        self.store_id = recovery.store_id

    async def batches(self) -> AsyncIterator[Batch]:
        """Read the segments."""
        recovery = Recovery(self._directory, FileOps())
        for batch in recovery.batches():
            assert isinstance(batch, Batch), "no side index was asked for"
            self.unix_ms = batch.unix_ms
            yield batch
        self.store_id, self.epoch = recovery.store_id, recovery.epoch
        self.now_ms, self.clean = recovery.now_ms, recovery.clean

    async def hold(self) -> None:
        """See that the lock is where a server looks for it."""
        try:
            self._directory.check()
        except OSError as error:
            raise NotWritable(self.name, "move", str(error), "see who took it away") from error

    async def moved(self, to: str) -> None:
        """Leave a note, which a start reads."""
        self._directory.write_moved(to)

    async def close(self) -> None:
        """Let go of the lock."""
        self._directory.close()


class DirectoryTarget:
    """A data directory that a log comes to."""

    def __init__(self, path: Path, segment_bytes: int) -> None:
        self.name = str(path)
        self._path = path
        self._made_at = path.with_name(path.name + SUFFIX)
        self._segment_bytes = segment_bytes
        self._log: FileLog | None = None

    async def reserve(self, origin: Origin) -> None:
        """Do nothing: if a server makes a log there meanwhile, `finish` says that ours has no place."""

    async def look(self, origin: Origin) -> tuple[Tally, bool]:
        """Return the log that is there, if it is this one."""
        tally = Tally()
        if not self._path.exists() or not any(self._path.iterdir()):
            return tally, False
        directory = DataDirectory(self._path, FileOps())
        recovery = Recovery(directory, FileOps())
        if directory.was_left():
            raise WasLeft(self.name)
        for batch in recovery.batches():
            assert isinstance(batch, Batch), "no side index was asked for"
            tally.add(batch)
        if recovery.store_id != origin.store_id:
            raise CannotMove(f"cannot move to {self.name}: it is not empty; name another directory")
        return tally, True

    async def open(self, origin: Origin) -> None:
        """Make a new log of the same store."""
        self._tidy()
        log = FileLog(
            self._made_at,
            segment_bytes=self._segment_bytes,
            make_writer=AtOnce,
            raised_epochs=origin.epoch + 1,
        )
        assert not list(log.recover()), "it is new"
        self._log = log
        log.adopt(origin.store_id, origin.session_key)
        log.lead(0, origin.unix_ms, _ignore, _ignore, _raise)

    def _tidy(self) -> None:
        if not self._made_at.exists():
            return
        left = DataDirectory(self._made_at, FileOps())
        left.open()  # the lock: nobody else moves to it
        foreign = left.listing().foreign
        left.close()
        if foreign:
            what = f"it holds {foreign[0]!r}, which is not ours"
            raise NotWritable(
                str(self._made_at), "use", what, "move that away, or name another directory"
            )
        shutil.rmtree(self._made_at)

    async def append(self, batches: Sequence[Batch]) -> None:
        """Write and sync them one after the other, which takes a slow disk seconds: not in the loop."""
        await asyncio.to_thread(self._append, batches)

    def _append(self, batches: Sequence[Batch]) -> None:
        log = self._log
        assert log is not None, "open() comes first"
        for batch in batches:
            size_bytes = sum(record.size_bytes for record in batch.records)
            if size_bytes > log.sizes.batch_bytes:
                raise CannotMove(
                    f"cannot move to {self.name}: a batch of {size_bytes} bytes does not fit into segments of "
                    f"{self._segment_bytes}; give --segment-bytes"
                )
            while (room := log.room_for(size_bytes)) is Room.WAIT:
                pass  # what it waits for is done by the next call
            if room is Room.REFUSED:
                raise NotWritable(
                    str(self._made_at), "write", "the disk is full", "make space, and begin again"
                )
            number = log.next_number
            log.append(Batch(number, batch.records, batch.now_ms, batch.unix_ms), number - 1)

    async def batches(self) -> AsyncIterator[Batch]:
        """Read the segments that were written."""
        for batch in Recovery(DataDirectory(self._made_at, FileOps()), FileOps()).batches():
            assert isinstance(batch, Batch), "no side index was asked for"
            yield batch

    async def finish(self, origin: Origin) -> None:
        """Put it in its place; it ends as the source did."""
        await asyncio.to_thread(self._finish, origin)

    def _finish(self, origin: Origin) -> None:
        log, self._log = self._log, None
        assert log is not None, "open() comes first"
        if origin.clean:
            log.close(origin.now_ms, origin.unix_ms)
        else:
            log.abandon()
        try:
            os.rename(self._made_at, self._path)
        except OSError as error:
            what = f"cannot move to {self.name}: {error.strerror}; was a server started on it meanwhile?"
            raise CannotMove(what) from error
        sync_entries(FileOps(), self._path.absolute().parent)

    async def close(self) -> None:
        """Let go of the lock."""
        if self._log is not None:
            self._log.abandon()


def _ignore(*_: Any) -> None:
    """Whoever waits for a batch is this thread, which wrote it."""


def _raise(error: BaseException) -> None:
    raise error
