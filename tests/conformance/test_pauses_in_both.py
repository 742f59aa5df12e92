"""Pauses over both clients, on a server and on a broker in process."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import minibroker


async def test_a_queue_is_paused_and_resumed(broker: Any, queue: Any) -> None:
    await queue.publish_many([b"0", b"1"])
    (job,) = await queue.receive()
    until = datetime.now(UTC) + timedelta(hours=1)
    pause = await queue.pause(until=until)
    assert (pause.queue, pause.by, pause.begun, pause.held) == (queue.name, "tester", 1, 0)
    assert abs(pause.until - until) < timedelta(milliseconds=2)
    assert queue.name in [each.queue for each in await broker.pauses()]
    assert await queue.receive(wait=0.05) == []
    await job.ack()
    assert await queue.resume()
    assert not await queue.resume()
    (job,) = await queue.receive()
    await job.ack()


async def test_a_pause_ends_by_itself(queue: Any) -> None:
    await queue.publish(b"0")
    await queue.pause(for_=0.05)
    (job,) = await queue.receive(wait=10)
    await job.ack()


async def test_workers_below_a_version_get_nothing(
    connect: Callable[..., Any], server: Any, broker: Any, queue: Any
) -> None:
    name = queue.name[:100]
    await queue.publish(b"0")
    async with connect(server.url, name=name, version="1.9", timeout=10) as old:
        pause = await broker.pause_workers(name, below="1.10")
        assert (pause.worker, pause.below, pause.clients) == (name, "1.10", 1)
        assert await old.queue(queue.name).receive() == []
        async with connect(server.url, name=name, version="1.10", timeout=10) as new:
            (job,) = await new.queue(queue.name).receive()
            await job.ack()
    assert await broker.resume_workers(name)
    assert not await broker.resume_workers(name)


async def test_at_the_deadline_a_handler_is_told_and_the_job_is_for_others(
    connect: Callable[..., Any], server: Any, broker: Any, queue: Any
) -> None:
    name = queue.name[:100]
    await queue.publish(b"0")
    async with connect(server.url, name=name, version="1", timeout=10) as old:
        (job,) = await old.queue(queue.name).receive()
        pause = await broker.pause_workers(name, below="2", deadline=0.05)
        assert (pause.in_hand, pause.deadline > pause.since) == (1, True)
        (again,) = await queue.receive(wait=10)
        assert (again.id, again.attempt) == (job.id, 1)
        with pytest.raises(minibroker.LeaseLost):
            await job.ack(confirmed=True)
        await again.ack(confirmed=True)
    await broker.resume_workers(name)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({}, minibroker.BadValue),
        ({"below": "v1"}, minibroker.BadValue),
        ({"name": 5}, TypeError),
        ({"name": "a", "for_": 0}, minibroker.BadValue),
        ({"name": "a", "for_": 1, "until": datetime.now(UTC)}, TypeError),
        ({"name": "a", "until": datetime(2000, 1, 1)}, TypeError),
        ({"name": "a", "until": datetime(2000, 1, 1, tzinfo=UTC)}, minibroker.BadValue),
    ],
)
async def test_what_can_be_no_pause_is_refused(
    broker: Any, arguments: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        await broker.pause_workers(**arguments)


async def test_a_version_is_numbers(connect: Callable[..., Any], server: Any) -> None:
    with pytest.raises(minibroker.BadValue):
        await connect(server.url, version="1.2-rc1")
