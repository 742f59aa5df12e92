"""`minibroker bridge` with the real servers: both ways, over deaths of each of the three processes."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from far_brokers import Far
from running_bridge import Run

import minibroker
from support.broker import BrokerServer
from support.processes import look_until

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


BATCH = 20
STAGE = 800
SMALL = "--batch", str(BATCH), "--json", "--progress-every", "100ms", "--wait", "20s"


def test_nothing_is_lost_on_the_way_in_whoever_dies(
    far: Far, broker_server: BrokerServer, bridge: Run
) -> None:
    """And nothing comes twice: these sources name their messages, and the queue knows the names."""
    deaths = Deaths(broker_server, far, bridge, ("--from", far.origin, "--to", QUEUE, *SMALL))
    for victim in ("far", "broker", "bridge"):
        asyncio.run(far.fill(deaths.next_bodies()))
        deaths.kill_in_the_middle(victim)
    found = Counter(each.raw for each in asyncio.run(taken(broker_server, len(deaths.bodies))))
    assert found == Counter(deaths.bodies)
    deaths.running.stop()


def test_nothing_is_lost_on_the_way_out_whoever_dies(
    far: Far, broker_server: BrokerServer, bridge: Run
) -> None:
    """What comes twice was on its way at a death: at most the batch that was sent and not confirmed or acked."""
    deaths = Deaths(broker_server, far, bridge, ("--from", QUEUE, "--to", far.target, *SMALL))
    for victim in ("far", "broker", "bridge"):
        asyncio.run(fill_here(broker_server, deaths.next_bodies()))
        deaths.kill_in_the_middle(victim)
    found = Counter(asyncio.run(far.drain(len(deaths.bodies))))
    assert set(found) == set(deaths.bodies)
    assert found.total() - len(found) <= 2 * BATCH * 3, f"{found.total() - len(found)} came twice"
    deaths.running.stop()


class Deaths:
    """A bridge under way, and the deaths of the three processes that it needs."""

    def __init__(self, server: BrokerServer, far: Far, bridge: Run, words: tuple[str, ...]) -> None:
        self.bodies: list[bytes] = []
        self._server, self._far = server, far
        self._start = lambda: bridge(*words)
        self.running = self._start()

    def next_bodies(self) -> list[bytes]:
        """Return messages that differ from all before."""
        self.bodies += numbered(len(self.bodies) + STAGE)[-STAGE:]
        return self.bodies[-STAGE:]

    def kill_in_the_middle(self, victim: str) -> None:
        """Kill one as soon as some have been handed over, and start it again."""
        before = self.running.handed_over
        look_until(
            lambda: self.running.handed_over > before, self.running.process, "the next batch"
        )
        if victim == "far":
            self._far.server.kill()
            self._far.server.start()
        elif victim == "broker":
            self._server.kill()
            self._server.restart()
        else:
            self.running.process.kill()
            self.running.process.wait()
            self.running = self._start()
