"""Extents in memory: the tail of a publish as it came, or of some of its messages that are written again."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from struct import Struct
from typing import Final
from zlib import crc32

from minibroker.contract.wire import bin_head
from minibrokerd.bodies.tails import LENGTHS_BYTES, bin_bounds
from minibrokerd.core.model.extents import BadTail, Sizes

_BIN_8: Final = 0xC4
_BIN_16: Final = 0xC5
_NO_COLUMNS: Final = bytes((_BIN_8, 0))
_LENGTHS: Final = Struct("<II")  # of one message: of its headers, and of its body


class MemoryExtent:
    """Bytes of messages: columns, lengths and blob, three msgpack bins back to back, and their crc32."""

    __slots__ = (
        "blob_at",
        "checksum",
        "lengths_at",
        "lengths_bytes",
        "place",
        "refs",
        "tail",
    )

    def __init__(
        self, tail: bytes | memoryview, checksum: int, lengths_bytes: int, blob_bytes: int
    ) -> None:
        """`tail` is three bins; the second and the third one have so many bytes."""
        self.tail = tail
        self.checksum = checksum
        self.refs = 0
        self.place = 0  # of the one record that has all of it; 0: not safe yet, or in no log
        self.lengths_bytes = lengths_bytes
        self.blob_at = blob_at = len(tail) - blob_bytes
        # The head of the blob is mostly the shortest that can say its length. What stands where such a head would
        # begin is a length, of another value, if it is not.
        if blob_bytes < 256:
            is_short, width = tail[blob_at - 2] == _BIN_8, 2
        elif blob_bytes < 65_536:
            is_short, width = tail[blob_at - 3] == _BIN_16, 3
        else:
            is_short, width = True, 5
        if is_short:
            self.lengths_at = blob_at - width - lengths_bytes
        else:
            _, (self.lengths_at, _), _ = bin_bounds(memoryview(tail), 3)

    @property
    def size(self) -> int:
        """The bytes of the tail."""
        return len(self.tail)

    @property
    def is_stored(self) -> bool:
        """Whether the log has it; see `Extent.is_stored`."""
        return self.place != 0

    def placed(self, place: int) -> None:
        """Note where its record stands, which is safe and has the sum: here it would take 32 bytes more."""
        self.place = place
        self.checksum = 0

    def columns(self) -> memoryview:
        """Return the columns that were published with the messages."""
        view = memoryview(self.tail)
        if view[:2] == _NO_COLUMNS:
            return view[:0]
        (start, stop), _, _ = bin_bounds(view, 3)
        return view[start:stop]

    def sizes(self, count: int) -> Sizes:
        """Return how long the messages are, of which there should be so many; see `Extent.sizes`."""
        lengths_bytes, blob_bytes = self.lengths_bytes, len(self.tail) - self.blob_at
        if not 0 < LENGTHS_BYTES * count == lengths_bytes:
            raise BadTail(
                f"{lengths_bytes} bytes of lengths for {count} messages; 8 for each are expected"
            )
        if count == 1:
            headers_bytes, body_bytes = _LENGTHS.unpack_from(self.tail, self.lengths_at)
            if headers_bytes + body_bytes != blob_bytes:
                raise _odd(headers_bytes + body_bytes, blob_bytes)
            return blob_bytes, None
        lengths = self.tail[self.lengths_at : self.lengths_at + lengths_bytes]
        if lengths == bytes(lengths[:LENGTHS_BYTES]) * count:  # nearly always: no number each
            size = sum(_LENGTHS.unpack_from(lengths))
            if size * count != blob_bytes:
                raise _odd(size * count, blob_bytes)
            return size, None
        sizes = array("I")
        sizes.frombytes(lengths)
        if sum(sizes) != blob_bytes:
            raise _odd(sum(sizes), blob_bytes)
        starts, at = array("Q", bytes(8)), 0
        for index in range(0, 2 * count, 2):
            at += sizes[index] + sizes[index + 1]
            starts.append(at)
        return 0, starts

    def bodies(self, count: int) -> Iterator[memoryview]:
        """Yield the bodies of the messages, without their headers."""
        view, at, blob_at = memoryview(self.tail), self.lengths_at, self.blob_at
        for headers_bytes, body_bytes in _LENGTHS.iter_unpack(
            view[at : at + LENGTHS_BYTES * count]
        ):
            blob_at += headers_bytes + body_bytes
            yield view[blob_at - body_bytes : blob_at]

    def cut(self, low: int, high: int, start: int, stop: int) -> tuple[memoryview, memoryview]:
        """Return lengths and bytes of the messages with these indexes, as views of what was published.

        Their bytes are `start` to `stop` of those of all.
        """
        view = memoryview(self.tail)
        lengths_at, blob_at = self.lengths_at, self.blob_at
        lengths = view[lengths_at + LENGTHS_BYTES * low : lengths_at + LENGTHS_BYTES * high]
        return lengths, view[blob_at + start : blob_at + stop]

    def again(self) -> MemoryExtent:
        """Return these messages for a record more; the bytes are in memory once."""
        return MemoryExtent(
            self.tail, self.checksum, self.lengths_bytes, len(self.tail) - self.blob_at
        )

    def part(
        self, low: int, high: int, start: int, stop: int, columns: bytes = b""
    ) -> MemoryExtent:
        """Return some messages as an extent of their own; as `cut`, with other columns."""
        lengths, blob = self.cut(low, high, start, stop)
        return extent_of(columns, lengths, blob)

    def parts(
        self, pieces: Sequence[tuple[int, int, int, int]], columns: bytes = b""
    ) -> MemoryExtent:
        """Return some messages as an extent of their own, with zeros for the lengths of those between them."""
        at, lengths, blob = pieces[0][0], bytearray(), bytearray()
        for low, high, start, stop in pieces:
            some_lengths, some_bytes = self.cut(low, high, start, stop)
            lengths += bytes(LENGTHS_BYTES * (low - at))
            lengths += some_lengths
            blob += some_bytes
            at = high
        return extent_of(columns, memoryview(lengths), memoryview(blob))

    def joined(self, behind: object) -> MemoryExtent:
        """Return these messages and those of another extent as one, without columns."""
        assert isinstance(behind, MemoryExtent), "this room made it"
        both = self, behind
        lengths = b"".join(it.tail[it.lengths_at :][: it.lengths_bytes] for it in both)
        blob = b"".join(it.tail[it.blob_at :] for it in both)
        return extent_of(b"", memoryview(lengths), memoryview(blob))


def _odd(sum_bytes: int, blob_bytes: int) -> BadTail:
    return BadTail(f"the lengths add up to {sum_bytes} bytes, the blob has {blob_bytes}")


def extent_of(columns: bytes | memoryview, lengths: memoryview, blob: memoryview) -> MemoryExtent:
    """Return an extent with a copy of these bytes."""
    heads = [bin_head(len(bin)) for bin in (columns, lengths, blob)]
    tail = b"".join((heads[0], columns, heads[1], lengths, heads[2], blob))
    return MemoryExtent(tail, crc32(tail), len(lengths), len(blob))
