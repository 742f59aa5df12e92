"""PUBLISH: a frame of messages becomes one block, one record, and spans that enter their lanes once synced."""

from __future__ import annotations

from array import array
from itertools import groupby
from typing import Any, Final

from minibroker.contract import limits
from minibroker.contract.commands import COMMANDS
from minibroker.contract.errors import ProtocolError
from minibroker.contract.settings import DURABILITIES
from minibroker.contract.wire import unpack_strings
from minibrokerd.core.comebacks import wait_or_ready
from minibrokerd.core.inputs import Frame
from minibrokerd.core.messages import MEMORY, SYNC, Block, Span, terms
from minibrokerd.core.queues import Queue
from minibrokerd.core.records import PublishMeta
from minibrokerd.core.sessions import Result
from minibrokerd.core.state import Broken, Refused, Store

COLUMNS: Final = COMMANDS["publish"].columns


def publish(store: Store, frame: Frame, part: Any) -> tuple[Result, int]:
    """Apply one publish part: return its result and the batch that the result rests on.

    Raises:
        Refused: nothing was changed.
        Broken: counts, lengths or columns do not add up.
    """
    count = part.count
    check_lengths(frame.lengths, count, len(frame.blob), store.sizes.message_bytes)
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
        frame.body,
        frame.lengths,
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
    queue.counters["published"] += count
    store.connections[frame.connection].session.published += count
    queue.count_in(block, first, first + count)
    if durability == SYNC:
        queue.entering += count
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
            queue.enter(span)
    store.touch(queue)


def check_lengths(
    lengths: memoryview, count: int, blob_bytes: int, most_bytes: int = limits.MAX_MESSAGE_BYTES
) -> None:
    """Check that the lengths are for `count` messages of `most_bytes` at the most, and add up to the blob.

    Raises:
        Broken: they do not, and the stream cannot be trusted.
        Refused: `too_large`, one message is larger than the limit.
    """
    if not 1 <= count <= limits.MAX_MESSAGES_PER_FRAME:
        raise Broken(
            f"a publish of {count} messages; 1 to {limits.MAX_MESSAGES_PER_FRAME} are allowed"
        )
    if len(lengths) != 8 * count:
        raise Broken(
            f"{len(lengths)} bytes of lengths for {count} messages; 8 for each are expected"
        )
    sizes = array("I")
    sizes.frombytes(lengths)
    if sum(sizes) != blob_bytes:
        raise Broken(f"the lengths add up to {sum(sizes)} bytes, the blob has {blob_bytes}")
    if blob_bytes > most_bytes:
        largest = max(map(sum, zip(sizes[::2], sizes[1::2], strict=True)))
        if largest > most_bytes:
            raise Refused(
                "too_large",
                f"a message of {largest} bytes exceeds {most_bytes}; "
                "store the data elsewhere and publish its place",
            )


def read_columns(part: Any, column_bytes: memoryview, count: int) -> dict[str, Any]:
    """Return the publish columns that the part names: delays (array), keys (list of str), encodings (bytes).

    Raises:
        Broken: a column is unknown, twice there, too short, too long, or has a value out of range.
    """
    columns: dict[str, Any] = {}
    at = 0
    for name in part.columns:
        if name in columns:
            raise Broken(f"the column {name!r:.100} is named twice")
        at = _read_column(columns, name, column_bytes, at, count)
    if at != len(column_bytes):
        raise Broken(f"the columns have {len(column_bytes)} bytes, {at} are accounted for")
    return columns


def _read_column(columns: dict[str, Any], name: str, data: memoryview, at: int, count: int) -> int:
    if name == "delay_ms":
        end = at + 8 * count
        delays = array("Q")
        delays.frombytes(_exactly(data, at, end))
        if max(delays) > limits.MAX_DELAY_MS:
            raise Broken(f"a delay of {max(delays)} ms exceeds {limits.MAX_DELAY_MS}")
        columns[name] = delays
    elif name == "encoding":
        end = at + count
        columns[name] = bytes(_exactly(data, at, end))
        if max(columns[name]) > 1:
            raise Broken(f"there is no encoding {max(columns[name])}")
    elif name == "key":
        columns[name], used = _read_keys(data[at:], count)
        end = at + used
    else:
        raise Broken(f"publish has no column {name!r:.100}")
    return end


def _exactly(data: memoryview, at: int, end: int) -> memoryview:
    if end > len(data):
        raise Broken(f"a column ends at byte {end}, but the columns have {len(data)} bytes")
    return data[at:end]


def _read_keys(data: memoryview, count: int) -> tuple[list[str], int]:
    lengths = array("I")
    lengths.frombytes(_exactly(data, 0, 4 * count))
    if max(lengths) > limits.MAX_KEY_BYTES:  # before a byte of it is copied
        raise Broken(f"a key exceeds {limits.MAX_KEY_BYTES} bytes")
    try:
        keys, used = unpack_strings(data, count)
        return [key.decode() for key in keys], used
    except (ProtocolError, UnicodeDecodeError) as error:
        raise Broken(f"the key column is wrong: {error}") from error


def spans_of(block: Block, delay_ms: int, key: str, columns: dict[str, Any]) -> list[Span]:
    """Return the messages of a block as spans, each with one key and one delay."""
    first, ready_at_ms = block.first, block.ready_at_ms
    delays, keys = columns.get("delay_ms"), columns.get("key")
    if delays is None and keys is None:
        return [Span(block, first, first + block.count, key, ready_at_ms + delay_ms)]
    values = zip(delays or [delay_ms] * block.count, keys or [key] * block.count, strict=True)
    spans = []
    for (delay, name), group in groupby(values):
        stop = first + sum(1 for _ in group)
        spans.append(Span(block, first, stop, name, ready_at_ms + delay))
        first = stop
    return spans


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
    store.emit(meta, frame.tail, frame.tail_checksum, block)
    queue.last_batch = store.open_batch


__all__ = ["check_lengths", "enter", "publish", "read_columns", "spans_of"]
