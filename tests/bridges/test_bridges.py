"""`minibroker bridge` with the real servers: both ways, over deaths of each of the three processes."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from far_brokers import Far
from running_bridge import Run

import minibroker
from support.broker import BrokerServer

QUEUE = "orders"


def numbered(count: int) -> list[bytes]:
    """Return bodies that all differ."""
    return [b"message %06d" % number for number in range(count)]


async def taken(server: BrokerServer, count: int) -> list[Any]:
    """Take messages until there are `count` different ones, and then what is there; in their order."""
    found: list[Any] = []
    async with minibroker.connect(server.url) as broker, asyncio.timeout(60):
        while True:
            messages = await broker.queue(QUEUE).receive(500, wait=0.2)
            for message in messages:
                await message.ack()
            found += messages
            if not messages and len({each.raw for each in found}) >= count:
                return found


async def fill_here(server: BrokerServer, bodies: list[bytes]) -> None:
    """Publish messages."""
    async with minibroker.connect(server.url) as broker:
        await broker.queue(QUEUE).publish_many(bodies)


def test_all_come_in_once(far: Far, broker_server: BrokerServer, bridge: Run) -> None:
    bodies = numbered(1_200)
    asyncio.run(far.fill(bodies))
    bridge("--from", far.origin, "--to", QUEUE, "--until-empty").ends()
    found = [each.raw for each in asyncio.run(taken(broker_server, len(bodies)))]
    assert Counter(found) == Counter(bodies)
    again = bridge("--from", far.origin, "--to", QUEUE, "--until-empty").ends()
    assert "handed over 0 messages" in again


def test_all_go_out_once(far: Far, broker_server: BrokerServer, bridge: Run) -> None:
    bodies = numbered(1_200)
    asyncio.run(fill_here(broker_server, bodies))
    bridge("--from", QUEUE, "--to", far.target, "--until-empty").ends()
    assert Counter(asyncio.run(far.drain(len(bodies)))) == Counter(bodies)
    assert asyncio.run(taken(broker_server, 0)) == []
