"""RabbitMQ through aio-pika: a durable queue, persistent messages, publisher confirms.

The option is the kind of the queue. A basic.ack has no answer; a question on the same channel, answered behind
all acks, says that they have arrived.
"""

from __future__ import annotations

import asyncio
from typing import Any

import aio_pika
from benchmarks.peers.client import Seen, in_tasks

QUEUE = "bench"
CONNECT_TIMEOUT_S = 10.0


class Client:
    """One connection, with a channel for publishing and one for consuming."""

    def __init__(self, url: str, option: str) -> None:
        self._url = url.replace("amqp://", "amqp://guest:guest@")
        self._arguments: Any = {"x-queue-type": option}

    async def open(self) -> None:
        """Connect, and declare the queue."""
        self._connection = await aio_pika.connect(self._url, timeout=CONNECT_TIMEOUT_S)
        publishing = await self._connection.channel(publisher_confirms=True)
        self._exchange = publishing.default_exchange
        self._consuming = await self._connection.channel(publisher_confirms=False)
        self._queue = await self._consuming.declare_queue(
            QUEUE, durable=True, arguments=self._arguments
        )

    async def close(self) -> None:
        """Leave."""
        await self._connection.close()

    async def publish(self, body: bytes) -> None:
        """Publish one message; returns with its confirm."""
        message = aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
        await self._exchange.publish(message, QUEUE)

    async def publish_single(self, body: bytes, count: int, window: int) -> None:
        """Publish in as many tasks as the window is wide."""
        await in_tasks(count, window, self.publish, body)

    async def publish_batches(self, body: bytes, count: int, batch: int, window: int) -> None:
        """Publish in gathered batches: the protocol knows no batch, but confirms several at once."""

        async def publish() -> None:
            await asyncio.gather(*(self.publish(body) for _ in range(batch)))

        await in_tasks(count // batch, window, publish)

    async def consume(self, count: int, prefetch: int, many: bool, seen: Seen) -> None:
        """Ack each message, or with `multiple` every half of the prefetch, so that it never runs dry."""
        await self._consuming.set_qos(prefetch_count=prefetch)
        every = max(1, prefetch // 2) if many else 1
        left, done = count, asyncio.get_running_loop().create_future()

        async def take(message: aio_pika.abc.AbstractIncomingMessage) -> None:
            nonlocal left
            seen(message.body)
            left -= 1
            last = left == 0  # looked at now: others run while this one acks
            if last or left % every == 0:
                await message.ack(multiple=many)
            if last:
                done.set_result(None)

        tag = await self._queue.consume(take)
        await done
        await self._queue.cancel(tag)
        await self.waiting()

    async def purge(self) -> None:
        """Empty the queue."""
        await self._queue.purge()

    async def waiting(self) -> int:
        """Declare the queue passively, which tells its ready messages."""
        declared = await self._consuming.declare_queue(QUEUE, passive=True)
        return int(declared.declaration_result.message_count or 0)

    async def server_bytes(self) -> int:
        """The protocol does not tell."""
        return 0
