"""Which sessions take messages, as the log has it: a start waits for them, as what they had may be in no record.

What is held leaves no record, and that of a begin is waited for by nobody (decisions 2 and 55). What the log knows
instead is who may have begun anything: one entry for a session, written when it first takes from a queue, and
synced before the first message leaves. It ends with the session's last connection: by then all that it had begun
and said is in the log before that. Not so while the server stops, or waits for that session.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import iter_unpack, pack
from typing import Final

from minibrokerd.core.model.absent import MOST_NAMED
from minibrokerd.core.model.kept import TAKING, Value
from minibrokerd.core.model.messages import MEMORY
from minibrokerd.core.model.queues import Queue
from minibrokerd.core.model.sessions import Session
from minibrokerd.core.model.state import Store
from minibrokerd.core.model.walks import Steps, Walk
from minibrokerd.core.model.wheel import Timer

MOST_QUEUES: Final = 32  # that an entry names; with more of them a session has everything wait
STEP_SESSIONS: Final = 1_000  # that are looked at in one apply
LOOK_AGAIN_MS: Final = 100  # whether all are back, for whom something else waits than a hand-out


def note_taking(store: Store, session: Session, queue: Queue) -> int:
    """Have a session known as one that takes from a queue; return the batch that its first delivery rests on."""
    batch = session.taken.get(queue.number, session.takes_all)
    if batch is None:
        if store.short or queue.durability == MEMORY:
            return 0  # leases are not written either
        batch = _write(store, session, queue)
    return batch


def note_consumers(store: Store, only: Queue | None = None) -> None:
    """Have all consumers known that are there, some at a time: what they get from now on outlives a crash.

    `only`: those of this queue.
    """
    ids = list(store.connections)

    def step() -> bool:
        for _ in range(min(STEP_SESSIONS, len(ids))):
            connection = store.connections.get(ids.pop())
            consumers = connection.consumers.values() if connection is not None else ()
            for consumer in consumers:
                queue = store.by_number.get(consumer.queue_number)
                if queue is not None and only in (None, queue):
                    assert connection is not None
                    batch = note_taking(store, connection.session, queue)
                    consumer.batch = max(consumer.batch, batch)
        return not ids

    if not step():
        store.jobs.append(step)


def _write(store: Store, session: Session, queue: Queue) -> int:
    """Have a queue in the entry of a session; return the batch with which that is safe."""
    entry = store.kept.find(store, TAKING, (session.id,))
    known = frozenset() if entry is None else queues_of(entry.value)
    if entry is not None:  # of before a start, perhaps
        for number in known or ():
            session.taken.setdefault(number, entry.batch)
        if known is None:
            session.takes_all = entry.batch
        if known is None or queue.number in known:
            return entry.batch
    assert known is not None
    numbers = sorted(known | {queue.number})
    is_all = len(numbers) > MOST_QUEUES
    packed = b"" if is_all else b"".join(pack("<I", number) for number in numbers)
    store.kept.put(store, TAKING, (session.id,), (session.client.encode(), packed))
    batch = session.taken[queue.number] = store.open_batch
    if is_all:
        session.takes_all = batch
    store.effects.wake = True  # mostly it is safe before there is something to deliver
    return batch


def queues_of(value: Value) -> frozenset[int] | None:
    """Return the numbers of the queues that an entry names; None: it stands for all of them."""
    packed = value[1]
    assert isinstance(packed, bytes)
    return frozenset(number for (number,) in iter_unpack("<I", packed)) if packed else None


def taken_by(store: Store, session: Session) -> Iterator[Queue]:
    """Yield the queues that a session took from, before its last connection ended or before the start."""
    entry = store.kept.find(store, TAKING, (session.id,))
    numbers = queues_of(entry.value) if entry is not None else frozenset(session.took)
    for number in store.by_number if numbers is None else numbers:
        if number in store.by_number:
            yield store.by_number[number]


def is_awaiting(store: Store, queue: Queue) -> bool:
    """Whether messages of a queue that look as if nobody had them may be at work with one that is not back.

    Then none goes elsewhere by itself or by a person: it could run twice. What ends them may end them.
    """
    return store.now_ms < store.hold_until_ms and not store.absent.lets_go(queue.group)


def all_back(walk: Walk, queue: Queue) -> Steps:
    """Let a walk that is to take messages out of a queue wait until nobody else may have them."""
    while is_awaiting(walk.store, queue):
        yield from walk.wait_until(walk.store.now_ms + LOOK_AGAIN_MS)


def take_no_more(store: Store, session: Session) -> None:
    """Forget, over a start, too, that a session takes messages: it has no connection any more."""
    session.took = tuple(session.taken)
    session.taken, session.takes_all = {}, None
    store.kept.end(store, TAKING, (session.id,))


def came_back(store: Store, id: int) -> None:
    """Hand out what waited for this session alone."""
    absent = store.absent
    if id not in absent:
        return
    everything = absent.keeps_everything
    for group in absent.back(id):
        if group in store.held_back:
            del store.held_back[group]
            store.touch(group)
    if not absent:
        store.effects.note("sessions_back", ms=store.now_ms - absent.since_ms)
        wait_no_longer(store)
    elif everything and not absent.keeps_everything:
        store.go_on()


def wait_no_longer(store: Store) -> None:
    """Hand everything out: all are back, or the time is over."""
    absent = store.absent
    if absent:
        store.effects.note(
            "sessions_missing",
            sessions=len(absent),
            clients=", ".join(absent.names(None, MOST_NAMED)),
            ms=store.now_ms - absent.since_ms,
        )
        absent.clear()
    store.hold_until_ms = 0
    store.go_on()


def give_up(store: Store, timer: Timer, ids: list[int]) -> None:
    """End the entries of sessions that were known at the start and are not back, some at a time."""

    def step() -> bool:
        for _ in range(min(STEP_SESSIONS, len(ids))):
            id = ids.pop()
            session = store.sessions.get(id)
            if session is None or not session.connected:
                store.kept.end(store, TAKING, (id,))
        return not ids

    if not step():
        store.jobs.append(step)
