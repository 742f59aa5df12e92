"""protocol.md, 5.3: a client says that its handler waits, and what it does with what is begun for that one."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import pytest
from session_world import World
from steps import settle_loop, until

import minibroker
from minibroker import sync
from minibroker.contract import wire
from minibroker.session import settle_frames
from minibroker.session.events import Dial
from minibroker.session.message import Delivery, MessageData
from minibroker.session.pacing import prefetch_of
from minibroker.session.settle_frames import MAX_RESUME_RUNS, NOT_ALL, resume_runs
from minibroker.session.settlements import BEGUN, ENDED, TOLD
from minibroker.session.subscription import Subscription
from minibroker.sync.waiter import Waiter

Frames = list[tuple[list[str], Mapping[str, object]]]


@pytest.fixture
def frames(monkeypatch: pytest.MonkeyPatch) -> Frames:
    """Note the operations and the header of each frame of begins and settlements."""
    noted: Frames = []
    pack = settle_frames.pack_parts

    def note(parts: Sequence[Any], header: Mapping[str, object]) -> bytes:
        noted.append(([part.op for part in parts], header))
        return pack(parts, header)

    monkeypatch.setattr(settle_frames, "pack_parts", note)
    return noted


@pytest.fixture
async def near() -> AsyncIterator[Callable[[], Any]]:
    """Return what connects to a broker in this process."""
    brokers: list[Any] = []

    async def connect() -> Any:
        brokers.append(await minibroker.connect("memory://handed"))
        return brokers[-1]

    yield connect
    for broker in brokers:
        await broker.close()


async def test_a_handler_that_waits_gets_its_message_begun(
    frames: Frames, near: Callable[[], Any]
) -> None:
    broker, producer = await near(), await near()
    done: asyncio.Queue[int] = asyncio.Queue()

    async def consume() -> None:
        async for message in broker.queue("q").consume(prefetch=1):
            for _ in range(3):
                await asyncio.sleep(0)  # so long that a begin would be written before the ack
            assert message.state in (BEGUN, TOLD)
            await message.ack()
            done.put_nowait(message.attempt)

    task = asyncio.create_task(consume())
    for _ in range(4):
        await producer.queue("q").publish(b"x")
        assert await done.get() == 1
        await until(lambda: bool(frames) and "waits" in frames[-1][1])
    task.cancel()
    await asyncio.wait([task])
    said = [op for ops, _ in frames for op in ops]
    assert said.count("ack") == 4
    assert said.count("begin") == 1  # of the first one: nothing had been said before it


async def test_it_is_not_said_while_another_handler_of_the_loop_is_at_work(
    frames: Frames, near: Callable[[], Any]
) -> None:
    """That one may compute for longer than the lease: nobody would renew what lies in the socket meanwhile."""
    broker, producer = await near(), await near()
    started, goes_on = asyncio.Event(), asyncio.Event()

    async def consume(messages: Any) -> None:
        async for message in messages:
            if message.body == b"long":
                started.set()
                await goes_on.wait()
            await message.ack()

    def acks() -> list[bool]:
        return ["waits" in header for ops, header in frames if "ack" in ops]

    async with broker.queue("q").consume(prefetch=2) as messages:
        tasks = [asyncio.create_task(consume(messages)) for _ in range(2)]
        await producer.queue("q").publish(b"long")
        await started.wait()
        await producer.queue("q").publish(b"short")
        await until(lambda: len(acks()) == 1)
        goes_on.set()
        await until(lambda: len(acks()) == 2)
        assert acks() == [False, True]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def waits_with_what_comes_kept_back(
    frames: Frames, worker: Any, producer: Any
) -> tuple[asyncio.Task[None], Callable[[], None]]:
    """Have a message begun for a handler, and not read; return its run, and what reads it after all."""

    async def handle(message: minibroker.Message[Any]) -> None:
        assert message.body == b"first"

    run = asyncio.create_task(worker.queue("q").run(handle))
    await producer.queue("q").publish(b"first")
    await until(lambda: bool(frames) and "waits" in frames[-1][1])
    await until(lambda: worker._driver.leaving.is_drained(True))
    link, kept = worker._driver.link, []
    received, link._received = link._received, lambda link, data: kept.append(data)
    await producer.queue("q").publish(b"second")
    await until(lambda: bool(kept))

    def read_all() -> None:
        link._received = received
        received(link, b"".join(kept))

    return run, read_all


@pytest.mark.parametrize("cancels", [False, True])
async def test_what_is_on_its_way_to_one_who_closes_is_given_back(
    frames: Frames, near: Callable[[], Any], *, cancels: bool
) -> None:
    """It was begun for a handler that never sees it, and would wait for its lease, charged."""
    worker, producer = await near(), await near()
    run, read_all = await waits_with_what_comes_kept_back(frames, worker, producer)
    if cancels:
        run.cancel()
        await until(lambda: not worker._driver.consumers)
    closing = asyncio.create_task(worker.close())
    await settle_loop()
    read_all()
    await asyncio.wait([run, closing])
    (again,) = await producer.queue("q").receive()
    assert (again.body, again.attempt, again.marked) == (b"second", 1, False)
    await again.ack()


async def test_a_connection_that_ends_meanwhile_has_nothing_on_its_way(
    frames: Frames, near: Callable[[], Any]
) -> None:
    worker, producer = await near(), await near()
    run, _ = await waits_with_what_comes_kept_back(frames, worker, producer)
    closing = asyncio.create_task(worker.close())
    await settle_loop()
    assert not closing.done()
    worker._driver._effects[Dial] = lambda effect: None  # no server is there any more
    worker._driver.link.fail(ConnectionResetError("cut"))
    await asyncio.wait_for(closing, 20)  # 30 s: the deadline
    await run


def test_a_thread_that_waits_does_so_too(frames: Frames) -> None:
    got, is_over = queue.Queue[int](), threading.Event()

    def consume() -> None:
        with sync.connect("memory://handed-threads") as broker:
            for message in broker.queue("q").consume(prefetch=4):
                message.ack()
                got.put(message.attempt)
                if message.body == b"last":
                    break
        is_over.set()

    thread = threading.Thread(target=consume, daemon=True)
    thread.start()
    with sync.connect("memory://handed-threads") as producer:
        for count in range(4):
            producer.queue("q").publish(b"x")
            assert got.get(timeout=20) == 1
            while sum("waits" in header for _, header in frames) <= count:
                assert not is_over.wait(0.001)
        producer.queue("q").publish(b"last")
        assert is_over.wait(20)
    said = [op for ops, _ in frames for op in ops]
    assert said.count("ack") == 5
    assert said.count("begin") <= 1


# ---- a session by hand ----


def consumer_of(world: World) -> Subscription:
    settlements = world.session.settlements_of("q")
    consumer = Subscription("q", prefetch_of(1), 0, settlements)
    consumer.number, consumer.owed = 1, world.session.owed
    world.session.consumers.add(1)
    return consumer


def handed(world: World, consumer: Subscription | None = None) -> MessageData[Any] | None:
    """Have a message come that is begun; return it where the session took it."""
    header = {"op": "deliver", "queue": "q", "token": 7, "lease_ms": 30_000, "count": 1, "runs": 1}
    header |= {"consumer": 1, "begun": True}
    column = wire.DELIVERY_RUN.pack(1, 5, 1, 1, 0, 0, 0)
    world.peer.send(header, column, wire.LENGTH.pack(0) * 2, b"")
    events: Any = world.read()
    if not events:
        return None
    (event,) = events
    delivery: Delivery = event.delivery
    message: MessageData[Any] = delivery.messages[0]
    if consumer is not None:
        consumer.deliver(delivery, 0)
    return message


def released(world: World) -> list[tuple[str, int | None]]:
    """Return what would be said of the message now, each with its value."""
    return [(other.op, other.value) for other in world.session.settlements_of("q").others]


def test_what_comes_for_a_consumer_that_has_gone_is_given_back() -> None:
    world = World()
    settlements = world.session.settlements_of("q")
    assert handed(world) is None
    assert released(world) == [("release", 1)]
    assert settlements in world.session.owing


def test_what_comes_when_nobody_waits_is_given_back() -> None:
    world = World()
    consumer = consumer_of(world)
    message = handed(world, consumer)
    assert message is not None
    assert message.state == ENDED
    assert not consumer._buffer
    assert released(world) == [("release", 1)]


def test_what_comes_for_one_who_waits_is_there_for_him() -> None:
    world = World()
    consumer, waiter = consumer_of(world), Waiter()
    consumer._wait(waiter, 0)
    message = handed(world, consumer)
    assert waiter.done()
    assert list(consumer._buffer) == [message]
    assert released(world) == []
    assert (
        world.session.login()
    )  # a connection that ends now has it not named: the server gives it back
    assert not list(world.session.begun_messages())


def test_who_was_told_of_it_and_goes_gives_it_back() -> None:
    world = World()
    consumer, waiter = consumer_of(world), Waiter()
    consumer._wait(waiter, 0)
    handed(world, consumer)
    assert consumer.pass_on()
    assert released(world) == [("release", 1)]
    assert not consumer._buffer


def test_another_one_who_waits_has_it_instead() -> None:
    world = World()
    consumer, first, second = consumer_of(world), Waiter(), Waiter()
    consumer._wait(first, 0)
    consumer._wait(second, 0)
    handed(world, consumer)
    assert not consumer.pass_on()
    assert second.done()
    assert released(world) == []


def test_a_consumer_that_ends_gives_it_back() -> None:
    world = World()
    consumer = consumer_of(world)
    consumer._wait(Waiter(), 0)
    handed(world, consumer)
    assert consumer.give_back_handed()
    assert released(world) == [("release", 1)]
    assert not consumer.give_back_handed()


@pytest.mark.parametrize("offers", [True, False])
def test_that_somebody_waits_is_said_to_servers_that_offer_it(
    frames: Frames, *, offers: bool
) -> None:
    world = World()
    consumer = consumer_of(world)
    world.session.owed.tells_waits = offers
    world.publish(b"x")
    world.turn()
    message = world.consume().messages[0]
    consumer._wait(Waiter(), 0)
    message._end()
    message.run.settlements.acks.append(message)
    message.run.settlements.owe()
    world.session.flush(0)
    assert [header.get("waits") for _, header in frames] == [1 if offers else None]


def test_who_does_not_wait_any_more_when_the_frame_leaves_is_not_named(frames: Frames) -> None:
    world = World()
    consumer, waiter = consumer_of(world), Waiter()
    world.session.owed.tells_waits = True
    world.publish(b"x")
    world.turn()
    message = world.consume().messages[0]
    consumer._wait(waiter, 0)
    waiter.cancel()
    message._end()
    message.run.settlements.acks.append(message)
    message.run.settlements.owe()
    world.session.flush(0)
    assert [header.get("waits") for _, header in frames] == [None]


def test_a_resume_that_cannot_name_all_says_so() -> None:
    world = World()
    world.publish(*[b"x"] * (2 * MAX_RESUME_RUNS + 2))
    world.turn()
    messages = world.consume(1_000).messages[::2]  # each a run of its own
    few = resume_runs(messages[:MAX_RESUME_RUNS])
    assert len(few) == MAX_RESUME_RUNS
    assert NOT_ALL not in few
    many = resume_runs(messages)
    assert len(many) <= MAX_RESUME_RUNS
    assert many[0] == NOT_ALL
