"""From the record of a publish, or of its copy, to a block and the spans of its messages, and back.

Replay does it for the records of a log, and whoever reads back what left memory does it for one.
"""

from __future__ import annotations

from array import array
from typing import Any

from minibroker.contract import limits
from minibroker.contract.wire import pack_strings
from minibrokerd.core.model.columns import COLUMNS, read_columns, spans_of
from minibrokerd.core.model.extents import Bodies, Extent
from minibrokerd.core.model.messages import Block, Span, Terms, terms
from minibrokerd.core.model.queues import Queue
from minibrokerd.core.model.records import (
    CopyMeta,
    CopyPartMeta,
    CopyRunMeta,
    CopySomeMeta,
    PublishMeta,
    decode,
)
from minibrokerd.core.model.state import Store
from minibrokerd.log.seam import Record

CopiedRun = CopyRunMeta | CopyPartMeta | CopySomeMeta
COPIED_RUNS = CopyRunMeta, CopyPartMeta, CopySomeMeta


def published(
    bodies: Bodies, meta: PublishMeta, record: Record, batch: int, place: Any, queue: int = 0
) -> list[tuple[int, Block, list[Span]]]:
    """Return (queue, block, spans) for each target of a PUBLISH record, or for one queue alone."""
    extent = bodies.extent(record, place)
    sizes = extent.sizes(meta.count)
    named = read_columns(meta, extent.columns(), meta.count)
    found = []
    for number, first in meta.targets:
        if queue and number != queue:
            continue
        block = Block(
            number,
            first,
            meta.count,
            extent,
            sizes,
            meta.encoding,
            named.get("encoding"),
            meta.durability,
            meta.epoch,
            meta.unix_ms,
            meta.ready_at_ms,
            batch,
            _terms(meta),
            named.get("unique_key"),
        )
        found.append((number, block, spans_of(block, meta.delay_ms, meta.key, named)))
    return found


def copied(bodies: Bodies, meta: CopyMeta, record: Record, batch: int, place: Any) -> Block:
    """Return the block of a COPY record: its one message."""
    extent = bodies.extent(record, place)
    block = _copied(extent, meta, meta.origin, meta.sequence, 1, meta.publish_unix_ms, batch)
    block.uniques = [meta.unique_key] if meta.unique_key else None
    return block


def copied_run(
    bodies: Bodies, meta: CopiedRun, record: Record, batch: int, place: Any
) -> tuple[Block, list[Span]]:
    """Return the block and the spans of a COPYRUN, COPYPART or COPYSOME record."""
    extent = bodies.extent(record, place)
    block = _copied(extent, meta, meta.queue, meta.first, meta.count, meta.unix_ms, batch)
    named: dict[str, Any] = {}
    if isinstance(meta, CopyPartMeta | CopySomeMeta):
        named = read_columns(meta, extent.columns(), meta.count)
        block.encodings = named.get("encoding")
        block.uniques = named.get("unique_key")
    spans = spans_of(block, meta.delay_ms, meta.key, named)
    if isinstance(meta, CopySomeMeta):
        spans = _living(spans, meta.living)
    return block, spans


def apart(meta: CopiedRun, spans: list[Span]) -> list[list[Span]]:
    """Return the spans of a record so that each list has all from its first to its last message.

    What stands between those of a COPYSOME is known from another record, or has ended.
    """
    return [[span] for span in spans] if isinstance(meta, CopySomeMeta) else [spans]


def _living(spans: list[Span], bits: bytes) -> list[Span]:
    """Return what is left of spans of a block, all of it, where these bits are set.

    Raises:
        ValueError: there are not as many bits as messages.
    """
    first, stop = spans[0].first, spans[-1].stop
    if len(bits) != (stop - first + 7) // 8:
        raise ValueError(f"{len(bits)} bytes of bits for {stop - first} messages")
    number = int.from_bytes(bits, "little")
    living: list[Span] = []
    for span in spans:
        for sequence in range(span.first, span.stop):
            if not number >> (sequence - first) & 1:
                continue
            last = living[-1] if living else None
            if last is not None and last.stop == sequence > span.first:
                last.stop += 1
            else:
                living.append(Span(span.block, sequence, sequence + 1, span.key, span.ready_at_ms))
    return living


def _terms(meta: PublishMeta | CopyMeta | CopiedRun) -> Terms:
    return terms(meta.own_max_attempts, meta.own_lease_ms, meta.own_priority, meta.own_ttl_ms)


