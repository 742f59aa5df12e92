"""Consuming: the order of handing over, what `process` does, and what is given back when one leaves."""

from __future__ import annotations

import asyncio
import gc

import pytest
from fake_server import FakeServer
from steps import fill, settle_loop, settled, until

import minibroker
from minibroker.session.settlements import BEGUN, TOLD


async def test_each_message_is_acked_once(broker: minibroker.Broker, server: FakeServer) -> None:
    fill(server, 100)
    seen = []
    async with broker.queue("q").consume(prefetch=8) as messages:
        async for message in messages:
            async with message.process() as same:
                assert same is message
                seen.append(int(message.body))
            if len(seen) == 100:
                break
    assert seen == list(range(100))
    assert sorted(settled(server, "ack")) == list(range(100))
    assert server.held == {}
    assert len(server.parts("cancel")) == 1


async def test_leaving_gives_back_what_has_not_begun(
    broker: minibroker.Broker, server: FakeServer
) -> None:
    """Settlements first, then the cancel: it must not overtake an ack."""
    fill(server, 10)
    async with broker.queue("q").consume(prefetch=8) as messages:
        async for message in messages:
            async with message.process():
                pass
            if message.sequence == 2:
                break
    assert settled(server, "ack") == [0, 1, 2]
    assert [stored[0] for stored in server.queue("q").ready] == list(range(3, 10))


async def test_a_break_without_async_with_gives_back_what_has_not_begun(
    broker: minibroker.Broker, server: FakeServer
) -> None:
    fill(server, 10)
    async for message in broker.queue("q").consume(prefetch=8):
        await message.ack()
        break
    gc.collect()
    await settle_loop()
    assert [stored[0] for stored in server.queue("q").ready] == list(range(1, 10))
    assert settled(server, "ack") == [0]


# ---- the order of handing over ----


async def test_after_a_pause_the_begin_is_written_before_the_message_is_shown(
    broker: minibroker.Broker, server: FakeServer
) -> None:
    """A handler that computes and dies has been charged for it."""
    fill(server, 3)
    async with broker.queue("q").consume(prefetch=3) as messages:
        iterator = aiter(messages)
        for sequence in range(3):
            broker._driver.last_write = 0.0  # longer ago than 1 ms
            message = await anext(iterator)
            assert message.state == TOLD
            assert settled(server, "begin")[-1] == sequence
            await message.ack()


async def test_a_marked_message_is_begun_before_it_is_shown(
    broker: minibroker.Broker, server: FakeServer
) -> None:
    fill(server, 2)
    server.marked = True
    async with broker.queue("q").consume(prefetch=2) as messages:
        iterator = aiter(messages)
        for _ in range(2):
            broker._driver.last_write = float("inf")  # just now
            message = await anext(iterator)
            assert (message.marked, message.state) == (True, TOLD)
            await message.ack()


async def test_a_quick_handler_costs_no_begin(
    broker: minibroker.Broker, server: FakeServer
) -> None:
    """Begin and ack in one turn need only the ack; the loop is not turned for each message."""
    fill(server, 4)
    async with broker.queue("q").consume(prefetch=100) as messages:
        iterator = aiter(messages)
        first = await anext(iterator)
        broker._driver.last_write = float("inf")
        for _ in range(3):
            message = await anext(iterator)
            assert message.state == BEGUN
            await message.ack()
        await first.ack()
        await settle_loop()
        assert settled(server, "begin") in ([], [0])
        assert len(server.parts("ack")) == 1


async def test_the_begin_of_a_handler_that_waits_goes_out_with_the_turn(
    broker: minibroker.Broker, server: FakeServer
) -> None:
    fill(server, 1)
    async with broker.queue("q").consume() as messages:
        message = await anext(aiter(messages))
        await settle_loop()
        assert settled(server, "begin") == [0]
        await message.ack()


async def test_acks_leave_when_half_the_prefetch_is_used(
    broker: minibroker.Broker, server: FakeServer
) -> None:
    """The server refills while the handlers work: the loop is turned although the buffer is not empty."""
    fill(server, 100)
    async with broker.queue("q").consume(prefetch=100) as messages:
        iterator = aiter(messages)
        await (await anext(iterator)).ack()
        for _ in range(52):
            broker._driver.last_write = float("inf")
            await (await anext(iterator)).ack()
        assert len(settled(server, "ack")) >= 50


