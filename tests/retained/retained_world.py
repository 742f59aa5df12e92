"""Retained logs for tests: frames with bodies that say which message they are, and what a log should hold."""

from __future__ import annotations

from struct import pack
from zlib import crc32

from minibroker.contract.wire import bin_head
from minibrokerd.retained.frames import Frame

META = b"\x93\xa0\x00\x90"  # [key "", encoding 0, no columns]


def body_of(offset: int, size: int = 20) -> bytes:
    """Return the body of a message: it says its offset."""
    return f"message {offset} ".encode().ljust(size, b".")


def frame_of(first: int, count: int = 1, unix_ms: int = 0, size: int = 20) -> Frame:
    """Return a frame of such messages; published at `first` ms if nothing is said."""
    bodies = [body_of(first + index, size) for index in range(count)]
    return frame_with(first, bodies, unix_ms or first)


def frame_with(
    first: int, bodies: list[bytes], unix_ms: int, columns: bytes = b"", meta: bytes = META
) -> Frame:
    """Return a frame of messages with these bodies, without headers."""
    lengths = b"".join(pack("<II", 0, len(body)) for body in bodies)
    blob = b"".join(bodies)
    tail = b"".join(bin_head(len(part)) + part for part in (columns, lengths, blob))
    return Frame(first, len(bodies), unix_ms, meta, tail, crc32(tail))


def same(one: Frame, other: Frame) -> bool:
    """Return whether two frames say the same."""
    return all(
        bytes(getattr(one, name)) == bytes(getattr(other, name))
        if name in ("meta", "tail")
        else getattr(one, name) == getattr(other, name)
        for name in Frame.__slots__
    )
