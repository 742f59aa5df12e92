"""What lives is copied forward, so that the oldest segment of the log can be freed.

Everything that must survive a start has one record that it needs, and knows the batch of it: a message its
publish or its newest copy, a queue its newest settings and reservation, a session the outcomes of frames that may
come again. `forward` writes again what stands in the oldest batches. It looks at the state of the apply that emits
the copies: what ended before has no copy, and what ends later ends by a record behind it. A copy carries the whole
state of its message, and replay of a known id replaces its place, so nothing is ever there twice.

Only the oldest segment is ever freed, so whatever else an old record said (an attempt, an ack, a move) is either
in the copy, or about something that has ended.
"""

from __future__ import annotations

from itertools import chain
from typing import Final
from zlib import crc32

from minibrokerd.core.blocks import tail_of, write_copy
from minibrokerd.core.inputs import Forward
from minibrokerd.core.messages import Block, Message, Span, State, alike
from minibrokerd.core.paging import ask
from minibrokerd.core.queues import Queue
from minibrokerd.core.records import CopyMeta, ReserveMeta
from minibrokerd.core.state import Store
from minibrokerd.core.tails import split_bins
from minibrokerd.core.wheel import TICK_MS

COPY_BYTES: Final = 200  # a copy beside its bodies, about
LOOKS: Final = 20_000  # items that one apply looks at, about 5 ms


class _Budget:
    """What one apply may do: the others of the loop wait for it."""

    __slots__ = ("bytes_left", "cold_bytes", "looks_left")

    def __init__(self, command: Forward) -> None:
        self.bytes_left = command.most_bytes
        self.cold_bytes = command.most_cold_bytes
        self.looks_left = LOOKS

    def is_used_up(self) -> bool:
        return self.bytes_left <= 0 or self.looks_left <= 0


def forward(store: Store, command: Forward) -> None:
    """Write again what lives and stands in old batches, as far as the budget goes or until nothing is left."""
    upto, budget = min(command.upto, store.synced), _Budget(command)
    store.forward_waits = False
    for queue in store.queues.values():
        if queue.oldest_batch <= upto and not _messages(store, queue, upto, budget):
            return
        _settings(store, queue, upto)
    _outcomes(store, upto)
    if 0 < store.dropped_batch <= upto:
        store.emit(ReserveMeta(0, store.next_queue_number))
        store.dropped_batch = store.open_batch
    store.clear_below = max(store.clear_below, upto + 1)


def _messages(store: Store, queue: Queue, upto: int, budget: _Budget) -> bool:
    """Copy the old messages of a queue; False: not all, the budget is used up.

    Fresh spans can be very many, but do not move, so each is looked at once, over many applies. The others are
    looked at all in one go, at last: what left the fresh ones meanwhile is among them, and nothing goes back.
    """
    for span in queue.lanes.unseen(upto):
        budget.looks_left -= 1
        if span.block.batch <= upto:
            _copy_run(store, queue, span, budget)
        if budget.is_used_up():
            return False
    lane = queue.lanes.default
    for run in lane.cold:
        if run.batch <= upto:  # their bodies are read first; more follows when they are there
            if not lane.reading:
                ask(store, queue, lane, run, budget.cold_bytes)
            store.forward_waits = True
            return False
    returned = ((State.READY, item) for item in queue.lanes.returned())
    for state, item in chain(returned, queue.moved_items()):
        if item.block.batch > upto:
            continue
        if isinstance(item, Message):
            _copy(store, queue, state, item, budget)
        else:
            _copy_run(store, queue, item, budget)
        if budget.is_used_up():
            return False
    queue.oldest_batch = upto + 1
    return True


def _copy_run(store: Store, queue: Queue, span: Span, budget: _Budget) -> None:
    """Copy the messages of a span; it goes on as they are in the log now."""
    block = span.block
    # Parts of one span with different encodings need a record each, but stay one block here.
    parts = alike(block, span)
    queue.count_out(block, span.first, span.stop)  # the frame's share of a message is another now
    span.block = _block(store, block, span.first, span.stop)
    queue.count_in(span.block, span.first, span.stop)
    for part in parts:
        write_copy(store, queue, span, part, span.block if len(parts) == 1 else None)
    budget.bytes_left -= COPY_BYTES + block.bytes_of(span.first, span.stop)


def _copy(store: Store, queue: Queue, state: State, message: Message, budget: _Budget) -> None:
    """Copy one message with all that is known of it."""
    block = message.block
    lease = message.delivery if state is State.BEGUN else None
    wait_until_ms = message.ready_at_ms
    if lease is not None:
        assert message.timer is not None
        wait_until_ms = message.timer.tick * TICK_MS
    meta = CopyMeta(
        queue=queue.number,
        origin=block.origin,
        sequence=message.sequence,
        publish_unix_ms=block.unix_ms,
        epoch=block.epoch,
        durability=block.durability,
        encoding=block.encoding_of(message.sequence),
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
        dead=message.dead,
        request=lease.request if lease is not None else None,
    )
    queue.count_out(block, message.first, message.stop)
    message.block = _block(store, block, message.first, message.stop)
    queue.count_in(message.block, message.first, message.stop)
    tail = message.block.body
    assert isinstance(tail, bytes)
    store.emit(meta, tail, crc32(tail), message.block)
    budget.bytes_left -= COPY_BYTES + len(tail)


def _block(store: Store, old: Block, first: int, stop: int) -> Block:
    """Return a block with some messages of another one, whose record will be in the open batch."""
    tail = tail_of(old, first, stop)
    _, lengths, _ = split_bins(memoryview(tail), 3)
    encodings = old.encodings
    if encodings is not None:
        encodings = encodings[first - old.first : stop - old.first]
    return Block(
        old.origin,
        first,
        stop - first,
        tail,
        lengths,
        old.encoding,
        encodings,
        old.durability,
        old.epoch,
        old.unix_ms,
        old.ready_at_ms,
        store.open_batch,
    )


def _settings(store: Store, queue: Queue, upto: int) -> None:
    if queue.record_batch <= upto:
        store.write_queue(queue)
    if queue.reserved_until and queue.reserve_batch <= upto:
        store.emit(ReserveMeta(queue.number, queue.reserved_until))
        queue.reserve_batch = store.open_batch


def _outcomes(store: Store, upto: int) -> None:
    for session in store.sessions.values():
        seen_unix_ms = store.unix_ms - (store.now_ms - session.seen_ms)
        for sequence, outcome in session.window.items():
            if 0 < outcome.recorded <= upto:
                meta = session.record_of(sequence, seen_unix_ms)
                store.emit(meta, outcome.lost, crc32(outcome.lost))
                outcome.recorded = store.open_batch
