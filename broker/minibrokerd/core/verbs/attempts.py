"""Attempts: how one begins, with its lease, and how it ends without its worker.

Leases mostly end one by one. When a worker dies that had very many, all of them end in the same tick: so those of
one delivery are ended together, and consecutive messages that are alike share one record.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Final

from minibroker.contract import limits
from minibrokerd.core.model.circuits import ended, spares
from minibrokerd.core.model.deliveries import BegunSpan, Delivery
from minibrokerd.core.model.messages import CAUSES, MEMORY, Message, Span, State, runs_of
from minibrokerd.core.model.queues import Queue
from minibrokerd.core.model.records import AttemptMeta, BeginMeta
from minibrokerd.core.model.sessions import Connection, Session
from minibrokerd.core.model.state import COUNTER_BITS, Store
from minibrokerd.core.model.times import times_of
from minibrokerd.core.model.transitions import begin, begin_together, change, wait
from minibrokerd.core.verbs.moving import dead_letter, is_used_up

LEAST_LEASE_MS: Final = 1_000  # of what is begun as it is handed out


def drop_delivery(store: Store, queue: Queue, delivery: Delivery) -> None:
    """Forget a delivery that has nothing left."""
    store.forget_delivery(queue, delivery.token)
    session = store.sessions.get(delivery.session)
    if session is not None:
        session.forget_delivery(delivery, queue.last_batch)
    connection = store.connections.get(delivery.connection)
    if connection is not None:
        connection.tokens.discard(delivery.token)


def begin_messages(store: Store, queue: Queue, messages: list[Message]) -> None:
    """Start the leases of held messages of one delivery."""
    if not messages:
        return
    delivery = messages[0].delivery
    assert delivery is not None
    group, now_ms, unix_ms = queue.group, store.now_ms, store.unix_ms
    begin(store, group, delivery, messages)
    waited_ms, count = unix_ms - messages[0].block.unix_ms, len(messages)
    store.sums.waits_ms.note(waited_ms, count)
    times = group.times
    if times is None or now_ms >= times.until_ms:
        times = times_of(store, group)
    times.waits.add(waited_ms, count)
    if group.key_times is not None:
        for message in messages:
            own_ms = unix_ms - message.block.unix_ms
            group.key_times.of(message.key, now_ms).waits.add(own_ms, 1)
    store.write_leases(BeginMeta, queue, messages)


def note_waits(store: Store, connection: Connection, number: int) -> None:
    """Note whose handler waits: the next message for it is begun as it is handed out, if it comes later.

    What is ready now leaves in the same step, and its handler mostly ends by an ack that begins it, too: two
    records, and two ways through the core, where one is enough.
    """
    consumer = connection.consumers.get(number)
    if consumer is not None and store.by_number[consumer.queue_number].group.lanes.ready:
        consumer = None
    connection.waits = consumer


def begin_handed(store: Store, queue: Queue, delivery: Delivery, count: int) -> bool:
    """Begin the one message of a delivery as it is handed to a handler that waits; False: its client begins it.

    What is marked is begun by its client alone, before anything else happens; and a lease that is so short could
    end while the delivery waits for a sync.
    """
    if count != 1 or delivery.lease_ms < LEAST_LEASE_MS:
        return False
    messages = delivery.all_singles()
    if messages[0].marked:
        return False
    delivery.handed = True
    begin_messages(store, queue, messages)
    return True


def not_begun(store: Store, queue: Queue, message: Message, delay_ms: int = 0) -> None:
    """Note that a begun message, taken out of its delivery, is to wait again, and the attempt is not charged."""
    assert message.delivery is not None
    message.ended_token = message.delivery.token
    message.started_unix_ms = 0
    store.write_return(queue, [message], delay_ms, None)


def begin_spans(
    store: Store, queue: Queue, delivery: Delivery, spans: Sequence[Span], count: int
) -> None:
    """Start the leases of consecutive messages, so many, that were taken out of a delivery: one for each span."""
    begin_together(store, queue.group, delivery, spans, count)
    waited_ms = store.unix_ms - spans[0].block.unix_ms
    store.sums.waits_ms.note(waited_ms, count)
    times_of(store, queue.group).waits.add(waited_ms, count)
    write_lease(store, BeginMeta, queue, delivery, spans, delivery.lease_ms)


def write_lease(
    store: Store,
    kind: type[BeginMeta],
    queue: Queue,
    delivery: Delivery,
    spans: Sequence[Span],
    lease_ms: int,
) -> None:
    """As `Store.write_leases`, of consecutive messages with leases that are as long."""
    if store.short:
        return
    for is_in_memory, group in groupby(spans, key=lambda span: span.block.durability == MEMORY):
        if is_in_memory:
            continue
        run = list(group)
        first, count = run[0].first, run[-1].stop - run[0].first
        place = queue.number, delivery.token, delivery.session, run[0].block.origin, first, count
        store.emit(kind(*place, lease_ms, store.unix_ms, delivery.request))


def end_attempt(
    store: Store,
    delivery: Delivery,
    message: Message,
    cause: str,
    name: str = "",
    text: str = "",
    *,
    known: AttemptMeta | None = None,
) -> AttemptMeta:
    """Charge an attempt to its cause (`broker_lost` charges none) and write it into the history.

    `known` is what it says of another message of the delivery, when it says the same of this one.
    """
    queue = store.by_number.get(delivery.queue_number)
    is_charged = cause in CAUSES and (queue is None or not spares(queue.group, message.key))
    if is_charged:
        by_failure, expired, worker_lost = message.attempts
        if cause == "expired":
            expired += 1
        elif cause != "worker_lost":
            by_failure += 1
        else:
            worker_lost += 1
        message.attempts = (by_failure, expired, worker_lost)
    elif cause in CAUSES:
        message.releases += 1  # given back as far as its key knows: it keeps its place (keys.py)
    entry = known or _entry(store, delivery, message, cause, name, text)
    message.add_history(entry)
    message.ended_token = delivery.token
    # A reject is about the message: of what it calls it says nothing, good or bad.
    tells = cause in CAUSES and cause != "rejected"
    if tells and queue is not None:
        _tell_circuits(store, queue, delivery, message, name or cause)
    if message.started_unix_ms and queue is not None:
        ran_ms = store.unix_ms - message.started_unix_ms
        store.sums.runs_ms.note(ran_ms)
        times_of(store, queue.group).runs.add(ran_ms, 1)
        if queue.group.key_times is not None:
            queue.group.key_times.of(message.key, store.now_ms).runs.add(ran_ms, 1)
    message.started_unix_ms = 0
    return entry


def _tell_circuits(
    store: Store, queue: Queue, delivery: Delivery, message: Message, why: str
) -> None:
    """Note a failure where there are circuits, of the queue or of its keys."""
    if queue.group.circuit is not None:
        ended(store, queue, delivery.token, failed=1, count=1, why=why)
    elif (circuits := queue.group.key_circuits) is not None:
        circuits.failed(message, why)


def _entry(
    store: Store, delivery: Delivery, message: Message, cause: str, name: str, text: str
) -> AttemptMeta:
    session = store.sessions.get(delivery.session)
    room = 0
    if text and not store.short:
        used = sum(len(past.error_text.encode()) for past in message.history)
        room = max(min(limits.MAX_ERROR_TEXT_BYTES, limits.MAX_HISTORY_TEXT_BYTES - used), 0)
    return AttemptMeta(
        delivery.token,
        message.started_unix_ms or store.unix_ms,
        store.unix_ms,
        session.client if session else "",
        cause,
        _cut(name, limits.MAX_ERROR_CLASS_BYTES),
        _cut(text, room),
    )


def _cut(text: str, most_bytes: int) -> str:
    """Return as much of a text as fits into its limit as UTF-8."""
    return text.encode()[:most_bytes].decode(errors="ignore")


def lease_over(store: Store, item: BegunSpan, most: int) -> int:
    """The lease of what was begun together ended: let each of its messages have its own, which ends next.

    Return how many these are; with `most` 0 or less none are, and it is looked at again.
    """
    if most <= 0:
        store.wheel.schedule(item.timer, store.now_ms)
        return 0
    messages = item.delivery.part(item)
    for message in messages:
        assert message.timer is not None
        store.wheel.schedule(message.timer, store.now_ms)
    return len(messages)


def leases_over(store: Store, messages: Iterable[Message]) -> None:
    """The leases of these messages ended without a settlement."""
    for delivery, group in groupby(messages, key=attrgetter("delivery")):
        assert delivery is not None
        _end_leases(store, delivery, list(group))


def _end_leases(store: Store, delivery: Delivery, messages: list[Message]) -> None:
    queue = store.queue_of(delivery)
    if queue is None:
        return
    cause, group = _cause(store, delivery), queue.group
    group.counters[cause] += len(messages)
    entries: dict[int, AttemptMeta] = {}  # by the time of their start
    back: list[Message] = []
    for message in messages:
        del delivery.alone[queue.key_of(message.block.origin, message.sequence)]
        started_unix_ms = message.started_unix_ms
        entry = end_attempt(store, delivery, message, cause, known=entries.get(started_unix_ms))
        entries[started_unix_ms] = entry
        message.marked = True
        if is_used_up(queue, message):
            dead_letter(store, queue, message, entry)
        else:
            back.append(message)
    for run in runs_of(back, _share_return):
        store.write_return(queue, run, 0, run[0].history[-1])
    if not delivery:
        drop_delivery(store, queue, delivery)
    due = [message for message in back if message.ready_at_ms <= store.now_ms]
    if due:
        change(store, group, due, State.BEGUN, State.READY, delivery)
    for message in back:
        if message.ready_at_ms > store.now_ms:
            wait(store, group, message, delivery)


def _cause(store: Store, delivery: Delivery) -> str:
    """Return why a lease ended, and note that a client which is there does not do what it should."""
    session = store.sessions.get(delivery.session)
    if session is not None and session.connected:
        _silence(store, session)
        return "expired"
    # Only a lease that this start took over is uncharged: a worker that dies after it dies by itself.
    recovered = delivery.token >> COUNTER_BITS < store.epoch
    return "broker_lost" if recovered and store.now_ms <= store.grace_until_ms else "worker_lost"


def _silence(store: Store, session: Session) -> None:
    """Give a client nothing more before it has spoken: one that let a lease end may stand still.

    What it let go would else be handed to it again. Only its main connection counts: the other one may live in a
    thread of its own, beside a loop that does not turn.
    """
    if session.connection is not None:
        store.connections[session.connection].silent = True


def _share_return(one: Message, next: Message) -> bool:
    return (
        next.ready_at_ms == one.ready_at_ms
        and next.attempts == one.attempts
        and next.releases == one.releases
        and next.dead == one.dead
        and next.history[-1] is one.history[-1]
    )
