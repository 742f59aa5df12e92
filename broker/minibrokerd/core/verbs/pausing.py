"""Requests about pauses: a queue hands nothing out, a client gets nothing, until it is resumed or its time comes.

What is published meanwhile waits. What workers have in hand, begun or not, stays theirs: the answer says how much.
There may be very many clients, and pauses: they are looked through once for all of those, in steps.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from itertools import islice
from typing import Any, Final

from minibroker.contract import limits
from minibrokerd.core.model.inputs import Frame
from minibrokerd.core.model.pauses import CLIENT, QUEUE, Key, Pause, checked_version
from minibrokerd.core.model.queues import Queue
from minibrokerd.core.model.refusals import Refused, check_space
from minibrokerd.core.model.sessions import Connection, Session
from minibrokerd.core.model.state import Store
from minibrokerd.core.model.walks import GO_ON, Errand, Steps, Walk
from minibrokerd.core.model.wheel import Timer
from minibrokerd.core.verbs.dispatching import line_up_all
from minibrokerd.core.verbs.draining import drain

LOOK_MS: Final = 10_000  # the wall clock may be set forward
STEP_SESSIONS: Final = 1_000  # looked at in one apply for those that have nothing in hand any more
STEP_ENDS: Final = 100  # pauses that end in one apply, each with a record and a line of the log
EVERY_QUEUE: Final = "*"  # no name of a queue: who may touch it may touch all of them


def pause(store: Store, frame: Frame, part: Any) -> None:
    """Pause a queue, or clients by name and version."""
    if bool(part.queue) == bool(part.client or part.below):
        text = "name a queue; or a client, the version below which clients rest, or both"
        raise Refused("bad_value", text)
    key = _key(store, frame, part)
    until_unix_ms = _until(store, part)
    checked_version(part.below)
    if store.pauses.get(key) is None and len(store.pauses) >= limits.MAX_PAUSES:
        text = f"this server has {limits.MAX_PAUSES} pauses, as many as it can; resume some"
        raise Refused("limit_reached", text)
    check_space(short=store.short)
    by = store.connections[frame.connection].session.client
    deadline_unix_ms = store.unix_ms + part.deadline_ms if part.deadline_ms else 0
    if part.queue and part.deadline_ms:
        raise Refused("bad_value", "a deadline is one of clients: what they have then goes back")
    pause = Pause(key, store.unix_ms, until_unix_ms, by, part.below, deadline_unix_ms)
    store.pauses.put(store, pause)
    _set_flags(store, [key])
    if until_unix_ms or deadline_unix_ms:  # without a time it changes nothing of when to look
        watch(store)
    _note(store, frame, "paused", pause)
    walk = Walk(store, frame, changes=False)
    walk.begin(_tell(walk, pause))


def _tell(walk: Walk, pause: Pause) -> Steps:
    store = walk.store
    value, rests_on = _info(store, pause), store.pauses.last_batch
    left = yield from _left(walk, [pause])
    walk.reply(rests_on, value | left[pause.key])


def unpause(store: Store, frame: Frame, part: Any) -> None:
    """Let what is paused go on."""
    ended = store.pauses.end(store, _key(store, frame, part))
    if ended is not None:
        _set_flags(store, [ended.key])
        _note(store, frame, "resumed", ended)
    value = {"resumed": int(ended is not None)}
    store.reply(frame.connection, frame.request, store.pauses.last_batch, value)


def pauses(store: Store, frame: Frame, part: Any) -> None:
    """Show what is paused: of queues that this connection may touch, and of clients."""
    scope = store.connections[frame.connection].scope
    found = []
    for each in store.pauses:
        info = _info(store, each)
        if scope is None or scope.covers(info.get("queue", EVERY_QUEUE)):
            found.append((each, info))
    walk = Walk(store, frame, changes=False)
    walk.begin(_tell_all(walk, found))


def _tell_all(walk: Walk, found: list[tuple[Pause, dict[str, Any]]]) -> Steps:
    rests_on = walk.store.pauses.last_batch
    left = yield from _left(walk, [pause for pause, _ in found])
    walk.reply(rests_on, {"pauses": [info | left[pause.key] for pause, info in found]})


def _key(store: Store, frame: Frame, part: Any) -> Key:
    if part.queue:
        if part.client:
            raise Refused("bad_value", "a queue is paused, or clients: both were named")
        queue = store.queue(part.queue)
        if not queue.number:
            raise Refused("unknown_queue", f"{part.queue!r} is there with its first dead message")
        return QUEUE, queue.number, ""
    scope = store.connections[frame.connection].scope
    if scope is not None and not scope.covers(EVERY_QUEUE):
        raise Refused(
            "not_allowed", "a client may work on any queue, and this token is not for all"
        )
    return CLIENT, 0, part.client


def _until(store: Store, part: Any) -> int:
    if part.for_ms and part.until_unix_ms:
        raise Refused("bad_value", "a pause ends after a time, or at one; both came")
    if part.until_unix_ms and part.until_unix_ms <= store.unix_ms:
        raise Refused("bad_value", "a pause must end in the future, by the clock of the server")
    return store.unix_ms + part.for_ms if part.for_ms else int(part.until_unix_ms)


# -- what is paused --------------------------------------------------------------------------------


def _set_flags(store: Store, keys: Iterable[Key]) -> None:
    """Have what pauses are about be asked for them, or go on."""
    of_clients = False
    for key in keys:
        what, number, _ = key
        if what != QUEUE:
            of_clients = True
            continue
        group = store.by_number[number].group
        group.paused = store.pauses.get(key) is not None
        if not group.paused:
            store.touch(group)
    for connection in list(store.connections.values()) if of_clients else ():
        rest_or_work(store, connection)


def rest_or_work(store: Store, connection: Connection) -> None:
    """Let a connection get nothing while its client is paused."""
    was = connection.resting
    connection.resting = bool(len(store.pauses)) and store.pauses.of(connection.session) is not None
    if was and not connection.resting:
        line_up_all(store, connection)
    elif connection.resting:
        _pass_turns(store, connection)


def _pass_turns(store: Store, connection: Connection) -> None:
    """Look again at queues with one active consumer: somebody else may have the turn."""
    for consumer in (*connection.consumers.values(), *connection.receives.values()):
        group = store.by_number[consumer.queue_number].group
        if group in store.sums.singles:
            store.touch(group)


def end_pause_of(store: Store, queue: Queue) -> None:
    """The queue ends, and its pause with it."""
    store.pauses.end(store, (QUEUE, queue.number, ""))


# -- time ------------------------------------------------------------------------------------------


def watch(store: Store) -> None:
    """Look for pauses that are over, and for deadlines, when the next one comes, and every now and then."""
    at_unix_ms = store.pauses.next_unix_ms(store.pauses.drained_unix_ms)
    if store.pauses.timer is not None:
        store.wheel.cancel(store.pauses.timer)
    if at_unix_ms is not None:
        left_ms = min(max(at_unix_ms - store.unix_ms, 0), LOOK_MS)
        store.pauses.timer = store.set_timer(_look, None, store.now_ms + left_ms)


def drain_late(store: Store, session: Session) -> None:
    """A client came back: if the deadline of its pause is over, it has nothing in hand."""
    pause = store.pauses.of(session)
    if pause is not None and 0 < pause.deadline_unix_ms <= store.unix_ms:
        drain(store, [session], pause)


def _look(store: Store, timer: Timer, argument: None) -> None:
    now, drained = store.unix_ms, store.pauses.drained_unix_ms
    over = list(islice((each for each in store.pauses if 0 < each.until_unix_ms <= now), STEP_ENDS))
    late = {each.key for each in store.pauses if drained < each.deadline_unix_ms <= now}
    for each in over:
        store.pauses.end(store, each.key)
        store.effects.note("resumed", **_named(store, each), reason="its time has come")
    _set_flags(store, [each.key for each in over])
    if late:
        Errand(store).begin(_drain_all(store, late))
    store.pauses.drained_unix_ms = max(drained, now)
    watch(store)


def _drain_all(store: Store, late: set[Key]) -> Steps:
    """Let those have nothing in hand whose pauses are of these keys, and still stand."""
    for looks, session in enumerate(list(store.sessions.values()), 1):
        for pause in store.pauses.all_of(session):
            if pause.key in late:
                drain(store, [session], pause)
        if not looks % STEP_SESSIONS:
            yield GO_ON


# -- what is said ----------------------------------------------------------------------------------


def _named(store: Store, pause: Pause) -> dict[str, str]:
    what, number, name = pause.key
    if what == QUEUE:
        return {"queue": store.by_number[number].name}
    return {"worker": name, "below": pause.below}


def _info(store: Store, pause: Pause) -> dict[str, Any]:
    what, number, name = pause.key
    info: dict[str, Any] = {
        "since_unix_ms": pause.since_unix_ms,
        "until_unix_ms": pause.until_unix_ms,
        "by": pause.by,
    }
    if pause.deadline_unix_ms:
        info["deadline_unix_ms"] = pause.deadline_unix_ms
    if what == QUEUE:
        return info | {"queue": store.by_number[number].name}
    return info | {"client": name, "below": pause.below}


def _left(walk: Walk, pauses: list[Pause]) -> Generator[bool, None, dict[Key, dict[str, int]]]:
    """Return what workers still have of a queue, or what paused clients still have, and how many these are."""
    store, left = walk.store, dict[Key, dict[str, int]]()
    of_clients: dict[str, Pause] = {}
    for pause in pauses:
        what, number, name = pause.key
        if what == QUEUE:
            queue = store.by_number.get(number)  # it may be gone since
            held, begun = (queue.group.held, queue.group.begun) if queue is not None else (0, 0)
            left[pause.key] = {"held": held, "begun": begun}
        else:
            of_clients[name] = pause
            left[pause.key] = {"in_hand": 0, "clients": 0}
    for session in list(store.sessions.values()) if of_clients else ():
        count = 0
        for name in dict.fromkeys((session.client, "")):
            found = of_clients.get(name)
            if found is not None and found.is_of(session):
                count = count or _in_hand(store, session)
                left[found.key]["in_hand"] += count
                left[found.key]["clients"] += 1
        if walk.is_used_up(1 + count):
            yield GO_ON
    return left


def _in_hand(store: Store, session: Session) -> int:
    found = (store.deliveries.get(token) for token in session.deliveries)
    return sum(delivery.count() for delivery in found if delivery is not None)


def _note(store: Store, frame: Frame, event: str, pause: Pause) -> None:
    store.effects.note(
        event,
        client=store.connections[frame.connection].session.client,
        connection=frame.connection,
        **_named(store, pause),
    )
