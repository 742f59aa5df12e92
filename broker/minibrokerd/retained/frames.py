"""Frames: messages with consecutive offsets as they stand in a segment of a retained log (decision 66).

A head with sums of itself and of what follows, the meta, the tail. The head says how large the rest is, so a frame
whose body does not verify can be stepped over; behind a head that does not verify nothing can be believed before a
place that is known from elsewhere, as a body may hold bytes that look like a frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from struct import Struct
from typing import Final
from zlib import crc32

from minibrokerd.retained.packing import unpacked

MAGIC: Final = b"MBR1"
HEAD: Final = Struct("<4sIQQIIIIII")
_CHECKED_FROM: Final = 8

COMPRESSED: Final = 1  # flags: the tail is compressed with zstd
# All that stands before it in its file was on the disk when it was written.
SYNCED_BEFORE: Final = 2

Bytes = bytes | memoryview


class Frame:
    """Messages with the offsets `first` to `stop` - 1, published at `unix_ms`.

    `tail` is never compressed here; `tail_checksum` is its crc32.
    """

    __slots__ = ("count", "first", "meta", "tail", "tail_checksum", "unix_ms")

    def __init__(
        self, first: int, count: int, unix_ms: int, meta: Bytes, tail: Bytes, tail_checksum: int
    ) -> None:
        self.first = first
        self.count = count
        self.unix_ms = unix_ms
        self.meta = meta
        self.tail = tail
        self.tail_checksum = tail_checksum

    @property
    def stop(self) -> int:
        """The offset behind the last message."""
        return self.first + self.count

    @property
    def size(self) -> int:
        """Bytes that it takes in a segment while it is not compressed."""
        return HEAD.size + len(self.meta) + len(self.tail)


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one read gives: frames as they are stored, from that of the message asked for or the next there is.

    The first one may begin below what was asked for: who reads drops these messages. `next_offset` is where to go
    on; `at_end` says that nothing was there yet. Of the offsets in between, `skipped_damage` at most belong to
    messages whose bytes do not verify (offsets have gaps, so some of them may never have been).
    """

    frames: Sequence[Frame]
    next_offset: int
    at_end: bool
    skipped_damage: int = 0


class Head:
    """The head of a frame at `position` in a file; the frame ends at `end`, its messages before `stop`."""

    __slots__ = (
        "checksum",
        "end",
        "first",
        "flags",
        "meta_bytes",
        "position",
        "stop",
        "tail_checksum",
        "unix_ms",
    )

    def __init__(
        self,
        position: int,
        first: int,
        unix_ms: int,
        count: int,
        meta_bytes: int,
        tail_bytes: int,
        checksum: int,
        tail_checksum: int,
        flags: int,
    ) -> None:
        self.position = position
        self.first = first
        self.unix_ms = unix_ms
        self.stop = first + count
        self.meta_bytes = meta_bytes
        self.end = position + HEAD.size + meta_bytes + tail_bytes
        self.checksum = checksum
        self.tail_checksum = tail_checksum
        self.flags = flags


def encode_frame(frame: Frame, flags: int = 0, stored: Bytes | None = None) -> list[Bytes]:
    """Return the bytes of a frame in pieces; `stored` is its tail as it is to stand in the file, if compressed."""
    tail = frame.tail if stored is None else stored
    fields = (
        frame.first,
        frame.unix_ms,
        frame.count,
        len(frame.meta),
        len(tail),
        crc32(tail, crc32(frame.meta)),
        frame.tail_checksum,
        flags,
    )
    checked = HEAD.pack(MAGIC, 0, *fields)[_CHECKED_FROM:]
    return [MAGIC + crc32(checked).to_bytes(4, "little") + checked, frame.meta, tail]


def head_at(data: memoryview, at: int, position: int) -> Head | None:
    """Return the head at `at` of these bytes, which are in the file at `position`; None: there is none whole."""
    if len(data) - at < HEAD.size:
        return None
    magic, checksum, *fields = HEAD.unpack_from(data, at)
    if magic != MAGIC or crc32(data[at + _CHECKED_FROM : at + HEAD.size]) != checksum:
        return None
    return Head(position, *fields)


def decode_frame(head: Head, body: memoryview) -> Frame | None:
    """Return the frame of a head and what follows it; None: it does not verify.

    Raises:
        Unreadable: it is compressed, and nothing here can read that.
    """
    if crc32(body) != head.checksum:
        return None
    tail: Bytes = body[head.meta_bytes :]
    if head.flags & COMPRESSED:
        unpacked_tail = unpacked(tail)
        if unpacked_tail is None or crc32(unpacked_tail) != head.tail_checksum:
            return None
        tail = unpacked_tail
    meta = bytes(body[: head.meta_bytes])
    return Frame(head.first, head.stop - head.first, head.unix_ms, meta, tail, head.tail_checksum)
