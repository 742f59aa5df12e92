"""Requests: the operations that are answered by a reply, a function for each, which its row names.

Those that may have to look at very much stand in modules of their own: `listing` and `bulk`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from minibroker.contract import limits
from minibroker.contract.settings import LOG, Settings, check_settings
from minibrokerd.core.model.arranging import arrange
from minibrokerd.core.model.deliveries import Consumer
from minibrokerd.core.model.inputs import Frame
from minibrokerd.core.model.policies import OF_SOURCES, Decided, origins_of
from minibrokerd.core.model.queues import DEFAULTS, Queue
from minibrokerd.core.model.refusals import Broken, Refused, check_name, check_space
from minibrokerd.core.model.retained import check_read, check_settings_of
from minibrokerd.core.model.state import Store
from minibrokerd.core.model.wheel import Timer
from minibrokerd.core.verbs.dispatching import dispatch, line_up
from minibrokerd.core.verbs.dooming import wake_doomed
from minibrokerd.core.verbs.farewells import leave
from minibrokerd.core.verbs.moving import delete
from minibrokerd.core.verbs.pausing import end_pause_of
from minibrokerd.core.verbs.takers import note_consumers, note_taking
from minibrokerd.core.verbs.unused import watch
from minibrokerd.core.verbs.withdrawing import (
    ask_again,
    cancel_consumer,
    end_receive,
    open_consumer,
    withdraw,
)

LOOK_AGAIN_MS: Final = 100  # whether what is ready can be handed out by now


def consume(store: Store, frame: Frame, part: Any) -> None:
    """Add a consumer, or change the prefetch of one that is there."""
    connection = store.connections[frame.connection]
    consumer = connection.consumers.get(part.consumer)
    if consumer is None:
        if len(connection.consumers) >= limits.MAX_CONSUMERS_PER_CONNECTION:
            raise Refused(
                "limit_reached",
                f"this connection has {len(connection.consumers)} consumers, as many as one may have; "
                "give fewer of them a larger prefetch, or open another connection",
            )
        queue = store.queue_or_new(part.queue)
        if queue.is_limited:
            check_read(queue)
        consumer = Consumer(
            connection.id,
            connection.session.id,
            part.consumer,
            queue.number,
            part.prefetch,
            part.lease_ms,
            now_ms=store.now_ms,
        )
        consumer.batch = note_taking(store, connection.session, queue)
        open_consumer(connection, consumer, frame.request)
        queue.group.consumer_count += 1
    else:
        queue = store.by_number[consumer.queue_number]
        if queue.name != part.queue:
            raise Refused(
                "bad_value",
                f"consumer {part.consumer} takes from {queue.name!r}; cancel it first, or use another number",
            )
        consumer.prefetch, consumer.lease_ms = part.prefetch, part.lease_ms
        if queue.group in store.sums.singles:
            store.touch(queue.group)  # with a prefetch of 0 it lets others have the turn
    line_up(store, queue, consumer)
    store.reply(frame.connection, frame.request, queue.last_batch, {})


def cancel(store: Store, frame: Frame, part: Any) -> None:
    """End a consumer: what it has not begun goes back, unmarked, for it was given back on purpose."""
    connection = store.connections[frame.connection]
    consumer = connection.consumers.get(part.consumer)
    rests_on = cancel_consumer(store, connection, consumer) if consumer is not None else 0
    store.reply(frame.connection, frame.request, rests_on, {})


def withdraw_request(store: Store, frame: Frame, part: Any) -> None:
    """End what nobody waits for any more; after the reply no answer to it follows."""
    rests_on = withdraw(store, store.connections[frame.connection], part.withdrawn)
    store.reply(frame.connection, frame.request, rests_on, {})


def receive(store: Store, frame: Frame, part: Any) -> None:
    """Deliver once: now, or when something comes within wait_ms."""
    connection, request = store.connections[frame.connection], frame.request
    assert request is not None, "it needs a request number"
    if request in connection.receives:
        raise Broken(f"a receive needs a request number of its own; {request} waits already")
    if len(connection.receives) >= limits.MAX_RECEIVES_PER_CONNECTION:
        raise Refused(
            "limit_reached",
            f"{len(connection.receives)} receives of this connection wait, as many as may; "
            "await some of them first, or consume",
        )
    queue = store.queue_or_new(part.queue)
    if queue.is_limited:
        check_read(queue)
    if queue in store.sums.looked_after:
        watch(store, queue)  # who looks again and again uses it
    consumer = Consumer(
        connection.id,
        connection.session.id,
        0,
        queue.number,
        part.count or 1,
        part.lease_ms,
        request,
    )
    if request in connection.session.received:
        consumer.batch = ask_again(store, connection.session, request)
    connection.receives[request] = consumer
    group = queue.group
    group.consumer_count += 1
    if not connection.stopped:
        group.stand_in_line(consumer)
        # At once, and not at the end of the apply: one that gets something needs no timer, and no second look.
        if store.hands_out(group):
            dispatch(store, group)
        else:
            store.touch(group)
    if not consumer.active:
        return
    if part.wait_ms:
        consumer.timer = store.set_timer(_wait_over, consumer, store.now_ms + part.wait_ms)
    else:
        _wait_over(store, None, consumer)


def _wait_over(store: Store, timer: Timer | None, consumer: Consumer) -> None:
    """Answer "none", if that is true: while messages are ready, something is about to make them available.

    Those of closed keys do not count. Others are read back from the log, or hand-outs are held back after a start
    or for want of space, or the connection had its share of output. Not so while queue or client are paused.
    """
    queue = store.by_number[consumer.queue_number]
    connection = store.connections[consumer.connection]
    single = queue.group.single if store.sums.singles else None
    has_turn = single is None or single.holder is consumer
    if has_turn and queue.group.has_some_to_hand_out() and not connection.resting:
        consumer.timer = store.set_timer(_wait_over, consumer, store.now_ms + LOOK_AGAIN_MS)
        return
    end_receive(store, connection, consumer)
    empty = {"op": "deliver", "request": consumer.request, "queue": queue.name, "token": 0}
    store.send(
        connection.id, consumer.batch, empty | {"lease_ms": 0, "count": 0, "runs": 0, "begun": True}
    )


def queue_set(store: Store, frame: Frame, part: Any) -> None:
    """Create a queue, or change its settings."""
    changes = _checked(part.settings)
    unset = [name for name in part.unset if name not in changes]
    _checked({name: DEFAULTS.get(name, 0) for name in unset})
    queue = store.queues.get(part.queue)
    if queue is None:
        queue = _make(store, part.queue, changes, with_source=True)
    if _differ(queue, changes, unset):
        check_space(short=store.short)
    _choose(store, frame, queue, changes, unset)
    store.reply(frame.connection, frame.request, _rests_on(store, queue), _told(queue))


def queue_declare(store: Store, frame: Frame, part: Any) -> None:
    """Create a queue with these settings, unless it is there; answer with those that it has.

    One whose settings nobody chose gets them: whether a program declares it before another one publishes to it is
    chance. But that does not make a queue end by itself which is there.
    """
    settings = _checked(part.settings)
    queue = store.queues.get(part.queue)
    created = queue is None
    if part.exclusive or not part.queue:
        queue = _declare_own(store, frame, part, settings, queue)
    elif queue is None:
        queue = _make(store, part.queue, settings)
        if queue.is_dlq and settings:
            _change(store, queue, settings)
    elif queue.chosen is None:
        lasting = {name: value for name, value in settings.items() if name != "delete_unused_ms"}
        _choose(store, frame, queue, lasting)
    if queue in store.sums.looked_after:
        watch(store, queue)
    value = {"created": created, "queue": queue.name} | _told(queue) | _owner(store, queue)
    store.reply(frame.connection, frame.request, _rests_on(store, queue), value)


def _declare_own(
    store: Store, frame: Frame, part: Any, settings: Settings, queue: Queue | None
) -> Queue:
    """Return a queue that belongs to this session, or whose name the server gives; it is made if need be."""
    connection = store.connections[frame.connection]
    name = part.queue
    if queue is not None:
        if store.owners.client_of(store, queue) is None:
            text = f"{name!r} is there already, and belongs to nobody; take another name, or none"
            raise Refused("exclusive_queue", text)
        return queue
    if name.endswith(limits.DLQ_SUFFIX):
        raise Refused("bad_value", f"{name!r} comes with its source; declare that as exclusive")
    if not name:
        if not (part.exclusive or settings.get("delete_unused_ms")):
            raise Refused(
                "bad_value",
                "a queue without a name must be exclusive, or have delete_unused_ms: else it would be there "
                "for ever if this answer got lost",
            )
        name = store.owners.new_name(store)
        if connection.scope is not None and not connection.scope.covers(name):
            text = f"the token of this client is for no queues {limits.GIVEN_NAMES}*, as the server names them"
            raise Refused("not_allowed", text)
    if part.exclusive and settings.get("kind") == LOG:
        raise _exclusive_log(name)
    queue = _make(store, name, settings, is_given=not part.queue)
    if part.exclusive:
        store.owners.add(store, queue, connection.session.id, connection.session.client)
    return queue


def _exclusive_log(name: str) -> Refused:
    text = f"{name!r} would end with its session; a retained log stays, with its groups: declare it without"
    return Refused("bad_value", f"{text} `exclusive`")


def _owner(store: Store, queue: Queue) -> dict[str, str]:
    """Return the name of the client to whose session a queue belongs, as answers have it."""
    client = store.owners.client_of(store, queue)
    return {} if client is None else {"exclusive": client}


def _differ(queue: Queue, settings: Settings, unset: Sequence[str] = ()) -> bool:
    chosen = queue.chosen or {}
    return not settings.items() <= chosen.items() or not chosen.keys().isdisjoint(unset)


def _choose(
    store: Store, frame: Frame, queue: Queue, settings: Settings, unset: Sequence[str] = ()
) -> None:
    """Let a queue have settings because a client says so, and note it, unless it was given the same before."""
    if not _differ(queue, settings, unset):
        return
    if queue.is_dlq:
        _check_for_dlq(queue.settings, settings)
    others = {name: DEFAULTS[name] for name in unset if name in DEFAULTS}
    after = (queue.chosen or {}) | settings | others
    if after.get("kind") == LOG and store.owners.client_of(store, queue) is not None:
        raise _exclusive_log(queue.name)
    dlq = store.queues.get(queue.name + limits.DLQ_SUFFIX)
    check_settings_of(queue, queue.name, after, dlq, store.retained.refused)
    _change(store, queue, settings, unset)
    store.effects.note(
        "queue_changed",
        client=store.connections[frame.connection].session.client,
        connection=frame.connection,
        queue=queue.name,
        settings=", ".join(
            [
                *(f"{name}={value}" for name, value in settings.items()),
                *(f"{name}: unset" for name in unset),
            ]
        ),
    )
    if dlq is not None and dlq.durability != queue.durability:
        _change(store, dlq, {}, durability=str(queue.settings["durability"]))


def _checked(settings: dict[str, int | str]) -> Settings:
    try:
        return check_settings(settings)
    except ValueError as error:
        raise Refused("bad_value", str(error)) from error


def _make(
    store: Store,
    name: str,
    settings: Settings,
    *,
    with_source: bool = False,
    is_given: bool = False,
) -> Queue:
    """Make a queue with these settings, or the DLQ of one; its settings are the caller's to change.

    `with_source`: a DLQ whose source is not there is made with it, which has the defaults. A declaration must not
    do that: that of the source, which may come behind it, would find other settings.
    """
    source_name = name.removesuffix(limits.DLQ_SUFFIX)
    source = store.source_of(name)
    if source is None and source_name != name and with_source:
        check_name(source_name)
        _check_for_dlq(DEFAULTS, settings)
        store.check_room_for_queue()
        source = store.create_queue(source_name, DEFAULTS)
    if source is not None:
        _check_for_dlq(source.settings, settings)
        return store.dlq_of(source)
    check_name(name)
    check_settings_of(None, name, settings, None, store.retained.refused)
    if name.startswith(limits.GIVEN_NAMES) and not is_given:
        text = f"names that begin with {limits.GIVEN_NAMES} are given by the server; declare a queue without one"
        raise Refused("bad_name", text)
    store.check_room_for_queue()
    queue = store.create_queue(name, settings or DEFAULTS)
    watch(store, queue)
    return queue


def _check_for_dlq(source: Settings, settings: Settings) -> None:
    """Check that a DLQ is asked for no other durability than its source has, nor for what only that can have."""
    if settings.get("durability", source["durability"]) != source["durability"]:
        raise _foreign_durability()
    for name, value in settings.items():
        if name.startswith(OF_SOURCES) and value != DEFAULTS[name]:
            raise Refused("bad_value", f"a dead-letter queue has no {name}; set it at its source")


def _change(
    store: Store,
    queue: Queue,
    changes: Settings,
    unset: Sequence[str] = (),
    durability: str | None = None,
) -> None:
    """Let a queue have what was chosen for it; `durability` is that which a DLQ has of its source."""
    before, unused_ms = queue.durability, queue.settings["delete_unused_ms"]
    if durability is not None:
        queue.configure(queue.settings | {"durability": durability})
    if changes or unset:
        chosen = (queue.chosen or {}) | changes
        queue.chosen = {name: value for name, value in chosen.items() if name not in unset}
    if store.policies:
        queue.take(store.policies.decide(queue))
    else:
        queue.configure(queue.own())
    arrange(store, queue)
    store.write_queue(queue)
    store.reserve_ahead(queue)
    is_named = "delete_unused_ms" in changes or "delete_unused_ms" in unset
    if is_named or queue.settings["delete_unused_ms"] != unused_ms:
        watch(store, queue)
    if queue.durability != before:
        note_consumers(store, queue)
    if queue.is_dlq:
        wake_doomed(store, queue)  # there may be more room


def _told(queue: Queue) -> dict[str, Any]:
    """Return what is said of the settings of a queue; where those come from that policies have a part in."""
    value: dict[str, Any] = {"settings": dict(queue.settings)}
    return value | {"origins": origins_of(queue)} if isinstance(queue.settings, Decided) else value


def _rests_on(store: Store, queue: Queue) -> int:
    """Return what a look at the settings of a queue rests on: its record, and those of policies."""
    return max(queue.last_batch, store.policies.last_batch)


def _foreign_durability() -> Refused:
    return Refused(
        "bad_value",
        "the messages of a DLQ keep the durability of their source; set it there instead",
    )


def queue_show(store: Store, frame: Frame, part: Any) -> None:
    """Answer with the settings of a queue."""
    queue = store.queue(part.queue)
    value = {"settings": dict(queue.settings), "origins": origins_of(queue)} | _owner(store, queue)
    store.reply(frame.connection, frame.request, _rests_on(store, queue), value)


def queue_delete(store: Store, frame: Frame, part: Any) -> None:
    """End a queue and its DLQ."""
    queue = store.queue(part.queue)
    dlq = store.queues.get(queue.name + limits.DLQ_SUFFIX)
    count = delete(store, queue, force=bool(part.force))
    for each in filter(None, (queue, dlq)):
        end_pause_of(store, each)
    client = store.connections[frame.connection].session.client
    store.effects.note(
        "queue_ended",
        client=client,
        connection=frame.connection,
        queue=part.queue,
        messages=count,
    )
    store.reply(frame.connection, frame.request, store.nowhere.last_batch, {"purged": count})


def accept(store: Store, frame: Frame, part: Any) -> None:
    """Note which frames a client knows that others may not."""
    connection = store.connections[frame.connection]
    connection.recalls = bool(part.recalls)
    connection.confirms_many = bool(part.through)
    if frame.request is not None:
        store.reply(frame.connection, frame.request, 0, {})


def ping(store: Store, frame: Frame, part: Any) -> None:
    """Answer a sign of life."""
    header: dict[str, Any] = {"op": "pong"}
    if frame.request is not None:
        header["request"] = frame.request
    store.send(frame.connection, 0, header)


def goodbye(store: Store, frame: Frame, part: Any) -> None:
    """The client leaves on purpose: the session ends with its connections."""
    leave(store, store.connections[frame.connection])
