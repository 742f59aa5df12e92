"""Side indexes: what the batches of a segment say, beside it, so that a start need not read them.

A file `segment-<number>-<generation>.index` has slices one behind the other, each for a stretch of its segment.
The content is what the engine gave (`Log.keep_digest`); here it is bytes. Nothing rests on an index: it is not
synced, and where a slice does not verify, the segment itself is read from there on.

A slice is tied to its segment by the name of its origin, the number and checksum of the last batch of the stretch,
and the checksum of all its bytes. For a sealed segment the next one must name the same last batch; the bytes
are compared by the scrub. In the newest segment they are compared at the start.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct
from typing import Final
from zlib import crc32

from minibrokerd.log.format import Kind, Origin

MAGIC: Final = b"MBI1"
_SLICE: Final = Struct("<4sI16sIIIIIQIIIQBBI")
_CHECKED_FROM: Final = 8


@dataclass(slots=True)
class Region:
    """A stretch of a segment that ends with a batch: what its bytes sum up to, and its last batch."""

    start: int
    stop: int
    checksum: int
    last_number: int
    last_checksum: int
    epoch: int
    log_start: int
    now_ms: int
    kind: Kind


@dataclass(frozen=True, slots=True)
class Slice:
    """The digest of one region; `complete` if nothing of the segment follows it."""

    region: Region
    complete: bool
    payload: bytes


def encode_slice(origin: Origin, part: Slice) -> bytes:
    """Return the bytes of one slice."""
    region = part.region
    fields = (
        origin.store_id,
        origin.segment,
        origin.generation,
        region.start,
        region.stop,
        region.checksum,
        region.last_number,
        region.last_checksum,
        region.epoch,
        region.log_start,
        region.now_ms,
        region.kind,
        part.complete,
        len(part.payload),
    )
    head = _SLICE.pack(MAGIC, 0, *fields)
    checksum = crc32(part.payload, crc32(head[_CHECKED_FROM:]))
    return b"".join((MAGIC, checksum.to_bytes(4, "little"), head[_CHECKED_FROM:], part.payload))


def decode_slices(data: bytes, segment: int, generation: int) -> Iterator[tuple[bytes, Slice]]:
    """Yield (store id, slice) as far as they verify, are of this segment, and follow each other."""
    at = end = before = 0
    while len(data) - at >= _SLICE.size and data[at : at + 4] == MAGIC:
        (_, checksum, store_id, *rest) = _SLICE.unpack_from(data, at)
        number, its_generation, start, stop, *rest = rest
        region_checksum, last_number, last_checksum, epoch, log_start, now_ms, *rest = rest
        kind, complete, payload_bytes = rest
        payload_at = at + _SLICE.size
        payload = data[payload_at : payload_at + payload_bytes]
        head = data[at + _CHECKED_FROM : payload_at]
        if crc32(payload, crc32(head)) != checksum or len(payload) != payload_bytes:
            return
        if (number, its_generation, start) != (segment, generation, end) or last_number < before:
            return
        if kind > Kind.FOOTER:
            return
        region = Region(
            start,
            stop,
            region_checksum,
            last_number,
            last_checksum,
            epoch,
            log_start,
            now_ms,
            Kind(kind),
        )
        yield store_id, Slice(region, bool(complete), payload)
        at, end, before = payload_at + payload_bytes, stop, last_number


def whole_bytes(data: bytes, segment: int, generation: int, store_id: bytes) -> int:
    """Return how many bytes of an index a start would use: all of them, if it is as it was written."""
    used = 0
    for its_store, part in decode_slices(data, segment, generation):
        if its_store != store_id:
            break
        used += _SLICE.size + len(part.payload)
    return used
