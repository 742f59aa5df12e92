"""Publishing, over both clients: what comes back, what is refused, what a deadline means."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

import minibroker
from support.broker import BrokerServer


@pytest.mark.parametrize("body", [b"raw", {"a": [1, None, "x"]}, "text", 7, None, (1, 2)])
async def test_what_is_published_is_what_comes(queue: Any, body: Any) -> None:
    confirm = await queue.publish(body, headers={"h": 1}, key="k")
    [message] = await queue.receive(wait=5)
    assert message.body == (list(body) if type(body) is tuple else body)
    assert (message.id, message.headers, message.key) == (confirm.id, {"h": 1}, "k")
    assert (message.attempt, message.queue, confirm.durability) == (1, queue.name, "sync")
    await message.ack(confirmed=True)


async def test_a_higher_priority_is_handed_out_first(queue: Any) -> None:
    await queue.publish(b"normal")
    await queue.publish_many([b"low", b"low too"], priority=0)
    await queue.publish_many([b"soon", b"soon too"], priority=4)
    await queue.publish(b"now", priority=9)
    got = [message.body for message in await queue.receive(10)]
    assert got == [b"now", b"soon", b"soon too", b"normal", b"low", b"low too"]


async def test_many_bodies_of_both_kinds_keep_their_key_and_delay(queue: Any) -> None:
    """Bytes beside others in one call: what all of them share is lost on none."""
    await queue.publish_many([b"1", "2", {"n": 3}], key="k", delay=3_600)
    seen = [(each.info["key"], each.info["state"]) for each in await queue.peek(5)]
    assert seen == [("k", "DELAYED")] * 3


async def test_many_are_confirmed_in_order(queue: Any) -> None:
    bodies = [f"body {number}".encode() for number in range(1_234)]
    confirms = await queue.publish_many(bodies)
    assert [confirm.sequence for confirm in confirms] == list(range(1_234))
    assert len(await queue.publish_many([])) == 0
    messages = await queue.receive(1_000)
    assert [message.body for message in messages] == bodies[:1_000]


async def test_calls_at_the_same_time_each_get_their_own_confirm(queue: Any) -> None:
    confirms = await asyncio.gather(*[queue.publish(b"%d" % number) for number in range(40)])
    by_id = {confirm.id: number for number, confirm in enumerate(confirms)}
    messages = await queue.receive(100)
    assert {message.id: int(message.body) for message in messages} == by_id


async def test_a_delay_holds_back(queue: Any) -> None:
    await queue.publish(b"later", delay=60)
    await queue.publish(b"now")
    [message] = await queue.receive(10)
    assert message.body == b"now"
    [waiting] = await queue.peek(state="DELAYED")
    assert waiting.body == b"later"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"body": object()}, TypeError),
        ({"body": b"", "key": 5}, TypeError),
        ({"body": b"", "key": "k" * 1_000}, minibroker.BadValue),
        ({"body": b"", "delay": -1}, minibroker.BadValue),
        ({"body": b"", "timeout": "soon"}, TypeError),
        ({"body": b"", "headers": {1: 2}}, TypeError),
        ({"body": b"x" * 17_000_000}, minibroker.TooLarge),
    ],
    ids=["body", "key type", "key size", "delay", "timeout", "headers", "size"],
)
async def test_what_can_never_be_sent_is_refused_before(
    queue: Any, arguments: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        await queue.publish(**arguments)
    with pytest.raises(minibroker.UnknownQueue):
        await queue.settings()  # nothing was sent, so nothing was made


@pytest.mark.parametrize("name", ["", "a b", "x" * 130, "q.dlq"])
async def test_a_bad_name_is_refused(broker: Any, name: str) -> None:
    with pytest.raises(minibroker.BadName):
        await broker.queue(name).publish(b"")


@pytest.mark.usefixtures("refused_at_once")
async def test_a_failure_of_many_says_what_became_of_each(queue: Any) -> None:
    await queue.set(max_messages=600)
    with pytest.raises(minibroker.MinibrokerError) as caught:
        await queue.publish_many([b"x"] * 1_000)
    confirms, failed = caught.value.confirms, caught.value.failed
    assert confirms is not None
    assert failed is not None
    assert len(confirms) == 1_000
    stored = (await queue.stats())["queues"][queue.name]["ready"]
    assert sum(confirm is not None for confirm in confirms) == stored
    assert len(failed) == 1_000 - stored


async def test_what_is_not_written_by_its_deadline_was_not_sent(
    connect: Callable[..., Any], free_port: int
) -> None:
    async with connect(f"minibroker://127.0.0.1:{free_port}", lazy=True, timeout=0.3) as broker:
        with pytest.raises(minibroker.NotSent) as caught:
            await broker.queue("q").publish(b"")
        assert isinstance(caught.value, TimeoutError)
        with pytest.raises(minibroker.Timeout):
            await broker.queue("q").settings()


async def test_a_lost_connection_is_not_seen_by_a_caller(
    connect: Callable[..., Any], start_broker: Callable[..., BrokerServer]
) -> None:
    server = start_broker()
    async with connect(server.url, timeout=30) as broker:
        queue = broker.queue("q")
        await queue.publish(b"before")
        await asyncio.to_thread(server.kill)
        under_way = asyncio.ensure_future(queue.publish(b"meanwhile"))
        await asyncio.to_thread(server.restart)
        await under_way
        messages = await queue.receive(5)
        assert [message.body for message in messages] == [b"before", b"meanwhile"]
