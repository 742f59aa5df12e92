"""PUBLISH: a frame of messages becomes one block, one record, and spans that enter their lanes once synced."""

from __future__ import annotations

from typing import Any

from minibroker.contract import limits
from minibroker.contract.settings import DURABILITIES
from minibrokerd.core.model.columns import COLUMNS, check_sizes, read_columns, spans_of
from minibrokerd.core.model.inputs import Frame
from minibrokerd.core.model.messages import MEMORY, SYNC, Block, Span, terms
from minibrokerd.core.model.queues import Queue
from minibrokerd.core.model.records import PublishMeta
from minibrokerd.core.model.sessions import Result
from minibrokerd.core.model.state import Broken, Refused, Store
from minibrokerd.core.verbs.comebacks import wait_or_ready


def publish(store: Store, frame: Frame, part: Any) -> tuple[Result, int]:
    """Apply one publish part: return its result and the batch that the result rests on.

    Raises:
        Refused: nothing was changed.
        Broken: counts, lengths or columns do not add up.
    """
    count = part.count
    extent = frame.extent
    assert extent is not None, "the shell makes one of each publish"
    sizes = check_sizes(extent, count, store.sizes.message_bytes)
    columns = read_columns(part, frame.columns, count)
    if part.columns and part.columns != [name for name in COLUMNS if name in columns]:
        raise Broken("the columns of a publish stand in the order of its table")
    if (
        part.key
        and len(part.key) * 4 > limits.MAX_KEY_BYTES
        and len(part.key.encode()) > limits.MAX_KEY_BYTES
    ):
        raise Broken(f"a key exceeds {limits.MAX_KEY_BYTES} bytes")
    if part.queue.endswith(limits.DLQ_SUFFIX):
        raise Refused(
            "bad_name", f"{part.queue!r:.200} is a dead-letter queue; publish to its source"
        )
    queue = store.queue_or_new(part.queue)
    if not queue.has_room(count):
        raise _full(queue, count)
    durability = queue.durability
    first = _reserve(store, queue, count)
    block = Block(
        queue.number,
        first,
        count,
        extent,
        sizes,
        part.encoding,
        columns.get("encoding"),
        durability,
        store.epoch,
        store.unix_ms,
        store.now_ms,
        store.open_batch,
        terms(part.max_attempts, part.lease_ms),
    )
    spans = spans_of(block, part.delay_ms, part.key, columns)
    if durability != MEMORY:
        _write(store, queue, block, part, frame)
    rests_on = max(store.rests_on(durability, frame.size), queue.reserve_batch)
    queue.group.counters["published"] += count
    store.connections[frame.connection].session.published += count
    queue.count_in(block, first, first + count)
    if durability == SYNC:
        queue.group.entering += count
        store.entering.append((store.open_batch, queue, block, spans))
    else:
        for span in spans:
            span.batch = queue.reserve_batch  # no id is shown before it is safe from a second use
        enter(store, queue, spans)
    return result_of(block), rests_on


def _full(queue: Queue, count: int) -> Refused:
    limit = queue.max_messages
    if count > limit:
        return Refused(
            "too_large",
            f"a frame of {count} messages, and the queue {queue.name!r} holds at most {limit}; "
            "publish fewer at a time",
        )
    return Refused(
        "busy",
        f"the queue {queue.name!r} holds {queue.count()} of its {limit} max_messages; retry when it is shorter",
        1_000,
    )


def result_of(block: Block) -> Result:
    """Return what a confirm says of a publish."""
    return {
        "origin": block.origin,
        "first": block.first,
        "durability": DURABILITIES[block.durability],
    }


def enter(store: Store, queue: Queue, spans: list[Span]) -> None:
    """Let published messages wait for their delay, or into their lanes."""
    for span in spans:
        if span.ready_at_ms > store.now_ms:
            wait_or_ready(store, queue, span)
        else:
            queue.group.enter(span)
    store.touch(queue.group)


def _reserve(store: Store, queue: Queue, count: int) -> int:
    first = queue.next_sequence
    queue.next_sequence += count
    if queue.next_sequence > queue.reserved_until:
        store.reserve(queue)
    return first


def _write(store: Store, queue: Queue, block: Block, part: Any, frame: Frame) -> None:
    meta = PublishMeta(
        [(queue.number, block.first)],
        block.count,
        store.unix_ms,
        store.now_ms,
        block.epoch,
        block.durability,
        part.delay_ms,
        part.key,
        part.encoding,
        part.columns,
        store.connections[frame.connection].session.id,
        frame.sequence or 0,
        frame.answered_below,
        frame.checksum,
        frame.size,
        part.max_attempts,
        part.lease_ms,
    )
    store.emit(meta, extent=block.extent)
    queue.last_batch = block.batch = store.open_batch
