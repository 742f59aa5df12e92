"""Exclusive queues end with their sessions, and all that is in them, in steps.

A session owns what it declared so until it says goodbye, or was without a connection for as long as it may be
resumed. Over a start it may come back, too, within the same time.
"""

from __future__ import annotations

from typing import Final

from minibroker.contract.limits import DLQ_SUFFIX
from minibrokerd.core.model.pauses import QUEUE
from minibrokerd.core.model.queues import Queue
from minibrokerd.core.model.sessions import Session
from minibrokerd.core.model.state import Store
from minibrokerd.core.verbs.moving import STEP_MESSAGES, delete

QUEUE_LOOKS: Final = 100  # what the end of a queue counts, beside its messages


def end_queues_of(store: Store, session: Session) -> None:
    """End the exclusive queues of a session that is over: nothing of them is handed out any more."""
    numbers = store.owners.let_go(session.id)

    def step() -> bool:
        looks_left = STEP_MESSAGES
        while numbers and looks_left > 0:
            queue = store.by_number.get(numbers[-1])
            if queue is not None:
                both = _with_dlq(store, queue)
                if any(each.group.consumer_count for each in both):
                    return False  # they are taken apart in steps, too
                looks_left -= QUEUE_LOOKS + _end(store, queue, both)
            numbers.pop()
        return not numbers

    if numbers and not step():
        store.jobs.append(step)


def _with_dlq(store: Store, queue: Queue) -> list[Queue]:
    dlq = store.queues.get(queue.name + DLQ_SUFFIX)
    return [queue] if dlq is None else [queue, dlq]


def _end(store: Store, queue: Queue, both: list[Queue]) -> int:
    client = store.owners.client_of(store, queue) or ""
    count = delete(store, queue, force=True)
    for each in both:
        store.pauses.end(store, (QUEUE, each.number, ""))
    store.effects.note("queue_left", queue=queue.name, client=client, messages=count)
    return min(count, STEP_MESSAGES)
