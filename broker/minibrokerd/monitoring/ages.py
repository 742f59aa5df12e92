"""For how long the oldest message of a queue has waited."""

from __future__ import annotations

from typing import Final

from minibrokerd.core.model.queues import Queue
from minibrokerd.monitoring.view import View

OLDEST_LANES: Final = 1_000  # keys that are looked at for the oldest message of a queue


def oldest_of(view: View, queue: Queue) -> int:
    """Return for how long the oldest ready message of a queue is ready, in ms."""
    since_ms = queue.group.lanes.oldest_ms(OLDEST_LANES)
    return 0 if since_ms is None else max(0, view.engine.clock.now_ms() - since_ms)
