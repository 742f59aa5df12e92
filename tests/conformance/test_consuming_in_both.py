"""Consuming, over both clients: iteration, the block of `process`, runs, and how each of them ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

import minibroker
from support.broker import BrokerServer
from support.renewals import LEASE_S, renewed


async def counters(queue: Any) -> dict[str, int]:
    """Return what the server counts of a queue."""
    found: dict[str, int] = (await queue.stats())["queues"][queue.name]
    return found


async def test_all_that_waits_is_handed_out_in_order_and_acked(queue: Any) -> None:
    await queue.publish_many([b"%d" % number for number in range(300)])
    seen = []
    async with queue.consume(prefetch=32) as messages:
        async for message in messages:
            async with message.process():
                seen.append(int(message.body))
            if len(seen) == 300:
                break
    assert seen == list(range(300))
    found = await counters(queue)
    assert [found[name] for name in ("ready", "held", "begun", "acked")] == [0, 0, 0, 300]


async def test_leaving_gives_back_what_was_not_begun(queue: Any) -> None:
    await queue.publish_many([b"x"] * 20)
    async with queue.consume(prefetch=10) as messages:
        async for message in messages:
            await message.ack()
            break
    found = await counters(queue)
    assert [found[name] for name in ("ready", "held", "begun", "failed")] == [19, 0, 0, 0]


async def test_a_handler_that_fails_costs_an_attempt_and_leaves_its_history(
    broker: Any, queue: Any
) -> None:
    await queue.set(max_attempts=2, retry_delay_ms=0)
    await queue.publish(b"bad")
    for attempt in (1, 2):
        [message] = await queue.receive(wait=5)
        assert message.attempt == attempt
        async with message.process():
            raise ValueError("no such address")
    dead = broker.queue(f"{queue.name}.dlq")
    [one] = await dead.receive(wait=5)
    await one.release(confirmed=True)
    [one] = await dead.peek()
    assert [entry["error_class"] for entry in one.history] == ["ValueError", "ValueError"]
    assert one.history[0]["client"] == "tester"
    assert one.attempts["failed"] == 2
    assert await dead.redrive([one.id]) == 1
    [again] = await queue.receive(wait=5)
    assert (again.id, again.attempt) == (one.id, 1)
    await again.ack(confirmed=True)


async def test_reraise_settles_and_goes_on(queue: Any) -> None:
    await queue.set(retry_delay_ms=0)
    await queue.publish(b"x")
    [message] = await queue.receive(wait=5)
    with pytest.raises(ValueError, match="seen"):
        async with message.process(reraise=True):
            raise ValueError("seen")
    [again] = await queue.receive(wait=5)
    assert again.attempt == 2
    await again.ack(confirmed=True)


async def test_what_ends_a_process_is_charged_and_propagates(queue: Any) -> None:
    await queue.set(retry_delay_ms=0)
    await queue.publish(b"x")
    [message] = await queue.receive(wait=5)
    with pytest.raises(SystemExit):
        async with message.process():
            raise SystemExit(3)
    [again] = await queue.receive(wait=5)
    assert again.attempt == 2


async def test_an_unreadable_body_is_rejected(
    broker: Any, queue: Any, server: BrokerServer
) -> None:
    queue_name = queue.name
    async with minibroker.connect(server.url) as other:
        group = other.queue(queue_name)._group((queue_name, 10_000), 1, 10)
        waiter = other._driver.create_future()
        group.add(waiter, b"", b"\xc1", 1, b"", 0)
        other._driver.schedule()
        await waiter
    [message] = await queue.receive(wait=5)
    async with message.process():
        _ = message.body
    [dead] = await broker.queue(f"{queue_name}.dlq").receive(wait=5)
    assert dead.raw == b"\xc1"


@pytest.mark.parametrize("concurrency", [1, 4])
async def test_a_run_calls_its_handler_for_each_until_the_connection_is_closed(
    connect: Callable[..., Any], server: BrokerServer, concurrency: int, request: Any
) -> None:
    seen: list[bytes] = []
    enough = asyncio.Event()
    loop = asyncio.get_running_loop()

    def handle(message: Any) -> None:
        seen.append(message.body)
        if len(seen) == 40:
            loop.call_soon_threadsafe(enough.set)

    async with connect(server.url, timeout=10) as broker:
        kind = "aio" if isinstance(broker, minibroker.Broker) else "sync"
        queue = broker.queue(f"run-{kind}-{concurrency}")
        await queue.publish_many([b"%d" % number for number in range(40)])
        run = asyncio.ensure_future(queue.run(handle, concurrency))
        await enough.wait()
        await broker.close()
        await asyncio.wait([run])
    assert sorted(map(int, seen)) == list(range(40))
    async with connect(server.url) as broker:
        found = await counters(broker.queue(queue.name))
        assert [found[name] for name in ("ready", "held", "begun", "acked")] == [0, 0, 0, 40]


async def test_a_consumer_that_is_quick_finds_a_larger_prefetch_by_itself(
    broker: Any, queue: Any
) -> None:
    await queue.publish_many([b"x"] * 3_000)
    done = most = 0
    async with queue.consume(prefetch="auto") as messages:
        async for message in messages:
            await message.ack()
            done += 1
            if done % 100 == 50:
                most = max(most, (await counters(queue))["held"])
            if done == 3_000:
                break
    assert most > 1  # it began with one at a time
    assert (await counters(queue))["acked"] == 3_000


@pytest.mark.parametrize("handler", [5, lambda: None, "name"])
async def test_what_can_handle_nothing_takes_nothing(queue: Any, handler: Any) -> None:
    with pytest.raises(TypeError):
        await queue.run(handler)


@pytest.mark.parametrize(
    "arguments", [{"prefetch": 0}, {"prefetch": 10**6}, {"lease": 0}, {"lease": 10**9}]
)
async def test_a_consumer_out_of_range_is_refused(queue: Any, arguments: dict[str, Any]) -> None:
    with pytest.raises(minibroker.BadValue):
        queue.consume(**arguments)


async def test_a_receive_waits_and_may_get_nothing(queue: Any) -> None:
    assert await queue.receive(wait=0.05) == []
    waiting = asyncio.ensure_future(queue.receive(wait=20))
    await queue.publish(b"x")
    [message] = await waiting
    await message.ack(confirmed=True)


async def test_leases_are_renewed_while_a_handler_works(queue: Any) -> None:
    await queue.publish(b"x")
    [message] = await queue.receive(wait=5, lease=LEASE_S)
    await renewed(queue, message.id)
    await message.ack(confirmed=True)
    assert not message.lost


async def test_begun_messages_outlive_a_restart(
    connect: Callable[..., Any], start_broker: Callable[..., BrokerServer]
) -> None:
    server = start_broker()
    async with connect(server.url, timeout=30) as broker:
        queue = broker.queue("q")
        await queue.publish(b"x")
        [message] = await queue.receive()
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.restart)
        await message.ack(confirmed=True)
        assert await queue.receive(wait=0.1) == []


async def test_a_consumer_goes_on_after_a_restart(
    connect: Callable[..., Any], start_broker: Callable[..., BrokerServer]
) -> None:
    server = start_broker()
    async with connect(server.url, timeout=30) as broker:
        queue = broker.queue("q")
        await queue.publish_many([b"0", b"1"])
        async with queue.consume() as messages:
            async for message in messages:
                await message.ack(confirmed=True)
                if message.body == b"1":
                    break
                await asyncio.to_thread(server.kill)
                await asyncio.to_thread(server.restart)
    async with connect(server.url) as broker:
        assert (await counters(broker.queue("q")))["ready"] == 0


async def test_what_a_busy_consumer_has_not_begun_goes_to_an_idle_one(
    connect: Callable[..., Any], server: BrokerServer, queue: Any
) -> None:
    """While its handler runs: it keeps what it works on, and nothing is charged."""
    confirms = await queue.publish_many([b"%d" % number for number in range(5)])
    got = []
    async with queue.consume(prefetch=5) as messages, connect(server.url, name="idle") as idle:
        async for message in messages:
            if message.body == b"last":
                await message.ack(confirmed=True)
                break
            assert message.id == confirms[0].id, "what went back begins here, too"
            for _ in range(4):
                got += await idle.queue(queue.name).receive(wait=10)
            await message.ack(confirmed=True)
            await queue.publish(b"last")
        assert sorted(each.id for each in got) == [confirm.id for confirm in confirms[1:]]
        assert {each.attempt for each in got} == {1}
        found = await counters(queue)
        assert [found[name] for name in ("recalled", "released", "held")] == [4, 0, 0]
        for each in got:
            await each.ack(confirmed=True)
