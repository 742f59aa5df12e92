"""`minibroker bridge` with the real servers: both ways, over deaths of the three processes.

All in one file, as each process of a test run starts its own servers.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from far_brokers import KINDS, Far, Kafka, Nats, Rabbit, Redis
from running_bridge import Run

import minibroker
from support.broker import BrokerServer
from support.processes import look_until

pytestmark = pytest.mark.timeout(300)  # a start of Kafka, and waits for leases of who died
QUEUE = "orders"
LARGE = b"x" * (1024 * 1024 + 1)  # more than a message here may have


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


async def taken_one(server: BrokerServer, queue: str = QUEUE) -> Any:
    """Take one message."""
    async with minibroker.connect(server.url) as broker:
        (message,) = await broker.queue(queue).receive(1, wait=20)
        await message.ack(confirmed=True)
        return message


async def publish(server: BrokerServer, body: Any, **said: Any) -> None:
    """Publish one message."""
    async with minibroker.connect(server.url) as broker:
        await broker.queue(QUEUE).publish(body, **said)


async def look(server: BrokerServer, queue: str) -> Any:
    """Look at what lies in a queue."""
    async with minibroker.connect(server.url) as broker:
        return await broker.queue(queue).peek()


def test_all_come_in_once(far: Far, broker_server: BrokerServer, bridge: Run) -> None:
    bodies = numbered(300)
    asyncio.run(far.fill(bodies))
    bridge("--from", far.origin, "--to", QUEUE, "--until-empty").ends()
    found = [each.raw for each in asyncio.run(taken(broker_server, len(bodies)))]
    assert Counter(found) == Counter(bodies)
    again = bridge("--from", far.origin, "--to", QUEUE, "--until-empty").ends()
    assert "handed over 0 messages" in again


def test_all_go_out_once(far: Far, broker_server: BrokerServer, bridge: Run) -> None:
    bodies = numbered(300)
    asyncio.run(fill_here(broker_server, bodies))
    bridge("--from", QUEUE, "--to", far.target, "--until-empty").ends()
    assert Counter(asyncio.run(far.drain(len(bodies)))) == Counter(bodies)
    assert asyncio.run(taken(broker_server, 0)) == []


BATCH = 5  # small, so that the first look at its progress finds it in the middle
STAGE = 1_200
SMALL = "--batch", str(BATCH), "--json", "--progress-every", "100ms", "--wait", "20s"


VICTIMS = ("far", "broker", "bridge")
# One death for each kind, so that both ways and each of the three processes have some; `make bridges` has all.
SOME = {
    (Rabbit, "out", "bridge"),
    (Redis, "in", "far"),
    (Kafka, "out", "broker"),
    (Nats, "in", "broker"),
}
DEATHS = [
    pytest.param(kind, way, victim, id=f"{kind.title}-{way}-{victim}")
    for kind in KINDS
    for way in ("in", "out")
    for victim in VICTIMS
    if os.environ.get("EVERY_DEATH") or (kind, way, victim) in SOME
]


@pytest.mark.parametrize(("far", "way", "victim"), DEATHS, indirect=["far"])
def test_nothing_is_lost_whoever_dies(
    far: Far, way: str, victim: str, broker_server: BrokerServer, bridge: Run
) -> None:
    """Into a queue nothing comes twice either: these sources name their messages, and the queue knows the names.

    What comes twice the other way was on its way at the death: at most the batch that was sent and not confirmed
    or acked, and the one ahead.
    """
    ends = (
        ("--from", far.origin, "--to", QUEUE)
        if way == "in"
        else ("--from", QUEUE, "--to", far.target)
    )
    bodies = numbered(STAGE)
    deaths = Deaths(broker_server, far, bridge, (*ends, *SMALL))
    asyncio.run(far.fill(bodies) if way == "in" else fill_here(broker_server, bodies))
    deaths.kill_in_the_middle(victim)
    if way == "in":
        found = Counter(each.raw for each in asyncio.run(taken(broker_server, STAGE)))
        assert found == Counter(bodies)
    else:
        found = Counter(asyncio.run(far.drain(STAGE)))
        assert set(found) == set(bodies)
        assert found.total() - STAGE <= 2 * BATCH, f"{found.total() - STAGE} came twice"
    deaths.running.stop()


class Deaths:
    """A bridge under way, and the deaths of the three processes that it needs."""

    def __init__(self, server: BrokerServer, far: Far, bridge: Run, words: tuple[str, ...]) -> None:
        self._server, self._far = server, far
        self._start = lambda: bridge(*words)
        self.running = self._start()

    def _is_back(self) -> bool:
        """Whether the second one has started: before that a signal to stop is the end of it."""
        return sum(each["event"] == "started" for each in self.running.events) == 2

    def kill_in_the_middle(self, victim: str) -> None:
        """Kill one as soon as some have been handed over, and start it again."""
        look_until(lambda: self.running.handed_over > 0, self.running.process, "the first batch")
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
            look_until(self._is_back, self.running.process, "the start")


# ---- what a message keeps, and what becomes of one that fits nowhere ----


def test_there_and_back_it_is_what_it_was(
    far: Far, broker_server: BrokerServer, bridge: Run
) -> None:
    """Body, its kind, headers of text, key and content type; a name and a time are added."""
    value = {"to": "bob", "copies": [1, 2.5, None, b"\xff"]}
    headers = {
        "tenant": "7",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    }
    json_type = {"content-type": "application/json"}
    asyncio.run(publish(broker_server, value, headers=headers, key="bob"))
    asyncio.run(publish(broker_server, b'{"a": 1}', headers=json_type))
    bridge("--from", QUEUE, "--to", far.target, "--until-empty").ends()
    bridge("--from", far.origin, "--to", "back", "--count", "2").ends()
    both = [asyncio.run(taken_one(broker_server, "back")) for _ in range(2)]
    plain, message = sorted(both, key=lambda each: not isinstance(each.body, bytes))
    assert (message.body, message.key) == (value, "bob")
    assert headers.items() <= message.headers.items()
    assert isinstance(message.headers["bridge-unix-ms"], int)
    assert plain.body == b'{"a": 1}'
    assert json_type.items() <= plain.headers.items()


@pytest.mark.parametrize("far", [Rabbit, Redis], indirect=True, ids=lambda kind: kind.title)
def test_one_that_is_too_large_ends_the_bridge_or_is_set_aside(
    far: Far, broker_server: BrokerServer, bridge: Run, tmp_path: Path
) -> None:
    """It is still there when the bridge has ended; what stood before it is not handed over again."""
    asyncio.run(far.fill([b"before", LARGE, b"behind"]))
    said = bridge("--from", far.origin, "--to", QUEUE, "--until-empty").ends(1)
    assert "--aside" in said
    aside = tmp_path / "aside.jsonl"
    bridge("--from", far.origin, "--to", QUEUE, "--until-empty", "--aside", str(aside)).ends()
    (line,) = [json.loads(each) for each in aside.read_text().splitlines()]
    assert line["body"] == LARGE.decode()
    assert "1,048,576" in line["reason"] or "1048576" in line["reason"]
    found = [each.raw for each in asyncio.run(look(broker_server, QUEUE))]
    assert sorted(found) == [b"before", b"behind"]
    again = bridge("--from", far.origin, "--to", QUEUE, "--until-empty").ends()
    assert "handed over 0 messages" in again


@pytest.mark.parametrize("far", [Nats, Kafka], indirect=True, ids=lambda kind: kind.title)
def test_what_the_other_side_never_takes_goes_to_the_dead_letters(
    far: Far, broker_server: BrokerServer, bridge: Run
) -> None:
    """With the reason; what stands behind it goes on. Both have a limit of 1 MiB that counts headers, too."""
    large = b"x" * (1024 * 1024 - 100)
    headers = {"pad": "y" * 90}
    asyncio.run(publish(broker_server, large, headers=headers))
    asyncio.run(publish(broker_server, b"behind"))
    bridge("--from", QUEUE, "--to", far.target, "--until-empty").ends()
    assert asyncio.run(far.drain(1)) == [b"behind"]
    (dead,) = asyncio.run(look(broker_server, f"{QUEUE}.dlq"))
    assert dead.raw == large
    assert far.title in str(dead.info["history"])


@pytest.mark.parametrize("far", [Rabbit], indirect=True, ids=lambda kind: kind.title)
def test_headers_that_no_frame_of_amqp_holds_go_to_the_dead_letters(
    far: Far, broker_server: BrokerServer, bridge: Run
) -> None:
    """RabbitMQ would close the connection on them, again and again."""
    asyncio.run(publish(broker_server, b"wide", headers={"pad": "y" * 200_000}))
    asyncio.run(publish(broker_server, b"behind"))
    bridge("--from", QUEUE, "--to", far.target, "--until-empty").ends()
    assert asyncio.run(far.drain(1)) == [b"behind"]
    (dead,) = asyncio.run(look(broker_server, f"{QUEUE}.dlq"))
    assert dead.raw == b"wide"


@pytest.mark.parametrize("far", [Rabbit], indirect=True, ids=lambda kind: kind.title)
def test_two_messages_of_rabbitmq_with_one_id_are_two(
    far: Far, broker_server: BrokerServer, bridge: Run
) -> None:
    """The id is the application's: a queue that knows it may drop only what was handed out before."""
    asyncio.run(far.fill([b"same", b"same", b"same"]))
    said = bridge("--from", far.origin, "--to", QUEUE, "--until-empty").ends()
    assert len(asyncio.run(look(broker_server, QUEUE))) == 3
    assert "2 had the id of another one" in said


