"""Messages whose last attempt is over and whose DLQ is full: they wait in their source until there is room.

Their outcome is in the log (`dead` in RETURN and COPY), so nothing about them is decided again: not after a start,
and not by another attempt. Room comes by a purge, a redrive, other settings, or an ack of a consumer of the DLQ;
the first three wake them, for the last they look again every second.
"""

from __future__ import annotations

from itertools import islice
from typing import Final

from minibrokerd.core.model.messages import MEMORY, Message, State
from minibrokerd.core.model.queues import Queue
from minibrokerd.core.model.records import AttemptMeta, MoveMeta
from minibrokerd.core.model.state import Store
from minibrokerd.core.model.transitions import change, state_in, take_delayed, wait
from minibrokerd.core.model.wheel import Timer

LOOK_AGAIN_MS: Final = 1_000
STEP_MESSAGES: Final = 100  # moved in one apply


def doom(store: Store, queue: Queue, message: Message) -> None:
    """Let a dead message wait, DELAYED, for room in the DLQ of its queue."""
    group = queue.group
    source = state_in(message, message.delivery)
    change(store, group, (message,), source, State.DELAYED, message.delivery)
    if group.doomed is None:
        group.doomed = {}
        store.effects.note("dlq_full", queue=queue.name)
        store.set_timer(_look, queue, store.now_ms + LOOK_AGAIN_MS)
    assert message.timer is not None
    group.doomed[message.timer] = message


def wake_doomed(store: Store, dlq: Queue) -> None:
    """Move what waits for room in a DLQ, in steps: there may be some."""
    source = store.by_number.get(dlq.home)
    if source is not None and source.group.doomed:
        store.jobs.append(lambda: _move_some(store, source))


def _look(store: Store, timer: Timer, queue: Queue) -> None:
    if store.by_number.get(queue.number) is not queue or queue.group.doomed is None:
        return
    if not queue.group.doomed:
        queue.group.doomed = None
        store.effects.note("dlq_has_room", queue=queue.name)
        return
    store.set_timer(_look, queue, store.now_ms + LOOK_AGAIN_MS)
    if store.dlq_of(queue).has_room():
        store.jobs.append(lambda: _move_some(store, queue))


def _move_some(store: Store, queue: Queue) -> bool:
    """Move dead messages as far as a step and the room go; True: no more can be done now."""
    if store.by_number.get(queue.number) is not queue:
        return True
    dlq = store.dlq_of(queue)
    for message in list(islice((queue.group.doomed or {}).values(), STEP_MESSAGES)):
        if not dlq.has_room():
            return True
        take_delayed(store, queue.group, message)
        message.ready_at_ms = store.now_ms
        queue.group.counters["dead_lettered"] += 1
        move_message(store, queue, dlq, message, None)
    return not queue.group.doomed


def move_message(
    store: Store, source: Queue, target: Queue, message: Message, entry: AttemptMeta | None
) -> None:
    """Let a message, out of a delivery or from nowhere, wait in another queue.

    `entry` is the attempt that ended with it.
    """
    if message.delivery is not None:
        change(store, source.group, (message,), message.state, None, message.delivery)
        message.delivery = None
    message.releases, message.marked, message.dead = 0, False, False
    if message.block.durability != MEMORY:
        store.emit(
            MoveMeta(
                source.number,
                target.number,
                message.block.origin,
                message.sequence,
                message.ended_token,
                message.ready_at_ms,
                message.attempts,
                message.redriven,
                entry,
                store.unix_ms,
            )
        )
        message.batch = source.last_batch = target.last_batch = store.open_batch
    target.count_in(
        message.block, message.first, message.stop
    )  # before it leaves, or nobody has it
    source.count_out(message.block, message.first, message.stop)
    wait(store, target.group, message)


__all__ = ["doom", "move_message", "wake_doomed"]
