"""The spool: what this broker appended to a stream, or read of it, as files on its own disk that may be lost.

A file for each stretch, in which entries stand as they do in the stream, one behind the other: where nothing was
written there is a hole. Nothing rests on it. What is read is verified record by record, and what does not verify
is not there: it is fetched from the stream. A directory is of one run of a broker; what others left is removed.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from queue import SimpleQueue
from typing import Final

from minibrokerd.log import format as layout
from minibrokerd.log.fileops import FileOps, write_all
from minibrokerd.log.reader import read_records
from minibrokerd.log.seam import RECORD_HEAD_BYTES, Record
from minibrokerd.process.logs import OwnText, events

PREFIX: Final = "spool-"
LOCK: Final = "lock"
MOST_WAITING_BYTES: Final = 32 * 1024 * 1024  # that wait for the disk; what comes then is not kept
WINDOW_BYTES: Final = 256 * 1024  # read at once for a replay, which wants what stands behind, too
_Piece = tuple[int, int, Sequence[bytes]]


class Spool:
    """The spool of one run. Whatever goes wrong with it is said once, and raises nothing."""

    def __init__(self, path: str | os.PathLike[str], ops: FileOps | None = None) -> None:
        """`path` is the directory in which it makes its own, with the first entry that it gets."""
        self._ops = ops or FileOps()
        self._parent = os.fspath(path)
        self.path = os.path.join(self._parent, PREFIX + self._ops.random_bytes(8).hex())
        self._lock = -1
        self._open: tuple[int, int] | None = None  # the stretch that is written, and its descriptor
        self._is_told = False
        self._pieces: SimpleQueue[_Piece | None] = SimpleQueue()
        self._given_bytes = 0  # to the thread, and:
        self._written_bytes = 0  # counted by the thread itself
        self._writer: threading.Thread | None = None
        # One piece at a time is written, by a reader or by the thread.
        self._guard = threading.Lock()
        self._window: tuple[int, int, bytes] = (0, 0, b"")  # stretch, offset, and what stands there
        self._is_over = False

    # -- what is written ----------------------------------------------------------------------------

    def put(self, stretch: int, offset: int, parts: Sequence[bytes]) -> None:
        """Write entries that stand one behind the other; blocks as long as the disk does."""
        with self._guard:
            if self._is_over:
                return
            try:
                descriptor = self._descriptor(stretch)
                write_all(self._ops, descriptor, b"".join(parts), offset)
            except OSError as error:
                self._tell(error)
                return
        if self._is_told:
            self._is_told = False
            events.info("spool_goes_on", path=OwnText(self.path))

    def put_soon(self, stretch: int, offset: int, parts: Sequence[bytes]) -> None:
        """As `put`, in a thread of its own; where the disk is too slow for that they are not kept."""
        size_bytes = sum(map(len, parts))
        if self._given_bytes - self._written_bytes + size_bytes > MOST_WAITING_BYTES:
            return
        self._given_bytes += size_bytes
        self._pieces.put((stretch, offset, parts))
        if self._writer is None:
            self._writer = threading.Thread(
                target=self._write, name="minibroker-spool", daemon=True
            )
            self._writer.start()

    def _write(self) -> None:
        while (piece := self._pieces.get()) is not None:
            self.put(*piece)
            self._written_bytes += sum(map(len, piece[2]))

    def _descriptor(self, stretch: int) -> int:
        if self._open is not None:
            if self._open[0] == stretch:
                return self._open[1]
            before, self._open = self._open[1], None
            self._ops.close(before)
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
        try:
            descriptor = os.open(self.path_of(stretch), flags, 0o600)
        except FileNotFoundError:  # the first one, or somebody removed it
            self._begin()
            descriptor = os.open(self.path_of(stretch), flags, 0o600)
        self._open = stretch, descriptor
        return descriptor

    def _begin(self) -> None:
        if self._lock < 0:
            self._remove_others()
        else:
            self._ops.close(self._lock)
            self._lock = -1
        os.makedirs(self.path, 0o700, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
        self._lock = os.open(os.path.join(self.path, LOCK), flags, 0o600)
        with suppress(OSError):  # then another run may remove it, and it is written anew
            self._ops.lock(self._lock)

    def _remove_others(self) -> None:
        """Remove what runs left that are over."""
        try:
            names = os.listdir(self._parent)
        except OSError:
            return
        for name in names:
            path = os.path.join(self._parent, name)
            if not name.startswith(PREFIX) or path == self.path:
                continue
            with suppress(OSError):
                try:
                    lock = os.open(os.path.join(path, LOCK), os.O_WRONLY | os.O_CLOEXEC)
                except FileNotFoundError:
                    shutil.rmtree(path, ignore_errors=True)
                    continue
                try:
                    self._ops.lock(lock)
                    shutil.rmtree(path, ignore_errors=True)
                finally:
                    self._ops.close(lock)

    def _tell(self, error: OSError) -> None:
        if not self._is_told:
            self._is_told = True
            text = error.strerror or str(error)
            events.warning("spool_failed", path=OwnText(self.path), text=OwnText(text))

    # -- what is read -------------------------------------------------------------------------------

    def path_of(self, stretch: int) -> str:
        """Return the name of the file that a stretch has, whether it is there or not."""
        return os.path.join(self.path, f"{stretch:020}")

    def read(self, stretch: int, offsets: Sequence[int]) -> list[Record | None]:
        """Return the records at these ascending offsets; None for what is not there as it was written."""
        try:
            return read_records(self._ops, self.path_of(stretch), offsets)
        except OSError:
            return [None] * len(offsets)

    def read_one(self, stretch: int, offset: int) -> Record | None:
        """As `read`, for whoever goes on to what stands behind it."""
        name, start, data = self._window
        if name != stretch or offset < start or not has_record(data, offset - start):
            start, data = offset, self._some(stretch, offset)
            self._window = stretch, start, data
        return layout.decode_record(data, offset - start)

    def _some(self, stretch: int, offset: int) -> bytes:
        try:
            descriptor = self._ops.open(self.path_of(stretch), os.O_RDONLY)
        except OSError:
            return b""
        try:
            data = self._ops.read(descriptor, WINDOW_BYTES, offset)
            size_bytes = layout.record_size(data)
            if len(data) < size_bytes <= layout.LARGEST_BATCH_BYTES:
                data = self._ops.read(descriptor, size_bytes, offset)
        except OSError:
            return b""
        finally:
            self._ops.close(descriptor)
        return data

    # -- its end ------------------------------------------------------------------------------------

    def give_up(self, stretches: Iterable[int]) -> None:
        """Remove the files of stretches that nobody asks for any more."""
        for stretch in stretches:
            with suppress(OSError):
                os.unlink(self.path_of(stretch))

    def close(self) -> None:
        """Remove all of it."""
        with self._guard:
            self._is_over = True
            self._pieces.put(None)
            for descriptor in ([self._open[1]] if self._open else []) + [self._lock]:
                if descriptor >= 0:
                    with suppress(OSError):
                        self._ops.close(descriptor)
            self._open, self._lock = None, -1
        shutil.rmtree(self.path, ignore_errors=True)


def has_record(data: bytes | bytearray, at: int) -> bool:
    """Whether all bytes are there that a record has by its own head."""
    head = bytes(data[at : at + RECORD_HEAD_BYTES])
    return len(head) == RECORD_HEAD_BYTES and at + layout.record_size(head) <= len(data)
