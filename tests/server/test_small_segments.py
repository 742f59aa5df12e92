"""Every verb on a server with small segments: nothing that a client sends, and nothing that follows, ends it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import minibroker
from minibroker.contract import limits
from minibroker.contract.errors import MinibrokerError
from support.broker import StartBroker

TEXT = "E" * 1_024
MESSAGES = 1_000
SIZES = [64 * 1024, 128 * 1024, 256 * 1024, 1024 * 1024]
segments = pytest.mark.parametrize("segment_bytes", SIZES, ids=lambda size: f"{size // 1024} KiB")


async def filled(broker: minibroker.Broker, name: str, count: int = MESSAGES) -> minibroker.Queue:
    """Return a queue with small messages in it."""
    queue = broker.queue(name)
    for _ in range(count // 100):
        await queue.publish_many([b"x" * 20] * 100)
    return queue


@segments
async def test_failures_with_long_texts_dead_letters_and_their_way_back(
    segment_bytes: int, start_broker: StartBroker
) -> None:
    """All of them in one turn of the client, so that they come in few frames."""
    server = start_broker("--segment-bytes", str(segment_bytes))
    async with minibroker.connect(server.url) as broker:
        queue = await filled(broker, "jobs")
        await queue.set(max_attempts=3, retry_delay_ms=0)
        for attempt in range(3):
            messages = await queue.receive(count=MESSAGES, wait=20)
            while len(messages) < MESSAGES:
                messages += await queue.receive(count=MESSAGES, wait=20)
            assert len(messages) == MESSAGES, attempt
            await asyncio.gather(*[m.nack(TEXT, confirmed=True) for m in messages])
        dead = broker.queue("jobs.dlq")
        assert (await dead.stats())["queues"]["jobs.dlq"]["ready"] == MESSAGES
        assert await dead.redrive() == MESSAGES
        messages = await queue.receive(count=MESSAGES, wait=20)
        await asyncio.gather(*[m.release(confirmed=True) for m in messages])
        assert (await queue.stats())["queues"]["jobs"]["ready"] > 0
    await asyncio.to_thread(server.restart)
    async with minibroker.connect(server.url) as broker:
        queue = broker.queue("jobs")
        assert (await queue.stats())["queues"]["jobs"]["ready"] + 0 <= MESSAGES
        assert await queue.purge() == MESSAGES


@segments
async def test_a_body_of_the_promised_size_and_one_byte_more(
    segment_bytes: int, start_broker: StartBroker
) -> None:
    server = start_broker("--segment-bytes", str(segment_bytes))
    async with minibroker.connect(server.url) as broker:
        queue = broker.queue("mails")
        await broker.ping()
        most = broker._driver.session.max_message_bytes
        await queue.publish(bytes(most))
        with pytest.raises(MinibrokerError):
            await queue.publish(bytes(most + 1))
        # Copied forward with its history, and handed out again.
        for _ in range(3):
            [message] = await queue.receive(wait=20)
            await message.nack(TEXT, delay=0, confirmed=True)
        for _ in range(3 * segment_bytes // 30_000 + 3):
            await broker.queue("other").publish(bytes(20_000))
        [message] = await queue.receive(wait=20)
        assert message.raw == bytes(most)
        await message.ack(confirmed=True)


@segments
async def test_results_of_the_largest_size_are_kept(
    segment_bytes: int, start_broker: StartBroker
) -> None:
    """In the smallest segments a frame with one of them is larger than any publish may be."""
    server = start_broker("--segment-bytes", str(segment_bytes))
    async with minibroker.connect(server.url) as broker:
        queue = await filled(broker, "jobs", 100)
        await queue.set(result_ms=60_000)
        messages = await queue.receive(count=10, wait=20)
        results = [bytes([n]) * (limits.MAX_RESULT_BYTES - 5) for n in range(10)]
        ends = zip(messages, results, strict=True)
        await asyncio.gather(*[m.complete(result, confirmed=True) for m, result in ends])
    await asyncio.to_thread(server.restart)
    async with minibroker.connect(server.url) as broker:
        queue = broker.queue("jobs")
        assert [await queue.result(each.id, timeout=20) for each in messages] == results


async def test_settings_of_many_queues_are_copied_forward_beside_traffic(
    start_broker: StartBroker,
) -> None:
    server = start_broker("--segment-bytes", str(64 * 1024))
    async with minibroker.connect(server.url) as broker:
        for at in range(0, 1_000, 100):
            await asyncio.gather(
                *[broker.queue(f"q-{n}").set(max_attempts=1 + n) for n in range(at, at + 100)]
            )
        for _ in range(60):
            queue = await filled(broker, "busy", 200)
            messages = await queue.receive(count=200, wait=20)
            await asyncio.gather(*[m.ack(confirmed=True) for m in messages])
    await asyncio.to_thread(server.restart)
    assert server.running


@segments
async def test_a_group_is_fed_more_than_a_segment_takes(
    segment_bytes: int, start_broker: StartBroker
) -> None:
    """What is read of the files at once is a megabyte: of small segments none has room for that."""
    server = start_broker("--segment-bytes", str(segment_bytes))
    bodies = [b"%d" % number + b"." * 1_000 for number in range(2_000)]
    async with minibroker.connect(server.url) as broker:
        log = broker.queue("log", kind="log")
        for at in range(0, len(bodies), 20):
            await log.publish_many(bodies[at : at + 20])
        await broker.log("log").declare_group("g")
        group, got = broker.queue("log@g"), list[bytes]()
        while len(got) < len(bodies):
            messages = await group.receive(count=500, wait=20)
            assert messages, f"nothing comes behind {len(got)}"
            got += [message.raw for message in messages]
            await asyncio.gather(*[message.ack() for message in messages])
    assert got == bodies


async def test_a_log_with_larger_messages_goes_on_in_smaller_segments(
    start_broker: StartBroker, tmp_path: Path
) -> None:
    """What fits into no segment gets one of its own, when it is copied forward."""
    data = tmp_path / "data"
    server = start_broker("--segment-bytes", str(4 * 1024 * 1024), data_dir=data)
    async with minibroker.connect(server.url) as broker:
        await broker.queue("large").publish(b"L" * 1_000_000)
        await broker.queue("large").publish_many([b"m" * 10_000] * 50)
    server.close()
    server = start_broker("--segment-bytes", str(64 * 1024), data_dir=data)
    async with minibroker.connect(server.url) as broker:
        for _ in range(40):
            queue = await filled(broker, "busy", 500)
            messages = await queue.receive(count=500, wait=20)
            await asyncio.gather(*[m.ack(confirmed=True) for m in messages])
    server.close()
    server = start_broker("--segment-bytes", str(64 * 1024), data_dir=data)
    async with minibroker.connect(server.url) as broker:
        bodies = [
            message.raw for message in await broker.queue("large").receive(count=100, wait=20)
        ]
        assert bodies[0] == b"L" * 1_000_000
        assert bodies[1:] == [b"m" * 10_000] * (len(bodies) - 1)
