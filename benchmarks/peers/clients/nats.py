"""NATS JetStream through nats-py: a work-queue stream on files, one durable pull consumer.

An ack is a publish without an answer; a ping of the connection, answered behind all acks, says that they have
arrived. With the option `replicated` the stream has three replicas, and the server that this client is connected
to leads it and its consumer, so that nothing takes a detour.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import nats
from benchmarks.peers.client import Seen, in_tasks
from nats.errors import TimeoutError as NothingCame
from nats.js.api import ConsumerConfig, RetentionPolicy, StorageType, StreamConfig

STREAM, SUBJECT, CONSUMER = "bench", "bench.work", "workers"
MOST_PENDING = 20_000  # default 4,000: less than the 20 batches in flight
MOST_UNACKED = 2_000  # default 1,000: what a consumer of the largest prefetch would just fill
FETCH_TIMEOUT_S = 5.0
SETTLE_S = 0.2


class Client:
    """One connection."""

    def __init__(self, url: str, option: str) -> None:
        self._url, self._replicas = url, 3 if option == "replicated" else 1

    async def open(self) -> None:
        """Connect, and make the stream and its consumer; both may be there already."""
        self._nats = await nats.connect(self._url, allow_reconnect=False)
        self._stream: Any = self._nats.jetstream(publish_async_max_pending=MOST_PENDING)
        await self._stream.add_stream(
            StreamConfig(
                name=STREAM,
                subjects=[SUBJECT],
                storage=StorageType.FILE,
                retention=RetentionPolicy.WORK_QUEUE,
                num_replicas=self._replicas,
            )
        )
        self._pull = await self._stream.pull_subscribe(
            SUBJECT, durable=CONSUMER, config=ConsumerConfig(max_ack_pending=MOST_UNACKED)
        )
        if self._replicas > 1:
            await self._bring_near(f"STREAM.INFO.{STREAM}", f"STREAM.LEADER.STEPDOWN.{STREAM}")
            consumer = f"{STREAM}.{CONSUMER}"
            await self._bring_near(
                f"CONSUMER.INFO.{consumer}", f"CONSUMER.LEADER.STEPDOWN.{consumer}"
            )

    async def _bring_near(self, question: str, wish: str) -> None:
        """Have the server lead that this client is connected to."""
        name = self._nats._server_info["server_name"]
        wanted = json.dumps({"placement": {"preferred": name}}).encode()
        while True:
            said = json.loads((await self._nats.request(f"$JS.API.{question}")).data)
            leader = said["cluster"].get("leader")
            if leader == name:
                return
            if leader:
                await self._nats.request(f"$JS.API.{wish}", wanted)
            await asyncio.sleep(SETTLE_S)

    async def close(self) -> None:
        """Leave."""
        await self._nats.close()

    async def publish(self, body: bytes) -> None:
        """Publish one message; returns with its confirm."""
        await self._stream.publish(SUBJECT, body)

    async def publish_single(self, body: bytes, count: int, window: int) -> None:
        """Publish in as many tasks as the window is wide."""
        await in_tasks(count, window, self._stream.publish, SUBJECT, body)

    async def publish_batches(self, body: bytes, count: int, batch: int, window: int) -> None:
        """Publish without waiting, then await the confirms of the batch."""

        async def publish() -> None:
            sent = [await self._stream.publish_async(SUBJECT, body) for _ in range(batch)]
            await asyncio.gather(*sent)

        await in_tasks(count // batch, window, publish)

    async def consume(self, count: int, prefetch: int, many: bool, seen: Seen) -> None:
        """Fetch as many as the prefetch says, ack each, fetch again."""
        left = count
        while left:
            try:
                messages = await self._pull.fetch(min(prefetch, left), timeout=FETCH_TIMEOUT_S)
            except NothingCame:
                continue
            for message in messages:
                seen(message.data)
                await message.ack()
            left -= len(messages)
        await self._nats.flush()

    async def purge(self) -> None:
        """Empty the stream."""
        await self._stream.purge_stream(STREAM)

    async def waiting(self) -> int:
        """Return the messages of the stream."""
        return int((await self._stream.stream_info(STREAM)).state.messages)

    async def server_bytes(self) -> int:
        """JetStream counts the bytes of its files, not its memory."""
        return 0
