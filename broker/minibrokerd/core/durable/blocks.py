"""From the record of a publish, or of its copy, to a block and the spans of its messages, and back.

Replay does it for the records of a log, and whoever reads back what left memory does it for one.
"""

from __future__ import annotations

from array import array
from typing import Any, Final

from minibroker.contract import limits
from minibroker.contract.wire import bin_head, pack_strings
from minibrokerd.core.model.columns import COLUMNS, read_columns, spans_of
from minibrokerd.core.model.messages import Block, Span, terms
from minibrokerd.core.model.queues import Queue
from minibrokerd.core.model.records import (
    CopyMeta,
    CopyPartMeta,
    CopyRunMeta,
    PublishMeta,
    decode,
)
from minibrokerd.core.model.state import Store
from minibrokerd.core.model.tails import BadTail, split_bins
from minibrokerd.log.seam import Record

_NO_COLUMNS: Final = b"\xc4\x00"
LENGTHS_BYTES: Final = 8  # of the headers and of the body of a message, 4 each


def published(
    meta: PublishMeta, record: Record, batch: int, place: int
) -> list[tuple[int, Block, list[Span]]]:
    """Return (queue, block, spans) for each target of a PUBLISH record."""
    tail = bytes(record.tail)
    columns, lengths, blob = _counted(tail, meta.count)
    named = read_columns(meta, columns, meta.count)
    found = []
    for number, first in meta.targets:
        block = Block(
            number,
            first,
            meta.count,
            tail,
            lengths,
            meta.encoding,
            named.get("encoding"),
            meta.durability,
            meta.epoch,
            meta.unix_ms,
            meta.ready_at_ms,
            batch,
            terms(meta.own_max_attempts, meta.own_lease_ms),
        )
        _placed(block, blob, place)
        found.append((number, block, spans_of(block, meta.delay_ms, meta.key, named)))
    return found


def copied(meta: CopyMeta, record: Record, batch: int, place: int) -> Block:
    """Return the block of a COPY record: its one message."""
    return _copied(meta, record, meta.origin, meta.sequence, 1, meta.publish_unix_ms, batch, place)


def copied_run(
    meta: CopyRunMeta | CopyPartMeta, record: Record, batch: int, place: int
) -> tuple[Block, list[Span]]:
    """Return the block and the spans of a COPYRUN or COPYPART record."""
    block = _copied(meta, record, meta.queue, meta.first, meta.count, meta.unix_ms, batch, place)
    named: dict[str, Any] = {}
    if isinstance(meta, CopyPartMeta):
        columns, *_ = split_bins(memoryview(record.tail), 3)
        named = read_columns(meta, columns, meta.count)
        block.encodings = named.get("encoding")
    return block, spans_of(block, meta.delay_ms, meta.key, named)


def spans_at(record: Record, queue: int, batch: int, place: int) -> list[Span]:
    """Return the spans of the record of a publish to `queue`, or of a copy of a run of it.

    Raises:
        ValueError: it is another kind of record, or of another queue.
    """
    meta = decode(record)
    if isinstance(meta, CopyRunMeta | CopyPartMeta) and meta.queue == queue:
        return copied_run(meta, record, batch, place)[1]
    if isinstance(meta, PublishMeta):
        for number, _, spans in published(meta, record, batch, place):
            if number == queue:
                return spans
    raise ValueError(f"the record at place {place} has no messages of queue {queue}")


def _counted(tail: bytes, count: int) -> list[memoryview]:
    """Return columns, lengths and bodies of a publish tail that has so many messages.

    Raises:
        BadTail: it has not. No damage makes one: the checksum of the record held.
    """
    bins = split_bins(memoryview(tail), 3)
    if not 0 < LENGTHS_BYTES * count == len(bins[1]):
        raise BadTail(f"{len(bins[1])} bytes of lengths came for {count} messages")
    return bins


def _placed(block: Block, blob: memoryview, place: int) -> None:
    if block.bytes_of(block.first, block.first + block.count) != len(blob):
        raise BadTail(f"the lengths do not sum up to {len(blob)}, which the bodies have")
    block.place = place


