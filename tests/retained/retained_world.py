"""Retained logs for tests: frames with bodies that say which message they are, and what a log should hold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from struct import pack
from zlib import crc32

import msgpack

from minibroker.contract.wire import bin_head
from minibrokerd.retained.cutting import apart
from minibrokerd.retained.frames import Frame
from minibrokerd.retained.shelf import Files


def body_of(offset: int, size: int = 20) -> bytes:
    """Return the body of a message: it says its offset."""
    return f"message {offset} ".encode().ljust(size, b".")


def frame_of(first: int, count: int = 1, unix_ms: int = 0, size: int = 20) -> Frame:
    """Return a frame of such messages; published at `first` ms if nothing is said."""
    bodies = [body_of(first + index, size) for index in range(count)]
    return frame_with(first, bodies, unix_ms or first)


def frame_with(
    first: int,
    bodies: Sequence[bytes],
    unix_ms: int,
    columns: bytes = b"",
    *,
    key: bytes = b"",
    encoding: int = 0,
    names: Sequence[str] = (),
) -> Frame:
    """Return a frame of messages with these bodies and this key, without headers."""
    meta = msgpack.packb([key.decode(), encoding, list(names)])
    lengths = b"".join(pack("<II", 0, len(body)) for body in bodies)
    blob = b"".join(bodies)
    tail = b"".join(bin_head(len(part)) + part for part in (columns, lengths, blob))
    return Frame(first, len(bodies), unix_ms, meta, tail, crc32(tail))


def bodies_in(frame: Frame) -> list[bytes]:
    """Return the bodies of the messages of a frame."""
    parts = apart(frame)
    assert parts is not None
    assert crc32(frame.tail) == frame.tail_checksum
    sizes = memoryview(parts.lengths).cast("I")
    found, at = [], 0
    for headers_bytes, body_bytes in zip(sizes[::2], sizes[1::2], strict=True):
        found.append(bytes(parts.blob[at + headers_bytes : at + headers_bytes + body_bytes]))
        at += headers_bytes + body_bytes
    return found


def read_all(files: Files, offset: int = 0, most_bytes: int = 300) -> list[Frame]:
    """Return everything from an offset on."""
    found: list[Frame] = []
    while True:
        chunk = files.read(offset, most_bytes)
        found += chunk.frames
        assert chunk.frames or chunk.at_end
        offset = chunk.next_offset
        if chunk.at_end:
            return found


def append_each(files: Files, frames: Iterable[Frame]) -> None:
    """Append frames one by one, so that none is joined with another."""
    for frame in frames:
        files.append([frame])


def same(one: Frame, other: Frame) -> bool:
    """Return whether two frames say the same."""
    return all(
        bytes(getattr(one, name)) == bytes(getattr(other, name))
        if name in ("meta", "tail")
        else getattr(one, name) == getattr(other, name)
        for name in Frame.__slots__
    )
