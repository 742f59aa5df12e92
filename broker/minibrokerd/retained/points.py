"""Points: where frames stand in a segment, one for every 64 KiB or so, and what the whole of it sums up to.

In memory while they are used; on disk in an index file beside a segment, which nothing rests on: it is not synced,
and where it is missing or does not verify, the segment is read. Its head alone is enough for a start.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from dataclasses import dataclass
from struct import Struct
from typing import Final
from zlib import crc32

STEP_BYTES: Final = 64 * 1024
MAGIC: Final = b"MBRI"
# low and generation of the segment; size, first offset, the one behind the last, messages, oldest and newest
# unix ms; points, their crc32
_HEAD: Final = Struct("<4sIQIQQQQQQII")
_CHECKED_FROM: Final = 8
HEAD_BYTES: Final = _HEAD.size


@dataclass(slots=True)
class Sums:
    """What the first `size` bytes of a segment hold; no messages: `first` is `stop`."""

    size: int = 0
    first: int = 0
    stop: int = 0
    messages: int = 0
    oldest_unix_ms: int = 0
    newest_unix_ms: int = 0

    def add(self, first: int, count: int, unix_ms: int, end: int) -> None:
        """Note a frame that ends there."""
        if not self.messages:
            self.first, self.oldest_unix_ms, self.newest_unix_ms = first, unix_ms, unix_ms
        self.size = end
        self.stop = first + count
        self.messages += count
        self.oldest_unix_ms = min(self.oldest_unix_ms, unix_ms)
        self.newest_unix_ms = max(self.newest_unix_ms, unix_ms)


class Points:
    """Frames of one segment: offset, position, and the newest time of all before them.

    One thread adds and others look at the same time: a point is there once its offset is.
    """

    __slots__ = ("_newest_ms", "_next", "offsets", "positions", "times")

    def __init__(self) -> None:
        self.offsets = array("Q")
        self.positions = array("Q")
        self.times = array("Q")
        self._next = 0
        self._newest_ms = 0

    def add(self, offset: int, position: int, unix_ms: int) -> None:
        """Note a frame, unless it is close behind the last point."""
        if position >= self._next:
            self.positions.append(position)
            self.times.append(self._newest_ms)
            self.offsets.append(offset)
            self._next = position + STEP_BYTES
        self._newest_ms = max(self._newest_ms, unix_ms)

    def position_of(self, offset: int) -> int:
        """Return a position from which on the frame that holds `offset`, or the next one, is found."""
        at = bisect_right(self.offsets, offset) - 1
        return self.positions[at] if at >= 0 else 0

    def position_since(self, unix_ms: int) -> int:
        """Return a position before which everything is older."""
        count = len(self.offsets)
        at = bisect_right(self.times, unix_ms - 1, 0, count) - 1 if unix_ms > 0 else 0
        return self.positions[at] if at >= 0 and count else 0

    def after(self, position: int) -> int | None:
        """Return the next position behind this one where a frame begins for sure."""
        at = bisect_right(self.positions, position, 0, len(self.offsets))
        return self.positions[at] if at < len(self.offsets) else None


def encode_index(name: tuple[int, int], sums: Sums, points: Points) -> bytes:
    """Return the bytes of the index of the segment with this low and generation."""
    body = b"".join(part.tobytes() for part in (points.offsets, points.positions, points.times))
    fields = (
        *name,
        sums.size,
        sums.first,
        sums.stop,
        sums.messages,
        sums.oldest_unix_ms,
        sums.newest_unix_ms,
        len(points.offsets),
        crc32(body),
    )
    checked = _HEAD.pack(MAGIC, 0, *fields)[_CHECKED_FROM:]
    return MAGIC + crc32(checked).to_bytes(4, "little") + checked + body


def decode_sums(name: tuple[int, int], data: bytes) -> Sums | None:
    """Return what the head of an index says; None: it does not verify, or is of another segment."""
    if len(data) < _HEAD.size or data[:4] != MAGIC:
        return None
    _, checksum, low, generation, *fields, _, _ = _HEAD.unpack_from(data)
    if crc32(data[_CHECKED_FROM : _HEAD.size]) != checksum or (low, generation) != name:
        return None
    return Sums(*fields)


def decode_points(name: tuple[int, int], data: bytes) -> Points | None:
    """Return the points of a whole index; None: as `decode_sums`."""
    sums = decode_sums(name, data)
    if sums is None:
        return None
    *_, count, checksum = _HEAD.unpack_from(data)
    body = data[_HEAD.size :]
    if len(body) != 24 * count or crc32(body) != checksum:
        return None
    points = Points()
    points.offsets.frombytes(body[: 8 * count])
    points.positions.frombytes(body[8 * count : 16 * count])
    points.times.frombytes(body[16 * count :])
    if count:
        points._next = points.positions[-1] + STEP_BYTES
    points._newest_ms = sums.newest_unix_ms
    return points
