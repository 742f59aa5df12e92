"""Steps where something goes wrong on their way: a cut connection, a killed server, a caller that goes."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import minibroker
from support.broker import BrokerServer, StartBroker
from support.relay import Relay


async def left_in(broker: minibroker.Broker, *names: str) -> list[Counter[bytes]]:
    """Return how often each body lies in each of some queues."""
    return [Counter(each.raw for each in await broker.queue(name).peek(1_000)) for name in names]


async def test_a_step_whose_answer_is_lost_with_its_connection_happens_once(
    start_broker: StartBroker,
) -> None:
    server = start_broker()
    async with Relay(server.port) as relay, minibroker.connect(relay.url) as broker:
        jobs = broker.queue("jobs")
        await jobs.publish(b"1")
        [message] = await jobs.receive(wait=5)
        relay.swallowing = True
        step = message.step()
        step.publish("next", b"1")
        step.publish("audit", b"1")
        ending = asyncio.ensure_future(step.__aexit__(None, None, None))
        await relay.swallowed.wait()
        assert not ending.done()
        relay.cut()
        await ending
        assert len(step.confirms) == 2
        assert await left_in(broker, "jobs", "next", "audit") == [{}, {b"1": 1}, {b"1": 1}]


async def test_a_killed_server_has_all_of_each_step_or_nothing(tmp_path: Path) -> None:
    """SIGKILL while four handlers step: what was half done would be there twice when it is done again."""
    server = BrokerServer(tmp_path / "data")
    count, kills = 400, 3
    try:
        async with minibroker.connect(server.url) as broker:
            jobs = broker.queue("jobs", max_attempts=100)
            await jobs.publish_many([b"%d" % number for number in range(count)])
            turn = asyncio.Event()
            done = 0

            async def handle(message: minibroker.Message[bytes]) -> None:
                nonlocal done
                async with message.step() as step:
                    step.publish("next", message.body)
                    step.publish("audit", message.body)
                done += 1
                if done % (count // (kills + 1)) == 0:
                    turn.set()

            running = asyncio.ensure_future(jobs.run(handle, concurrency=4))
            for _ in range(kills):
                await turn.wait()
                turn.clear()
                await asyncio.to_thread(server.kill)
                await asyncio.to_thread(server.restart)
            await turn.wait()
            running.cancel()
            await asyncio.wait([running])
            expected = Counter(b"%d" % number for number in range(count))
            assert await left_in(broker, "jobs", "next", "audit") == [{}, expected, expected]
    finally:
        server.close()
