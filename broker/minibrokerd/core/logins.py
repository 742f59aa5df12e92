"""Sessions come and go: hello, resume, attach, the end of a connection, the end of a session."""

from __future__ import annotations

from typing import Any

from minibroker import limits
from minibroker.wire import pack_runs
from minibrokerd.core.deliveries import Delivery
from minibrokerd.core.dispatching import leave_line, line_up
from minibrokerd.core.inputs import Attach, Disconnected, Flow, Hello, Resume
from minibrokerd.core.messages import Message, Span, State
from minibrokerd.core.queues import Queue
from minibrokerd.core.sessions import Connection, Session
from minibrokerd.core.settling import Run, begin_message, drop_delivery, read_runs
from minibrokerd.core.state import Store
from minibrokerd.core.wheel import Timer


def hello(store: Store, command: Hello) -> None:
    """Open a session on a new connection."""
    session = Session(store.next_token(), command.client)
    store.sessions[session.id] = session
    _connect(store, session, command.connection, main=True)
    _welcome(store, session, command.connection, known=True, lost=[])


def resume(store: Store, command: Resume) -> None:
    """Continue a session on a new connection: an older main connection ends first.

    A session that is not known (the server restarted, or the session was silent for too long) starts with
    nothing but its id; what it had begun is given back where it still waits.
    """
    runs = read_runs(command.runs, len(command.runs) // 24)
    session = store.sessions.get(command.session)
    known = session is not None
    if session is None:
        session = store.sessions[command.session] = Session(command.session, command.client)
    session.client = command.client or session.client
    if session.connection is not None:
        old = session.connection
        end_connection(store, old)
        store.effects.closes.append(old)
    _connect(store, session, command.connection, main=True)
    lost: list[Run] = []
    for token, origin, first, count in runs:
        for sequence in range(first, first + count):
            if not _reattach(store, session, command.connection, token, origin, sequence):
                lost.append((token, origin, sequence, 1))
    _welcome(store, session, command.connection, known=known, lost=lost)


def attach(store: Store, command: Attach) -> None:
    """Add a second connection to a session, which may be one that this server has forgotten."""
    session = store.sessions.get(command.session)
    if session is None:
        session = store.sessions[command.session] = Session(command.session, "")
    _connect(store, session, command.connection, main=False)
    _welcome(store, session, command.connection, known=True, lost=[])


def disconnected(store: Store, command: Disconnected) -> None:
    """A connection ended: what it held unbegun goes back at once and uncharged."""
    end_connection(store, command.connection)


def flow(store: Store, command: Flow) -> None:
    """Stop or go on delivering to a connection."""
    connection = store.connections.get(command.connection)
    if connection is None:
        return
    connection.paused = command.paused
    if not command.paused:
        for consumer in [*connection.consumers.values(), *connection.receives.values()]:
            line_up(store, store.by_number[consumer.queue_number], consumer)


def end_connection(store: Store, id: int) -> None:
    """Forget a connection; its session goes on for a while."""
    connection = store.connections.get(id)
    if connection is None:
        return
    for consumer in [*connection.consumers.values(), *connection.receives.values()]:
        queue = store.by_number[consumer.queue_number]
        leave_line(queue, consumer)
        queue.consumer_count -= 1
        if consumer.timer is not None:
            store.wheel.cancel(consumer.timer)
    for token in sorted(connection.tokens):
        return_held(store, store.deliveries[token], marked=True)
    del store.connections[id]
    session = connection.session
    if connection.main:
        session.connection = None
    session.attached.discard(id)
    if not session.connected:
        await_return(store, session)


def return_held(store: Store, delivery: Delivery, *, marked: bool) -> None:
    """Put what a delivery holds unbegun back to its place; what is begun waits for its lease.

    `marked`: the holder went away without a word, so the next one gets each message handed over singly.
    """
    queue = store.by_number[delivery.queue_number]
    items: list[Span | Message] = [*delivery.spans.values()]
    items += [message for message in delivery.singles.values() if message.state is State.HELD]
    delivery.spans.clear()
    for item in items:
        if isinstance(item, Message):
            del delivery.singles[queue.key_of(item.block.origin, item.sequence)]
        count = item.stop - item.first
        queue.held -= count
        if delivery.consumer is not None:
            delivery.consumer.outstanding -= count
        item.marked = item.marked or marked
        store.wait_or_ready(queue, item)
    connection = store.connections.get(delivery.connection)
    if connection is not None:
        connection.tokens.discard(delivery.token)
    if not delivery:
        drop_delivery(store, queue, delivery)


def await_return(store: Store, session: Session) -> None:
    """Keep a session without a connection for a while."""
    session.timer = store.set_timer(_session_over, session, store.now_ms + limits.SESSION_KEPT_MS)


def end_session(store: Store, session: Session) -> None:
    """Forget a session; its leases, if any, run out by themselves."""
    if session.timer is not None:
        store.wheel.cancel(session.timer)
    store.sessions.pop(session.id, None)


def _connect(store: Store, session: Session, id: int, *, main: bool) -> None:
    store.connections[id] = Connection(id, session, main=main)
    if session.timer is not None:
        store.wheel.cancel(session.timer)
        session.timer = None
    if main:
        session.connection = id
    else:
        session.attached.add(id)


def _session_over(store: Store, timer: Timer, session: Session) -> None:
    session.timer = None
    if session.connected:
        return
    kept_until_ms = store.now_ms - store.unix_ms + session.seen_unix_ms + limits.FRAME_OUTCOME_MS
    if session.deliveries:
        await_return(store, session)
    elif session.window and kept_until_ms > store.now_ms:
        session.timer = store.set_timer(_session_over, session, kept_until_ms)
    else:
        end_session(store, session)


def _welcome(
    store: Store, session: Session, connection: int, *, known: bool, lost: list[Run]
) -> None:
    header: dict[str, Any] = {
        "op": "welcome",
        "session": session.id,
        "epoch": store.epoch,
        "heartbeat_ms": limits.HEARTBEAT_MS,
        "max_frame_bytes": limits.MAX_FRAME_BYTES,
        "max_message_bytes": limits.MAX_MESSAGE_BYTES,
        "lost": len(lost),
        "known": known,
    }
    store.send(connection, 0, header, pack_runs(lost))


def _reattach(
    store: Store, session: Session, connection: int, token: int, origin: int, sequence: int
) -> bool:
    """Give a begun message back to its session; False if it was handed out since, or has ended."""
    delivery = store.deliveries.get(token)
    if delivery is not None:
        queue = store.by_number[delivery.queue_number]
        message = delivery.single(origin, sequence) if delivery.session == session.id else None
        if message is None:
            return False
        delivery.connection = connection
        delivery.consumer = None
        if message.state is not State.BEGUN:
            begin_message(store, queue, message)
        return True
    found = _find_waiting(store, token, origin, sequence)
    if found is None:
        return False
    queue, message = found
    # Its hand-out was not recorded, or it came back when the connection ended: the session still runs it.
    delivery = Delivery(
        token, queue.number, queue.home, session.id, connection, None, queue.setting("lease_ms")
    )
    store.deliveries[token] = queue.deliveries[token] = delivery
    session.deliveries.add(token)
    delivery.add(message)
    queue.held += 1
    begin_message(store, queue, message)
    return True


def _find_waiting(
    store: Store, token: int, origin: int, sequence: int
) -> tuple[Queue, Message] | None:
    source = store.by_number.get(origin)
    if source is None:
        return None
    for queue in (source, store.queues.get(source.name + limits.DLQ_SUFFIX)):
        if queue is None:
            continue
        item = queue.lanes.remove(None, origin, sequence)
        if item is None:
            continue
        ended = item.ended_token if isinstance(item, Message) else 0
        if token < item.block.epoch << 40 or token < max(item.token, ended + 1):
            queue.lanes.put_back(item)
            return None
        return queue, item if isinstance(item, Message) else Message.of(item, sequence)
    return None
