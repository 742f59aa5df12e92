"""The API of clients: who is connected from where, what each consumes, what each has and for how long."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Final

from minibrokerd.core.model.messages import State
from minibrokerd.core.model.sessions import Session
from minibrokerd.core.model.state import Store
from minibrokerd.http.requests import Ask, Failure, whole
from minibrokerd.http.shapes import Held, Holding, SessionList, SessionView, Work

MOST_SESSIONS: Final = 500
MOST_HELD: Final = 1_000
MOST_LOOKED_AT: Final = 2_000  # messages of one session that are looked at for the oldest


async def list_sessions(ask: Ask) -> SessionList:
    """Return the clients that there are, those that hold most first."""
    if not ask.subject.is_open:
        raise Failure(503, "not_ready", ask.subject.not_ready)
    store = ask.subject.store
    most = ask.number("count", 100, MOST_SESSIONS)
    holds = sorted(
        store.sessions.values(), key=lambda session: (-len(session.deliveries), session.client)
    )
    return SessionList([view_of(ask, session) for session in holds[:most]], len(store.sessions))


async def show_session(ask: Ask) -> Holding:
    """Return what one client has."""
    text = str(ask.request.path_params["session"])
    number = whole(text)
    session = ask.subject.store.sessions.get(number) if number is not None else None
    if session is None:
        raise Failure(404, "unknown_session", f"there is no session {text!r:.100}")
    held = list(islice(_held(ask.subject.store, session), MOST_HELD + 1))
    return Holding(view_of(ask, session), held[:MOST_HELD], len(held) > MOST_HELD)


def view_of(ask: Ask, session: Session) -> SessionView:
    """Return one client."""
    store, describe = ask.subject.store, ask.subject.engine.describe
    numbers = [session.connection, *sorted(session.attached)]
    peers = [str(describe(number).get("peer", "")) for number in numbers if number is not None]
    main = store.connections.get(session.connection) if session.connection is not None else None
    consumers = [*main.consumers.values(), *main.receives.values()] if main else []
    held = list(islice(_held(store, session), MOST_LOOKED_AT))
    begun = [each.since_unix_ms for each in held if each.since_unix_ms]
    deliveries = (store.deliveries.get(token) for token in session.deliveries)
    return SessionView(
        session.id,
        session.client,
        [peer or "in process" for peer in peers],
        session.connected,
        [
            Work(queue.name, each.prefetch, each.outstanding)
            for each in consumers
            if (queue := store.by_number.get(each.queue_number)) is not None
        ],
        sum(delivery.count() for delivery in deliveries if delivery is not None),
        len(begun),
        min(begun, default=0),
        len(session.window),
    )


def _held(store: Store, session: Session) -> Iterator[Held]:
    for token in sorted(session.deliveries):
        delivery = store.deliveries.get(token)
        queue = store.queue_of(delivery) if delivery is not None else None
        if delivery is None or queue is None:
            continue
        for message in list(delivery.singles.values()):
            begun = message.state is State.BEGUN
            id = f"{message.block.origin}-{message.sequence}"
            since = message.started_unix_ms if begun else 0
            yield Held(queue.name, id, message.state.name, since, message.lease_ms)
        for span in list(delivery.spans.values()):
            for sequence in range(span.first, span.stop):
                yield Held(
                    queue.name, f"{span.block.origin}-{sequence}", "HELD", 0, delivery.lease_ms
                )
