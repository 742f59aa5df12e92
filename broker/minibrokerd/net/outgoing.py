"""Frames as the server writes them: a packed header, columns, and slices of bodies that are not copied."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from minibroker.contract.wire import LENGTH, bin_head
from minibrokerd.bodies.memory_extents import MemoryExtent
from minibrokerd.core.model.messages import Block

_TWO_EMPTY_BINS: Final = b"\xc4\x00\xc4\x00"
_encode: Final = msgspec.msgpack.Encoder().encode


def frame_of(
    header: dict[str, Any], columns: bytes, bodies: Sequence[tuple[Block, int, int]]
) -> list[Any]:
    """Return a frame as buffers to be written in order, and nothing else of it to be kept."""
    packed = _encode(header)
    if not bodies:
        head = (
            b"\x94"
            + bin_head(len(packed))
            + packed
            + bin_head(len(columns))
            + columns
            + _TWO_EMPTY_BINS
        )
        return [LENGTH.pack(len(head)), head]
    lengths, blobs, blob_bytes = [], [], 0
    for block, first, stop in bodies:
        part_lengths, part_blob = slices_of(block, first, stop)
        lengths.append(part_lengths)
        blobs.append(part_blob)
        blob_bytes += len(part_blob)
    lengths_bytes = b"".join(lengths)
    head = b"".join(
        (
            b"\x94",
            bin_head(len(packed)),
            packed,
            bin_head(len(columns)),
            columns,
            bin_head(len(lengths_bytes)),
            lengths_bytes,
            bin_head(blob_bytes),
        )
    )
    return [LENGTH.pack(len(head) + blob_bytes), head, *blobs]


def slices_of(block: Block, first: int, stop: int) -> tuple[memoryview, memoryview]:
    """Return lengths and bytes of consecutive messages of a block, as views of what was published."""
    extent = block.extent
    assert isinstance(extent, MemoryExtent), "what is delivered was read back before"
    low, high = first - block.first, stop - block.first
    if block.starts is None:
        return extent.cut(low, high, block.size * low, block.size * high)
    return extent.cut(low, high, block.starts[low], block.starts[high])
