"""`retime`: messages that wait, ready or delayed, are ready at another time.

The record is that of a message which came back (RETURN): it says from when on it is ready, and keeps its attempts.
"""

from __future__ import annotations

from typing import Any, Final

from minibroker.contract import limits
from minibrokerd.core.model.inputs import Frame
from minibrokerd.core.model.messages import Item, is_dead, singles_of
from minibrokerd.core.model.queues import Queue
from minibrokerd.core.model.refusals import Refused, check_space
from minibrokerd.core.model.retained import RetainedLog
from minibrokerd.core.model.state import Store
from minibrokerd.core.model.transitions import wait
from minibrokerd.core.model.walks import GO_ON, Steps, Walk
from minibrokerd.core.verbs.bulk import TAKE_LOOKS, ids_of, line_looks, note, take, why_left
from minibrokerd.core.verbs.finding import Id
from minibrokerd.core.verbs.runs import read_ids
from minibrokerd.core.verbs.takers import all_back

WAITS_FOR: Final = "waits_for"  # why one is left that comes after others
FULL: Final = "disk_full"  # why one is left for which the log has no room
DEAD: Final = "dead"  # why one is left that is DELAYED until its DLQ has room


def retime(store: Store, frame: Frame, part: Any) -> None:
    """Set when messages are ready."""
    check_space(short=store.short)
    queue = store.queue(part.queue)
    if isinstance(queue.group.retained, RetainedLog):
        text = f"{queue.name!r} is a retained log, which keeps one order; retime messages of its groups"
        raise Refused("bad_value", text)
    runs = read_ids(frame, part)
    if part.delay_ms and part.at_unix_ms:
        raise Refused("bad_value", "a message is ready after a delay, or at a time; both came")
    delay_ms = max(part.at_unix_ms - store.unix_ms, 0) if part.at_unix_ms else part.delay_ms
    if not runs:
        raise Refused("bad_value", "no message was named that is to be ready at another time")
    walk = Walk(store, frame, changes=True)
    ready_at_ms = store.now_ms + min(delay_ms, limits.MAX_DELAY_MS)
    walk.begin(_steps(walk, queue, ids_of(runs), ready_at_ms))


def _steps(walk: Walk, queue: Queue, ids: list[Id], ready_at_ms: int) -> Steps:
    store, retimed, dead, awaiting, full = walk.store, 0, 0, 0, 0
    yield from all_back(walk, queue)  # DELAYED it would not be found by the one that works on it
    effects, records = store.effects, len(store.effects.records)
    missing: list[Id] = []
    for at, (origin, sequence) in enumerate(ids):
        if not (yield from walk.may_write()):
            full = len(ids) - at
            break
        if walk.is_used_up(1):
            yield GO_ON
        if effects is not store.effects:  # a step later a stop may have begun
            yield from all_back(walk, queue)
            effects, records = store.effects, 0
        if is_dead(queue.group.later.find(origin, sequence)):
            dead += 1
            continue
        if (origin, sequence) in store.chains.waiting:
            awaiting += 1
            continue
        if ready_at_ms <= store.now_ms and queue.group.lanes.find(origin, sequence) is not None:
            retimed += 1  # it is ready, and keeps its place
            continue
        item = yield from take(walk, queue, origin, sequence)
        if item is None:
            missing.append((origin, sequence))
            continue
        _wait_anew(store, queue, item, ready_at_ms)
        retimed += 1
        if walk.is_used_up(TAKE_LOOKS + line_looks(queue)) or walk.has_written(records):
            yield GO_ON
    left = yield from why_left(walk, queue, missing)
    left |= {
        why: count for why, count in ((DEAD, dead), (WAITS_FOR, awaiting), (FULL, full)) if count
    }
    note(walk, "messages_retimed", retimed, queue=queue.name)
    walk.reply(queue.last_batch, {"retimed": retimed} | ({"left": left} if left else {}))


def _wait_anew(store: Store, queue: Queue, item: Item, ready_at_ms: int) -> None:
    for message in singles_of(item):
        message.ready_at_ms = max(ready_at_ms, store.now_ms)
        store.write_return(queue, [message], message.ready_at_ms - store.now_ms, None)
        wait(store, queue.group, message)
