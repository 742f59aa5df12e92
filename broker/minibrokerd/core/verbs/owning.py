"""Exclusive queues end with their sessions, and all that is in them, in steps.

A session owns what it declared so until it says goodbye, or was without a connection for as long as it may be
resumed. Over a start it may come back, too, within the same time.
"""

from __future__ import annotations

from typing import Final

from minibroker.contract.limits import DLQ_SUFFIX
from minibrokerd.core.model.pauses import QUEUE
from minibrokerd.core.model.queues import Queue
from minibrokerd.core.model.retained import RetainedLog
from minibrokerd.core.model.sessions import Session
from minibrokerd.core.model.state import Store
from minibrokerd.core.model.wheel import Timer
from minibrokerd.core.verbs.moving import STEP_MESSAGES, delete

LOOK_AGAIN_MS: Final = 1_000  # whether nobody consumes the groups of a log any more
QUEUE_LOOKS: Final = 100  # what the end of a queue counts, beside its messages


def end_queues_of(store: Store, session: Session) -> None:
    """End the exclusive queues of a session that is over: nothing of them is handed out any more."""
    _end_all(store, store.owners.let_go(session.id))


def _end_all(store: Store, numbers: list[int]) -> None:
    def step() -> bool:
        looks_left = STEP_MESSAGES
        while numbers and looks_left > 0:
            queue = store.by_number.get(numbers[-1])
            if queue is not None:
                them = _all_of(store, queue)
                if not any(each.group.consumer_count for each in them):
                    looks_left -= QUEUE_LOOKS + _end(store, queue, them)
                elif isinstance(queue.group.retained, RetainedLog):
                    # Others consume its groups, for as long as they want.
                    store.set_timer(_look_again, [queue.number], store.now_ms + LOOK_AGAIN_MS)
                    looks_left -= QUEUE_LOOKS
                else:
                    return False  # they are taken apart in steps, too
            numbers.pop()
        return not numbers

    if numbers and not step():
        store.jobs.append(step)


def _look_again(store: Store, timer: Timer, numbers: list[int]) -> None:
    _end_all(store, numbers)


def _all_of(store: Store, queue: Queue) -> list[Queue]:
    """Return what ends with a queue, and the queue: its DLQ, and of a log the groups with theirs."""
    there = queue.group.retained
    feeders = there.feeders.values() if isinstance(there, RetainedLog) else ()
    them = [queue, *(feeder.queue for feeder in feeders)]
    dlqs = (store.queues.get(each.name + DLQ_SUFFIX) for each in them)
    return [*them, *(dlq for dlq in dlqs if dlq is not None)]


def _end(store: Store, queue: Queue, them: list[Queue]) -> int:
    client = store.owners.client_of(store, queue) or ""
    count = delete(store, queue, force=True)
    for each in them:
        store.pauses.end(store, (QUEUE, each.number, ""))
    store.effects.note("queue_left", queue=queue.name, client=client, messages=count)
    return min(count, STEP_MESSAGES)
