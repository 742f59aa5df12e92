"""Sessions go: goodbye, the end of a connection, the end of a session.

What a connection held goes back at once. One may have held very much, and have had 10,000 consumers: then that
happens in steps, and what is not back yet can be begun by its session, or is returned a moment later.
"""

from __future__ import annotations

from typing import Final

from minibroker.contract import limits
from minibrokerd.core.model.deliveries import Consumer, Delivery
from minibrokerd.core.model.kept import ENDED
from minibrokerd.core.model.messages import Message, Span, State
from minibrokerd.core.model.noting import forget
from minibrokerd.core.model.sessions import Connection, Session
from minibrokerd.core.model.state import Store
from minibrokerd.core.model.transitions import wait
from minibrokerd.core.model.wheel import Timer
from minibrokerd.core.verbs.attempts import drop_delivery
from minibrokerd.core.verbs.owning import end_queues_of
from minibrokerd.core.verbs.takers import take_no_more

STEP_LOOKS: Final = 1_000  # consumers, and items of deliveries, that one apply takes apart: some ms


def leave(store: Store, connection: Connection) -> None:
    """A client says goodbye: on its main connection the session ends, when its last lease has."""
    session = connection.session
    ids = [*sorted(session.attached), connection.id] if connection.main else [connection.id]
    for id in ids:
        end_connection(store, id, marked=False)
        store.effects.closes += (id,)
    if not connection.main:
        return
    take_no_more(store, session)
    _forget_outcomes(store, session, silent=False)
    end_queues_of(store, session)
    if not session.deliveries:
        end_session(store, session)


def end_connection(store: Store, id: int, *, marked: bool = True, replaced: bool = False) -> None:
    """Forget a connection; its session goes on for a while, or on the next one. `marked` as in `return_held`."""
    connection = store.connections.pop(id, None)
    if connection is None:
        return
    consumers = [*connection.consumers.values(), *connection.receives.values()]
    for consumer in consumers:
        consumer.active = False  # it gets nothing more, wherever it still stands in line
        if consumer.timer is not None:
            store.wheel.cancel(consumer.timer)
    for asked in list(connection.asked.values()):
        forget(store, asked)
    store.retained.disconnected(store, id)
    end_in_steps(store, connection, consumers, marked=marked)
    session = connection.session
    if connection.main:
        session.connection = None
    session.attached.discard(id)
    if session.connected or replaced:
        return
    if not (store.is_stopping or session.id in store.absent):  # else it is about to be back
        take_no_more(store, session)
    if session.is_worth_keeping or session.id in store.owners:
        await_return(store, session)
    else:
        end_session(store, session)


def end_in_steps(
    store: Store,
    connection: Connection,
    consumers: list[Consumer],
    *,
    marked: bool,
    only: bool = False,
) -> None:
    """Let consumers leave, and put back what the connection holds; `only` what one of these consumers got."""
    theirs = set(consumers) if only else None
    tokens = sorted(connection.tokens, reverse=True)

    def step() -> bool:
        looks_left = STEP_LOOKS
        while consumers and looks_left > 0:
            end_consumer(store, consumers.pop())
            looks_left -= 1
        while tokens and looks_left > 0:
            delivery = store.deliveries.get(tokens.pop())
            if delivery is not None and (theirs is None or delivery.consumer in theirs):
                looks_left -= return_held(store, delivery, marked=marked)
            else:
                looks_left -= 1
        return not (consumers or tokens)

    if not step():
        store.jobs.append(step)


def end_consumer(store: Store, consumer: Consumer) -> None:
    """Let a consumer, or a receive that waits, leave its queue."""
    queue = store.by_number[consumer.queue_number]
    consumer.active = False
    queue.group.leave_line(consumer)
    queue.group.consumer_count -= 1
    if queue.group in store.sums.singles:
        store.touch(queue.group)
    if consumer.request is None:
        store.sums.timed.left(queue.group, consumer, store.now_ms)
    if consumer.timer is not None:
        store.wheel.cancel(consumer.timer)


def return_held(store: Store, delivery: Delivery, *, marked: bool) -> int:
    """Put what a delivery holds unbegun back to its place; what is begun waits for its lease.

    `marked`: the holder went away without a word, so the next one gets each message handed over singly. Returns
    how many items were looked at.
    """
    queue = store.queue_of(delivery)
    if queue is None:
        return 1
    looks = 1 + len(delivery.spans) + len(delivery.alone)
    items: list[Span | Message] = [*delivery.spans.values()]
    items += [message for message in delivery.alone.values() if message.state is State.HELD]
    delivery.spans.clear()
    for item in items:
        if isinstance(item, Message):
            del delivery.alone[queue.key_of(item.block.origin, item.sequence)]
        item.marked = item.marked or marked
        wait(store, queue.group, item, delivery)
    connection = store.connections.get(delivery.connection)
    if connection is not None:
        connection.tokens.discard(delivery.token)
    if not delivery:
        drop_delivery(store, queue, delivery)
    return looks


def await_return(store: Store, session: Session) -> None:
    """Keep a session without a connection for a while."""
    session.timer = store.set_timer(_session_over, session, store.now_ms + limits.SESSION_KEPT_MS)


def end_session(store: Store, session: Session) -> None:
    """Forget a session; its leases, if any, run out by themselves."""
    if session.timer is not None:
        store.wheel.cancel(session.timer)
    if session.window:
        _forget_outcomes(store, session, silent=True)
    if session.stands >= 0:
        store.standing.drop(session.stands, session)
        session.stands = -1
    store.sessions.pop(session.id, None)


def _session_over(store: Store, timer: Timer, session: Session) -> None:
    session.timer = None
    if session.connected:
        return
    end_queues_of(store, session)
    kept_until_ms = session.seen_ms + limits.FRAME_OUTCOME_MS
    if session.deliveries:
        await_return(store, session)
    elif session.window and kept_until_ms > store.now_ms:
        session.timer = store.set_timer(_session_over, session, kept_until_ms)
    else:
        end_session(store, session)


def _forget_outcomes(store: Store, session: Session, *, silent: bool) -> None:
    """Forget all outcomes of a session, over a restart, too. `silent`: its client may still ask for them."""
    recorded = any(outcome.recorded for outcome in session.window.values())
    known_below = session.answered_below
    store.sums.outcomes -= session.forget_all()
    says = silent and session.answered_below > known_below
    if recorded or says:
        value = session.answered_below, int(says)
        store.kept.put(store, ENDED, (session.id,), value, logged=recorded)
