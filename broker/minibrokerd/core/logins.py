"""Sessions come and go: hello, resume, attach, the end of a connection, the end of a session."""

from __future__ import annotations

from typing import Any

from minibroker import limits
from minibroker.wire import RUN, pack_runs
from minibrokerd.core.attempts import begin_message, drop_delivery
from minibrokerd.core.deliveries import Delivery
from minibrokerd.core.dispatching import leave_line, line_up_all
from minibrokerd.core.inputs import Attach, Disconnected, Flow, Hello, Resume
from minibrokerd.core.messages import Item, Message, Span, State
from minibrokerd.core.queues import Queue
from minibrokerd.core.records import EndMeta
from minibrokerd.core.sessions import Connection, Session
from minibrokerd.core.settling import Run, read_runs
from minibrokerd.core.state import COUNTER_BITS, Broken, Refused, Store
from minibrokerd.core.wheel import Timer

Id = tuple[int, int, int]  # token, origin, sequence


def hello(store: Store, command: Hello) -> None:
    """Open a session on a new connection.

    Raises:
        Refused: `limit_reached`, there are as many sessions as there may be.
    """
    session = _new_session(store, store.next_token(), command.client)
    _connect(store, session, command.connection, main=True)
    _welcome(store, session, command.connection, known=True, lost=[])


def resume(store: Store, command: Resume) -> None:
    """Continue a session on a new connection: an older main connection ends first.

    A session that is not known (the server restarted, or the session was silent for too long) starts with
    nothing but its id; what it had begun is given back where it still waits.
    """
    entries, left_over = divmod(len(command.runs), RUN.size)
    if left_over:
        raise Broken(f"{left_over} bytes are left over behind the run column")
    runs = read_runs(command.runs, entries)
    session = store.sessions.get(command.session)
    known = session is not None and not session.blank
    if session is None:
        session = _new_session(store, command.session, command.client)
    if not known:
        _begin_anew(store, session)
    session.client = command.client or session.client
    if session.connection is not None:
        old = session.connection
        end_connection(store, old)
        store.effects.closes.append(old)
    _connect(store, session, command.connection, main=True)
    ids = [(run[0], run[1], run[2] + i) for run in runs for i in range(run[3])]
    ids = [id for id in ids if not _still_held(store, session, command.connection, id)]
    back = _take_back(store, session, command.connection, ids)
    lost = [(*id, 1) for id in ids if id not in back]
    _welcome(store, session, command.connection, known=known, lost=lost)


def attach(store: Store, command: Attach) -> None:
    """Add a second connection to a session, which may be one that this server has forgotten."""
    session = store.sessions.get(command.session)
    if session is None:
        session = _new_session(store, command.session, "")
        session.blank = True
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
        line_up_all(store, connection)


def leave(store: Store, connection: Connection) -> None:
    """A client says goodbye: on its main connection the session ends, when its last lease has."""
    session = connection.session
    ids = [*sorted(session.attached), connection.id] if connection.main else [connection.id]
    for id in ids:
        end_connection(store, id, marked=False)
        store.effects.closes.append(id)
    if not connection.main:
        return
    _forget_outcomes(store, session, silent=False)
    if not session.deliveries:
        end_session(store, session)


def end_connection(store: Store, id: int, *, marked: bool = True) -> None:
    """Forget a connection; its session goes on for a while. `marked` as in `return_held`."""
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
        return_held(store, store.deliveries[token], marked=marked)
    del store.connections[id]
    session = connection.session
    if connection.main:
        session.connection = None
    session.attached.discard(id)
    if session.connected:
        return
    if session.is_worth_keeping:
        await_return(store, session)
    else:
        end_session(store, session)


def return_held(store: Store, delivery: Delivery, *, marked: bool) -> None:
    """Put what a delivery holds unbegun back to its place; what is begun waits for its lease.

    `marked`: the holder went away without a word, so the next one gets each message handed over singly.
    """
    queue = store.queue_of(delivery)
    if queue is None:
        return
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
    if session.window:
        _forget_outcomes(store, session, silent=True)
    store.sessions.pop(session.id, None)


def _new_session(store: Store, id: int, client: str) -> Session:
    if len(store.sessions) >= limits.MAX_SESSIONS:
        raise Refused(
            "limit_reached",
            f"the server remembers {len(store.sessions)} sessions, as many as it may; those that end by goodbye "
            "are forgotten at once, others 10 minutes after they fall silent",
            1_000,
            retryable=True,
        )
    session = store.sessions[id] = Session(id, client)
    return session


def _begin_anew(store: Store, session: Session) -> None:
    """Go on with a session that is not known.

    Frames of it that were applied and forgotten must not be applied again. What came after those, or was lost with
    a server that crashed, is as good as new.
    """
    session.blank = False
    session.answered_below = store.forgotten.pop(session.id, session.answered_below)


