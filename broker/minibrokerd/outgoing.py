"""Frames as the server writes them: a packed header, columns, and slices of bodies that are not copied."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from minibroker.wire import LENGTH, bin_head
from minibrokerd.core.messages import Block
from minibrokerd.core.tails import split_bins

_encode: Final = msgspec.msgpack.Encoder().encode


def frame_of(
    header: dict[str, Any], columns: bytes, bodies: Sequence[tuple[Block, int, int]]
) -> list[Any]:
    """Return a frame as buffers to be written in order, and nothing else of it to be kept."""
    lengths, blobs, blob_bytes = [], [], 0
    for block, first, stop in bodies:
        part_lengths, part_blob = slices_of(block, first, stop)
        lengths.append(part_lengths)
        blobs.append(part_blob)
        blob_bytes += len(part_blob)
    packed = _encode(header)
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
    body = block.body
    assert isinstance(body, bytes | memoryview)
    _, lengths, blob = split_bins(memoryview(body), 3)
    low, high = first - block.first, stop - block.first
    if block.offsets is None:
        return lengths[8 * low : 8 * high], blob[block.size * low : block.size * high]
    return lengths[8 * low : 8 * high], blob[block.offsets[low] : block.offsets[high]]
