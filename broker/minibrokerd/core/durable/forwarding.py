"""What lives is copied forward, so that the oldest segment of the log can be freed.

Everything that must survive a start has one record that it needs, and knows the batch of it: a message its
publish or its newest copy, a queue its newest settings and reservation, a session the outcomes of frames that may
come again. `forward` writes again what stands in the oldest batches (`Standing` knows where that is). It looks at
the state of the apply that emits the copies: what ended before has no copy, and what ends later ends by a record
behind it. A copy carries the whole state of its message, and replay of a known id replaces its place: nothing is
ever there twice.

Only the oldest segment is ever freed, so whatever else an old record said (an attempt, an ack, a move) is either
in the copy, or about something that has ended.
"""

from __future__ import annotations

from itertools import islice
from typing import Final

from minibrokerd.core.durable.blocks import columns_of, may_be_part, write_copy, write_part
from minibrokerd.core.durable.paging import ask
from minibrokerd.core.model.budgets import Budget
from minibrokerd.core.model.deliveries import Delivery
from minibrokerd.core.model.index import Index
from minibrokerd.core.model.inputs import Forward
from minibrokerd.core.model.kept import Entry
from minibrokerd.core.model.lanes import Lanes
from minibrokerd.core.model.messages import Block, Item, Message, Span, State, alike
from minibrokerd.core.model.queues import Queue
from minibrokerd.core.model.records import CopyMeta, ReserveMeta
from minibrokerd.core.model.sessions import Session
from minibrokerd.core.model.state import Store
from minibrokerd.core.model.sums import OUTCOME_BYTES, QUEUE_BYTES
from minibrokerd.core.model.wheel import TICK_MS

COPY_BYTES: Final = 200  # a copy beside its bodies, about
PART_BYTES: Final = 32  # a message of a part of a publish, the same


def forward(store: Store, command: Forward) -> None:
    """Write again what lives and stands in old batches, as far as the budget goes or until nothing is left."""
    upto, budget = min(command.upto, store.synced), Budget(command.most_bytes)
    standing = store.standing
    store.forward_waits = False
    if standing.done or standing.upto != upto:
        standing.begin(upto)
    # In this order: nothing goes back into a line, and a delivery that gets something old is among the others.
    if not (
        _lines(store, budget, command.most_cold_bytes)
        and _deliveries(store, budget)
        and _others(store, budget)
    ):
        return
    standing.done = True
    if 0 < store.dropped_batch <= upto:
        store.emit(ReserveMeta(0, store.next_queue_number))
        store.dropped_batch = store.open_batch
    store.clear_below = max(store.clear_below, upto + 1)


# -- what waits in line -----------------------------------------------------------------------------


def _lines(store: Store, budget: Budget, cold_bytes: int) -> bool:
    """Copy what is old in the default lines; False: not all, the budget is used up."""
    standing = store.standing
    while standing.lines_left:
        if budget.is_used_up():
            return False
        lanes, _ = standing.lines_left.popitem()
        budget.looks_left -= 1
        queue = lanes.queue
        if queue is None or not lanes.default:
            lanes.lined = False
            continue
        if lanes.oldest <= standing.upto:
            if not _line(store, queue, lanes, budget, cold_bytes):
                standing.lines_left[lanes] = None
                return False
            lanes.oldest = standing.upto + 1
        standing.lines[lanes] = None
    return True


def _line(store: Store, queue: Queue, lanes: Lanes, budget: Budget, cold_bytes: int) -> bool:
    """Copy what is old in one line; False: not all, the budget is used up, or something is read back first.

    Fresh spans can be very many, but do not move, so each is looked at once, over many applies.
    """
    upto, lane = store.standing.upto, lanes.default
    for span in lane.unseen(upto):
        budget.looks_left -= 1
        if span.block.batch <= upto:
            _copy_run(store, queue, span, budget)
        if budget.is_used_up():
            return False
    for run in lane.cold:
        budget.looks_left -= 1
        if run.batch <= upto:  # their bodies are read first; more follows when they are there
            if not lane.reading:
                ask(store, queue, lanes, run, cold_bytes)
            store.forward_waits = True
            return False
    return True


