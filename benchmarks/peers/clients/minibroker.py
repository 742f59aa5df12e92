"""minibroker, through its client; the option is the durability of the queue."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.peers.client import Seen, in_tasks

import minibroker
from minibroker import sync


class Client:
    """Each message is acked by `process()`; leaving `consume` waits until the acks are confirmed."""

    def __init__(self, url: str, option: str) -> None:
        self._url, self._durability = url, option
        self._blocking: sync.Broker | None = None

    async def open(self) -> None:
        """Connect, and set the durability of the queue."""
        self._broker = await minibroker.connect(self._url)
        self._queue = self._broker.queue("bench", bytes)
        await self._queue.set(durability=self._durability)

    async def close(self) -> None:
        """Leave."""
        await self._broker.close()
        if self._blocking is not None:
            self._blocking.close()

    async def publish(self, body: bytes) -> None:
        """Publish one message."""
        await self._queue.publish(body)

    def blocking(self) -> Callable[[bytes], object]:
        """The client that blocks; the durability is that of the queue."""
        if self._blocking is None:
            self._blocking = sync.connect(self._url)
        return self._blocking.queue("bench", bytes).publish

    async def publish_single(self, body: bytes, count: int, window: int) -> None:
        """Publish in as many tasks as the window is wide, each awaiting every message."""
        await in_tasks(count, window, self._queue.publish, body)

    async def publish_batches(self, body: bytes, count: int, batch: int, window: int) -> None:
        """Publish with publish_many."""
        await in_tasks(count // batch, window, self._queue.publish_many, [body] * batch)

    async def consume(self, count: int, prefetch: int, many: bool, seen: Seen) -> None:
        """Consume; each message is acked by itself, or `many` at once: all that were there."""
        async with self._queue.consume(prefetch=prefetch) as messages:
            if many:
                async for batch in messages.batches(prefetch):
                    for message in batch:
                        seen(message.body)
                    await batch.ack()
                    count -= len(batch)
                    if count <= 0:
                        return
            async for message in messages:
                async with message.process():
                    seen(message.body)
                count -= 1
                if not count:
                    break

    async def purge(self) -> None:
        """Empty the queue."""
        await self._queue.purge()

    async def waiting(self) -> int:
        """Return the counter of ready messages."""
        stats = await self._queue.stats()
        return int(stats["queues"]["bench"]["ready"])

    async def server_bytes(self) -> int:
        """Nothing beside the resident memory is compared."""
        return 0
