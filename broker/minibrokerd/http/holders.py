"""The API of who works on a queue: which clients consume it or have messages of it, and for how long.

Looking at all connections and all deliveries takes a while where there are many, so it is done in steps.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass
from typing import Final

from minibrokerd.core.model.deliveries import Delivery
from minibrokerd.core.model.messages import Message, State
from minibrokerd.core.model.queues import Queue
from minibrokerd.core.model.state import Store
from minibrokerd.http.messages import peer_of
from minibrokerd.http.requests import Ask
from minibrokerd.http.shapes import HolderList, QueueHolder

MOST_HOLDERS: Final = 500
STEP: Final = 1_000  # connections, or messages, without a turn of the loop


@dataclass(slots=True)
class _Holds:
    """What one session has of a queue."""

    consumers: int = 0
    prefetch: int = 0
    held: int = 0
    begun: int = 0
    oldest: Message | None = None

    def add(self, delivery: Delivery) -> None:
        """Count what is in a delivery."""
        self.held += sum(span.stop - span.first for span in delivery.spans.values())
        for message in delivery.singles.values():
            if message.state is not State.BEGUN:
                self.held += 1
                continue
            self.begun += 1
            if self.oldest is None or message.started_unix_ms < self.oldest.started_unix_ms:
                self.oldest = message


async def list_holders(ask: Ask) -> HolderList:
    """Return the clients that consume a queue or have messages of it, those that have most first."""
    most, queue = ask.number("count", 100, MOST_HOLDERS), ask.queue()
    found = await _holders(ask.subject.store, queue)
    order = sorted(
        found.items(), key=lambda each: (-each[1].held - each[1].begun, -each[1].prefetch, each[0])
    )
    return HolderList([_view(ask, *each) for each in order[:most]], len(order))


async def _holders(store: Store, queue: Queue) -> dict[int, _Holds]:
    """Return what each session has, by its number."""
    found: dict[int, _Holds] = defaultdict(_Holds)
    for at, connection in enumerate(list(store.connections.values()), 1):
        for consumer in (*connection.consumers.values(), *connection.receives.values()):
            if consumer.queue_number == queue.number:
                found[consumer.session].consumers += 1
                found[consumer.session].prefetch += consumer.prefetch
        if not at % STEP:
            await asyncio.sleep(0)
    looked_at = 0
    for delivery in list(queue.group.deliveries.values()):
        if delivery:  # not what has ended since the list was made
            found[delivery.session].add(delivery)
        looked_at += 1 + len(delivery.singles)
        if looked_at >= STEP:
            looked_at = 0
            await asyncio.sleep(0)
    return found


def _view(ask: Ask, number: int, holds: _Holds) -> QueueHolder:
    session = ask.subject.store.sessions.get(number)
    oldest = holds.oldest
    return QueueHolder(
        number,
        session.client if session else "",
        peer_of(ask, number),
        session.connected if session else False,
        holds.consumers,
        holds.prefetch,
        holds.held,
        holds.begun,
        oldest.started_unix_ms if oldest else 0,
        f"{oldest.block.origin}-{oldest.sequence}" if oldest else "",
    )
