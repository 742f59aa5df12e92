"""Messages that leave their queue: to its dead-letter queue, back from there, or to their end by a purge."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final
from zlib import crc32

from minibroker.limits import DLQ_SUFFIX
from minibroker.wire import pack_runs
from minibrokerd.core.dooming import doom, move_message, wake_doomed
from minibrokerd.core.messages import MEMORY, Item, Message, singles_of
from minibrokerd.core.queues import Queue
from minibrokerd.core.records import AckMeta, AttemptMeta, DropMeta, PurgeMeta
from minibrokerd.core.state import Refused, Store

STEP_MESSAGES: Final = (
    1_000  # what a bulk command does in one apply, so that the loop never pauses for it
)


def retry_delay_ms(queue: Queue, failures: int, jitter: float) -> int:
    """Return the delay after `failures` failures: it grows by a factor up to a cap; `jitter` is -1 to 1."""
    delay = float(queue.setting("retry_delay_ms"))
    cap = float(queue.setting("retry_cap_ms"))
    factor = queue.setting("retry_factor_percent") / 100
    for _ in range(failures - 1):
        if delay >= cap or factor == 1:
            break
        delay *= factor
    delay = min(delay, cap)
    return round(delay * (1 + jitter * queue.setting("retry_jitter_percent") / 100))


def dead_letter(store: Store, queue: Queue, message: Message, entry: AttemptMeta | None) -> None:
    """Move a message, already out of its delivery, to the queue's DLQ.

    While that is full the message stays DELAYED in its source, and is moved when there is room: its outcome
    stands, so it is not handed out again. In a DLQ, which has none, it only waits again.
    """
    if queue.is_dlq:
        delay_ms = retry_delay_ms(queue, max(message.charged, 1), store.jitter)
        message.ready_at_ms = store.now_ms + delay_ms
        store.write_return(queue, [message], delay_ms, entry)
        store.wait_or_ready(queue, message)
        return
    dlq = store.dlq_of(queue)
    if not dlq.has_room():
        queue.counters["dlq_full"] += 1
        message.dead = True
        store.write_return(queue, [message], 0, entry)
        doom(store, queue, message)
        return
    message.ready_at_ms = store.now_ms
    queue.counters["dead_lettered"] += 1
    move_message(store, queue, dlq, message, entry)


def redrive(
    store: Store, dlq: Queue, wanted: list[tuple[int, int, int, int]], most: int
) -> Callable[[], tuple[bool, dict[str, Any]]]:
    """Return a step function that sends dead messages back; it returns (finished, value so far).

    `wanted` are runs (the token is ignored); without any, the oldest go first, up to `most` (0: all that are
    there now).

    Raises:
        Refused: `bad_value`, the queue is not a DLQ.
    """
    if not dlq.is_dlq:
        raise Refused(
            "bad_value", f"{dlq.name!r} is not a dead-letter queue; its name would end in .dlq"
        )
    ids = [(origin, first + i) for _, origin, first, count in wanted for i in range(count)]
    left = len(ids) if wanted else min(most or dlq.lanes.ready, dlq.lanes.ready)
    moved = 0

    def step() -> tuple[bool, dict[str, Any]]:
        nonlocal left, moved
        some = min(left, STEP_MESSAGES)
        left -= some
        items = _named(dlq, ids[left : left + some]) if wanted else _oldest(dlq, some)
        for item in items:
            moved += _redrive_one(store, dlq, item)
        store.touch(dlq)  # it may have nothing left
        return left <= 0, {"redriven": moved}

    return step


def _named(dlq: Queue, ids: list[tuple[int, int]]) -> list[Item]:
    origins = sorted({origin for origin, _ in ids})
    items: list[Item] = []
    for origin in origins:
        items += dlq.lanes.take_out(origin, sorted({id[1] for id in ids if id[0] == origin}))
    return items


def _oldest(dlq: Queue, most: int) -> list[Item]:
    return dlq.lanes.take(min(most, dlq.lanes.ready), 2**62) if dlq.lanes.ready else []


def _redrive_one(store: Store, dlq: Queue, item: Item) -> bool:
    assert isinstance(item, Message), "a DLQ holds single messages only"
    origin = store.by_number[
        dlq.home
    ]  # where it died, which is not where it was published if it was moved
    item.attempts = (0, 0, 0)
    item.redriven += 1
    item.ready_at_ms = store.now_ms
    dlq.counters["redriven"] += 1
    move_message(store, dlq, origin, item, None)
    return True


def move(
    store: Store,
    source: Queue,
    target: Queue,
    wanted: list[tuple[int, int, int, int]],
    most: int,
) -> Callable[[], tuple[bool, dict[str, Any]]]:
    """Return a step function that moves messages that wait; it returns (finished, value so far)."""
    ids = [(origin, first + i) for _, origin, first, count in wanted for i in range(count)]
    left = len(ids) if wanted else min(most or source.lanes.ready, source.lanes.ready)
    moved = 0

    def step() -> tuple[bool, dict[str, Any]]:
        nonlocal left, moved
        some = min(left, STEP_MESSAGES)
        left -= some
        items = _named(source, ids[left : left + some]) if wanted else _oldest(source, some)
        for item in items:
            for message in singles_of(item):
                message.ready_at_ms = min(message.ready_at_ms, store.now_ms)
                move_message(store, source, target, message, None)
                moved += 1
        store.touch(source)
        return left <= 0 or not items, {"moved": moved}

    return step


def purge_named(store: Store, queue: Queue, wanted: list[tuple[int, int, int, int]]) -> int:
    """End those of these messages that are ready; return how many."""
    ids = [(origin, first + i) for _, origin, first, count in wanted for i in range(count)]
    items = _named(queue, ids)
    for item in items:
        queue.count_out(item.block, item.first, item.stop)
        if item.block.durability != MEMORY:
            tail = pack_runs([(0, item.block.origin, item.first, item.stop - item.first)])
            store.emit(AckMeta(queue.number, 0, 0, 0, 0, 0, 0), tail, crc32(tail))
            queue.last_batch = store.open_batch
    queue.counters["purged"] += len(items)
    return len(items)


def _end_all(store: Store, queue: Queue) -> int:
    """Forget every message of a queue and return how many there were.

    Later settlements of them are lost. What is taken apart is large, so it is freed in steps.
    """
    count = queue.count()
    for token in list(queue.deliveries):
        _end_delivery(store, queue, token)
    store.entering = deque(entry for entry in store.entering if entry[1] is not queue)
    delayed, lanes = queue.delayed, queue.empty()

    def free() -> bool:
        for _ in range(min(len(delayed), STEP_MESSAGES)):
            store.wheel.cancel(delayed.popitem()[0])
        return lanes.free_some(STEP_MESSAGES) and not delayed

    store.jobs.append(free)
    return count


def purge(store: Store, queue: Queue) -> int:
    """End every message of a queue, those held and begun too; return how many."""
    count = _end_all(store, queue)
    queue.counters["purged"] += count
    store.emit(PurgeMeta(queue.number))
    queue.last_batch = store.open_batch
    wake_doomed(store, queue)
    return count


def delete(store: Store, queue: Queue, *, force: bool) -> int:
    """End a queue and its DLQ; return how many messages ended with them.

    Raises:
        Refused: `queue_in_use`, `bad_value` (a DLQ goes with its source only).
    """
    if queue.is_dlq:
        raise Refused(
            "bad_value", f"{queue.name!r} goes when its source is deleted; purge it instead"
        )
    dlq = store.queues.get(queue.name + DLQ_SUFFIX)
    both = [queue] if dlq is None else [dlq, queue]
    for each in both:
        _check_unused(each, force=force)
    count = 0
    for each in both:
        count += _end_all(store, each)
        store.remove_queue(each)
        store.emit(DropMeta(each.number))
        store.dropped_batch = store.open_batch
    store.nowhere.last_batch = store.open_batch
    return count


def _check_unused(queue: Queue, *, force: bool) -> None:
    if queue.consumer_count:
        raise Refused(
            "queue_in_use", f"{queue.name!r} has {queue.consumer_count} consumers; stop them first"
        )
    if queue.count() and not force:
        raise Refused(
            "queue_in_use",
            f"{queue.name!r} has {queue.count()} messages; purge it first, or delete with force",
        )


def _end_delivery(store: Store, queue: Queue, token: int) -> None:
    delivery = store.deliveries.pop(token)
    del queue.deliveries[token]
    held = delivery.count()
    for message in delivery.singles.values():
        if message.timer is not None:
            store.wheel.cancel(message.timer)
    if delivery.consumer is not None:
        delivery.consumer.outstanding -= held
    session = store.sessions.get(delivery.session)
    if session is not None:
        session.forget_delivery(delivery)
    connection = store.connections.get(delivery.connection)
    if connection is not None:
        connection.tokens.discard(token)


__all__ = [
    "dead_letter",
    "delete",
    "move",
    "purge",
    "purge_named",
    "redrive",
    "retry_delay_ms",
]
