"""`queue.join()` in memory and on a real broker: it returns when the work is done, and asks rarely."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

import minibroker
from minibroker import Message
from minibroker.testing import MemoryBroker, ServerProcess
from support.late_joins import left_of


@pytest.fixture(params=["memory", "server"])
async def broker(
    request: pytest.FixtureRequest, minibroker_server: ServerProcess
) -> AsyncIterator[minibroker.Broker]:
    """A client of either broker."""
    url = "memory://" if request.param == "memory" else minibroker_server.url
    async with minibroker.connect(url) as broker:
        yield broker


async def test_it_returns_when_everything_is_acked(
    broker: minibroker.Broker, request: pytest.FixtureRequest
) -> None:
    queue = broker.queue(f"all-{request.node.callspec.params['broker']}")
    seen = 0

    async def handle(message: Message[Any]) -> None:
        nonlocal seen
        await asyncio.sleep(0)
        seen += 1

    await queue.publish_many([b"x"] * 500)
    run = asyncio.create_task(queue.run(handle, concurrency=8))
    await queue.join(timeout=60)
    assert seen == 500
    counters = (await queue.stats())["queues"][queue.name]
    assert counters["acked"] == 500
    run.cancel()


async def test_what_is_left_is_said(
    broker: minibroker.Broker, request: pytest.FixtureRequest
) -> None:
    queue = broker.queue(f"left-{request.node.callspec.params['broker']}")
    await queue.publish_many([b"x"] * 3)
    (message,) = await queue.receive()
    assert await left_of(queue) == "2 ready, 1 begun"
    await message.ack()
    await queue.purge()
    await queue.join(timeout=60)


async def test_delayed_ones_count_only_if_asked_for(
    broker: minibroker.Broker, request: pytest.FixtureRequest
) -> None:
    queue = broker.queue(f"delayed-{request.node.callspec.params['broker']}")
    await queue.publish(b"x", delay=3_600)
    await queue.join(timeout=60)
    assert await left_of(queue, delayed=True) == "1 delayed"


async def test_a_queue_that_nobody_published_to_is_done(broker: minibroker.Broker) -> None:
    await broker.queue("never").join(timeout=60)


async def test_it_asks_more_and_more_rarely(
    minibroker: MemoryBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While nothing changes; a change makes it look closely again."""
    queue = minibroker.queue("q")
    await queue.publish(b"x")
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 12:
            await queue.purge()

    monkeypatch.setattr("minibroker.aio.joining.asyncio.sleep", sleep)
    await queue.join(timeout=60)
    assert waits[:4] == [0.005, 0.01, 0.02, 0.04]
    assert waits[-1] == 0.5
