"""What a client module must do, so that worker.py can give all of them the same work.

`clients/NAME.py` has one class `Client` for the peer NAME. Messages are bytes on every side.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol, cast

Seen = Callable[[bytes], object]  # called with each body that is consumed


class Client(Protocol):
    """One connection (or more, where that is what the peer's users do) to one queue."""

    async def open(self) -> None:
        """Connect, and make the queue."""

    async def close(self) -> None:
        """Leave."""

    async def publish(self, body: bytes) -> None:
        """Publish one message; return when it is confirmed."""

    async def publish_single(self, body: bytes, count: int, window: int) -> None:
        """Publish message by message, `window` of them waiting for their confirms."""

    async def publish_batches(self, body: bytes, count: int, batch: int, window: int) -> None:
        """Publish in batches, `window` of them in flight."""

    async def consume(self, count: int, prefetch: int, many: bool, seen: Seen) -> None:
        """Consume and ack `count` messages; return when the server has all acks."""

    async def purge(self) -> None:
        """Empty the queue."""

    async def waiting(self) -> int:
        """Return the number of waiting messages, which the server must have recovered to tell."""

    async def server_bytes(self) -> int:
        """Return the memory that the server itself says it uses; 0 if it does not say."""


class Blocking(Protocol):
    """What the client of a peer that `blocks` has besides."""

    def blocking(self) -> Callable[[bytes], object]:
        """Return what publishes one message and blocks until it is confirmed, on a connection of its own."""


def make(peer: str, url: str, option: str) -> Client:
    """Return the client of a peer; its module is imported here, as not every machine has it."""
    module = importlib.import_module(f"benchmarks.peers.clients.{peer}")
    return cast(Client, module.Client(url, option))


def shares(count: int, parts: int) -> list[int]:
    """Return `count` in even parts."""
    return [count // parts + (index < count % parts) for index in range(parts)]


async def in_tasks(
    count: int, tasks: int, call: Callable[..., Awaitable[object]], *arguments: object
) -> None:
    """Call `count` times, in tasks that each await one call before the next."""
    # Unpacking the arguments for each call would cost a tenth of what a fast client needs for a message.
    one_call = partial(call, *arguments)

    async def some(share: int) -> None:
        for _ in range(share):
            await one_call()

    async with asyncio.TaskGroup() as group:
        for share in filter(None, shares(count, tasks)):
            group.create_task(some(share))
