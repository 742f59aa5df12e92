"""Queues at their limit: what a publish does when `max_messages` or `max_bytes` is used up.

All messages of a queue count, those that workers have and those that are not synced yet, too. Whether there is
room, or can be made, is found out before anything is changed. The oldest is the one with the lowest id of those
that wait, ready or delayed; what a worker has is never taken from it.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import merge
from typing import Final

from minibroker.contract.ends import Outcome
from minibroker.contract.limits import DLQ_SUFFIX
from minibroker.contract.settings import OVERFLOWS
from minibrokerd.core.durable.paging import read_next
from minibrokerd.core.model.claims import Asked
from minibrokerd.core.model.cold import ColdRun
from minibrokerd.core.model.deliveries import Run
from minibrokerd.core.model.extents import Sizes
from minibrokerd.core.model.lanes import Lanes
from minibrokerd.core.model.messages import (
    FRAME_BYTES,
    MEMORY,
    MESSAGE_BYTES,
    Item,
    is_dead,
    singles_of,
)
from minibrokerd.core.model.noting import end_runs, note_dead
from minibrokerd.core.model.places import in_order_of_ids
from minibrokerd.core.model.queues import Queue
from minibrokerd.core.model.records import AttemptMeta
from minibrokerd.core.model.refusals import Refused
from minibrokerd.core.model.state import Store
from minibrokerd.core.verbs.dooming import move_message
from minibrokerd.core.verbs.finding import Id, end_cold, take_waiting
from minibrokerd.core.verbs.takers import is_awaiting
from minibrokerd.core.verbs.uniqueness import Plan

_BLOCK, REJECT, DROP_OLDEST, DEAD_LETTER = OVERFLOWS
MAKES_ROOM: Final = (DROP_OLDEST, DEAD_LETTER)  # the oldest leave
OVERFLOW: Final = "overflow"  # the cause in the history of what was dead-lettered for room
RETRY_MS: Final = 1_000
CALM_PERCENT: Final = 90  # below this a queue that was full is not any more, for who reads the log


def asked_of(sizes: Sizes, count: int, plan: Plan | None) -> Asked:
    """Return the room that a publish needs; its bytes are counted as `Block.cost` does.

    What is there already needs none, and what is replaced makes some.
    """
    size, starts = sizes
    each = MESSAGE_BYTES + FRAME_BYTES // count
    if plan is None or not plan.is_made:
        body_bytes = size * count if starts is None else starts[-1] - starts[0]
        return Asked(count, body_bytes + each * count)
    stored = [index for index in range(count) if index not in plan.gone]
    body_bytes = sum(size if starts is None else starts[i + 1] - starts[i] for i in stored)
    replaced = plan.replaced
    cost = body_bytes + each * len(stored)
    return Asked(len(stored) - len(replaced), cost, replaced, plan.replaced_bytes)


def check_room(store: Store, queue: Queue, asked: Asked) -> None:
    """Check that messages have room, or can be given it.

    Raises:
        Refused: `too_large`, they never will; `busy` or `queue_full`, they have none now.
    """
    if _has_room(queue, asked):
        return
    _check_possible(queue, asked)
    makes_room = queue.settings["overflow"] in MAKES_ROOM
    if makes_room and not is_awaiting(store, queue):  # else the oldest may be at work
        leaving = _oldest(store, queue, asked)
        if leaving is not None and _may_leave(store, queue, len(leaving)):
            return
    queue.group.counters["overflow_refused"] += max(asked.messages, 1)
    _note_full(store, queue)
    text = f"the queue {queue.name!r} holds {_told(queue)}"
    if queue.settings["overflow"] == REJECT:
        raise Refused("queue_full", f"{text}, and its overflow is reject; nothing was stored")
    raise Refused("busy", f"{text}; retry when it is shorter", RETRY_MS)


def make_room(store: Store, queue: Queue, asked: Asked) -> None:
    """Let the oldest messages leave until those that come have room; it was checked that they can."""
    if _has_room(queue, asked):
        if queue in store.sums.full and queue.is_calm(CALM_PERCENT):
            store.sums.full.remove(queue)
            store.effects.note("queue_has_room", queue=queue.name)
        return
    leaving = _oldest(store, queue, asked)
    assert leaving is not None, "it was checked that room can be made"
    _note_full(store, queue)
    if queue.settings["overflow"] == DEAD_LETTER:
        _dead_letter(store, queue, leaving)
    else:
        _drop(store, queue, leaving)


def _has_room(queue: Queue, asked: Asked) -> bool:
    """Whether there is room without anybody's leaving; what makes a full queue no fuller always has it."""
    if queue.group.retained is not None:
        return True  # what a log keeps is bounded by its retention, and a group by its window
    more_bytes = asked.cost - asked.freed_bytes
    if queue.max_bytes and more_bytes > 0 and queue.log_bytes + more_bytes > queue.max_bytes:
        return False
    if not queue.max_messages or asked.messages <= 0:
        return True
    return queue.count() + asked.messages <= queue.max_messages


