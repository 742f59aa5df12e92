"""Requests about retained logs: groups made, moved and shown. A group is deleted as a queue is."""

from __future__ import annotations

from typing import Any

from minibroker.contract import limits
from minibroker.contract.limits import GROUP_MARK
from minibrokerd.core.model.inputs import Frame
from minibrokerd.core.model.queues import DEFAULTS
from minibrokerd.core.model.refusals import Refused, check_name, check_space
from minibrokerd.core.model.retained import OFFSET_BITS, Feeder, RetainedLog
from minibrokerd.core.model.state import Store
from minibrokerd.core.verbs.moving import purge
from minibrokerd.core.verbs.reading import log_named, start_of


def log_group_set(store: Store, frame: Frame, part: Any) -> None:
    """Make a group of a log, unless it is there."""
    log = log_named(store, part.queue)
    name = _name_of(log, part.group)
    queue = store.queues.get(name)
    created = queue is None
    if queue is None:
        if len(log.feeders) >= limits.MAX_GROUPS_OF_LOG:
            text = (
                f"the log {part.queue!r} has {limits.MAX_GROUPS_OF_LOG} groups, as many as it can"
            )
            raise Refused("limit_reached", f"{text}; delete some, or read it without one")
        offset, since_unix_ms = start_of(log, part)
        store.check_room_for_queue()
        check_space(short=store.short)
        queue = store.create_queue(name, DEFAULTS)
        feeder = Feeder(queue, log, offset, 0, since_unix_ms)
        feeder.write(store)
        store.retained.add(store, feeder)
        _note(store, frame, "group_made", queue=name, start=part.start)
    feeder = _feeder(queue.group.retained)
    value = {"created": created, **_told(feeder)}
    store.reply(frame.connection, frame.request, queue.last_batch, value)


def log_group_seek(store: Store, frame: Frame, part: Any) -> None:
    """Move a group: what it has not ended yet ends there, and it is fed from another place on."""
    log = log_named(store, part.queue)
    name = _name_of(log, part.group)
    queue = store.queues.get(name)
    if queue is None:
        raise Refused("unknown_queue", f"the log {part.queue!r} has no group {part.group!r}")
    feeder = _feeder(queue.group.retained)
    offset, since_unix_ms = start_of(log, part)
    if feeder.generation + 1 >= limits.MAX_SEEKS:
        text = (
            f"{name!r} was moved {limits.MAX_SEEKS} times, as often as it can; delete and make it"
        )
        raise Refused("limit_reached", text)
    if part.key and feeder.upto > feeder.position:
        text = (
            f"{name!r} is given messages of the key {feeder.only_key!r} again, up to {feeder.upto}"
        )
        raise Refused("busy", f"{text}; wait, or move it without a key", 1_000)
    check_space(short=store.short)
    floor = _floor_of(store, feeder) if part.key else 0
    client = store.connections[frame.connection].session.client
    purged = purge(store, queue, client)
    feeder.upto, feeder.only_key = floor, part.key
    if part.key and not since_unix_ms:
        offset = min(offset, floor)
    feeder.generation += 1
    feeder.position, feeder.since_unix_ms = offset, since_unix_ms
    feeder.is_fetching = feeder.is_at_end = False
    feeder.behind = None
    feeder.write(store)
    store.touch(queue.group)
    _note(store, frame, "group_moved", queue=name, start=part.start, messages=purged)
    value = {"purged": purged, **_told(feeder)}
    store.reply(frame.connection, frame.request, queue.last_batch, value)


def log_show(store: Store, frame: Frame, part: Any) -> None:
    """Show what a log has, and a page of its groups by their names."""
    log = log_named(store, part.queue)
    scope = store.connections[frame.connection].scope
    feeders = [
        feeder
        for feeder in sorted(log.feeders.values(), key=lambda each: each.queue.name)
        if feeder.queue.name > part.after and (scope is None or scope.covers(feeder.queue.name))
    ]
    shown = feeders[: limits.MAX_LISTED]
    value: dict[str, Any] = {
        "first": log.has.first,
        "stop": log.has.stop,
        "next_offset": log.queue.next_sequence,
        "messages": log.has.messages,
        "bytes": log.has.size_bytes,
        "groups": [_told(feeder) for feeder in shown],
    }
    if len(feeders) > len(shown):
        value["next"] = shown[-1].queue.name
    rests_on = max([log.queue.last_batch, *(each.queue.last_batch for each in shown)])
    store.reply(frame.connection, frame.request, rests_on, value)


def _floor_of(store: Store, feeder: Feeder) -> int:
    """Return the offset below which a group has ended everything: the lowest of what is in it, or its position.

    What came back of an older generation (from the dead) was over before the last move, and counts for nothing.
    """
    queue = feeder.queue
    firsts = [item.first for _, item in queue.group.items()]
    firsts += [
        span.first for _, each, _, some, _ in store.entering if each is queue for span in some
    ]
    offsets = [
        first & limits.MAX_OFFSET for first in firsts if first >> OFFSET_BITS == feeder.generation
    ]
    return min([feeder.position, *offsets])


def _name_of(log: RetainedLog, group: str) -> str:
    check_name(group)
    name = log.queue.name + GROUP_MARK + group
    if len(name) > limits.MAX_QUEUE_NAME_CHARS:
        text = f"{name!r} has {len(name)} characters; {limits.MAX_QUEUE_NAME_CHARS} are allowed"
        raise Refused("bad_name", text)
    return name


def _feeder(there: RetainedLog | Feeder | None) -> Feeder:
    assert isinstance(there, Feeder), "no other queue has such a name"
    return there


def _told(feeder: Feeder) -> dict[str, Any]:
    group = feeder.queue.group
    return {
        "queue": feeder.queue.name,
        "position": feeder.position,
        "since_unix_ms": feeder.since_unix_ms,
        "lag": feeder.lag(),
        "waiting": group.backlog() + group.delayed_count,
        "begun": group.begun,
        "seeks": feeder.generation,
        "only_key": feeder.only_key if feeder.upto > feeder.position else "",
    }


def _note(store: Store, frame: Frame, event: str, **more: str | int) -> None:
    client = store.connections[frame.connection].session.client
    store.effects.note(event, client=client, connection=frame.connection, **more)
