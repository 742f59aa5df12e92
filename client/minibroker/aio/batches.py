"""Batches: many messages that one handler takes, works on and acknowledges at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from minibroker.aio.message import Message
from minibroker.session.batching import check_most, end_all

Body = TypeVar("Body")


class Batch(list[Message[Body]]):
    """Messages that were begun together, in their order; each may be settled by itself, too."""

    async def ack(self) -> None:
        """Acknowledge all messages; where some were settled or lost before, all others, and LeaseLost is raised.

        As `Message.ack` it does not wait for the server; leaving the block of `consume` does.
        """
        if not self:
            return
        if type(self[0]) is not Message:  # with a span for each
            for message in self:
                await message.ack()
            return
        self[0]._check_settling()
        ended, error = end_all(self)
        settlements = self[0].run.settlements
        settlements.acks += ended
        if len(settlements.acks) >= settlements.flush_at:
            wait = settlements.on_ripe()
            if wait is not None:
                await wait
        if error is not None:
            raise error


class Batches(Generic[Body]):
    """An async iterator of batches of a consumer; several tasks may have one of the same consumer."""

    def __init__(self, take: Callable[[int], Awaitable[list[Message[Body]]]], most: int) -> None:
        """`take` is that of the consumer."""
        self._take = take
        self._most = check_most(most)

    def __aiter__(self) -> Batches[Body]:
        return self

    async def __anext__(self) -> Batch[Body]:
        return Batch(await self._take(self._most))
