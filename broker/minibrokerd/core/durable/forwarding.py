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
from operator import attrgetter

from minibrokerd.core.durable.filling import filling
from minibrokerd.core.durable.paging import absorb, ask
from minibrokerd.core.durable.parts import COPY_BYTES, Part, part_of
from minibrokerd.core.model.budgets import Budget
from minibrokerd.core.model.deliveries import Delivery
from minibrokerd.core.model.inputs import Forward
from minibrokerd.core.model.kept import Entry
from minibrokerd.core.model.lanes import Lanes
from minibrokerd.core.model.messages import NEVER, Item, Message, Span, State
from minibrokerd.core.model.queues import Queue
from minibrokerd.core.model.records import CopyMeta, ReserveMeta
from minibrokerd.core.model.sessions import Session
from minibrokerd.core.model.sheaf import Sheaf
from minibrokerd.core.model.shelf import Shelf
from minibrokerd.core.model.state import Store
from minibrokerd.core.model.sums import OUTCOME_BYTES, QUEUE_BYTES
from minibrokerd.core.model.wheel import TICK_MS


def forward(store: Store, command: Forward) -> None:
    """Write again what lives and stands in old batches, as far as the budget goes or until nothing is left."""
    upto, budget = min(command.upto, store.synced), Budget(command.most_bytes)
    with filling(store, command.rest_bytes):
        _forward(store, command, upto, budget)


def _forward(store: Store, command: Forward, upto: int, budget: Budget) -> None:
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
    upto, lane, part = store.standing.upto, lanes.default, Part(store, budget)
    for span in lane.unseen(upto):
        budget.looks_left -= 1
        if span.block.batch <= upto:
            part.add(queue, span)
        if budget.is_used_up():
            part.write()
            return False
    part.write()
    for run in lane.cold:
        budget.looks_left -= 1
        if run.batch <= upto:  # their bodies are read first; more follows when they are there
            if not lane.reading:
                absorb(lane, run, upto)
                ask(store, queue, lanes, run, cold_bytes)
            store.forward_waits = True
            return False
    return True


def _deliveries(store: Store, budget: Budget) -> bool:
    """Copy what is old of what is held or begun; False: not all, the budget is used up."""
    standing, deliveries = store.standing, store.deliveries
    if standing.deliveries_left is None:  # those, too, that took from a line before it was walked
        standing.deliveries_left = len(deliveries)
    part = Part(store, budget)
    while standing.deliveries_left > 0 and deliveries:
        if budget.is_used_up():
            part.write()
            return False
        for token in [*islice(deliveries, min(standing.deliveries_left, 100))]:
            delivery = deliveries[token]
            if not _delivery(store, delivery, part, budget):
                part.write()
                return False
            del deliveries[token]  # to the end: all go round once
            deliveries[token] = delivery
            standing.deliveries_left -= 1
    part.write()
    return True


def _delivery(store: Store, delivery: Delivery, part: Part, budget: Budget) -> bool:
    """Copy what is old in a delivery, which has no more messages than a frame; False: not all, too many bytes."""
    upto, queue = store.standing.upto, store.by_number.get(delivery.queue_number)
    budget.looks_left -= 1
    if queue is None or queue.group.deliveries.get(delivery.token) is not delivery:
        return True  # it ended by a purge, and is being freed
    # In the order of their ids: what was settled in the middle of them has changed it.
    spans = sorted(delivery.spans.values(), key=attrgetter("first"))
    items: list[Item] = [*spans, *delivery.singles.values()]
    for item in items:
        budget.looks_left -= 1
        if item.block.batch > upto:
            continue
        if budget.bytes_left <= 0:
            return False
        if isinstance(item, Message):
            _copy(store, queue, item, budget)
        else:
            part.add(queue, item)
    return True


# -- all else ---------------------------------------------------------------------------------------


def _others(store: Store, budget: Budget) -> bool:
    """Copy what is old of all else; False: not all, the budget is used up."""
    standing = store.standing
    upto, part, complete = standing.upto, Part(store, budget), True
    for thing, _ in standing.oldest():
        budget.looks_left -= 1
        if isinstance(thing, Shelf):
            complete = _shelf(store, thing, part, budget)
            standing.note(thing) if complete else standing.note_rest(thing)
        elif isinstance(thing, Queue):
            _settings(store, thing, budget)
        elif isinstance(thing, Entry):
            budget.bytes_left -= store.kept.copy(store, thing, upto)
        elif isinstance(thing, Session):
            complete = _outcomes(store, thing, budget)
        elif isinstance(thing, Delivery) and thing.token in store.deliveries:
            complete = _delivery(store, thing, part, budget)
            if not complete:
                standing.put(upto, thing, None)
        if budget.is_used_up() or not complete:
            complete = False
            break
    part.write()
    return complete


def _shelf(store: Store, shelf: Shelf, part: Part, budget: Budget) -> bool:
    """Copy what is old in a shelf; False: not all, the budget is used up."""
    upto, queue = store.standing.upto, shelf.index.queue
    if queue is None:
        shelf.low = NEVER  # it ended with its queue, and is being freed
        return True
    if shelf.upto != upto or not shelf.at:
        shelf.upto, shelf.at, shelf.low = upto, 0, NEVER
    for place, item in shelf.from_place(shelf.at):
        if budget.is_used_up():
            shelf.at = place
            return False
        budget.looks_left -= 1
        batch = item.block.batch
        if batch <= upto:
            batch = store.open_batch  # that of its copy, or one before it
            if isinstance(item, Span):
                part.add(queue, item)
            elif isinstance(item, Sheaf):
                part.write()
                spans = list(item.spans())
                for span in spans:
                    part.add(queue, span)
                part.write()
                item.block = spans[0].block
            else:
                _copy(store, queue, item, budget)
        shelf.low = min(shelf.low, batch)
    shelf.at = 0
    return True


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
        own_ttl_ms=block.terms.ttl_ms,
    )
    message.block = part_of(store, block, message.first, message.stop)
    queue.count_out(block, message.first, message.stop)
    queue.count_in(message.block, message.first, message.stop)
    extent = message.block.extent
    store.emit(meta, extent=extent)
    message.block.batch = store.open_batch
    budget.bytes_left -= COPY_BYTES + extent.size