async def test_a_turn_that_a_cancelled_task_cannot_use_goes_to_another(
    broker: minibroker.Broker, server: FakeServer
) -> None:
    async with broker.queue("q").consume(prefetch=5) as messages:
        iterator = aiter(messages)
        first = asyncio.ensure_future(anext(iterator))
        second = asyncio.ensure_future(anext(iterator))
        await settle_loop()
        fill(server, 1)
        link = server.links[-1]
        link.peer.deliver()
        data, link.peer.out = b"".join(link.peer.out), []
        link.data_received(data)  # it is the turn of the first
        first.cancel()
        message = await asyncio.wait_for(second, 30)
        await message.ack()


async def test_leaving_does_not_cancel_before_the_acks_have_room(
    broker: minibroker.Broker, server: FakeServer
) -> None:
    """A cancel gives back what has not begun; an ack that waits behind a full window is not lost to it."""
    fill(server, 2)
    consumption = broker.queue("q").consume(prefetch=2)
    messages = await consumption.__aenter__()
    broker._driver.last_write = float("inf")
    server.withhold = True
    queues = [broker.queue(f"q{n}") for n in range(1_024)]
    tasks = [asyncio.ensure_future(queue.publish(b"a")) for queue in queues]
    await settle_loop()
    message = await anext(aiter(messages))
    acking = asyncio.ensure_future(message.ack())
    leaving = asyncio.ensure_future(consumption.__aexit__(None, None, None))
    await settle_loop()
    assert server.parts("cancel") == []
    server.withhold = False
    for sequence in range(1, 1_025):
        server.links[-1].peer.confirm(sequence)
    server.links[-1].deliver()
    await asyncio.gather(acking, leaving, *tasks)
    assert settled(server, "ack") == [message.sequence]
    assert [stored[0] for stored in server.queue("q").ready] == [1]


async def test_a_cancelled_hand_over_gives_the_message_back(
    broker: minibroker.Broker, server: FakeServer
) -> None:
    fill(server, 1)
    async with broker.queue("q").consume() as messages:
        await settle_loop()
        broker._driver.last_write = 0.0
        task = asyncio.ensure_future(anext(aiter(messages)))
        await asyncio.sleep(0)  # it is in the turn between the write and the message
        task.cancel()
        await asyncio.wait([task])
        await settle_loop()
    assert settled(server, "release") == [0]


# ---- connections that end ----


async def test_consumers_are_armed_again_and_held_messages_dropped(
    broker: minibroker.Broker, server: FakeServer
) -> None:
    fill(server, 3)
    async with broker.queue("q").consume(prefetch=3) as messages:
        iterator = aiter(messages)
        first = await anext(iterator)
        await settle_loop()
        server.links[-1].peer.give_back()
        server.links[-1].fail(ConnectionResetError("gone"))
        second = await anext(iterator)
        assert second.token > first.token
        assert [message.sequence for message in (first, second)] == [0, 1]
        await first.ack()
        await second.ack()
    assert len(server.parts("consume")) == 2
    assert settled(server, "ack") == [0, 1]
    assert len(server.queue("q").ready) == 1


async def test_what_resume_names_as_lost_is_lost(
    broker: minibroker.Broker, server: FakeServer
) -> None:
    fill(server, 2)
    first, second = await broker.queue("q").receive(2)
    server.withhold = True
    await second.ack()
    await settle_loop()
    server.welcome_lost = [(first.token, 1, 0, 2)]
    server.withhold = False
    server.links[-1].fail(ConnectionResetError("gone"))
    await asyncio.wait_for(broker.queue("q").publish(b"x"), 30)
    assert first.lost
    assert not second.lost  # judged by the answer to its frame, which was sent again


# ---- receive, run ----


