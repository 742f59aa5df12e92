"""The stream stays short: what lives is copied forward, and what is behind a checkpoint is purged."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import minibroker
from minibrokerd.replicated.history import STRETCH_BYTES
from minibrokerd.replicated.nats_stream import NatsStream
from minibrokerd.replicated.stream import Info
from minibrokerd.replicated.stream_address import parse
from support.broker import StartBroker

BODY = b"x" * 900_000
ROUNDS, EACH = 12, 10  # more than 100 MB


async def info_of(address: str) -> Info:
    """Return what the server says of a stream."""
    stream = NatsStream(parse(address))
    await stream.open()
    try:
        return await stream.info()
    finally:
        await stream.close()


async def test_a_stream_is_trimmed_and_keeps_what_lives(
    start_broker: StartBroker, new_stream: Callable[[], str]
) -> None:
    address = new_stream()
    server = await asyncio.to_thread(start_broker, "--log", address)
    async with minibroker.connect(server.url) as broker:
        kept = broker.queue("kept")
        await kept.publish("from the first stretch")
        queue = broker.queue("orders")
        for _ in range(ROUNDS):
            await queue.publish_many([BODY] * EACH)
            left = EACH
            while left:
                for message in await queue.receive(EACH):
                    await message.ack()
                    left -= 1
        for _ in range(100):  # trimming goes on with what is written
            await kept.publish("later")
            info = await info_of(address)
            if info.size_bytes < 3 * STRETCH_BYTES:
                break
    assert info.first > 1
    assert info.size_bytes < 3 * STRETCH_BYTES, info
    server.kill()
    await asyncio.to_thread(server.restart)
    async with minibroker.connect(server.url) as broker:
        found = await broker.queue("kept").peek(1)
        assert [message.body for message in found] == ["from the first stretch"]
        assert not await broker.queue("orders").peek(1)
