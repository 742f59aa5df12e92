"""The queue of a message of which only the id is known.

An id names the queue where it was published, and there, or in the dead-letter queue of that, nearly every message
is. One that was moved may be anywhere, so all others are asked after those, in steps: each has its messages by id.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from minibroker.contract.limits import DLQ_SUFFIX
from minibrokerd.core.model.deliveries import Delivery
from minibrokerd.core.model.queues import Queue
from minibrokerd.core.model.state import Store
from minibrokerd.monitoring.portions import steps


async def seek(store: Store, origin: int, sequence: int) -> Queue | None:
    """Return the queue that has a message; None: it has ended, or never was."""
    near = list(_near(store, origin))
    for some in (near, *steps(list(store.queues.values()))):
        for queue in some:
            if _has(queue, origin, sequence):
                return queue
        await asyncio.sleep(0)
    return None


def _near(store: Store, origin: int) -> Iterator[Queue]:
    home = store.by_number.get(origin)
    for queue in (home, store.queues.get(home.name + DLQ_SUFFIX) if home is not None else None):
        if queue is not None:
            yield queue


def delivery_of(queue: Queue, origin: int, sequence: int) -> Delivery | None:
    """Return the delivery that has a message, held or begun; None: none of the queue has it."""
    key = queue.key_of(origin, sequence)
    for delivery in queue.group.deliveries.values():
        if key in delivery.singles or (
            origin == delivery.home
            and any(span.first <= sequence < span.stop for span in delivery.spans.values())
        ):
            return delivery
    return None


def _has(queue: Queue, origin: int, sequence: int) -> bool:
    if not queue.count():
        return False
    waits = queue.group.lanes.find(origin, sequence) or queue.group.later.find(origin, sequence)
    return waits is not None or delivery_of(queue, origin, sequence) is not None