def _deliveries(store: Store, budget: Budget) -> bool:
    """Copy what is old of what is held or begun; False: not all, the budget is used up."""
    standing, deliveries = store.standing, store.deliveries
    if standing.deliveries_left is None:  # those, too, that took from a line before it was walked
        standing.deliveries_left = len(deliveries)
    while standing.deliveries_left > 0 and deliveries:
        if budget.is_used_up():
            return False
        for token in [*islice(deliveries, min(standing.deliveries_left, 100))]:
            delivery = deliveries[token]
            if not _delivery(store, delivery, budget):
                return False
            del deliveries[token]  # to the end: all go round once
            deliveries[token] = delivery
            standing.deliveries_left -= 1
    return True


def _delivery(store: Store, delivery: Delivery, budget: Budget) -> bool:
    """Copy what is old in a delivery, which has no more messages than a frame; False: not all, too many bytes."""
    upto, queue = store.standing.upto, store.by_number.get(delivery.queue_number)
    budget.looks_left -= 1
    if queue is None or queue.group.deliveries.get(delivery.token) is not delivery:
        return True  # it ended by a purge, and is being freed
    items: list[Item] = [*delivery.spans.values(), *delivery.singles.values()]
    for item in items:
        budget.looks_left -= 1
        if item.block.batch > upto:
            continue
        if budget.bytes_left <= 0:
            return False
        if isinstance(item, Message):
            _copy(store, queue, item, budget)
        else:
            _copy_run(store, queue, item, budget)
    return True


# -- all else ---------------------------------------------------------------------------------------


def _others(store: Store, budget: Budget) -> bool:
    """Copy what is old of all else; False: not all, the budget is used up."""
    standing = store.standing
    upto, part, complete = standing.upto, _Part(store), True
    for thing, index in standing.oldest():
        budget.looks_left -= 1
        if isinstance(thing, Span | Message):
            queue = index.queue
            if queue is None:
                continue  # it ended with its queue, and is being freed
            if thing.block.batch > upto:
                standing.add(thing, index)
            elif isinstance(thing, Span):
                part.add(thing, index, budget)
            else:
                _copy(store, queue, thing, budget)
                standing.add(thing, index)
        elif isinstance(thing, Queue):
            _settings(store, thing, budget)
        elif isinstance(thing, Entry):
            budget.bytes_left -= store.kept.copy(store, thing, upto)
        elif isinstance(thing, Session):
            complete = _outcomes(store, thing, budget)
        elif isinstance(thing, Delivery) and thing.token in store.deliveries:
            complete = _delivery(store, thing, budget)
            if not complete:
                standing.put(upto, thing, None)
        if budget.is_used_up() or not complete:
            complete = False
            break
    part.write()
    return complete


class _Part:
    """Spans of one block, one behind the other, that are written again as one record.

    They come in any order; the newest first, mostly.
    """

    __slots__ = ("_index", "_spans", "_store")

    def __init__(self, store: Store) -> None:
        self._store = store
        self._index: Index | None = None
        self._spans: list[Span] = []  # the last one first

    def add(self, span: Span, index: Index, budget: Budget) -> None:
        """Take one span, and write what was there if it does not go with that."""
        last = self._spans[-1] if self._spans else None
        if last is not None and (
            last.block is not span.block
            or last.first != span.stop
            or not may_be_part(span)
            or not may_be_part(last)
        ):
            self.write()
        if not self._spans:
            budget.bytes_left -= COPY_BYTES
        self._spans.append(span)
        self._index = index
        budget.bytes_left -= PART_BYTES + span.block.bytes_of(span.first, span.stop)

    def write(self) -> None:
        """Write what was taken."""
        if not self._spans or self._index is None:
            return
        spans, index, store = self._spans[::-1], self._index, self._store
        self._spans = []
        queue = index.queue
        assert queue is not None
        if len(spans) == 1:
            _copy_run(store, queue, spans[0], None)
        else:
            _copy_part(store, queue, spans)
        for span in spans:
            store.standing.add(span, index)


def _settings(store: Store, queue: Queue, budget: Budget) -> None:
    """Write the settings of a queue and its reservation again, if they are old."""
    upto = store.standing.upto
    if queue.record_batch <= upto:
        store.write_queue(queue)
        budget.bytes_left -= QUEUE_BYTES
    if queue.reserved_until and queue.reserve_batch <= upto:
        store.emit(ReserveMeta(queue.number, queue.reserved_until))
        queue.reserve_batch = store.open_batch
        budget.bytes_left -= QUEUE_BYTES // 4
    store.note_records(queue)