def spans_at(bodies: Bodies, record: Record, queue: int, batch: int, place: Any) -> list[Span]:
    """Return the spans of the record of a publish to `queue`, or of a copy of a run of it.

    Raises:
        ValueError: it is another kind of record, or of another queue.
    """
    meta = decode(record)
    if isinstance(meta, CopiedRun) and meta.queue == queue:
        return copied_run(bodies, meta, record, batch, place)[1]
    if isinstance(meta, PublishMeta):
        for _, _, spans in published(bodies, meta, record, batch, place, queue):
            return spans
    raise ValueError(f"the record has no messages of queue {queue}")


def _copied(
    extent: Extent,
    meta: CopyMeta | CopiedRun,
    origin: int,
    first: int,
    count: int,
    unix_ms: int,
    batch: int,
) -> Block:
    return Block(
        origin,
        first,
        count,
        extent,
        extent.sizes(count),
        meta.encoding,
        None,
        meta.durability,
        meta.epoch,
        unix_ms,
        meta.ready_at_ms,
        batch,
        _terms(meta),
    )


def write_copy(
    store: Store,
    queue: Queue,
    span: Span,
    part: tuple[int, int, int],
    extent: Extent,
) -> Record:
    """Write a part of a span again: (first, stop, encoding), whose bytes are those of `extent`."""
    block = span.block
    first, stop, encoding = part
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
    return store.emit(meta, extent=extent)


def may_be_part(span: Span) -> bool:
    """Whether a span may be written again together with those before and behind it."""
    return not span.releases and (
        0 <= span.ready_at_ms - span.block.ready_at_ms <= limits.MAX_DELAY_MS
    )


def columns_of(spans: list[Span], encodings: bytes | None) -> dict[str, bytes]:
    """Return the columns of spans of one block in their order: what is not the same of all of them.

    What stands between two of them is as the one before it.
    """
    block = spans[0].block
    columns: dict[str, bytes] = {}
    stops = [span.first for span in spans[1:]] + [spans[-1].stop]
    counts = [stop - span.first for span, stop in zip(spans, stops, strict=True)]
    delays = {span.ready_at_ms - block.ready_at_ms for span in spans}
    if len(delays) > 1:
        each = array("Q")
        for span, count in zip(spans, counts, strict=True):
            each.extend([span.ready_at_ms - block.ready_at_ms] * count)
        columns["delay_ms"] = each.tobytes()
    keys = {span.key for span in spans}
    if len(keys) > 1:
        packed = {key: key.encode() for key in keys}
        columns["key"] = pack_strings(
            [packed[s.key] for s, count in zip(spans, counts, strict=True) for _ in range(count)]
        )
    if encodings is not None:
        columns["encoding"] = encodings
    if block.uniques is not None:
        low, high = spans[0].first - block.first, spans[-1].stop - block.first
        columns["unique_key"] = pack_strings([key.encode() for key in block.uniques[low:high]])
    return {name: columns[name] for name in COLUMNS if name in columns}


def write_part(
    store: Store, queue: Queue, spans: list[Span], extent: Extent, columns: list[str]
) -> Record:
    """Write spans of one block again, ascending; `extent` has their bytes, with these columns."""
    first, count, alone = spans[0], spans[-1].stop - spans[0].first, len(spans) == 1
    block = first.block
    delay_ms = 0 if "delay_ms" in columns else first.ready_at_ms - block.ready_at_ms
    key = "" if "key" in columns else first.key
    fields = (
        queue.number,
        first.first,
        count,
        block.unix_ms,
        block.ready_at_ms,
        block.epoch,
        block.durability,
        delay_ms,
        key,
        block.encoding,
        max(first.ready_at_ms - store.now_ms, 0) if alone else 0,
        store.unix_ms if alone else 0,
        columns,
    )
    if sum(span.stop - span.first for span in spans) == count:
        return store.emit(CopyPartMeta(*fields, *block.terms), extent=extent)
    return store.emit(CopySomeMeta(*fields, _bits(spans), *block.terms), extent=extent)


def _bits(spans: list[Span]) -> bytes:
    """Return a bit for each message from the first span on, set for those that the spans have."""
    first, bits = spans[0].first, 0
    for span in spans:
        bits |= (1 << span.stop - first) - (1 << span.first - first)
    return bits.to_bytes((spans[-1].stop - first + 7) // 8, "little")
