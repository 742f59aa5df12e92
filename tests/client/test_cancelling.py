"""Each verb is cut short once at each of its suspension points; nothing of it is left at the server.

It is cancelled, or its deadline passes: at once, or in the moment in which its answer has come.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

import minibroker
from minibroker.session.deadlines import SLOT_MS
from minibroker.shell.monotonic import now_ms
from support.broker import BrokerServer

Verb = Callable[[minibroker.Broker], Awaitable[object]]
MOST_POINTS = 40
TIMEOUT_S = 10


class Relay:
    """Awaits a coroutine and cuts its task short at the n-th suspension: at once, or when its answer has come.

    `cut` does it; by default the task is cancelled.
    """

    def __init__(
        self,
        awaited: Awaitable[object],
        point: int,
        *,
        late: bool,
        cut: Callable[[], object] | None = None,
    ) -> None:
        self._awaited = awaited
        self._point = point
        self._late = late
        self._cut = cut
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
            except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - passed on
                thrown = error

    def _suspended(self, future: Any) -> None:
        self.points += 1
        if self.points != self._point:
            return
        task = asyncio.current_task()
        assert task is not None
        cut = self._cut or task.cancel
        if self._late and future is not None:
            future.add_done_callback(lambda _: cut())  # before the task itself is woken
        else:
            asyncio.get_running_loop().call_soon(cut)


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


async def reject_and(broker: minibroker.Broker, verb: str, *args: Any) -> None:
    """Have a dead message, and do something with the queue of dead ones."""
    await receive_and(broker, "reject", "no", True)
    await getattr(broker.queue("q.dlq"), verb)(*args)


async def delete(broker: minibroker.Broker) -> None:
    await broker.queue("gone").publish_many([b"x"] * 3)
    await broker.queue("gone").receive()
    await broker.queue("gone").delete(force=True)


async def complete_and(broker: minibroker.Broker) -> None:
    """Have a result, and ask for it, of its queue and of whichever."""
    for message in await broker.queue("q").receive(1):
        async with message.process():
            await message.progress(0.5, "half")
            await message.complete(1, kept=1, confirmed=True)
        await broker.queue("q").result(message.id)
        await broker.result(message.id)


async def call(broker: minibroker.Broker) -> None:
    await asyncio.wait_for(broker.queue("calls").call(b"x", on_progress=print), 0.05)


async def step(broker: minibroker.Broker) -> None:
    for message in await broker.queue("q").receive(1):
        async with message.process(), message.step() as step:
            step.publish("next", b"x")
            step.then("next", b"y", after=[message.id])


async def by_name(broker: minibroker.Broker, verb: str, *args: Any, **options: Any) -> None:
    """Do something to a message that waits, or that this client has."""
    queue = broker.queue("q")
    for message in await queue.receive(1):
        async with message.process():
            name = [message.id] if verb == "cancel" else message.id
            with suppress(minibroker.MinibrokerError):
                await getattr(queue, verb)(name, *args, **options)


async def start_redrive(broker: minibroker.Broker) -> None:
    dead = broker.queue("q.dlq")
    await reject_and(broker, "error_groups")
    with suppress(minibroker.LimitReached):
        await dead.start_redrive(rate=1)
    await dead.redrive_state()
    await dead.stop_redrive()


async def pause_all(broker: minibroker.Broker) -> None:
    await broker.queue("empty").pause(for_=1)
    await broker.pause_workers("nobody", for_=1, deadline=1)
    await broker.pauses()
    await broker.resume_workers("nobody")
    await broker.queue("empty").resume()


async def set_keys(broker: minibroker.Broker) -> None:
    queue = broker.queue("empty")
    await queue.set_key_weight("k", 2)
    await queue.pause_key("k", 1)
    await queue.keys()
    await queue.resume_key("k")


async def set_schedule(broker: minibroker.Broker) -> None:
    schedules = broker.schedules
    await schedules.set("s", "0 3 1 1 *", "other", b"x")
    await schedules.pause("s")
    await schedules.list()
    await schedules.resume("s")
    await schedules.show("s")
    await schedules.run("s")
    await schedules.delete("s")


VERBS: dict[str, Verb] = {
    "complete, progress, result": complete_and,
    "call": call,
    "step": step,
    "explain": lambda broker: by_name(broker, "explain"),
    "cancel": lambda broker: by_name(broker, "cancel"),
    "cancel of a key": lambda broker: broker.queue("q").cancel(key="k"),
    "reschedule": lambda broker: by_name(broker, "reschedule", delay=0),
    "requeue": lambda broker: by_name(broker, "requeue"),
    "start_redrive": start_redrive,
    "pauses": pause_all,
    "keys": set_keys,
    "schedules": set_schedule,
    "receive": lambda broker: receive_and(broker, "ack", True),
    "receive of what comes": lambda broker: asyncio.wait_for(
        broker.queue("empty").receive(wait=60), 0.05
    ),
    "nack": lambda broker: receive_and(broker, "nack", "no", 0, True),
    "reject": lambda broker: receive_and(broker, "reject", "no", True),
    "release": lambda broker: receive_and(broker, "release", True),
    "extend": lambda broker: receive_and(broker, "extend", 5),
    "consume": consume_two,
    "run": run_quickly,
    "publish": lambda broker: broker.queue("q").publish(b"x"),
    "publish_many": lambda broker: broker.queue("q").publish_many([b"x"] * 1_200),
    "peek": lambda broker: broker.queue("q").peek(),
    "set": lambda broker: broker.queue("q").set(max_attempts=1_000),
    "settings": lambda broker: broker.queue("q").settings(),
    "declared": lambda broker: broker.queue("other", max_attempts=9).declared(),
    "redrive": lambda broker: reject_and(broker, "redrive"),
    "purge": lambda broker: reject_and(broker, "purge"),
    "move": lambda broker: broker.queue("q").move("other", count=1),
    "delete": delete,
    "join": lambda broker: broker.queue("empty").join(),
    "stats": lambda broker: broker.stats(),
    "ping": lambda broker: broker.ping(),
}


@pytest.fixture(scope="module")
def broker_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerServer]:
    """One for all tests here: each leaves nothing behind."""
    server = BrokerServer(tmp_path_factory.mktemp("cancelling") / "data")
    yield server
    server.close()


@pytest.fixture
async def watcher(broker_server: BrokerServer) -> Any:
    """A client of its own that asks what the server holds."""
    async with minibroker.connect(broker_server.url, name="watcher") as broker:
        await broker.queue("q").set(max_attempts=1_000)
        await broker.queue("empty").set(max_attempts=1_000)
        await broker.queue("q").purge()
        yield broker


async def held(watcher: minibroker.Broker) -> dict[str, int]:
    """Return what is handed out or waited for, over all queues."""
    counts = {"held": 0, "begun": 0, "consumers": 0}
    for counters in (await watcher.stats())["queues"].values():
        for name in counts:
            counts[name] += counters[name]
    return {name: count for name, count in counts.items() if count}


def let_time_pass(broker: minibroker.Broker) -> None:
    """Let every deadline of its calls pass."""
    driver = broker._driver
    driver.machine.due(now_ms() + TIMEOUT_S * 1000 + SLOT_MS)
    driver.flush()


@pytest.mark.parametrize("late", [False, True], ids=["at once", "when answered"])
@pytest.mark.parametrize("cut", ["cancelled", "too late"])
@pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS.keys())
async def test_a_call_that_is_cut_short_leaves_nothing_behind(
    broker_server: BrokerServer, watcher: minibroker.Broker, verb: Verb, cut: str, late: bool
) -> None:
    async with minibroker.connect(broker_server.url, name=cut, timeout=TIMEOUT_S) as broker:
        await broker.queue("q").publish_many([b"x"] * 50)
        for point in range(1, MOST_POINTS):
            how = None if cut == "cancelled" else partial(let_time_pass, broker)
            relay = Relay(verb(broker), point, late=late, cut=how)
            task = asyncio.ensure_future(_through(relay))
            await asyncio.wait([task])
            assert task.cancelled() or task.exception() is None, task
            await broker.ping()
            assert await held(watcher) == {}, f"{cut} at suspension {point}"
            if relay.points < point:
                break  # it has no such point
        assert broker._driver.consumers == {}


@pytest.mark.parametrize("late", [False, True], ids=["at once", "when answered"])
@pytest.mark.parametrize("cut", ["cancelled", "too late"])
async def test_a_close_that_is_cut_short_is_one(
    broker_server: BrokerServer, watcher: minibroker.Broker, cut: str, late: bool
) -> None:
    """Whatever there was to wait for: a run, messages that were delivered, an ack and a publish on their way."""
    await watcher.queue("q").publish_many([b"x"] * 40)
    before = (await watcher.stats())["server"]["sessions"]

    async def handle(message: minibroker.Message[Any]) -> None:
        pass

    for point in range(1, MOST_POINTS):
        broker = await minibroker.connect(broker_server.url, name=cut, timeout=TIMEOUT_S)
        running = asyncio.ensure_future(broker.queue("empty").run(handle, concurrency=2))
        [message] = await broker.queue("q").receive()
        async with broker.queue("q").consume(prefetch=5):
            await message.ack()
            publishing = asyncio.ensure_future(broker.queue("q").publish(b"y"))
            how = None if cut == "cancelled" else partial(let_time_pass, broker)
            relay = Relay(broker.close(), point, late=late, cut=how)
            closing = asyncio.ensure_future(_through(relay))
            await asyncio.wait([closing])
            assert broker._driver.is_closed
        running.cancel()
        await asyncio.gather(running, publishing, return_exceptions=True)
        for _ in range(20):
            await watcher.ping()
        assert await held(watcher) == {}, f"{cut} at suspension {point}"
        assert (await watcher.stats())["server"]["sessions"] == before
        if relay.points < point:
            break


async def _through(relay: Relay) -> None:
    with suppress(
        TimeoutError, minibroker.MinibrokerError
    ):  # too late, or that the session of `close` is over
        await relay


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
    before = (await watcher.queue("q").stats())["queues"]["q"]
    async with minibroker.connect(broker_server.url) as broker:
        for _ in range(6):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(broker.queue("q").receive(wait=60), 0.02)
        waiting = asyncio.ensure_future(watcher.queue("q").receive(wait=30))
        await watcher.ping()
        await broker.queue("q").publish(b"x")
        [message] = await asyncio.wait_for(waiting, 20)
        await message.ack(confirmed=True)
        after = (await watcher.queue("q").stats())["queues"]["q"]
        assert after["delivered"] - before["delivered"] == 1
        assert after["released"] == before["released"]
