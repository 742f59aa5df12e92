"""The other brokers under test: the real servers, started as by `make bench-peers`, and what tests do there.

Each is skipped, and says why, where its server or its client is not installed.
"""

from __future__ import annotations

import asyncio
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from benchmarks.peers import servers
from benchmarks.peers.sides import find, kafka_libs

ANSWER_S = 60.0  # a bridge that died had leases, which have to end
GROUP = "readers"


class Far(ABC):
    """One server of another kind with one place for messages, and a client that fills and drains it by itself."""

    title = ""
    module = ""
    made = 0

    def __init__(self, server: servers.Server) -> None:
        self.server = server
        type(self).made += 1
        self.place = f"orders{self.made}"

    @classmethod
    @abstractmethod
    def start(cls, folder: Path) -> servers.Server:
        """Start a server; skip the test where there is none."""

    @property
    def origin(self) -> str:
        """What --from says."""
        return self.target

    @property
    @abstractmethod
    def target(self) -> str:
        """What --to says."""

    @abstractmethod
    async def fill(self, bodies: Sequence[bytes]) -> None:
        """Put messages there, safely."""

    @abstractmethod
    async def drain(self, count: int) -> list[bytes]:
        """Take messages until there are `count` different ones, and then what is there; in their order."""

    async def make(self) -> None:
        """Make the place, empty."""
        await self.fill([])


def needs(program: str, module: str) -> None:
    """Skip the test where a server or a client is missing."""
    if find(program) is None or not find_spec(module):
        pytest.skip(f"{program} or the Python package {module} is not installed")


class Rabbit(Far):
    """RabbitMQ with a durable classic queue."""

    title, module = "rabbitmq", "aio_pika"

    @classmethod
    def start(cls, folder: Path) -> servers.Server:
        """Start a node."""
        needs(servers.RabbitServer.program, cls.module)
        server = servers.RabbitServer(folder, "classic")
        server.start()
        return server

    @property
    def target(self) -> str:
        """The queue."""
        return f"amqp://guest:guest@127.0.0.1:{self.server.port}/?queue={self.place}"

    async def channel(self) -> Any:
        """Return a connection and a channel of it."""
        import aio_pika

        connection = await aio_pika.connect(port=self.server.port)
        return connection, await connection.channel()

    async def fill(self, bodies: Sequence[bytes]) -> None:
        """Publish with confirms."""
        import aio_pika

        connection, channel = await self.channel()
        async with connection:
            await channel.declare_queue(self.place, durable=True)
            mode = aio_pika.DeliveryMode.PERSISTENT
            await asyncio.gather(
                *(
                    channel.default_exchange.publish(
                        aio_pika.Message(body, message_id=body[:40].decode(), delivery_mode=mode),
                        self.place,
                    )
                    for body in bodies
                )
            )

    async def drain(self, count: int) -> list[bytes]:
        """Get until it is empty."""
        return [each.body for each in await self.messages(count)]

    async def messages(self, count: int) -> list[Any]:
        """Consume what is expected, and get one by one what is there then."""
        connection, channel = await self.channel()
        found: list[Any] = []
        async with connection, asyncio.timeout(ANSWER_S):
            queue = await channel.get_queue(self.place)
            if count:
                async with queue.iterator(no_ack=True) as messages:
                    async for message in messages:
                        found.append(message)
                        if len({each.body for each in found}) >= count:
                            break
            while (message := await queue.get(fail=False, no_ack=True)) is not None:
                found.append(message)
            return found


class Redis(Far):
    """Redis with a stream, each write synced."""

    title, module = "redis", "redis"

    @classmethod
    def start(cls, folder: Path) -> servers.Server:
        """Start a server."""
        needs("redis-server", cls.module)
        server = servers.RedisServer(folder, "always")
        server.start()
        return server

    @property
    def target(self) -> str:
        """The stream."""
        return f"redis://127.0.0.1:{self.server.port}/0?stream={self.place}"

    def client(self) -> Any:
        """Return a client, to be used in `async with`."""
        import redis.asyncio

        return redis.asyncio.Redis(port=self.server.port)

    async def fill(self, bodies: Sequence[bytes]) -> None:
        """Add to the stream."""
        async with self.client() as client:
            pipe = client.pipeline(transaction=False)
            for body in bodies:
                pipe.xadd(self.place, {"body": body})
            if bodies:
                await pipe.execute()

    async def drain(self, count: int) -> list[bytes]:
        """Read from the start."""
        return [fields[b"body"] for _, fields in await self.entries(count)]

    async def entries(self, count: int) -> list[Any]:
        """Read from the start."""
        async with self.client() as client, asyncio.timeout(ANSWER_S):
            while True:
                found: list[Any] = await client.xrange(self.place)
                if len({fields[b"body"] for _, fields in found}) >= count:
                    return found


