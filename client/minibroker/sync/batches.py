"""Batches: many messages that one handler takes, works on and acknowledges at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from minibroker.session.batching import end_all
from minibroker.sync.message import Message

Body = TypeVar("Body")


class Batch(list[Message[Body]]):
    """Messages that were begun together, in their order; each may be settled by itself, too."""

    def ack(self) -> None:
        """Acknowledge all messages; where some were settled or lost before, all others, and LeaseLost is raised.

        As `Message.ack` it does not wait for the server; leaving the block of `consume` does.
        """
        if not self:
            return
        if type(self[0]) is not Message:  # with a span for each
            for message in self:
                message.ack()
            return
        driver, settlements = self[0].run.delivery.shell, self[0].run.settlements
        with driver:
            ended, error = end_all(self)
            settlements.acks += ended
            is_ripe = len(settlements.acks) >= settlements.flush_at
            waiter = settlements.on_ripe() if is_ripe else None
        if waiter is not None:
            driver.wait(waiter)
        if error is not None:
            raise error


def batches_of(
    take: Callable[[int], list[Message[Body]] | None], most: int
) -> Iterator[Batch[Body]]:
    """Yield what a consumer can take each time, up to `most` messages."""
    while (messages := take(most)) is not None:
        yield Batch(messages)
