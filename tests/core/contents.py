"""What stands in a queue, looked at without a change of it."""

from __future__ import annotations

from typing import Any

from minibrokerd.core.model.messages import State
from minibrokerd.core.model.queues import Queue


def items_of(queue: Queue) -> list[tuple[State, Any]]:
    """Return what a queue has with its state; what was begun together stays so."""
    begun = {each: each.begun for each in queue.group.deliveries.values() if each.begun}
    for delivery in begun:
        delivery.begun = {}
    found: list[tuple[State, Any]] = list(queue.group.items())
    for delivery, together in begun.items():
        delivery.begun = together
        found += [(State.BEGUN, item) for item in together.values()]
    return found
