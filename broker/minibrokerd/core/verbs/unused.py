"""Temporary queues: one with `delete_unused_ms` ends, with what is in it, when nobody has used it for so long.

Looked at once in that time: a queue in which nothing happened between two looks is not used. So it ends between
once and twice that time behind its last use, and the use of a queue costs nothing more.

Whoever used it is told: for a week its name is known, and makes no queue by its use, which would have other
settings and no bindings. A declaration makes it.
"""

from __future__ import annotations

from typing import Final

from minibroker.contract.limits import DLQ_SUFFIX
from minibrokerd.core.model.kept import UNUSED
from minibrokerd.core.model.queues import Queue
from minibrokerd.core.model.retained import RetainedLog
from minibrokerd.core.model.state import Store
from minibrokerd.core.model.wheel import Timer
from minibrokerd.core.verbs.moving import delete
from minibrokerd.core.verbs.pausing import end_pause_of

KNOWN_MS: Final = 7 * 24 * 3_600_000


def watch(store: Store, queue: Queue) -> None:
    """Look after a queue as its settings say by now."""
    timer = store.sums.looked_after.pop(queue, None)
    if timer is not None:
        store.wheel.cancel(timer)
    if queue.settings["delete_unused_ms"] and not queue.is_dlq:
        _look_later(store, queue)


def watch_all(store: Store) -> None:
    """Look after all queues, at a start: their time begins anew."""
    for queue in store.queues.values():
        if queue.settings["delete_unused_ms"]:
            watch(store, queue)


def _look_later(store: Store, queue: Queue, *, is_busy: bool = False) -> None:
    at_ms = store.now_ms + queue.setting("delete_unused_ms")
    # Whoever is there now uses it until he goes, of which the next look knows nothing.
    uses = -1 if is_busy else _uses(store, queue)
    timer = store.set_timer(_look, (queue, uses), at_ms)
    store.sums.looked_after[queue] = timer


def _look(store: Store, timer: Timer, argument: tuple[Queue, int]) -> None:
    queue, uses_before = argument
    del store.sums.looked_after[queue]
    if store.by_number.get(queue.number) is not queue:
        return
    if not queue.settings["delete_unused_ms"] or isinstance(queue.group.retained, RetainedLog):
        return
    both = _with_dlq(store, queue)
    is_busy = any(map(_is_busy, both))
    if is_busy or _uses(store, queue) != uses_before:
        _look_later(store, queue, is_busy=is_busy)
        return
    count = delete(store, queue, force=True)
    for each in both:
        end_pause_of(store, each)
    if queue.own().get(
        "delete_unused_ms"
    ):  # else a policy says so, and the next use makes it as it was
        expires_unix_ms = store.unix_ms + KNOWN_MS
        store.kept.put(store, UNUSED, (queue.name,), (store.unix_ms, count), expires_unix_ms)
    tell = store.effects.warn if count else store.effects.note
    tell("queue_unused", queue=queue.name, messages=count)


def _with_dlq(store: Store, queue: Queue) -> list[Queue]:
    dlq = store.queues.get(queue.name + DLQ_SUFFIX)
    return [queue] if dlq is None else [queue, dlq]


def _is_busy(queue: Queue) -> bool:
    """Whether somebody consumes, waits for a message or has one, or one is being published."""
    group = queue.group
    return bool(group.consumer_count or group.consumers or group.deliveries or group.entering)


def _uses(store: Store, queue: Queue) -> int:
    """Return a number that is another one after each message that came, went or changed its state."""
    return sum(sum(each.group.counters.values()) for each in _with_dlq(store, queue))