def _check_possible(queue: Queue, asked: Asked) -> None:
    for what, needed, limit in (
        ("messages", asked.messages, queue.max_messages),
        ("bytes", asked.cost, queue.max_bytes),
    ):
        if 0 < limit < needed:
            raise Refused(
                "too_large",
                f"a frame of {needed} {what}, and the queue {queue.name!r} holds at most {limit}; "
                "publish fewer at a time",
            )


def _told(queue: Queue) -> str:
    messages = f"{queue.count()} of its {queue.max_messages} max_messages"
    used = f"{queue.log_bytes} of its {queue.max_bytes} max_bytes"
    told = [messages] if queue.max_messages else []
    return " and ".join(told + ([used] if queue.max_bytes else []))


def _note_full(store: Store, queue: Queue) -> None:
    if queue not in store.sums.full:
        store.sums.full.add(queue)
        overflow = str(queue.settings["overflow"])
        store.effects.note("queue_full", queue=queue.name, overflow=overflow, holds=_told(queue))


def _may_leave(store: Store, queue: Queue, count: int) -> bool:
    """Whether so many may go where they go: the dead-letter queue may be full itself."""
    if queue.settings["overflow"] != DEAD_LETTER:
        return True
    dlq = store.queues.get(queue.name + DLQ_SUFFIX)
    return dlq is None or dlq.has_room(count)


def _oldest(store: Store, queue: Queue, asked: Asked) -> list[Id] | None:
    """Return which messages must leave for others, the oldest first; None: not enough of them wait."""
    left_count = queue.count() + asked.messages - queue.max_messages if queue.max_messages else 0
    more_bytes = asked.cost - asked.freed_bytes
    left_bytes = queue.log_bytes + more_bytes - queue.max_bytes if queue.max_bytes else 0
    leaving: list[Id] = []
    moves = queue.settings["overflow"] == DEAD_LETTER
    for id, freed_bytes in _waiting(queue):
        if left_count <= 0 and left_bytes <= 0:
            break
        if id in asked.leaving:
            continue
        cold = _cold_lanes(queue, id) if moves else None
        if cold is not None:
            read_next(store, queue, cold)  # to move it, its body is needed: soon it is there
            return None
        leaving.append(id)
        left_count -= 1
        left_bytes -= freed_bytes
    return leaving if left_count <= 0 and left_bytes <= 0 else None


def _cold_lanes(queue: Queue, id: Id) -> Lanes | None:
    """Return the lanes of the priority whose message left memory; None: it is there."""
    if id[0] != queue.home:
        return None
    levels = queue.group.lanes.levels
    return next((lanes for lanes in levels if lanes.default.run_of(id[1]) is not None), None)


def _waiting(queue: Queue) -> Iterator[tuple[Id, int]]:
    """Yield the ids of what waits, the oldest first, each with the bytes that it frees, at the least."""
    lines = [_intervals(queue.home, line) for line in in_order_of_ids(queue)]
    for (_, origin, first), stop, item in merge(*lines, key=lambda interval: interval[0]):
        for sequence in range(first, stop):
            if isinstance(item, ColdRun):
                yield (origin, sequence), item.cost // max(item.left, 1)
            else:
                yield (origin, sequence), item.block.cost(sequence, sequence + 1)


def _intervals(
    home: int, line: Iterator[Item | ColdRun]
) -> Iterator[tuple[tuple[bool, int, int], int, Item | ColdRun]]:
    """Yield (place, stop, item) of what waits in one line: out of the middle of a run some stand elsewhere."""
    for item in line:
        if isinstance(item, ColdRun):
            for first, stop in item.live(item.start, item.stop):
                yield (False, item.queue, first), stop, item
        elif not is_dead(item):
            yield (item.block.origin != home, item.block.origin, item.first), item.stop, item


def _drop(store: Store, queue: Queue, leaving: list[Id]) -> None:
    """End messages: their record stands before that of the publish which takes their place."""
    ended: list[Run] = []
    logged: list[Run] = []
    for id in leaving:
        item = take_waiting(store, queue, *id)
        ended.append((0, *id, 1))
        if item is not None:
            queue.count_out(item.block, item.first, item.stop)
        else:
            end_cold(queue, id[1])
        if item is None or item.block.durability != MEMORY:
            logged.append((0, *id, 1))
    end_runs(store, queue, Outcome.DROPPED, ended, logged, queue.name)
    queue.group.counters["overflow_dropped"] += len(leaving)


def _dead_letter(store: Store, queue: Queue, leaving: list[Id]) -> None:
    """Move messages to the dead-letter queue, where their history says why."""
    dlq = store.dlq_of(queue)
    entry = AttemptMeta(
        0, store.unix_ms, store.unix_ms, "", OVERFLOW, "QueueFull", f"it holds {_told(queue)}"
    )
    for id in leaving:
        item = take_waiting(store, queue, *id)
        assert item is not None, "what is to leave is in memory"
        for message in singles_of(item):
            message.ready_at_ms = store.now_ms
            message.add_history(entry)
            note_dead(store, queue, message, entry)
            move_message(store, queue, dlq, message, entry)
    queue.group.counters["dead_lettered"] += len(leaving)
    queue.group.counters["overflow_dead_lettered"] += len(leaving)