def _forget_outcomes(store: Store, session: Session, *, silent: bool) -> None:
    """Forget all outcomes of a session, over a restart, too. `silent`: its client may still ask for them."""
    recorded = any(outcome.recorded for outcome in session.window.values())
    known_below = session.answered_below
    store.sums.outcomes -= session.forget_all()
    if recorded:
        store.emit(EndMeta(session.id, session.answered_below, silent))
    if silent and session.answered_below > known_below:
        store.forgotten[session.id] = session.answered_below
        if len(store.forgotten) > limits.MAX_SESSIONS:
            del store.forgotten[next(iter(store.forgotten))]


def _connect(store: Store, session: Session, id: int, *, main: bool) -> None:
    store.connections[id] = Connection(id, session, main=main)
    if session.timer is not None:
        store.wheel.cancel(session.timer)
        session.timer = None
    if main:
        session.connection = id
        _came_back(store, session)
    else:
        session.attached.add(id)


def _came_back(store: Store, session: Session) -> None:
    """Hand out again when the last session is there that this waits for."""
    if session.id in store.expected:
        store.expected.discard(session.id)
        if not store.expected:
            store.hold_until_ms = 0
            store.go_on()


def _session_over(store: Store, timer: Timer, session: Session) -> None:
    session.timer = None
    if session.connected:
        return
    kept_until_ms = session.seen_ms + limits.FRAME_OUTCOME_MS
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
        "max_frame_bytes": store.sizes.frame_bytes,
        "max_message_bytes": store.sizes.message_bytes,
        "lost": len(lost),
        "known": known,
    }
    origins = {run[1] for run in lost} & store.by_number.keys()
    touched = [store.by_number[origin] for origin in origins]
    if lost:
        touched.append(store.nowhere)  # what was lost with a queue is lost when its end is safe
    rests_on = max((queue.last_batch for queue in touched), default=0)
    store.send(connection, rests_on, header, pack_runs(lost))


def _still_held(store: Store, session: Session, connection: int, id: Id) -> bool:
    """Give back what is still under its token, begun; False: it has no such delivery."""
    token, origin, sequence = id
    delivery = store.deliveries.get(token)
    message = None
    if (
        delivery is not None
        and delivery.session == session.id
        and store.queue_of(delivery) is not None
    ):
        message = delivery.single(origin, sequence)
    if delivery is None or message is None:
        return False
    delivery.connection = connection
    delivery.consumer = None
    session.has_answer(delivery)
    if message.state is not State.BEGUN:
        begin_message(store, store.by_number[delivery.queue_number], message)
    return True


def _take_back(store: Store, session: Session, connection: int, ids: list[Id]) -> set[Id]:
    """Begin what waits but still runs in the client; return which ids.

    Its hand-out was not recorded before a crash, or it came back when the connection ended.
    """
    tokens = {(origin, sequence): token for token, origin, sequence in ids}
    back: set[Id] = set()
    for origin in sorted({origin for origin, _ in tokens} & store.by_number.keys()):
        sequences = sorted(id[1] for id in tokens if id[0] == origin)
        source = store.by_number[origin]
        for queue in (source, store.queues.get(source.name + limits.DLQ_SUFFIX)):
            for item in queue.lanes.take_out(origin, sequences) if queue is not None else ():
                assert queue is not None
                token = tokens[origin, item.first]
                if not _may_go_on(store, queue, session, item, token):
                    queue.put_back(item)
                    continue
                back.add((token, origin, item.first))
                _begin_again(store, queue, session, connection, item, token)
    return back


def _may_go_on(store: Store, queue: Queue, session: Session, item: Item, token: int) -> bool:
    """Whether a token was the last one of a waiting message, and did not end on it."""
    delivery = store.deliveries.get(token)  # what else is begun under it
    if delivery is not None and (delivery.session, delivery.queue_number) != (
        session.id,
        queue.number,
    ):
        return False
    ended = item.ended_token if isinstance(item, Message) else 0
    if token <= ended or token < item.block.epoch << COUNTER_BITS:
        return False
    # A crash can lose hand-outs of the runs before this one only.
    lost_in_crash = item.token < token < store.epoch << COUNTER_BITS
    return token == item.token or lost_in_crash


def _begin_again(
    store: Store, queue: Queue, session: Session, connection: int, item: Item, token: int
) -> None:
    message = item if isinstance(item, Message) else Message.of(item, item.first)
    delivery = store.deliveries.get(token)
    if delivery is None:
        lease_ms = queue.setting("lease_ms")
        delivery = Delivery(token, queue.number, queue.home, session.id, connection, None, lease_ms)
        store.deliveries[token] = queue.deliveries[token] = delivery
        session.deliveries.add(token)
    delivery.add(message)
    queue.held += 1
    begin_message(store, queue, message)
