"""The dead-letter queue of a queue, as the commands of `dlq` name it."""

from __future__ import annotations

import minibroker
from minibroker.contract.errors import UnknownQueue
from minibroker.contract.limits import DLQ_SUFFIX


def dlq_of(queue: str) -> str:
    """Return the name of the dead-letter queue of `queue`, which may be one already."""
    return queue if queue.endswith(DLQ_SUFFIX) else queue + DLQ_SUFFIX


async def counters_of(broker: minibroker.Broker, queue: str) -> dict[str, int] | None:
    """Return the counters of the DLQ, None if no message ever died. UnknownQueue if there is no such queue."""
    name = dlq_of(queue)
    try:
        counters: dict[str, int] = (await broker.queue(name).stats())["queues"][name]
    except UnknownQueue:
        # Raises if the queue itself is not known either.
        await broker.queue(name.removesuffix(DLQ_SUFFIX)).settings()
        return None
    return counters
