"""Clients that have the addresses of two brokers, while one after the other leads: it is as over a restart."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import minibroker
from minibrokerd.process import exits
from support.broker import BrokerServer, StartBroker
from support.processes import look_until

sys.path.append(str(Path(__file__).parent.parent / "conformance"))
import blocking

Connect = Callable[..., Any]
NewStream = Callable[[], str]
DEADLINE_S = (
    60.0  # of a call, and of the test for what it waits for: far above what a takeover takes
)


@pytest.fixture(params=["aio", "sync"])
def connect(request: pytest.FixtureRequest) -> Connect:
    """The `connect` of one client."""
    return minibroker.connect if request.param == "aio" else blocking.Connecting


class Pair:
    """Two brokers on one stream: `leader` leads, `other` stands by."""

    def __init__(self, start_broker: StartBroker, new_stream: NewStream) -> None:
        address = new_stream()
        self.leader = start_broker("--log", address)
        self.other = start_broker("--log", new_stream())  # to have a port
        self.other.kill()
        self.leader.flags = self.other.flags = ("--log", address, "--standby")
        self._launch(self.other)
        self.url = ",".join(f"127.0.0.1:{each.port}" for each in (self.other, self.leader))
        self.url = f"minibroker://{self.url}"

    def _launch(self, server: BrokerServer) -> None:
        server.lines.clear()
        server.launch()
        server.prints("standing_by")

    def take_over(self, end: Callable[[BrokerServer], object]) -> None:
        """Have the leader end, the other one lead, and the first one stand by."""
        self.leader, self.other = self.other, self.leader
        end(self.other)
        look_until(
            lambda: "listening on" in self.leader.output, self.leader.process, "a second leader"
        )
        self._launch(self.other)


@pytest.fixture
def pair(start_broker: StartBroker, new_stream: NewStream) -> Pair:
    return Pair(start_broker, new_stream)


def stopped(server: BrokerServer) -> None:
    assert server.stop() == exits.DONE


async def test_nothing_is_lost_and_nothing_comes_twice(
    connect: Connect, pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    """A publisher and a consumer go on over a kill and over a stop; what was begun is acked at the next broker."""
    caplog.set_level(logging.INFO, "minibroker")
    seen: list[int] = []
    published: list[int] = []
    is_over = asyncio.Event()
    reached = {count: asyncio.Event() for count in (100, 200, 300)}
    held: list[Any] = []

    async def publish(queue: Any) -> None:
        while not is_over.is_set():
            number = len(published)
            await queue.publish(number)
            published.append(number)

    async def consume(queue: Any) -> None:
        async with queue.consume(prefetch=10) as messages:
            async for message in messages:
                if message.body < 0:
                    await message.ack()
                    return
                seen.append(message.body)
                if len(seen) in reached:
                    reached[len(seen)].set()
                if message.body in (0, 100):
                    held.append(message)
                    continue
                await message.ack()

    async with (
        connect(pair.url, timeout=DEADLINE_S) as producer,
        connect(pair.url, timeout=DEADLINE_S) as worker,
    ):
        consuming = asyncio.create_task(consume(worker.queue("orders")))
        publishing = asyncio.create_task(publish(producer.queue("orders")))
        async with asyncio.timeout(2 * DEADLINE_S):
            for end, count in ((BrokerServer.kill, 100), (stopped, 200)):
                await reached[count].wait()
                await asyncio.to_thread(pair.take_over, end)
                await held.pop(0).ack()
            await reached[300].wait()
            is_over.set()
            await publishing
            await producer.queue("orders").publish(-1)
            await consuming
        assert sorted(seen) == published
        stats = (await worker.queue("orders").stats())["queues"]["orders"]
    assert [stats[state] for state in ("ready", "held", "begun")] == [0, 0, 0]
    assert "of orders" not in caplog.text, "a message was lost"


async def test_a_leader_that_stands_still_is_left(connect: Connect, pair: Pair) -> None:
    """No connection ends, and still what was begun is kept, and acked at the broker that leads meanwhile."""
    async with connect(pair.url, timeout=DEADLINE_S) as broker:
        queue = broker.queue("orders")
        await queue.publish("a")
        (message,) = await queue.receive(lease=6)
        pair.leader.process.send_signal(signal.SIGSTOP)
        try:
            await queue.publish("b")
            assert pair.other.output.count("listening on") == 1
            assert [each.body for each in await queue.receive(2)] == ["b"]
            assert not await queue.receive(wait=6), (
                "its lease was renewed at the one that stands still"
            )
            await message.ack()
        finally:
            pair.leader.process.send_signal(signal.SIGCONT)
        assert await asyncio.to_thread(pair.leader.process.wait, DEADLINE_S) == exits.DEPOSED


async def test_who_leads_is_found_although_it_is_named_last(
    connect: Connect, pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "minibroker")
    async with connect(pair.url, timeout=DEADLINE_S) as broker:
        await broker.queue("orders").publish("a")
        assert f"the one at 127.0.0.1:{pair.leader.port} does" in caplog.text
        await asyncio.to_thread(pair.take_over, BrokerServer.kill)
        await broker.queue("orders").publish("b")
        assert [peek.body for peek in await broker.queue("orders").peek()] == ["a", "b"]
