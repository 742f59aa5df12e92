"""Copies of live messages, so that the old segment they stand in can be freed.

The shell asks for ids that it found in an old segment, after it read and verified their bodies. Whether they still
live is decided here, in the apply that emits the copies: what ended before has no copy, and what ends later
ends by a record behind it. A copy carries the whole state of its message, and replay of a known id
replaces its place, so nothing is ever there twice.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from zlib import crc32

from minibroker.limits import DLQ_SUFFIX
from minibroker.wire import bin_head
from minibrokerd.core.inputs import Copy
from minibrokerd.core.messages import MEMORY, Block, Item, Message, State
from minibrokerd.core.queues import Queue
from minibrokerd.core.records import CopyMeta
from minibrokerd.core.state import Store
from minibrokerd.core.tails import split_bins
from minibrokerd.core.wheel import TICK_MS

_NO_COLUMNS = b"\xc4\x00"


def copy(store: Store, command: Copy) -> None:
    """Write each of these messages again that has not ended; the shell bounds their number and bytes."""
    for origin in sorted({origin for origin, _ in command.ids}):
        sequences = sorted({sequence for source, sequence in command.ids if source == origin})
        for queue in _places(store, origin):
            for state, item, sequence in _live(store, queue, origin, sequences):
                if item.block.durability != MEMORY:
                    tail = _tail(item.block, sequence)
                    store.emit(_meta(store, queue, state, item, sequence), tail, crc32(tail))


def _places(store: Store, origin: int) -> list[Queue]:
    """Return the queues that can have messages of `origin`: it, and its DLQ."""
    source = store.by_number.get(origin)
    if source is None:
        return []
    dlq = store.queues.get(source.name + DLQ_SUFFIX)
    return [source] if dlq is None else [source, dlq]


def _live(
    store: Store, queue: Queue, origin: int, sequences: Sequence[int]
) -> Iterator[tuple[State, Item, int]]:
    """Yield those of these ascending sequences that live in a queue. One pass over all it has."""
    entering = [span for _, target, _, spans in store.entering if target is queue for span in spans]
    for state, item in (*queue.items(), *((State.READY, span) for span in entering)):
        if item.block.origin != origin:
            continue
        low = bisect_left(sequences, item.first)
        for sequence in sequences[low : bisect_left(sequences, item.stop, low)]:
            yield state, item, sequence


def _meta(store: Store, queue: Queue, state: State, item: Item, sequence: int) -> CopyMeta:
    block = item.block
    # A message without a history of its own has that of a new one.
    message = item if isinstance(item, Message) else Message.of(item, sequence)
    lease = message.delivery if state is State.BEGUN else None
    wait_until_ms = message.ready_at_ms
    if lease is not None:
        assert message.timer is not None
        wait_until_ms = message.timer.tick * TICK_MS
    return CopyMeta(
        queue=queue.number,
        origin=block.origin,
        sequence=sequence,
        publish_unix_ms=block.unix_ms,
        epoch=block.epoch,
        durability=block.durability,
        encoding=block.encoding_of(sequence),
        key=message.key,
        token=message.ended_token,
        ready_at_ms=message.ready_at_ms,
        wait_ms=max(wait_until_ms - store.now_ms, 0),
        unix_ms=store.unix_ms,
        attempts=message.attempts,
        releases=message.releases,
        marked=message.marked,
        redriven=message.redriven,
        history=message.history,
        attempts_dropped=message.dropped,
        lease_token=lease.token if lease is not None else 0,
        session=lease.session if lease is not None else 0,
        lease_ms=message.lease_ms if lease is not None else 0,
        started_unix_ms=message.started_unix_ms,
    )


def _tail(block: Block, sequence: int) -> bytes:
    """Return a publish tail with one message of a block: no columns, its lengths, its bytes."""
    body = block.body
    assert isinstance(body, bytes | memoryview), "the shell has read the body before"
    _, lengths, blob = split_bins(memoryview(body), 3)
    index = sequence - block.first
    start = block.bytes_of(block.first, sequence)
    part = blob[start : start + block.bytes_of(sequence, sequence + 1)]
    part_lengths = lengths[8 * index : 8 * index + 8]
    return b"".join((_NO_COLUMNS, bin_head(8), part_lengths, bin_head(len(part)), part))
