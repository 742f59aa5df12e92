"""Commands of a person on many messages at once: redrive, purge, move."""

from __future__ import annotations

from typing import Any

from minibrokerd.core.dispatching import line_up
from minibrokerd.core.handlers import handles, read_ids
from minibrokerd.core.inputs import Frame
from minibrokerd.core.moving import move, purge, purge_named, redrive
from minibrokerd.core.state import Refused, Store, check_name


@handles("redrive")
def redrive_request(store: Store, frame: Frame, part: Any) -> None:
    """Start to send dead messages back; the reply follows the last step."""
    dlq = store.queue(part.queue)
    step = redrive(store, dlq, read_ids(frame, part), part.count)

    def job() -> bool:
        finished, value = step()
        if finished and frame.connection in store.connections:
            store.reply(frame.connection, frame.request, dlq.last_batch, value)
        return finished

    if not job():
        store.jobs.append(job)


@handles("purge")
def purge_request(store: Store, frame: Frame, part: Any) -> None:
    """End every message of a queue, or some of those that wait."""
    queue = store.queue(part.queue)
    wanted = read_ids(frame, part)
    if wanted:
        count = purge_named(store, queue, wanted)
        store.reply(frame.connection, frame.request, queue.last_batch, {"purged": count})
        return
    count = purge(store, queue)
    for connection in store.connections.values():
        for consumer in [*connection.consumers.values(), *connection.receives.values()]:
            if consumer.queue_number == queue.number:
                line_up(store, queue, consumer)
    store.reply(frame.connection, frame.request, queue.last_batch, {"purged": count})


@handles("move")
def move_request(store: Store, frame: Frame, part: Any) -> None:
    """Start to move messages that wait to another queue; the reply follows the last step."""
    source = store.queue(part.queue)
    wanted = read_ids(frame, part)
    if part.target == part.queue:
        raise Refused("bad_value", f"{part.queue!r} is both where they are and where they go")
    check_name(part.target)
    target = store.queue_or_new(part.target)
    step = move(store, source, target, wanted, part.count)

    def job() -> bool:
        finished, value = step()
        if finished and frame.connection in store.connections:
            store.reply(frame.connection, frame.request, source.last_batch, value)
        return finished

    if not job():
        store.jobs.append(job)
