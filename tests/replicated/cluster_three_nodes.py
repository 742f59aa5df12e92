"""`make cluster-test`: three servers of NATS under a broker, what is killed, and what is there afterwards.

Elections take up to 9 s each, so `make test` leaves this out: the rules are tried on the simulated stream.
"""

from __future__ import annotations

import asyncio
import signal

import minibroker
from minibrokerd.process import exits
from minibrokerd.replicated.nats_stream import NatsStream
from minibrokerd.replicated.stream_address import parse
from support.broker import BrokerServer, StartBroker
from support.nats_nodes import Nodes
from support.processes import look_until

FAR_S = 90.0  # an election of the stream's leader takes up to 9 s, and this machine is shared


async def publish_until(
    server: BrokerServer, over: asyncio.Event, name: str, *more: str
) -> list[str]:
    """Publish one message after the other, from 4 tasks; return the bodies that were confirmed.

    `more` are the addresses of brokers that stand by.
    """
    places = [url.removeprefix("minibroker://") for url in (server.url, *more)]
    confirmed: list[str] = []

    async def one(number: int) -> None:
        count = 0
        while not over.is_set():
            body = f"{name}-{number}-{count}"
            await queue.publish(body)
            confirmed.append(body)
            count += 1

    async with minibroker.connect(f"minibroker://{','.join(places)}") as broker:
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


async def lead_from(address: str, name: str) -> None:
    """Have this server of NATS lead the stream."""
    stream = NatsStream(parse(address))
    await stream.open()
    try:
        await stream.step_down(name)
    finally:
        await stream.close()


async def test_a_machine_is_lost_with_the_active_broker_and_the_server_beside_it(
    three_nodes: Nodes, start_broker: StartBroker
) -> None:
    """The leader of the stream is elsewhere, so nobody waits for an election."""
    address = three_nodes.address("orders")
    first = await asyncio.to_thread(start_broker, "--log", f"{address}&beside=a")
    await asyncio.to_thread(lead_by, address, "a")
    await asyncio.to_thread(first.prints, "stream_leader_moved")
    second = await asyncio.to_thread(start_broker, "--log", three_nodes.address("others"))
    second.kill()
    second.flags = ("--log", f"{address}&beside=b", "--standby")
    process = second.launch()
    await asyncio.to_thread(second.prints, f"active=127.0.0.1:{first.port}")
    over = asyncio.Event()
    work = asyncio.create_task(publish_until(first, over, "first", second.url))
    async with minibroker.connect(first.url) as broker:
        await broker.queue("orders").publish("x")
    first.kill()
    three_nodes.named("a").signal(signal.SIGKILL)
    await asyncio.to_thread(
        look_until, lambda: second.output.count("listening on") == 2, process, "a takeover"
    )
    over.set()
    confirmed = await work
    assert set(confirmed) <= await stored(second)
    assert second.stop() == 0


def lead_by(address: str, name: str) -> None:
    """As `lead_from`, in a loop of its own."""
    asyncio.run(lead_from(address, name))
