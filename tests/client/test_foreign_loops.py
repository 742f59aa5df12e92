"""A call from another event loop or thread raises before anything is appended, and says what to do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from fake_server import FakeServer
from steps import fill

import minibroker

Call = Callable[[minibroker.Broker, list[minibroker.Message[Any]]], Awaitable[object]]


async def iterate(broker: minibroker.Broker) -> None:
    async with broker.queue("q").consume() as messages:
        await anext(aiter(messages))


async def process(message: minibroker.Message[Any]) -> None:
    async with message.process():
        pass


CALLS: dict[str, Call] = {
    "publish": lambda broker, _: broker.queue("q").publish(b"x"),
    "publish with a key": lambda broker, _: broker.queue("q").publish(b"x", key="k"),
    "publish_many": lambda broker, _: broker.queue("q").publish_many([b"x"] * 3),
    "receive": lambda broker, _: broker.queue("q").receive(),
    "consume": lambda broker, _: iterate(broker),
    "run": lambda broker, _: broker.queue("q").run(process),
    "peek": lambda broker, _: broker.queue("q").peek(),
    "purge": lambda broker, _: broker.queue("q").purge(),
    "set": lambda broker, _: broker.queue("q").set(max_attempts=3),
    "stats": lambda broker, _: broker.stats(),
    "ping": lambda broker, _: broker.ping(),
    "close": lambda broker, _: broker.close(),
    "process": lambda _, messages: process(messages[0]),
    "ack": lambda _, messages: messages[0].ack(),
    "ack confirmed": lambda _, messages: messages[0].ack(confirmed=True),
    "nack": lambda _, messages: messages[0].nack("no"),
    "reject": lambda _, messages: messages[0].reject("no"),
    "release": lambda _, messages: messages[0].release(),
    "extend": lambda _, messages: messages[0].extend(5),
}


@pytest.mark.parametrize("debug", [False, True], ids=["", "debug"])
@pytest.mark.parametrize("in_turn", [False, True], ids=["idle", "in a turn"])
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
async def test_a_call_from_a_thread_changes_nothing(
    server: FakeServer, call: Call, in_turn: bool, debug: bool
) -> None:
    fill(server, 1)
    asyncio.get_running_loop().set_debug(debug)
    async with minibroker.connect(timeout=5) as broker:
        messages = await broker.queue("q").receive()
        own = None
        if in_turn:  # a group is open, and a flush is scheduled
            own = asyncio.ensure_future(broker.queue("q").publish(b"own"))
            await asyncio.sleep(0)
        sent = len(server.headers)

        def foreign() -> None:
            async def main() -> None:
                await call(broker, messages)

            with pytest.raises(RuntimeError, match="run_coroutine_threadsafe"):
                asyncio.run(main())

        if in_turn:
            thread = asyncio.to_thread(foreign)
            task = asyncio.ensure_future(thread)
            broker._driver.scheduled = True  # the loop is busy in this turn
            await task
            broker._driver.scheduled = False
            broker._driver.flush()
        else:
            await asyncio.to_thread(foreign)
        assert [header["parts"][0]["op"] for header in server.headers[sent:]] in ([], ["publish"])
        if own is not None:
            await own
        assert server.parts("publish")[-1:] == [
            {"op": "publish", "queue": "q", "count": 1} for _ in range(in_turn)
        ]
        await messages[0].ack(confirmed=True)
        await broker.queue("q").publish(b"y")  # the owner goes on


def test_another_loop_of_the_same_thread_stores_nothing(server: FakeServer) -> None:
    """A caller that tries again after an error must not have stored three copies."""

    async def open_broker() -> minibroker.Broker:
        return await minibroker.connect()

    async def publish(broker: minibroker.Broker) -> None:
        await broker.queue("q").publish(b"x")

    with asyncio.Runner() as first, asyncio.Runner() as second:
        broker = first.run(open_broker())
        for _ in range(3):
            with pytest.raises(RuntimeError, match="connect in each loop"):
                second.run(publish(broker))
        first.run(publish(broker))
        first.run(broker.close())
    assert len(server.queue("q").ready) == 1


def test_a_loop_may_be_run_by_another_thread(server: FakeServer) -> None:
    """It is the loop that counts, not the thread that it was connected in."""
    loop = asyncio.new_event_loop()

    async def open_broker() -> minibroker.Broker:
        return await minibroker.connect()

    async def publish(broker: minibroker.Broker) -> None:
        for _ in range(3):
            await broker.queue("q").publish(b"x")

    broker = loop.run_until_complete(open_broker())

    async def elsewhere() -> None:
        await asyncio.to_thread(loop.run_until_complete, publish(broker))

    asyncio.run(elsewhere())
    loop.run_until_complete(broker.close())
    loop.close()
    assert len(server.queue("q").ready) == 3
