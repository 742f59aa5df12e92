"""The log of a real broker stays as small as what lives, and a crash finds all of that in it."""

from __future__ import annotations

import asyncio
from typing import Any

import minibroker
from support.broker import BrokerServer, StartBroker
from support.log_files import log_bytes

SEGMENT_BYTES = 256 * 1024
ROUNDS, MESSAGES, BODY_BYTES = 60, 100, 1_000  # 6 MB, through segments of 256 KiB
LIVE_BYTES = 200_000  # of what waits all the time, about


async def keep(broker: minibroker.Broker) -> None:
    """Leave messages of every kind to wait: ready, with a key, delayed, failed, dead."""
    queue = broker.queue("kept")
    await queue.set(max_attempts=2, retry_delay_ms=3_600_000, retry_cap_ms=3_600_000)
    await queue.publish_many([b"%d" % number * 100 for number in range(300)])
    await queue.publish({"key": "k"}, key="k", headers={"h": 1})
    await queue.publish(b"late", delay=3_600)
    failing, dying = await queue.receive(2)
    await failing.nack("no", confirmed=True)
    await dying.reject("never", confirmed=True)


async def pass_through(broker: minibroker.Broker) -> None:
    """Publish some messages and ack them all."""
    queue = broker.queue("passing")
    bodies = [b"x" * BODY_BYTES] * MESSAGES
    await queue.publish_many(bodies)
    async with queue.consume(prefetch=MESSAGES) as messages:
        left = MESSAGES
        async for message in messages:
            await message.ack()
            left -= 1
            if not left:
                break


async def state_of(server: BrokerServer) -> list[Any]:
    """Return what peek shows of the kept queue and its DLQ."""
    async with minibroker.connect(server.url) as broker:
        found = []
        for name in ("kept", "kept.dlq"):
            for message in await broker.queue(name).peek(1_000):
                about = {
                    name: message.info[name]
                    for name in ("state", "key", "history", "attempts")
                    if name in message.info
                }
                found.append((str(message.id), about, message.raw, message.headers))
        return sorted(found, key=lambda entry: entry[0])


async def test_the_log_stays_bounded_while_a_few_messages_wait(start_broker: StartBroker) -> None:
    """Twice what lives and two segments, however much passes; and a SIGKILL loses nothing of it."""
    server = start_broker("--segment-bytes", str(SEGMENT_BYTES))
    async with minibroker.connect(server.url) as broker:
        await keep(broker)
        kept = await state_of(server)
        assert len(kept) == 302
        for _ in range(ROUNDS):
            await pass_through(broker)
        async with asyncio.timeout(10):
            while log_bytes(server.data_dir) > 2 * LIVE_BYTES + 3 * SEGMENT_BYTES:
                await pass_through(broker)
    assert not list(server.data_dir.glob("segment-0000000001-*"))
    server.kill()
    await asyncio.to_thread(server.restart)
    assert await state_of(server) == kept
    async with minibroker.connect(server.url) as broker:
        await pass_through(broker)
        assert await broker.queue("kept.dlq").redrive() == 1
    await asyncio.to_thread(server.restart)
    assert len(await state_of(server)) == 302