class BriefKafka(servers.KafkaServer):
    """Kafka as it is started for a minute: compiling for speed would take more than that minute gives back."""

    flags = (
        "-Xms256m",
        "-Xmx512m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-XX:-UsePerfData",
    )


def needs_jars() -> None:
    """Skip the test where Kafka itself is not there; Java alone is on many machines."""
    if "KAFKA_HOME" not in os.environ or not any(kafka_libs().glob("*.jar")):
        pytest.skip("KAFKA_HOME names no folder with the jars of Kafka in its libs/")


class Kafka(Far):
    """Kafka with a topic of two partitions."""

    title, module = "kafka", "aiokafka"

    @classmethod
    def start(cls, folder: Path) -> servers.Server:
        """Start a node."""
        needs("java", cls.module)
        needs_jars()
        server = BriefKafka(folder, "")
        server.start()
        return server

    @property
    def target(self) -> str:
        """The topic."""
        return f"kafka://127.0.0.1:{self.server.port}?topic={self.place}"

    async def make(self) -> None:
        """Make the topic."""
        from aiokafka.admin import AIOKafkaAdminClient, NewTopic

        admin = AIOKafkaAdminClient(bootstrap_servers=f"127.0.0.1:{self.server.port}")
        await admin.start()
        try:
            await admin.create_topics([NewTopic(self.place, 2, 1)])
        finally:
            await admin.close()

    async def fill(self, bodies: Sequence[bytes]) -> None:
        """Send, each with a key."""
        from aiokafka import AIOKafkaProducer

        producer = AIOKafkaProducer(bootstrap_servers=f"127.0.0.1:{self.server.port}", acks="all")
        await producer.start()
        try:
            sent = [await producer.send(self.place, body, key=body[-1:]) for body in bodies]
            await asyncio.gather(*sent)
        finally:
            await producer.stop()

    async def drain(self, count: int) -> list[bytes]:
        """Read from the start, by no group."""
        return [each.value for each in await self.records(count)]

    async def records(self, count: int) -> list[Any]:
        """Read from the start, by no group."""
        from aiokafka import AIOKafkaConsumer

        consumer = AIOKafkaConsumer(
            self.place,
            bootstrap_servers=f"127.0.0.1:{self.server.port}",
            auto_offset_reset="earliest",
        )
        await consumer.start()
        found: list[Any] = []
        try:
            async with asyncio.timeout(ANSWER_S):
                while True:
                    pages = await consumer.getmany(timeout_ms=300)
                    found += [record for page in pages.values() for record in page]
                    if not pages and len({each.value for each in found}) >= count:
                        return found
        finally:
            await consumer.stop()


class Nats(Far):
    """NATS with a stream of one subject."""

    title, module = "nats", "nats"

    @classmethod
    def start(cls, folder: Path) -> servers.Server:
        """Start a server."""
        needs("nats-server", cls.module)
        server = servers.NatsServer(folder, "always")
        server.start()
        return server

    @property
    def origin(self) -> str:
        """The stream."""
        return f"nats://127.0.0.1:{self.server.port}?stream={self.place}"

    @property
    def target(self) -> str:
        """The subject."""
        return f"nats://127.0.0.1:{self.server.port}?subject={self.place}"

    async def client(self) -> Any:
        """Return a client."""
        import nats

        return await nats.connect(f"nats://127.0.0.1:{self.server.port}")

    async def fill(self, bodies: Sequence[bytes]) -> None:
        """Publish, and await all acks."""
        client = await self.client()
        try:
            stream = client.jetstream(timeout=ANSWER_S)
            await stream.add_stream(name=self.place, subjects=[self.place])
            for first in range(0, len(bodies), 100):  # each is synced
                some = bodies[first : first + 100]
                await asyncio.gather(*(stream.publish(self.place, body) for body in some))
        finally:
            await client.close()

    async def drain(self, count: int) -> list[bytes]:
        """Read from the start."""
        return [each.data for each in await self.messages(count)]

    async def messages(self, count: int) -> list[Any]:
        """Read from the start."""
        client = await self.client()
        pull = await client.jetstream().pull_subscribe(self.place, stream=self.place)
        found: list[Any] = []
        async with asyncio.timeout(ANSWER_S):
            while True:
                try:
                    page = await pull.fetch(500, timeout=0.3)
                    for each in page:
                        await each.ack()
                    found += page
                except TimeoutError:
                    if len({each.data for each in found}) >= count:
                        await client.close()
                        return found


KINDS: Sequence[type[Far]] = (Rabbit, Redis, Kafka, Nats)