async def test_receive_returns_begun_messages_or_none(
    broker: minibroker.Broker, server: FakeServer
) -> None:
    fill(server, 3)
    queue = broker.queue("q")
    assert [message.body for message in await queue.receive(2)] == [b"0", b"1"]
    assert [message.body for message in await queue.receive(2, wait=0.5, lease=9)] == [b"2"]
    assert await queue.receive(2) == []
    assert [part["wait_ms"] for part in server.parts("receive")] == [0, 500, 0]
    assert [part["lease_ms"] for part in server.parts("receive")] == [0, 9_000, 0]


async def test_messages_for_a_cancelled_receive_go_back(
    broker: minibroker.Broker, server: FakeServer
) -> None:
    fill(server, 2)
    task = asyncio.ensure_future(broker.queue("q").receive(2))
    await asyncio.sleep(0)
    await asyncio.sleep(0)  # written
    task.cancel()
    await settle_loop()
    assert len(server.queue("q").ready) == 2
    assert not server.held


async def test_a_receive_cancelled_before_the_write_is_never_sent(
    broker: minibroker.Broker, server: FakeServer
) -> None:
    fill(server, 1)
    task = asyncio.ensure_future(broker.queue("q").receive(1))
    asyncio.get_running_loop().call_soon(task.cancel)
    broker._driver.scheduled = True  # the flush of this turn comes after the cancellation
    await asyncio.wait([task])
    broker._driver.scheduled = False
    broker._driver.flush()
    assert server.parts("receive") == []


async def test_run_calls_the_handler_n_at_a_time_and_drains(
    broker: minibroker.Broker, server: FakeServer
) -> None:
    fill(server, 10)
    running: list[int] = []
    most = 0
    gate = asyncio.Event()

    async def handler(message: minibroker.Message[bytes]) -> None:
        nonlocal most
        running.append(message.sequence)
        most = max(most, len(running))
        await gate.wait()
        running.remove(message.sequence)

    task = asyncio.ensure_future(broker.queue("q").run(handler, concurrency=4))
    # Sorted: whose begin is the first write after a while lets the loop turn once more.
    await until(lambda: sorted(running) == [0, 1, 2, 3])
    task.cancel()
    await settle_loop()
    assert not task.done()  # the handlers are waited for
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert most == 4
    assert sorted(settled(server, "ack")) == [0, 1, 2, 3]
    assert len(server.queue("q").ready) == 6


async def test_a_second_cancel_of_run_cancels_the_handlers(
    broker: minibroker.Broker, server: FakeServer
) -> None:
    fill(server, 2)

    async def handler(message: minibroker.Message[bytes]) -> None:
        await asyncio.Event().wait()

    task = asyncio.ensure_future(broker.queue("q").run(handler, concurrency=2))
    await settle_loop()
    task.cancel()
    await settle_loop()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sorted(settled(server, "release")) == [0, 1]


async def test_a_refused_consume_is_raised(broker: minibroker.Broker, server: FakeServer) -> None:
    server.refuse = lambda header: {"code": "unknown_queue", "text": "q", "retryable": False}
    with pytest.raises(minibroker.UnknownQueue):
        async with broker.queue("q").consume():
            pass
    with pytest.raises(minibroker.UnknownQueue):
        await broker.queue("q").run(lambda message: asyncio.sleep(0))
    server.refuse = lambda header: None
    assert broker._driver.consumers == {}


@pytest.mark.parametrize("count", [0, 10_001])
async def test_a_prefetch_out_of_range_is_refused(broker: minibroker.Broker, count: int) -> None:
    with pytest.raises(minibroker.BadValue):
        broker.queue("q").consume(prefetch=count)
    with pytest.raises(minibroker.BadValue):
        await broker.queue("q").run(lambda message: asyncio.sleep(0), concurrency=count)


async def test_a_consumer_that_opens_over_a_reconnect_is_asked_for_once(
    broker: minibroker.Broker, server: FakeServer
) -> None:
    """Asked twice, the withdrawal of the one would leave the other at the server."""
    server.mute = True
    opening = asyncio.ensure_future(broker.queue("q").consume().__aenter__())
    await settle_loop()
    server.mute = False
    before = len(server.parts("consume"))
    server.links[-1].fail(ConnectionResetError("gone"))
    consumer = await opening
    await settle_loop()
    assert len(server.parts("consume")) == before + 1
    await consumer.__aexit__(None, None, None)