def _copied(
    meta: CopyMeta | CopyRunMeta | CopyPartMeta,
    record: Record,
    origin: int,
    first: int,
    count: int,
    unix_ms: int,
    batch: int,
    place: int,
) -> Block:
    tail = bytes(record.tail)
    _, lengths, blob = _counted(tail, count)
    block = Block(
        origin,
        first,
        count,
        tail,
        lengths,
        meta.encoding,
        None,
        meta.durability,
        meta.epoch,
        unix_ms,
        meta.ready_at_ms,
        batch,
        terms(meta.own_max_attempts, meta.own_lease_ms),
    )
    _placed(block, blob, place)
    return block


def write_copy(
    store: Store, queue: Queue, span: Span, part: tuple[int, int, int], told: object
) -> None:
    """Write a part of a span again: (first, stop, encoding). `told` is told where the record stands."""
    block = span.block
    first, stop, encoding = part
    tail = tail_of(block, first, stop)
    meta = CopyRunMeta(
        queue.number,
        first,
        stop - first,
        block.unix_ms,
        block.ready_at_ms,
        block.epoch,
        block.durability,
        span.ready_at_ms - block.ready_at_ms,
        span.key,
        encoding,
        max(span.ready_at_ms - store.now_ms, 0),
        store.unix_ms,
        *block.terms,
    )
    store.emit(meta, tail, block=told)


def may_be_part(span: Span) -> bool:
    """Whether a span may be written again together with those before and behind it."""
    return not span.releases and (
        0 <= span.ready_at_ms - span.block.ready_at_ms <= limits.MAX_DELAY_MS
    )


def write_part(store: Store, queue: Queue, spans: list[Span], block: Block) -> None:
    """Write spans of one block again, one behind the other, whose bodies and places `block` takes over."""
    old = spans[0].block
    columns: dict[str, bytes] = {}
    delays = {span.ready_at_ms - old.ready_at_ms for span in spans}
    if len(delays) > 1:
        each = array("Q")
        for span in spans:
            each.extend([span.ready_at_ms - old.ready_at_ms] * (span.stop - span.first))
        columns["delay_ms"] = each.tobytes()
    keys = {span.key for span in spans}
    if len(keys) > 1:
        packed = {key: key.encode() for key in keys}
        columns["key"] = pack_strings(
            [packed[span.key] for span in spans for _ in range(span.first, span.stop)]
        )
    if block.encodings is not None:
        columns["encoding"] = block.encodings
    names = [name for name in COLUMNS if name in columns]
    meta = CopyPartMeta(
        queue.number,
        block.first,
        block.count,
        block.unix_ms,
        block.ready_at_ms,
        block.epoch,
        block.durability,
        delays.pop() if len(delays) == 1 else 0,
        keys.pop() if len(keys) == 1 else "",
        block.encoding,
        columns=names,
        own_max_attempts=block.terms.max_attempts,
        own_lease_ms=block.terms.lease_ms,
    )
    body, column = block.body, b"".join(columns[name] for name in names)
    assert isinstance(body, bytes), "it was made just now"
    tail = b"".join((bin_head(len(column)), column, body[len(_NO_COLUMNS) :]))
    store.emit(meta, tail, block=block)


def tail_of(block: Block, first: int, stop: int) -> bytes:
    """Return a publish tail with some messages of a block: no columns, their lengths, their bytes."""
    body = block.body
    assert isinstance(body, bytes | memoryview), "the shell has read the body before"
    _, lengths, blob = split_bins(memoryview(body), 3)
    low, high = first - block.first, stop - block.first
    start = block.bytes_of(block.first, first)
    part = blob[start : start + block.bytes_of(first, stop)]
    part_lengths = lengths[8 * low : 8 * high]
    return b"".join(
        (_NO_COLUMNS, bin_head(len(part_lengths)), part_lengths, bin_head(len(part)), part)
    )
