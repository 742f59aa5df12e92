"""Frames as both sides write them, and as the client reads them (protocol.md, sections 3 and 4).

A frame is a u32 big-endian payload length and one msgpack array of four bins: header (a packed map),
columns, lengths, blob. This module knows bytes, not meanings. The server has its own reader
(minibrokerd.net.frames), because it must not trust what it reads.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, pairwise, starmap
from typing import Any, Final

import msgspec

from minibroker.contract import limits
from minibroker.contract.errors import ProtocolError

LENGTH: Final = struct.Struct(">I")
SPEAKS_HTTP: Final = "what answers there speaks HTTP"
RUN: Final = struct.Struct("<QIQI")  # token, origin, first sequence, count
DELIVERY_RUN: Final = struct.Struct("<IQIIBBQ")
MARKED: Final = 1  # bit of the flags of a delivery run

ENCODING_BYTES: Final = 0
ENCODING_MSGPACK: Final = 1


def _plain(value: object) -> object:
    """Return what a header says instead of a subclass of `str`, `int`, `float` or `bytes`.

    Raises:
        TypeError: it is none of these.
    """
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, bytes):
        return bytes(memoryview(value))
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, int):
        return int.__int__(value)
    raise TypeError(f"a header cannot hold {type(value).__name__}: {value!r:.100}")


# Frames are small: msgspec packs and reads a header in a third of the time that msgpack takes for it.
pack_header = msgspec.msgpack.Encoder(enc_hook=_plain).encode
_bins_in: Final = msgspec.msgpack.Decoder(tuple[bytes, bytes, bytes, bytes]).decode
_header_in: Final = msgspec.msgpack.Decoder(dict[str, Any]).decode
_ARRAY_OF_4: Final = b"\x94"
_EMPTY_BIN: Final = b"\xc4\x00"


_SHORT_HEADS: Final = [bytes((0xC4, size)) for size in range(0x100)]


def bin_head(size: int) -> bytes:
    """Return the msgpack bin header for `size` bytes, in its shortest form."""
    if size < 0x100:
        return _SHORT_HEADS[size]
    if size < 0x10000:
        return b"\xc5" + size.to_bytes(2, "big")
    return b"\xc6" + size.to_bytes(4, "big")


def frame_pieces(
    header: Mapping[str, object],
    columns: bytes = b"",
    lengths: bytes = b"",
    blob: Sequence[bytes | memoryview] = (),
    blob_bytes: int = 0,
) -> list[bytes | memoryview]:
    """Return one frame as buffers to be written in order; the blob is not copied.

    `blob_bytes` is the sum of the sizes in `blob`, which the caller knows.
    """
    packed = pack_header(header)
    head = b"".join(
        (
            _ARRAY_OF_4,
            bin_head(len(packed)),
            packed,
            bin_head(len(columns)),
            columns,
            bin_head(len(lengths)),
            lengths,
            bin_head(blob_bytes),
        )
    )
    return [LENGTH.pack(len(head) + blob_bytes) + head, *blob]


def pack_frame(
    header: Mapping[str, object], columns: bytes = b"", lengths: bytes = b"", blob: bytes = b""
) -> bytes:
    """Return one frame as bytes, its length prefix included."""
    return b"".join(frame_pieces(header, columns, lengths, (blob,), len(blob)))


def frame_of_packed(header: bytes, columns: bytes = b"") -> bytes:
    """Return a frame without messages whose header is packed already."""
    parts = (bin_head(len(header)), header, bin_head(len(columns)), columns, _EMPTY_BIN, _EMPTY_BIN)
    payload = b"".join((_ARRAY_OF_4, *parts))
    return LENGTH.pack(len(payload)) + payload


class Frame:
    """One frame as the client received it; `blob` holds all headers and bodies back to back."""

    __slots__ = ("blob", "columns", "header", "lengths")

    def __init__(self, header: dict[str, Any], columns: bytes, lengths: bytes, blob: bytes) -> None:
        self.header = header
        self.columns = columns
        self.lengths = lengths
        self.blob = blob


class FrameReader:
    """Cuts a byte stream into frames.

    A length above `max_frame_bytes` is refused on the prefix alone, before any of the payload is waited
    for. Chunks of an incomplete frame are kept apart and joined once, when the last one is there: a
    frame of 16 MiB in chunks of 256 KiB costs one copy, not sixty-four.
    """

    __slots__ = ("_chunks", "_held", "_needed", "max_frame_bytes")

    def __init__(self, max_frame_bytes: int = limits.MAX_FRAME_BYTES) -> None:
        self._chunks: list[bytes] = []
        self._held = 0  # bytes in the chunks
        self._needed = LENGTH.size  # bytes without which nothing can be cut
        self.max_frame_bytes = max_frame_bytes

    def feed(self, data: bytes) -> list[Frame]:
        """Add received bytes and return the frames that are complete now, in order.

        Raises:
            ProtocolError: the stream is not what protocol.md says; the caller must close.
        """
        if self._chunks or len(data) < self._needed:
            self._chunks.append(data)
            self._held += len(data)
            if self._held < self._needed:
                return []
            data = b"".join(self._chunks)
            self._chunks.clear()
        return self._cut(data)

    def _cut(self, data: bytes) -> list[Frame]:
        view = memoryview(data)
        frames, at, size = [], 0, len(data)
        self._needed = LENGTH.size
        while size - at >= LENGTH.size:
            (length,) = LENGTH.unpack_from(data, at)
            if length > self.max_frame_bytes:
                raise ProtocolError(_too_long(length, self.max_frame_bytes))
            end = at + LENGTH.size + length
            if end > size:
                self._needed = end - at
                break
            frames.append(read_payload(view[at + LENGTH.size : end]))
            at = end
        self._held = size - at
        if self._held:
            self._chunks.append(data[at:] if at else data)
        return frames


def _too_long(length: int, most: int) -> str:
    """Return what is wrong with such a length: mostly that it is none, but the port of something else."""
    if LENGTH.pack(length) == b"HTTP":
        return f"{SPEAKS_HTTP}; clients have a port of their own"
    return f"a frame of {length} bytes exceeds {most}"


def read_payload(payload: bytes | memoryview) -> Frame:
    """Return the frame in a payload (the bytes after the length prefix).

    Raises:
        ProtocolError: it is not an array of four bins whose first is a packed map.
    """
    try:
        header, columns, lengths, blob = _bins_in(payload)
        return Frame(_header_in(header), columns, lengths, blob)
    except Exception as error:  # msgspec promises no closed set of errors: the body is two calls
        raise ProtocolError(f"the server sent a payload that is no frame: {error}") from error


def pack_strings(values: Sequence[bytes]) -> bytes:
    """Return a `str` column: the u32 little-endian lengths of all entries, then their bytes."""
    return struct.pack(f"<{len(values)}I", *map(len, values)) + b"".join(values)


def unpack_strings(column: bytes | memoryview, count: int) -> tuple[list[bytes], int]:
    """Return the entries of a `str` column of `count` entries and the size that it covers.

    Raises:
        ProtocolError: the column is shorter than its lengths say.
    """
    if len(column) < 4 * count:
        raise ProtocolError(f"a string column of {count} entries is {len(column)} bytes long")
    lengths = struct.unpack_from(f"<{count}I", column)
    at = 4 * count
    if at + sum(lengths) > len(column):
        raise ProtocolError("the lengths of a string column exceed the column")
    places = list(accumulate(lengths, initial=at))
    return [bytes(column[first:stop]) for first, stop in pairwise(places)], places[-1]


def pack_runs(runs: Iterable[tuple[int, int, int, int]]) -> bytes:
    """Return a run column from (token, origin, first sequence, count) entries."""
    return b"".join(starmap(RUN.pack, runs))


def unpack_runs(column: bytes) -> list[tuple[int, int, int, int]]:
    """Return the entries of a run column; what is left behind the last whole one is passed over."""
    return list(RUN.iter_unpack(column[: len(column) // RUN.size * RUN.size]))