@pytest.mark.parametrize("far", [Rabbit], indirect=True, ids=lambda kind: kind.title)
def test_priority_time_to_live_and_properties_of_amqp(
    far: Far, broker_server: BrokerServer, bridge: Run
) -> None:
    asyncio.run(
        publish(
            broker_server,
            b"urgent",
            priority=7,
            ttl=3_600,
            headers={"amqp-correlation-id": "c1", "amqp-reply-to": "answers", "n": 5, "flag": True},
        )
    )
    bridge("--from", QUEUE, "--to", far.target, "--until-empty", "--terms").ends()
    assert isinstance(far, Rabbit)
    bridge("--from", far.origin, "--to", "back", "--count", "1").ends()
    (seen,) = asyncio.run(look(broker_server, "back"))
    assert seen.info["priority"] == 7
    assert 0 < seen.info["expires_unix_ms"] - seen.info["published_unix_ms"] <= 3_600_000
    headers = asyncio.run(taken_one(broker_server, "back")).headers
    assert (headers["amqp-correlation-id"], headers["amqp-reply-to"]) == ("c1", "answers")
    assert (headers["n"], headers["flag"]) == (5, True)


@pytest.mark.parametrize("far", [Redis], indirect=True, ids=lambda kind: kind.title)
def test_a_stream_without_a_body_field_comes_as_a_map(
    far: Far, broker_server: BrokerServer, bridge: Run
) -> None:
    async def add() -> None:
        assert isinstance(far, Redis)
        async with far.client() as client:
            await client.xadd(far.place, {"order": "1", "sum": "9.50"})

    asyncio.run(add())
    bridge("--from", far.origin, "--to", QUEUE, "--until-empty").ends()
    assert asyncio.run(taken_one(broker_server)).body == {"order": "1", "sum": "9.50"}


