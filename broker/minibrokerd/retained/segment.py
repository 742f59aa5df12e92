"""One segment of a retained log: a file of frames, what is known of it, and how it is read.

Its name says the first offset that it may have, `low`, and its generation: what is written anew gets the next one,
so what stands under a name never changes, but for the newest segment, which grows. A frame may begin below `low`
when the log was cut there: these messages are gone.

Who reads opens the file, so that it may be deleted or written anew meanwhile.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Final

from minibrokerd.log.fileops import FileOps, write_all
from minibrokerd.retained.frames import HEAD, Frame, Head, decode_frame, head_at
from minibrokerd.retained.points import (
    HEAD_BYTES,
    Points,
    Sums,
    decode_points,
    decode_sums,
    encode_index,
)

NAME: Final = re.compile(r"(\d{20})-(\d+)\.(segment|index)")
_AHEAD_BYTES: Final = 64 * 1024  # read beyond what was asked for: most frames end there
_SCAN_BYTES: Final = 4 * 1024 * 1024


def name_of(low: int, generation: int) -> str:
    """Return the name of the file of a segment."""
    return f"{low:020d}-{generation}.segment"


def keys_in(names: Iterable[str]) -> list[tuple[int, int]]:
    """Return (low, generation) of the segments among these names, in their order; of two generations the newer."""
    newest: dict[int, int] = {}
    for name in names:
        if (match := NAME.fullmatch(name)) and match[3] == "segment":
            low, generation = int(match[1]), int(match[2])
            newest[low] = max(generation, newest.get(low, 0))
    return sorted(newest.items())


def newest_of(names: Iterable[str]) -> list[str]:
    """As `keys_in`; return the names."""
    return [name_of(*key) for key in keys_in(names)]


class Bad:
    """A stretch of a segment that does not verify, and the offsets that may have stood there."""

    __slots__ = ("end", "first", "position", "stop")

    def __init__(self, position: int, end: int, first: int, stop: int) -> None:
        self.position = position
        self.end = end
        self.first = first
        self.stop = stop


class Segment:
    """A file in `directory`, up to `sums.size` bytes of it."""

    __slots__ = ("_directory", "_ops", "_points", "generation", "low", "sums")

    def __init__(self, ops: FileOps, directory: str, low: int, generation: int = 1) -> None:
        self._ops = ops
        self._directory = directory
        self.low = low
        self.generation = generation
        self.sums = Sums(first=low, stop=low)
        self._points: Points | None = Points()

    @property
    def name(self) -> str:
        """The name of its file."""
        return name_of(self.low, self.generation)

    @property
    def index_name(self) -> str:
        """The name of its index."""
        return f"{self.low:020d}-{self.generation}.index"

    @property
    def first(self) -> int:
        """The offset of its first message; that behind it if it has none."""
        return max(self.sums.first, self.low)

    @property
    def stop(self) -> int:
        """The offset behind its last message."""
        return max(self.sums.stop, self.low)

    @property
    def _key(self) -> tuple[int, int]:
        return self.low, self.generation

    def path(self, name: str) -> str:
        """Return the path of a name in the directory of the segment."""
        return os.path.join(self._directory, name)

    # -- points ---------------------------------------------------------------------------------

    @property
    def points(self) -> Points:
        """Where frames stand; read or made anew where they are not in memory. OSError."""
        points = self._points
        if points is None:
            points = self._points = (
                decode_points(self._key, self._read_index()) or self.scanned().points
            )
        return points

    def forget_points(self) -> None:
        """Leave them on disk until somebody looks."""
        self._points = None

    def load(self) -> bool:
        """Take what the index says as a start needs it; False: it is missing or wrong, or of other bytes."""
        sums = decode_sums(self._key, self._read_index(HEAD_BYTES))
        if sums is None or sums.size != self._ops.size(self.path(self.name)):
            return False
        self.sums, self._points = sums, None
        return True

    def load_part(self) -> None:
        """Take what the index says of the first part of the newest segment; nothing, if it is missing or wrong."""
        data = self._read_index()
        sums, points = decode_sums(self._key, data), decode_points(self._key, data)
        if sums is None or points is None or sums.size > self._ops.size(self.path(self.name)):
            return
        self.sums, self._points = sums, points

    def rebuild(self) -> None:
        """Find out what the file holds, by reading it, and write the index."""
        found = self.scanned()
        self.take(found, found.sums.size)
        self.write_index()

    def write_index(self) -> None:
        """Write the index of what was synced; where the disk does not do it there is none, or a wrong one."""
        data = encode_index(self._key, self.sums, self.points)
        with suppress(OSError):
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
            descriptor = self._ops.open(self.path(self.index_name), flags)
            try:
                write_all(self._ops, descriptor, data, 0)
            finally:
                self._ops.close(descriptor)

    def _read_index(self, size_bytes: int | None = None) -> bytes:
        path = self.path(self.index_name)
        if not self._ops.exists(path):
            return b""
        if size_bytes is None:
            size_bytes = self._ops.size(path)
        descriptor = self._ops.open(path, os.O_RDONLY)
        try:
            return self._ops.read(descriptor, size_bytes, 0)
        finally:
            self._ops.close(descriptor)

    def scanned(self, low: int | None = None) -> Scanned:
        """Return what reading all of the file tells; of the messages from `low` on, if it is given. OSError."""
        size = self._ops.size(self.path(self.name))
        scanned = Scanned(self.low if low is None else low)
        descriptor = self._ops.open(self.path(self.name), os.O_RDONLY)
        try:
            for found in walk(self._ops, descriptor, size):
                if isinstance(found, Head):
                    scanned.add(found)
        finally:
            self._ops.close(descriptor)
        scanned.sums.size = size
        return scanned

    def take(self, scanned: Scanned, size: int) -> None:
        """Take what reading the first `size` bytes of the file told."""
        self.sums, self._points = scanned.sums, scanned.points
        self.sums.size = size

    # -- frames ---------------------------------------------------------------------------------

    def add(self, frame: Frame, end: int) -> None:
        """Note a frame that was written behind all others, up to there."""
        self.points.add(frame.first, self.sums.size, frame.unix_ms)
        self.sums.add(frame.first, frame.count, frame.unix_ms, end)

    def read(self, offset: int, most_bytes: int) -> Iterator[Frame | Bad]:
        """Yield frames from the one that holds `offset` or the next, up to `most_bytes` of them, one at least.

        Raises:
            OSError: the file cannot be read; FileNotFoundError: it was deleted, or has another name now.
        """
        size, stop = self.sums.size, self.sums.stop
        descriptor = self._ops.open(self.path(self.name), os.O_RDONLY)
        try:
            position = self.points.position_of(offset)
            reader = Reader(self._ops, descriptor, position, size, most_bytes + _AHEAD_BYTES)
            used, unknown = 0, None
            while reader.position < size:
                at = reader.position
                head = reader.head()
                if head is None:
                    unknown = unknown or Bad(at, size, offset, stop)
                    unknown.end = reader.position = self.points.after(at) or size
                    continue
                if unknown is not None:
                    unknown.stop = head.first
                    yield unknown
                    unknown = None
                if head.stop <= offset:
                    reader.position = head.end
                    continue
                if used and used + head.end - at > most_bytes:
                    return
                frame = reader.frame(head)
                yield frame or Bad(at, head.end, head.first, head.stop)
                offset, used = head.stop, used + head.end - at
                reader.position = head.end
            if unknown is not None:
                yield unknown
        finally:
            self._ops.close(descriptor)

    def offset_at(self, unix_ms: int) -> int:
        """Return the first offset that was published at or after that time; `stop`: none was. OSError."""
        size = self.sums.size
        descriptor = self._ops.open(self.path(self.name), os.O_RDONLY)
        try:
            position = self.points.position_since(unix_ms)
            reader = Reader(self._ops, descriptor, position, size, _AHEAD_BYTES)
            while reader.position < size:
                head = reader.head()
                if head is None:
                    reader.position = self.points.after(reader.position) or size
                    continue
                if head.unix_ms >= unix_ms and head.stop > self.low:
                    return max(head.first, self.low)
                reader.position = head.end
        finally:
            self._ops.close(descriptor)
        return self.stop


class Scanned:
    """What reading a whole segment tells."""

    def __init__(self, low: int, sums: Sums | None = None, points: Points | None = None) -> None:
        self.low = low
        self.sums = sums or Sums(first=low, stop=low)
        self.points = points or Points()

    def add(self, head: Head) -> None:
        """Note a frame that verifies."""
        self.points.add(head.first, head.position, head.unix_ms)
        first = max(head.first, self.low)
        if head.stop > first:
            self.sums.add(first, head.stop - first, head.unix_ms, head.end)


class Reader:
    """A window on an open file of which `size` bytes count; OSError where it cannot be read."""

    def __init__(
        self, ops: FileOps, descriptor: int, position: int, size: int, window_bytes: int
    ) -> None:
        self._ops = ops
        self._descriptor = descriptor
        self._size = size
        self._window_bytes = window_bytes
        self._from = position
        self._data = memoryview(b"")
        self.position = position

    def head(self) -> Head | None:
        """Return the head at `position`; None: there is none that verifies and fits."""
        at = self.position - self._from
        if at < 0 or at + HEAD.size > len(self._data):
            self._have(HEAD.size)
            at = self.position - self._from
        head = head_at(self._data, at, self.position)
        return head if head is not None and head.end <= self._size else None

    def body(self, head: Head) -> memoryview:
        """Return what follows the head at `position`."""
        at = self.position - self._from
        if at + head.end - head.position > len(self._data):
            self._have(head.end - head.position)
            at = 0
        return self._data[at + HEAD.size : at + head.end - head.position]

    def frame(self, head: Head) -> Frame | None:
        """Return the frame of the head at `position`; None: it does not verify."""
        return decode_frame(head, self.body(head))

    def _have(self, size_bytes: int) -> None:
        want = min(max(size_bytes, self._window_bytes), self._size - self.position)
        pieces: list[bytes] = []
        got = 0
        while got < want:
            piece = self._ops.read(self._descriptor, want - got, self.position + got)
            if not piece:
                break
            pieces.append(piece)
            got += len(piece)
        self._data = memoryview(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        self._from = self.position


def walk(ops: FileOps, descriptor: int, size: int, start: int = 0) -> Iterator[Head | Bad]:
    """Yield the heads of all frames from `start` on that verify, and the stretches that do not, in their order.

    Behind a head that does not verify nothing is believed: the rest of the file is one bad stretch.
    """
    reader = Reader(ops, descriptor, start, size, _SCAN_BYTES)
    expected = 0
    while reader.position < size:
        at = reader.position
        head = reader.head()
        if head is None:
            yield Bad(at, size, expected, expected)
            return
        if reader.frame(head) is None:
            yield Bad(at, head.end, head.first, head.stop)
        else:
            yield head
        expected = head.stop
        reader.position = head.end
