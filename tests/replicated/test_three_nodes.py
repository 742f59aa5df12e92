"""A cluster of three servers of NATS under a broker: what is killed, and what is there afterwards."""

from __future__ import annotations

import asyncio
import signal

import minibroker
from minibrokerd.process import exits
from minibrokerd.replicated.nats_stream import NatsStream
from minibrokerd.replicated.stream_address import parse
from support.broker import BrokerServer, StartBroker
from support.nats_nodes import Nodes

FAR_S = 90.0  # an election of the stream's leader takes up to 9 s, and this machine is shared


async def publish_until(server: BrokerServer, over: asyncio.Event, name: str) -> list[str]:
    """Publish one message after the other, from 4 tasks; return the bodies that were confirmed."""
    confirmed: list[str] = []

    async def one(number: int) -> None:
        count = 0
        while not over.is_set():
            body = f"{name}-{number}-{count}"
            await queue.publish(body)
            confirmed.append(body)
            count += 1

    async with minibroker.connect(server.url) as broker:
        queue = broker.queue("orders")
        await asyncio.gather(*(one(number) for number in range(4)))
    return confirmed


async def stored(server: BrokerServer) -> set[object]:
    """Return all bodies that wait, without taking them."""
    bodies: set[object] = set()
    async with minibroker.connect(server.url) as broker:
        queue = broker.queue("orders")
        while found := await queue.peek(100, skip=len(bodies)):
            bodies |= {message.body for message in found}
    return bodies


async def leader_of(address: str) -> str:
    """Return the name of the server that leads the stream."""
    stream = NatsStream(parse(address))
    await stream.open()
    try:
        return (await stream.info()).leader
    finally:
        await stream.close()


async def test_nothing_confirmed_is_lost_when_the_leader_of_the_stream_is_killed(
    three_nodes: Nodes, start_broker: StartBroker
) -> None:
    """Under load, the broker on it killed after that; then a second broker deposes the first."""
    address = three_nodes.address("orders")
    server = await asyncio.to_thread(start_broker, "--log", address)
    over = asyncio.Event()
    work = asyncio.create_task(publish_until(server, over, "first"))
    leader = three_nodes.named(await leader_of(address))
    leader.signal(signal.SIGKILL)
    async with asyncio.timeout(FAR_S):
        while await asyncio.to_thread(leader_is, address, leader.name):
            assert server.running, server.output
        await asyncio.sleep(0)
        async with minibroker.connect(server.url) as broker:  # appends go on
            await broker.queue("others").publish("x")
        over.set()
        confirmed = await work
    server.kill()
    leader.kill()
    await asyncio.to_thread(server.restart)
    assert set(confirmed) <= await stored(server)
    await asyncio.to_thread(leader.start)
    second = await asyncio.to_thread(start_broker, "--log", address)
    assert await asyncio.to_thread(server.process.wait, FAR_S) == exits.DEPOSED
    assert set(confirmed) <= await stored(second)
    assert second.stop() == 0


def leader_is(address: str, name: str) -> bool:
    """Return whether this server is still said to lead, or none is."""
    return asyncio.run(leader_of(address)) in ("", name)
