"""Sessions come: hello, resume, attach; how they go is in farewells.py."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any, Final

from minibroker.contract import limits
from minibroker.contract.wire import RUN, pack_runs
from minibrokerd.core.model.deliveries import Delivery, Run
from minibrokerd.core.model.inputs import Attach, Disconnected, Flow, Hello, Resume
from minibrokerd.core.model.kept import CANCELLED, ENDED
from minibrokerd.core.model.messages import Item, Message, State
from minibrokerd.core.model.pauses import checked_version
from minibrokerd.core.model.queues import Queue
from minibrokerd.core.model.refusals import Broken, Refused
from minibrokerd.core.model.sessions import Connection, Session
from minibrokerd.core.model.state import COUNTER_BITS, Store
from minibrokerd.core.model.transitions import change, wait
from minibrokerd.core.model.walks import GO_ON, Steps, Walk
from minibrokerd.core.verbs.attempts import begin_messages, drop_delivery, not_begun
from minibrokerd.core.verbs.dispatching import line_up_all
from minibrokerd.core.verbs.farewells import end_connection
from minibrokerd.core.verbs.finding import take_cold
from minibrokerd.core.verbs.pausing import drain_late, rest_or_work
from minibrokerd.core.verbs.runs import read_runs
from minibrokerd.core.verbs.takers import came_back, note_taking, taken_by
from minibrokerd.core.verbs.turns import goes_on

TAKE_BACK_LOOKS: Final = 10  # what a message that a client goes on with counts, about 10 us

Id = tuple[int, int, int]  # token, origin, sequence


def hello(store: Store, command: Hello) -> None:
    """Open a session on a new connection.

    Raises:
        Refused: `limit_reached`, there are as many sessions as there may be.
    """
    version = checked_version(command.version)
    session = _new_session(store, store.next_token(), command.client)
    session.version = version
    _connect(store, session, command.connection, main=True)
    store.connections[command.connection].scope = command.scope
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
    version = checked_version(command.version)
    if session is None:
        session = _new_session(store, command.session, command.client)
    if not known:
        _begin_anew(store, session)
    session.client = command.client or session.client
    session.version = version
    if session.connection is not None:
        old = session.connection
        end_connection(store, old, replaced=True)
        store.effects.closes += (old,)
    _connect(store, session, command.connection, main=True)
    store.connections[command.connection].scope = command.scope
    walk = Walk(store, command, changes=True)
    walk.begin(_go_on_with(walk, session, command.connection, runs, known=known))


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
    ended = store.kept.get(store, ENDED, (session.id,))
    if ended is not None:
        session.answered_below = int(ended[0])
        store.kept.forget(ENDED, (session.id,))


def _connect(store: Store, session: Session, id: int, *, main: bool) -> None:
    connection = store.connections[id] = Connection(id, session, main=main)
    if len(store.pauses):
        rest_or_work(store, connection)
    if session.timer is not None:
        store.wheel.cancel(session.timer)
        session.timer = None
    if main:
        session.connection = id
    else:
        session.attached.add(id)


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
        "recalls": True,
        "through": True,
        "begins": True,
    }
    cancelled = [
        run for run in lost if store.kept.get(store, CANCELLED, (run[1], run[2])) == (run[0],)
    ]
    if cancelled:
        header["cancelled"] = len(cancelled)
        lost = [*cancelled, *sorted(set(lost) - set(cancelled))]
    origins = {run[1] for run in lost} & store.by_number.keys()
    touched = [store.by_number[origin] for origin in origins]
    if lost:
        touched.append(store.nowhere)  # what was lost with a queue is lost when its end is safe
    rests_on = max((queue.last_batch for queue in touched), default=0)
    store.send(connection, rests_on, header, pack_runs(lost))


def _go_on_with(
    walk: Walk, session: Session, connection: int, runs: list[Run], *, known: bool
) -> Steps:
    """Give back what a client has begun, say what of it is lost, and hand out again."""
    store = walk.store
    lost: list[Run] = []
    names_all = True
    for token, origin, first, count in runs:
        if not token:
            # No delivery has this one: its client has begun more than it can name.
            names_all = False
            continue
        for sequence in range(first, first + count):
            if session.connection != connection:
                return  # it went, or came again: with all that it has begun
            id = token, origin, sequence
            if not _still_held(store, session, connection, id):
                back = yield from _take_back(walk, session, connection, id)
                if not back:
                    lost.append((*id, 1))
            if walk.is_used_up(TAKE_BACK_LOOKS):
                yield GO_ON
    if names_all:
        for token in list(session.deliveries):
            if session.connection == connection:
                _give_back_unseen(store, connection, token)
            if walk.is_used_up(1):
                yield GO_ON
    came_back(store, session.id)
    if session.connection == connection:
        _welcome(store, session, connection, known=known, lost=lost)
        if len(store.pauses):
            drain_late(store, session)


def _give_back_unseen(store: Store, connection: int, token: int) -> None:
    """Give back what was begun as it was handed out, if the client does not know of it: the frame was lost."""
    delivery = store.deliveries.get(token)
    if delivery is None or not delivery.handed or delivery.connection == connection:
        return
    queue = store.queue_of(delivery)
    if queue is not None:
        for message in list(delivery.alone.values()):
            del delivery.alone[queue.key_of(message.block.origin, message.sequence)]
            not_begun(store, queue, message)
            wait(store, queue.group, message, delivery)
        drop_delivery(store, queue, delivery)


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
        begin_messages(store, store.by_number[delivery.queue_number], [message])
    return True


def _take_back(
    walk: Walk, session: Session, connection: int, id: Id
) -> Generator[bool, None, bool]:
    """Begin what waits, in memory or not, but still runs in the client; False: it may not go on with it.

    Its hand-out was not recorded before a crash, or it came back when the connection ended.
    """
    store = walk.store
    there = store.connections.get(connection)
    scope = there.scope if there is not None else None
    token, origin, sequence = id
    for queue in _places(store, session, origin):
        if walk.is_used_up(1):
            yield GO_ON
        # Ids can be guessed: who may not consume from a queue does not begin its messages this way either.
        if scope is not None and not scope.covers(queue.name):
            continue
        item = queue.group.lanes.take_one(origin, sequence)
        if item is None and origin == queue.home:
            item = yield from take_cold(walk, queue, sequence)
        if item is None:
            continue
        goes_on = session.connection == connection and _may_go_on(
            store, queue, session, item, token
        )
        if goes_on:
            _begin_again(store, queue, session, connection, item, token)
        else:
            queue.group.put_back(item)
        store.touch(queue.group)
        return goes_on
    return False


def _places(store: Store, session: Session, origin: int) -> Iterator[Queue]:
    """Yield where a message that a session had may wait: by its id, or, if it was moved, what the session took."""
    source = store.by_number.get(origin)
    near = [] if source is None else [source, store.queues.get(source.name + limits.DLQ_SUFFIX)]
    yield from (queue for queue in near if queue is not None)
    for queue in list(taken_by(store, session)):
        if queue not in near and store.by_number.get(queue.number) is queue:
            yield queue


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
    if token != item.token and not lost_in_crash:
        return False
    return not store.sums.singles or goes_on(queue.group, session)


def _begin_again(
    store: Store, queue: Queue, session: Session, connection: int, item: Item, token: int
) -> None:
    message = item if isinstance(item, Message) else Message.of(item, item.first)
    note_taking(store, session, queue)  # for the next crash
    delivery = store.deliveries.get(token)
    if delivery is None:
        lease_ms = message.block.terms.lease_ms or queue.setting("lease_ms")
        delivery = Delivery(token, queue.number, queue.home, session.id, connection, None, lease_ms)
        store.deliveries[token] = queue.group.deliveries[token] = delivery
        session.deliveries.add(token)
    change(store, queue.group, (message,), None, State.HELD, delivery)
    if message.block.batch <= store.standing.upto:
        store.standing.add_delivery(delivery)
    begin_messages(store, queue, [message])
