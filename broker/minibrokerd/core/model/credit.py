"""How many messages a consumer may still take: what its deliveries have left comes back to it here."""

from __future__ import annotations

from minibrokerd.core.model.deliveries import Delivery
from minibrokerd.core.model.group import Group
from minibrokerd.core.model.state import Store


def give_credit(store: Store, group: Group, delivery: Delivery, count: int) -> None:
    """Let the consumer of a delivery take as many messages more."""
    consumer = delivery.consumer
    if consumer is None:
        return
    consumer.outstanding -= count
    if (
        consumer.active
        and not consumer.waiting
        and not store.connections[consumer.connection].stopped
    ):
        group.stand_in_line(consumer)
        store.touch(group)
