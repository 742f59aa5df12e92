"""`times`: how long messages of a queue wait and run, and how many handlers at once would be enough."""

from __future__ import annotations

from typing import Any, Final

from minibrokerd.core.model.inputs import Frame
from minibrokerd.core.model.queues import Queue
from minibrokerd.core.model.state import Store
from minibrokerd.core.model.times import TARGET_MS, handlers_for, times_of
from minibrokerd.core.model.walks import GO_ON, Steps, Walk

MOST_LANES: Final = 1_000  # keys that are looked at for the oldest message
LOOKS: Final = 1_000  # connections that are looked at in one go
CONNECTIONS_A_LOOK: Final = 20


def times(store: Store, frame: Frame, part: Any) -> None:
    """Answer with the times of one queue."""
    queue = store.queue(part.queue)
    walk = Walk(store, frame, changes=False)
    walk.begin(_steps(walk, queue, part.target_ms or TARGET_MS))


def _steps(walk: Walk, queue: Queue, target_ms: int) -> Steps:
    store, group = walk.store, queue.group
    idle_ms = there_ms = count = 0
    connections = list(store.connections)
    for at in range(0, len(connections), LOOKS):
        some = connections[at : at + LOOKS]
        for number in some:
            connection = store.connections.get(number)
            for consumer in connection.consumers.values() if connection is not None else ():
                if consumer.queue_number == queue.number:
                    count += 1
                    idle_ms += consumer.idle_for_ms(store.now_ms)
                    there_ms += store.now_ms - consumer.since_ms
        if walk.is_used_up(len(some) // CONNECTIONS_A_LOOK):
            yield GO_ON
    published = group.counters["published"]
    said = times_of(store, group).said(store.now_ms, published)
    backlog = group.backlog()
    since_ms = group.lanes.oldest_ms(MOST_LANES)
    value = {
        **said,
        "oldest_ready_ms": 0 if since_ms is None else max(store.now_ms - since_ms, 0),
        "backlog": backlog,
        "at_work": group.begun,
        "consumers": count,
        "consumers_ms": there_ms,
        "idle_ms": idle_ms,
    }
    if group.key_times is not None:
        value["groups"] = list(group.key_times.said(store.now_ms))
    handlers = handlers_for(said, backlog, target_ms)
    walk.reply(queue.last_batch, value | ({} if handlers is None else {"handlers": handlers}))