def _outcomes(store: Store, session: Session, budget: Budget) -> bool:
    """Write the outcomes of a session again that are old; False: not all, the budget is used up."""
    upto = store.standing.upto
    seen_unix_ms = store.unix_ms - (store.now_ms - session.seen_ms)
    oldest = store.open_batch
    for sequence, outcome in session.window.items():
        budget.looks_left -= 1
        if 0 < outcome.recorded <= upto:
            if budget.is_used_up():
                store.standing.put(session.stands, session, None)
                return False
            meta = session.record_of(sequence, seen_unix_ms)
            store.emit(meta, outcome.lost)
            outcome.recorded = store.open_batch
            budget.bytes_left -= OUTCOME_BYTES + len(outcome.lost)
        elif outcome.recorded:
            oldest = min(oldest, outcome.recorded)
    session.stands = -1
    if session.window:
        session.stands = oldest
        store.standing.put(oldest, session, None)
    return True


# -- copies -----------------------------------------------------------------------------------------


def _copy_run(store: Store, queue: Queue, span: Span, budget: Budget | None) -> None:
    """Copy the messages of a span; it goes on as they are in the log now."""
    block = span.block
    if budget is not None:
        budget.bytes_left -= COPY_BYTES + block.bytes_of(span.first, span.stop)
    if block.uniques is not None:  # they have a column in their copy
        _copy_part(store, queue, [span])
        return
    # Parts of one span with different encodings need a record each, but stay one block here.
    parts = alike(block, span)
    queue.count_out(block, span.first, span.stop)  # the frame's share of a message is another now
    span.block = _block(store, block, span.first, span.stop)
    queue.count_in(span.block, span.first, span.stop)
    if len(parts) == 1:
        write_copy(store, queue, span, parts[0], span.block.extent)
        span.block.batch = store.open_batch
    else:
        for part in parts:
            write_copy(store, queue, span, part, block.part(part[0], part[1]))


def _copy_part(store: Store, queue: Queue, spans: list[Span]) -> None:
    """Copy spans of one block, one behind the other, as one record with columns."""
    block, first, stop = spans[0].block, spans[0].first, spans[-1].stop
    columns = columns_of(spans, _encodings(block, first, stop))
    queue.count_out(block, first, stop)
    new = _block(store, block, first, stop, b"".join(columns.values()))
    queue.count_in(new, first, stop)
    write_part(store, queue, spans, new, list(columns))
    for span in spans:
        span.block = new


def _copy(store: Store, queue: Queue, message: Message, budget: Budget) -> None:
    """Copy one message with all that is known of it."""
    block = message.block
    lease = message.delivery if message.state is State.BEGUN else None
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
        history=list(message.history),
        attempts_dropped=message.dropped,
        lease_token=lease.token if lease is not None else 0,
        session=lease.session if lease is not None else 0,
        lease_ms=message.lease_ms if lease is not None else 0,
        started_unix_ms=message.started_unix_ms,
        dead=message.dead,
        request=lease.request if lease is not None else None,
        own_max_attempts=block.terms.max_attempts,
        own_lease_ms=block.terms.lease_ms,
        own_priority=block.terms.priority,
        unique_key=block.uniques[message.sequence - block.first] if block.uniques else "",
    )
    queue.count_out(block, message.first, message.stop)
    message.block = _block(store, block, message.first, message.stop)
    queue.count_in(message.block, message.first, message.stop)
    extent = message.block.extent
    store.emit(meta, extent=extent)
    message.block.batch = store.open_batch
    budget.bytes_left -= COPY_BYTES + extent.size


def _block(store: Store, old: Block, first: int, stop: int, columns: bytes = b"") -> Block:
    """Return a block with some messages of another one, whose record will be in the open batch."""
    extent = old.part(first, stop, columns)
    return Block(
        old.origin,
        first,
        stop - first,
        extent,
        extent.sizes(stop - first),
        old.encoding,
        _encodings(old, first, stop),
        old.durability,
        old.epoch,
        old.unix_ms,
        old.ready_at_ms,
        store.open_batch,
        old.terms,
        old.uniques[first - old.first : stop - old.first] if old.uniques else None,
    )


def _encodings(block: Block, first: int, stop: int) -> bytes | None:
    if block.encodings is None:
        return None
    return block.encodings[first - block.first : stop - block.first]
