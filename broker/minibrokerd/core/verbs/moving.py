"""Messages that leave their queue: to its dead-letter queue, back from there, or to their end by a purge."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from minibroker.contract.ends import Outcome
from minibroker.contract.limits import DLQ_SUFFIX
from minibrokerd.core.model.chains import write
from minibrokerd.core.model.cold import ColdRun
from minibrokerd.core.model.deliveries import Delivery
from minibrokerd.core.model.key_settings import forget_all
from minibrokerd.core.model.messages import Item, Message
from minibrokerd.core.model.noting import note_dead, tell_one
from minibrokerd.core.model.queues import Queue
from minibrokerd.core.model.records import AttemptMeta, DropMeta, PurgeMeta
from minibrokerd.core.model.refusals import Refused
from minibrokerd.core.model.retained import RetainedLog
from minibrokerd.core.model.sheaf import Sheaf
from minibrokerd.core.model.state import Store
from minibrokerd.core.model.transitions import give_credit, wait
from minibrokerd.core.verbs.dooming import doom, move_message, wake_doomed
from minibrokerd.core.verbs.keying import block

# What a bulk command does in one apply, so that the loop never pauses for it.
STEP_MESSAGES: Final = 1_000

TOLD_LOOKS: Final = 10  # what one counts that somebody waits for


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


def is_used_up(queue: Queue, message: Message) -> bool:
    """Whether a message has had all its attempts: its own number, or that of the queue. A DLQ has no limit."""
    most = message.block.terms.max_attempts or queue.setting("max_attempts")
    return message.charged >= most and not queue.is_dlq


def dead_letter(store: Store, queue: Queue, message: Message, entry: AttemptMeta | None) -> None:
    """Move a message, just taken out of its delivery, to the queue's DLQ.

    While that is full the message stays DELAYED in its source, and is moved when there is room: its outcome
    stands, so it is not handed out again. In a DLQ, which has none, it only waits again.
    """
    if queue.is_dlq:
        delay_ms = retry_delay_ms(queue, max(message.charged, 1), store.jitter)
        message.ready_at_ms = store.now_ms + delay_ms
        store.write_return(queue, [message], delay_ms, entry)
        wait(store, queue.group, message, message.delivery)
        return
    note_dead(store, queue, message, entry)
    block(store, queue, message)
    dlq = store.dlq_of(queue)
    if not dlq.has_room():
        queue.group.counters["dlq_full"] += 1
        message.dead = True
        store.write_return(queue, [message], 0, entry)
        doom(store, queue, message)
        return
    message.ready_at_ms = store.now_ms
    queue.group.counters["dead_lettered"] += 1
    move_message(store, queue, dlq, message, entry)


def _end_all(store: Store, queue: Queue, outcome: Outcome, by: str) -> int:
    """Forget every message of a queue, whose record is written, and return how many there were.

    Later settlements of them are lost at once, for its deliveries are others now. What is taken apart is large, so
    it is freed in steps; consumers have their credit back as the deliveries to them are, and who waits for one of
    these messages is told. A crash between two steps loses nothing of that: what is nowhere has not ended as done.
    """
    count = queue.count()
    telling = _Telling(store, queue, outcome, by)
    let_go = telling.let_go
    if queue.group.entering:
        entering, store.entering = store.entering, deque()
        for entry in entering:
            if entry[1] is not queue:
                store.entering.append(entry)
                continue
            for span in entry[3]:
                let_go(span)
    deliveries, delayed, later = queue.group.deliveries, queue.group.delayed, queue.group.later
    lanes = queue.empty()

    def free() -> bool:
        looks = 0
        while deliveries and looks < STEP_MESSAGES:
            looks += 1 + _end_delivery(store, queue, deliveries.popitem()[1], let_go)
        while delayed and looks < STEP_MESSAGES:
            timer, item = delayed.popitem()
            store.wheel.cancel(timer)
            if isinstance(item, Sheaf):
                looks += item.left
                later.discard_sheaf(item)
                for span in item.spans():
                    let_go(span)
            else:
                looks += 1
                later.discard(item)
                let_go(item)
        is_free = lanes.free_some(STEP_MESSAGES, let_go) and not delayed and not deliveries
        return telling.tell_some() and is_free

    if count and not free():
        store.jobs.append(free)
    if queue.group in store.sums.singles:
        store.touch(queue.group)  # nothing is at work there any more
    return count


class _Telling:
    """Those who wait for messages of a queue that ended all at once: they are told in steps."""

    def __init__(self, store: Store, queue: Queue, outcome: Outcome, by: str) -> None:
        self._store = store
        self._queue = queue
        self._outcome = outcome
        self._by = by.encode()
        self._batch = store.open_batch
        # Origin, first and stop of what is looked for.
        self._left: deque[tuple[int, int, int]] = deque()
        self._is_wanted = bool(store.results.waiting or store.chains.ids)

    def let_go(self, item: Item | ColdRun) -> None:
        """Take note of an item that ended."""
        if isinstance(item, ColdRun):
            origin, intervals = item.queue, item.live(item.start, item.stop)
        else:
            self._store.sums.let_go(item)
            origin, intervals = item.block.origin, iter([(item.first, item.stop)])
        if self._is_wanted:
            self._left += ((origin, first, stop) for first, stop in intervals)

    def tell_some(self) -> bool:
        """Tell those who wait for some of them; True: none is left."""
        store, left, looks = self._store, self._left, STEP_MESSAGES
        asked, awaited, chains = store.results.waiting, store.chains.ids, store.chains.waiting
        while left and looks > 0:
            origin, sequence, stop = left.popleft()
            looks -= 1
            if sequence + 1 < stop:
                left.appendleft((origin, sequence + 1, stop))
            id = origin, sequence
            if id in asked or id in awaited:
                looks -= len(chains[id].ids) if id in chains else TOLD_LOOKS
                tell_one(store, self._queue, id, self._outcome, self._by, self._batch)
        write(store)
        return not left


def purge(store: Store, queue: Queue, by: str) -> int:
    """End every message of a queue, those held and begun too, as `by` wants; return how many."""
    store.emit(PurgeMeta(queue.number))
    queue.last_batch = store.open_batch
    count = _end_all(store, queue, Outcome.PURGED, by)
    queue.group.counters["purged"] += count
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
    count, groups = _of_log(queue, force=force)
    both = _with_dlq(store, queue)
    for each in [*both, *(one for group in groups for one in _with_dlq(store, group))]:
        _check_unused(each, force=force)
    for group in groups:
        count += delete(store, group, force=force)
    for each in both:
        store.emit(DropMeta(each.number))
        store.dropped_batch = store.nowhere.last_batch = store.open_batch
        count += _end_all(store, each, Outcome.DELETED, each.name)
        if each.group.keys is not None:
            forget_all(store, each)
        store.remove_queue(each)
        store.exchanges.queue_gone(store, each.number)
        store.owners.queue_gone(store, each.number)
        store.schemas.end(store, each.number)
        store.sums.singles.pop(each.group, None)
        if each.group.retained is not None:
            store.retained.gone(store, each)
    return count


def _with_dlq(store: Store, queue: Queue) -> list[Queue]:
    dlq = store.queues.get(queue.name + DLQ_SUFFIX)
    return [queue] if dlq is None else [dlq, queue]


def _of_log(queue: Queue, *, force: bool) -> tuple[int, list[Queue]]:
    """Return how many messages the files of a retained log have, and its groups: they go with it."""
    log = queue.group.retained
    if not isinstance(log, RetainedLog):
        return 0, []
    if (log.feeders or log.has.messages) and not force:
        raise Refused(
            "queue_in_use",
            f"the log {queue.name!r} is in use (messages: {log.has.messages}, groups: {len(log.feeders)}); "
            "delete with force, and all of them end",
        )
    return log.has.messages, [feeder.queue for feeder in log.feeders.values()]


def _check_unused(queue: Queue, *, force: bool) -> None:
    if queue.group.consumer_count:
        raise Refused(
            "queue_in_use",
            f"{queue.name!r} has consumers ({queue.group.consumer_count}); stop them first",
        )
    if queue.count() and not force:
        raise Refused(
            "queue_in_use",
            f"{queue.name!r} is not empty (messages: {queue.count()}); purge it first, or delete with force",
        )


def _end_delivery(
    store: Store, queue: Queue, delivery: Delivery, let_go: Callable[[Item], None]
) -> int:
    """Forget a delivery whose messages have ended, and let go of these; return how many it had."""
    token, count = delivery.token, delivery.count()
    store.deliveries.pop(token, None)
    for span in delivery.spans.values():
        let_go(span)
    for message in delivery.singles.values():
        let_go(message)
        if message.timer is not None:
            store.wheel.cancel(message.timer)
    session = store.sessions.get(delivery.session)
    if session is not None:
        session.forget_delivery(delivery, max(queue.last_batch, store.nowhere.last_batch))
    connection = store.connections.get(delivery.connection)
    if connection is not None:
        connection.tokens.discard(token)
    give_credit(store, queue.group, delivery, count)
    return count


__all__ = ["dead_letter", "delete", "is_used_up", "purge", "retry_delay_ms"]
