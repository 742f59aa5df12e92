"""Kafka through aiokafka: a topic of one partition, a group of one consumer, acks=all.

Kafka keeps what was consumed, and knows no ack of one message: a group commits the offset up to which it is
done. So an ack of each message is a commit after each, and what waits lies behind the last commit.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from benchmarks.peers.client import Seen, in_tasks

TOPIC, GROUP = "bench", "workers"
PARTITION = TopicPartition(TOPIC, 0)
# Default 16 KiB: one request is in flight for a partition, with one batch in it. The server takes 1 MiB.
BATCH_BYTES = 1_000_000
WAIT_MS = 1_000

# It logs what it then tries again: a topic that is not there yet, a coordinator that loads. Failures are raised.
logging.getLogger("aiokafka").setLevel(logging.CRITICAL)


class Client:
    """A producer and a consumer, which joins the group when it first consumes or purges.

    Before that it only asks for offsets: a process that just publishes must not be given the partition.
    """

    def __init__(self, url: str, option: str) -> None:
        self._server = url.removeprefix("kafka://")
        self._opened = AsyncExitStack()

    async def open(self) -> None:
        """Connect; the topic is made when it is first asked for."""
        self._producer = AIOKafkaProducer(
            bootstrap_servers=self._server, acks="all", max_batch_size=BATCH_BYTES
        )
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=self._server,
            group_id=GROUP,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
        )
        # Both are ended if this fails, too: who asks a server that is starting tries again.
        async with AsyncExitStack() as opened:
            for each in (self._producer, self._consumer):
                opened.push_async_callback(each.stop)
                await each.start()
            await self._producer.partitions_for(TOPIC)
            self._opened = opened.pop_all()

    async def close(self) -> None:
        """Leave."""
        await self._opened.aclose()

    async def publish(self, body: bytes) -> None:
        """Publish one message; returns with its confirm."""
        await self._producer.send_and_wait(TOPIC, body)

    async def publish_single(self, body: bytes, count: int, window: int) -> None:
        """Publish in as many tasks as the window is wide; those that wait together go as one batch."""
        await in_tasks(count, window, self._producer.send_and_wait, TOPIC, body)

    async def publish_batches(self, body: bytes, count: int, batch: int, window: int) -> None:
        """Publish batches of the library's own, which cost it less than a future for each message."""
        turn = asyncio.Lock()

        async def publish() -> None:
            built = list(self._built(body, batch))
            # There is room for one batch. Of several that wait for it, each loser is charged all of its time
            # anew whenever it loses, and so fails long before the timeout of the library.
            async with turn:
                sent = [await self._producer.send_batch(each, TOPIC, partition=0) for each in built]
            await asyncio.gather(*sent)

        await in_tasks(count // batch, window, publish)

    def _built(self, body: bytes, messages: int) -> Iterator[Any]:
        """Yield so many messages in as few batches as their size allows."""
        made = self._producer.create_batch()
        for _ in range(messages):
            if made.append(key=None, value=body, timestamp=None) is None:
                yield made
                made = self._producer.create_batch()
                made.append(key=None, value=body, timestamp=None)
        yield made

    async def consume(self, count: int, prefetch: int, many: bool, seen: Seen) -> None:
        """Commit after each message, or once for all that one call returned.

        The prefetch bounds what a call returns; the library fetches up to 1 MiB ahead whatever it is.
        """
        await self._join()
        self._consumer.resume(PARTITION)
        left = count
        while left:
            fetched = await self._consumer.getmany(
                timeout_ms=WAIT_MS, max_records=min(prefetch, left)
            )
            records = fetched.get(PARTITION, [])
            for record in records:
                seen(record.value)
                if not many:
                    await self._consumer.commit({PARTITION: record.offset + 1})
            if many and records:
                await self._consumer.commit({PARTITION: records[-1].offset + 1})
            left -= len(records)
        self._pause()

    async def _join(self) -> None:
        if not self._consumer.subscription():
            self._consumer.subscribe([TOPIC])
        while PARTITION not in self._consumer.assignment():  # noqa: ASYNC110 - no event tells it
            await asyncio.sleep(0.01)

    def _pause(self) -> None:
        # Or the library would fetch what is published next before its time is taken.
        self._consumer.pause(PARTITION)

    async def purge(self) -> None:
        """Commit the end, as if all were done: deleted records are there again after a crash (measured)."""
        await self._join()
        end = await self._end()
        self._consumer.seek(PARTITION, end)
        await self._consumer.commit({PARTITION: end})
        self._pause()

    async def _end(self) -> int:
        return int((await self._consumer.end_offsets([PARTITION]))[PARTITION])

    async def waiting(self) -> int:
        """Return the messages behind the committed offset."""
        return await self._end() - (await self._consumer.committed(PARTITION) or 0)

    async def server_bytes(self) -> int:
        """The protocol does not tell."""
        return 0
