"""Frames cut apart and put together: what the files know of a meta and a tail, which is as little as that takes.

A meta is msgpack of [key, encoding, names of columns], a tail is three msgpack bins: columns, lengths (of headers
and of body, 4 bytes each), blob. A column has an entry for each message and counts instead of what the meta says:
`key` is 4 bytes of length each and then the texts, `encoding` a byte each. A frame that is not so is left alone.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import Final
from zlib import crc32

import msgpack

from minibroker.contract.wire import bin_head
from minibrokerd.retained.frames import Bytes, Frame

LENGTHS_BYTES: Final = 8
_BIN_BYTES: Final = {0xC4: 1, 0xC5: 2, 0xC6: 4}  # msgpack bin 8, 16, 32: the size of the length
_LONE: Final = b"\xc4\x00\xc4\x08"  # no columns, and the lengths of one message


class Apart:
    """The messages of a frame: `keys` and `encodings` are None where all have that of the meta."""

    __slots__ = ("blob", "encoding", "encodings", "key", "keys", "lengths")

    def __init__(
        self,
        key: bytes,
        encoding: int,
        keys: Sequence[bytes] | None,
        encodings: bytes | None,
        lengths: Bytes,
        blob: Bytes,
    ) -> None:
        self.key = key
        self.encoding = encoding
        self.keys = keys
        self.encodings = encodings
        self.lengths = lengths
        self.blob = blob


def apart(frame: Frame) -> Apart | None:
    """Return what is in a frame; None: it is not made as this module knows it."""
    meta = _meta_of(bytes(frame.meta))
    bins = _bins_of(frame.tail)
    if meta is None or bins is None:
        return None
    key, encoding, names = meta
    columns, lengths, blob = bins
    if len(lengths) != LENGTHS_BYTES * frame.count:
        return None
    read = _columns_of(names, columns, frame.count) if names or columns else (None, None)
    return None if read is None else Apart(key, encoding, *read, lengths, blob)


def keys_of(frame: Frame) -> Sequence[bytes] | None:
    """Return the key of each message, empty where it has none; None: as `apart`."""
    parts = apart(frame)
    if parts is None:
        return None
    return parts.keys if parts.keys is not None else [parts.key] * frame.count


def are_empty(frame: Frame) -> list[bool] | None:
    """Return of each message whether its body is empty; None: as `apart`."""
    parts = apart(frame)
    return None if parts is None else [not size for size in _numbers(parts.lengths)[1::2]]


def runs_of(frame: Frame, kept: Sequence[tuple[int, int]]) -> list[Frame] | None:
    """Return a frame for each (low, high): its messages with these indexes. None: as `apart`."""
    parts = apart(frame)
    if parts is None:
        return None
    sizes = _numbers(parts.lengths)
    starts = [0, *accumulate(map(int.__add__, sizes[::2], sizes[1::2]))]
    if starts[-1] != len(parts.blob):
        return None
    return [
        _frame(
            frame.first + low,
            high - low,
            frame.unix_ms,
            parts.key,
            parts.encoding,
            None if parts.keys is None else parts.keys[low:high],
            None if parts.encodings is None else parts.encodings[low:high],
            parts.lengths[LENGTHS_BYTES * low : LENGTHS_BYTES * high],
            parts.blob[starts[low] : starts[high]],
        )
        for low, high in kept
    ]


def behind(frame: Frame, offset: int) -> Frame:
    """Return the messages of a frame from an offset on. ValueError: as `apart`."""
    cut = runs_of(frame, [(offset - frame.first, frame.count)])
    if cut is None:
        raise ValueError(f"messages {frame.first} to {frame.stop} cannot be cut at {offset}")
    return cut[0]


def joined(frames: Sequence[Frame]) -> Frame | None:
    """Return frames that follow each other without a gap as one, of the latest time of them; None: as `apart`."""
    first, count = frames[0].first, frames[-1].stop - frames[0].first
    unix_ms = max([frame.unix_ms for frame in frames])
    lone = _lone(frames)
    if lone is not None:
        return _of_parts(first, count, unix_ms, bytes(frames[0].meta), (b"", *lone))
    all_parts = [apart(frame) for frame in frames]
    some = [parts for parts in all_parts if parts is not None]
    if len(some) != len(frames):
        return None
    key, encoding = some[0].key, some[0].encoding
    keys: list[bytes] | None = None
    encodings: bytes | None = None
    if any(parts.keys is not None or parts.key != key for parts in some):
        keys = []
        for parts, frame in zip(some, frames, strict=True):
            keys += [parts.key] * frame.count if parts.keys is None else parts.keys
    if any(parts.encodings is not None or parts.encoding != encoding for parts in some):
        encodings = b"".join(
            bytes([parts.encoding]) * frame.count if parts.encodings is None else parts.encodings
            for parts, frame in zip(some, frames, strict=True)
        )
    lengths = b"".join(parts.lengths for parts in some)
    blob = b"".join(parts.blob for parts in some)
    return _frame(first, count, unix_ms, key, encoding, keys, encodings, lengths, blob)


def _frame(
    first: int,
    count: int,
    unix_ms: int,
    key: bytes,
    encoding: int,
    keys: Sequence[bytes] | None,
    encodings: bytes | None,
    lengths: Bytes,
    blob: Bytes,
) -> Frame:
    names, columns = [], b""
    if keys is not None:
        key = b""
        names.append("key")
        columns = array("I", map(len, keys)).tobytes() + b"".join(keys)
    if encodings is not None:
        encoding = 0
        names.append("encoding")
        columns += encodings
    meta: bytes = msgpack.packb([key.decode(), encoding, names])
    return _of_parts(first, count, unix_ms, meta, (columns, lengths, blob))


def _lone(frames: Sequence[Frame]) -> tuple[bytes, bytes] | None:
    """Return lengths and blob of frames of one small message each, of the same meta without columns."""
    meta = frames[0].meta
    lengths, blob = [], []
    for frame in frames:
        tail = frame.tail
        if frame.meta != meta or tail[:4] != _LONE or tail[12] != 0xC4:
            return None
        if len(tail) != 14 + tail[13]:
            return None
        lengths.append(tail[4:12])
        blob.append(tail[14:])
    known = _meta_of(bytes(meta))
    return None if known is None or known[2] else (b"".join(lengths), b"".join(blob))


def _of_parts(first: int, count: int, unix_ms: int, meta: bytes, parts: Sequence[Bytes]) -> Frame:
    tail = b"".join(piece for part in parts for piece in (bin_head(len(part)), part))
    return Frame(first, count, unix_ms, meta, tail, crc32(tail))


@lru_cache(4096)
def _meta_of(meta: bytes) -> tuple[bytes, int, tuple[str, ...]] | None:
    try:
        key, encoding, names = msgpack.unpackb(meta)
        if isinstance(encoding, int) and 0 <= encoding < 256:
            return key.encode(), encoding, tuple(names)
    except Exception:  # noqa: BLE001 - msgpack promises no closed set of errors
        return None
    return None


def _bins_of(tail: Bytes) -> list[Bytes] | None:
    """Return columns, lengths and blob."""
    found: list[Bytes] = []
    view, at = memoryview(tail), 0
    for _ in range(3):
        width = _BIN_BYTES.get(view[at]) if at < len(view) else None
        if width is None:
            return None
        start = at + 1 + width
        at = start + int.from_bytes(view[at + 1 : start], "big")
        if at > len(view):
            return None
        found.append(view[start:at])
    return found if at == len(view) else None


def _columns_of(
    names: Sequence[str], columns: Bytes, count: int
) -> tuple[Sequence[bytes] | None, bytes | None] | None:
    keys: Sequence[bytes] | None = None
    encodings: bytes | None = None
    at = 0
    for name in names:
        if name == "key" and keys is None and len(columns) - at >= 4 * count:
            sizes = _numbers(columns[at : at + 4 * count])
            ends = list(accumulate(sizes, initial=at + 4 * count))
            keys = list(_texts(columns, ends))
            at = ends[-1]
        elif name == "encoding" and encodings is None:
            encodings = bytes(columns[at : at + count])
            at += count
        else:
            return None
    return (keys, encodings) if at == len(columns) else None


def _texts(columns: Bytes, ends: Sequence[int]) -> Iterator[bytes]:
    data = bytes(columns)
    for start, stop in pairwise(ends):
        yield data[start:stop]


def _numbers(data: Bytes) -> array[int]:
    numbers = array("I")
    numbers.frombytes(data)
    return numbers
