"""Each verb is cancelled once at each of its suspension points; nothing of it is left at the server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from typing import Any

import pytest

import minibroker
from support.broker import BrokerServer

Verb = Callable[[minibroker.Broker], Awaitable[object]]
MOST_POINTS = 40


class Relay:
    """Awaits a coroutine and cancels its task at the n-th suspension: at once, or when its answer has come."""

    def __init__(self, awaited: Awaitable[object], point: int, *, late: bool) -> None:
        self._awaited = awaited
        self._point = point
        self._late = late
        self.points = 0

    def __await__(self) -> Generator[Any, Any, object]:
        steps = self._awaited.__await__()
        thrown: BaseException | None = None
        while True:
            try:
                future = next(steps) if thrown is None else steps.throw(thrown)
            except StopIteration as done:
                return done.value
            thrown = None
            self._suspended(future)
            try:
                yield future
            except asyncio.CancelledError as error:
                thrown = error

    def _suspended(self, future: Any) -> None:
        self.points += 1
        if self.points != self._point:
            return
        task = asyncio.current_task()
        assert task is not None
        if self._late and future is not None:
            future.add_done_callback(lambda _: task.cancel())  # before the task itself is woken
        else:
            asyncio.get_running_loop().call_soon(task.cancel)


async def run_quickly(broker: minibroker.Broker) -> None:
    async def handle(message: minibroker.Message[Any]) -> None:
        await asyncio.sleep(0)

    await asyncio.wait_for(broker.queue("q").run(handle, concurrency=3), 0.3)


async def consume_two(broker: minibroker.Broker) -> None:
    async with broker.queue("q").consume(prefetch=100) as messages:
        async for message in messages:
            async with message.process():
                await asyncio.sleep(0)
            if message.id.sequence % 2:
                break


async def receive_and(broker: minibroker.Broker, verb: str, *args: Any) -> None:
    for message in await broker.queue("q").receive(1):
        async with message.process():
            await getattr(message, verb)(*args)


VERBS: dict[str, Verb] = {
    "receive": lambda broker: receive_and(broker, "ack", True),
    "receive of what comes": lambda broker: asyncio.wait_for(
        broker.queue("empty").receive(wait=60), 0.05
    ),
    "nack": lambda broker: receive_and(broker, "nack", "no", 0, True),
    "release": lambda broker: receive_and(broker, "release", True),
    "extend": lambda broker: receive_and(broker, "extend", 5),
    "consume": consume_two,
    "run": run_quickly,
    "publish": lambda broker: broker.queue("q").publish(b"x"),
    "publish_many": lambda broker: broker.queue("q").publish_many([b"x"] * 1_200),
    "peek": lambda broker: broker.queue("q").peek(),
    "set": lambda broker: broker.queue("q").set(max_attempts=1_000),
    "stats": lambda broker: broker.stats(),
    "ping": lambda broker: broker.ping(),
}


@pytest.fixture
async def watcher(broker_server: BrokerServer) -> Any:
    """A client of its own that asks what the server holds."""
    async with minibroker.connect(broker_server.url, name="watcher") as broker:
        await broker.queue("q").set(max_attempts=1_000)
        await broker.queue("empty").set(max_attempts=1_000)
        yield broker


async def held(watcher: minibroker.Broker) -> dict[str, int]:
    """Return what is handed out or waited for, over all queues."""
    counts = {"held": 0, "begun": 0, "consumers": 0}
    for counters in (await watcher.stats())["queues"].values():
        for name in counts:
            counts[name] += counters[name]
    return {name: count for name, count in counts.items() if count}


@pytest.mark.parametrize("late", [False, True], ids=["at once", "when answered"])
@pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS.keys())
async def test_a_cancelled_call_leaves_nothing_behind(
    broker_server: BrokerServer, watcher: minibroker.Broker, verb: Verb, late: bool
) -> None:
    async with minibroker.connect(broker_server.url, name="cancelled", timeout=10) as broker:
        await broker.queue("q").publish_many([b"x"] * 20)
        for point in range(1, MOST_POINTS):
            relay = Relay(verb(broker), point, late=late)
            task = asyncio.ensure_future(_through(relay))
            await asyncio.wait([task])
            await broker.ping()
            assert await held(watcher) == {}, f"cancelled at suspension {point}"
            if relay.points < point:
                break  # it has no such point
        assert broker._driver.consumers == {}


async def _through(relay: Relay) -> None:
    try:
        await relay
    except TimeoutError:
        return


@pytest.mark.parametrize("late", [False, True], ids=["at once", "when answered"])
async def test_a_cancelled_connect_leaves_no_session(
    broker_server: BrokerServer, watcher: minibroker.Broker, late: bool
) -> None:
    before = (await watcher.stats())["server"]["sessions"]
    for point in range(1, MOST_POINTS):

        async def connect() -> None:
            async with minibroker.connect(broker_server.url):
                await asyncio.sleep(0)

        relay = Relay(connect(), point, late=late)
        await asyncio.wait([asyncio.ensure_future(_through(relay))])
        if relay.points < point:
            break
    for _ in range(20):
        await watcher.ping()
    assert (await watcher.stats())["server"]["sessions"] == before


async def test_a_timed_out_receive_takes_no_message(
    broker_server: BrokerServer, watcher: minibroker.Broker
) -> None:
    async with minibroker.connect(broker_server.url) as broker:
        for _ in range(6):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(broker.queue("q").receive(wait=60), 0.02)
        waiting = asyncio.ensure_future(watcher.queue("q").receive(wait=30))
        await watcher.ping()
        await broker.queue("q").publish(b"x")
        [message] = await asyncio.wait_for(waiting, 20)
        await message.ack(confirmed=True)
        counters = (await watcher.queue("q").stats())["queues"]["q"]
        assert (counters["delivered"], counters["released"]) == (1, 0)
