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
from minibrokerd.log.seam import Record


def published(
    bodies: Bodies, meta: PublishMeta, record: Record, batch: int, place: Any
) -> list[tuple[int, Block, list[Span]]]:
    """Return (queue, block, spans) for each target of a PUBLISH record."""
    extent = bodies.extent(record, place)
    sizes = extent.sizes(meta.count)
    named = read_columns(meta, extent.columns(), meta.count)
    found = []
    for number, first in meta.targets:
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
            terms(meta.own_max_attempts, meta.own_lease_ms, meta.own_priority),
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
    bodies: Bodies, meta: CopyRunMeta | CopyPartMeta, record: Record, batch: int, place: Any
) -> tuple[Block, list[Span]]:
    """Return the block and the spans of a COPYRUN or COPYPART record."""
    extent = bodies.extent(record, place)
    block = _copied(extent, meta, meta.queue, meta.first, meta.count, meta.unix_ms, batch)
    named: dict[str, Any] = {}
    if isinstance(meta, CopyPartMeta):
        named = read_columns(meta, extent.columns(), meta.count)
        block.encodings = named.get("encoding")
        block.uniques = named.get("unique_key")
    return block, spans_of(block, meta.delay_ms, meta.key, named)


def spans_at(bodies: Bodies, record: Record, queue: int, batch: int, place: Any) -> list[Span]:
    """Return the spans of the record of a publish to `queue`, or of a copy of a run of it.

    Raises:
        ValueError: it is another kind of record, or of another queue.
    """
    meta = decode(record)
    if isinstance(meta, CopyRunMeta | CopyPartMeta) and meta.queue == queue:
        return copied_run(bodies, meta, record, batch, place)[1]
    if isinstance(meta, PublishMeta):
        for number, _, spans in published(bodies, meta, record, batch, place):
            if number == queue:
                return spans
    raise ValueError(f"the record has no messages of queue {queue}")


def _copied(
    extent: Extent,
    meta: CopyMeta | CopyRunMeta | CopyPartMeta,
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
        terms(meta.own_max_attempts, meta.own_lease_ms, meta.own_priority),
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
    """Return the columns of spans of one block, one behind the other: what is not the same of all of them."""
    block = spans[0].block
    columns: dict[str, bytes] = {}
    delays = {span.ready_at_ms - block.ready_at_ms for span in spans}
    if len(delays) > 1:
        each = array("Q")
        for span in spans:
            each.extend([span.ready_at_ms - block.ready_at_ms] * (span.stop - span.first))
        columns["delay_ms"] = each.tobytes()
    keys = {span.key for span in spans}
    if len(keys) > 1:
        packed = {key: key.encode() for key in keys}
        columns["key"] = pack_strings(
            [packed[span.key] for span in spans for _ in range(span.first, span.stop)]
        )
    if encodings is not None:
        columns["encoding"] = encodings
    if block.uniques is not None:
        low, high = spans[0].first - block.first, spans[-1].stop - block.first
        columns["unique_key"] = pack_strings([key.encode() for key in block.uniques[low:high]])
    return {name: columns[name] for name in COLUMNS if name in columns}


def write_part(
    store: Store, queue: Queue, spans: list[Span], block: Block, columns: list[str]
) -> None:
    """Write spans of one block again, one behind the other; `block` has them now, with these columns."""
    first, alone = spans[0], len(spans) == 1
    meta = CopyPartMeta(
        queue.number,
        block.first,
        block.count,
        block.unix_ms,
        block.ready_at_ms,
        block.epoch,
        block.durability,
        0 if "delay_ms" in columns else first.ready_at_ms - block.ready_at_ms,
        "" if "key" in columns else first.key,
        block.encoding,
        max(first.ready_at_ms - store.now_ms, 0) if alone else 0,
        store.unix_ms if alone else 0,
        columns=columns,
        own_max_attempts=block.terms.max_attempts,
        own_lease_ms=block.terms.lease_ms,
        own_priority=block.terms.priority,
    )
    store.emit(meta, extent=block.extent)
    block.batch = store.open_batch