@pytest.mark.parametrize("far", [Kafka], indirect=True, ids=lambda kind: kind.title)
def test_keys_of_kafka_are_keys_and_keep_their_order(
    far: Far, broker_server: BrokerServer, bridge: Run
) -> None:
    bodies = [b"%03d of %d" % (number, number % 4) for number in range(100)]
    asyncio.run(far.fill(bodies))
    bridge("--from", far.origin, "--to", QUEUE, "--until-empty").ends()
    seen = asyncio.run(look(broker_server, QUEUE))
    for key in "0123":
        of_key = [each.raw for each in seen if each.info["key"] == key]
        assert of_key == [body for body in bodies if body.endswith(key.encode())]


@pytest.mark.parametrize("far", [Rabbit], indirect=True, ids=lambda kind: kind.title)
def test_a_queue_that_is_deleted_meanwhile_is_waited_for(
    far: Far, broker_server: BrokerServer, bridge: Run
) -> None:
    """RabbitMQ cancels the consumer and says nothing else: that must not look like a quiet queue."""
    running = bridge("--from", far.origin, "--to", QUEUE, *SMALL)
    asyncio.run(far.fill([b"1"]))
    look_until(lambda: running.handed_over == 1, running.process, "the first message")

    async def delete() -> None:
        assert isinstance(far, Rabbit)
        connection, channel = await far.channel()
        async with connection:
            await channel.queue_delete(far.place)

    asyncio.run(delete())
    look_until(lambda: running.said("waits"), running.process, "the wait")
    asyncio.run(far.fill([b"2"]))
    look_until(lambda: running.handed_over == 2, running.process, "the second message")
    running.stop()
