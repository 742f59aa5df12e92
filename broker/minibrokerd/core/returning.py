"""After a start: which sessions can come back, and how long what they had is held back for them.

A session is remembered while it has leases, or outcomes that may be asked for. What was begun just before a crash
may be in no record, and after a stop in good order what a client began behind the server's last read. So a queue
waits for the sessions that took from it and were there at the end (verbs/takers.py), and goes on as soon as all of
them are back.
"""

from __future__ import annotations

from minibroker.contract import limits
from minibrokerd.core.model.absent import Absentee
from minibrokerd.core.model.kept import ENDED, EXCLUSIVE, TAKING
from minibrokerd.core.model.queues import Queue
from minibrokerd.core.model.sessions import Session
from minibrokerd.core.model.state import Store
from minibrokerd.core.verbs.farewells import await_return
from minibrokerd.core.verbs.takers import give_up, queues_of


def finish_sessions(store: Store) -> None:
    """Keep the sessions of a replay that have something to remember, for as long as if they had gone just now."""
    for session in list(store.sessions.values()):
        # Its age by the wall clock counts for nothing: that may have been set, and a client that was away for
        # a second would be told that its publish is new.
        session.seen_ms = store.now_ms
        session.put_in_order()
        if session.is_worth_keeping:
            store.sums.outcomes += sum(outcome.weight for outcome in session.window.values())
            if session.window:
                oldest = min(outcome.recorded for outcome in session.window.values())
                store.note_outcomes(session, oldest)
            store.kept.forget(ENDED, (session.id,))
            await_return(store, session)
        else:
            del store.sessions[session.id]
    for entry in store.kept.of(EXCLUSIVE):
        id, client = entry.value
        assert isinstance(id, int)
        assert isinstance(client, bytes)
        if id not in store.sessions:  # nothing else is known of it
            session = store.sessions[id] = Session(id, client.decode())
            session.blank = True
            await_return(store, session)


def hold_back(store: Store) -> None:
    """Hand nothing out of queues from which sessions took messages that can come back now."""
    absent, ids = store.absent, []
    has_any: bool | None = None
    for entry in store.kept.of(TAKING):
        id, client = entry.key[0], entry.value[0]
        assert isinstance(id, int)
        assert isinstance(client, bytes)
        ids.append(id)
        session = store.sessions.get(id)
        if session is not None:  # its other records name nobody
            session.client = client.decode()
        numbers = queues_of(entry.value)
        queues = [store.by_number[number] for number in numbers or () if number in store.by_number]
        groups = tuple(queue.group for queue in queues if _has_messages(queue))
        is_all = numbers is None
        if is_all and has_any is None:  # looked for once, where somebody took from very many
            has_any = any(map(_has_messages, store.queues.values()))
        if groups or (is_all and has_any):
            absent.add(id, Absentee(client.decode(), groups, is_all))
    if ids:
        store.set_timer(give_up, ids, store.now_ms + limits.RESUME_WAIT_MS)
    if absent:
        absent.since_ms = store.now_ms
        store.hold_until_ms = store.now_ms + limits.RESUME_WAIT_MS


def _has_messages(queue: Queue) -> bool:
    """Whether a queue has some that look as if nobody had them."""
    return bool(queue.group.lanes.ready or queue.group.delayed_count)
