"""What goes wrong with a broker in memory: connections break, it restarts, it crashes, its disk is full."""

from __future__ import annotations

import asyncio

import pytest

import minibroker as client
from minibroker import DiskFull, LeaseLost
from minibroker.testing import MemoryBroker


async def test_broken_connections_lose_nothing(minibroker: MemoryBroker) -> None:
    queue = minibroker.queue("q")
    await queue.publish(b"x")
    (message,) = await queue.receive()
    async with client.connect(minibroker.url) as other:
        await minibroker.drop_connections()
        await other.queue("q").publish(b"y")
    await message.ack(confirmed=True)
    (message,) = await queue.receive()
    assert message.body == b"y"
    await message.ack()


@pytest.mark.parametrize("stopped", [False, True])
async def test_a_restart_keeps_everything_and_begun_messages_go_on(stopped: bool) -> None:
    with MemoryBroker(stopped=stopped) as broker:
        queue = broker.queue("q")
        await queue.set(durability="lazy")
        await queue.publish_many([b"a", b"b"])
        (message,) = await queue.receive()
        await broker.restart()
        await message.ack(confirmed=True)
        (message,) = await queue.receive()
        assert message.body == b"b"


@pytest.mark.parametrize("stopped", [False, True])
async def test_a_crash_loses_what_was_not_synced_and_only_that(stopped: bool) -> None:
    """A lazy message was confirmed before; one of durability sync comes again by itself, once."""
    with MemoryBroker(stopped=stopped) as broker:
        lazy, safe = broker.queue("lazy"), broker.queue("safe")
        await lazy.set(durability="lazy")
        await lazy.publish(b"kept")
        await safe.publish(b"before")
        broker.hold_syncs()
        await lazy.publish(b"lost")
        again = asyncio.create_task(safe.publish(b"again"))
        await asyncio.sleep(0)
        assert not again.done()
        await broker.crash()
        await again
        assert [message.body for message in await lazy.receive(count=9)] == [b"kept"]
        bodies = [message.body for message in await safe.receive(count=9)]
        assert bodies == [b"before", b"again"]


async def test_a_begun_message_of_a_worker_that_died_comes_again(
    minibroker_clock: MemoryBroker,
) -> None:
    """Charged as lost with its worker, when its lease is over."""
    worker = minibroker_clock.client("worker")
    queue = minibroker_clock.queue("q")
    await queue.publish(b"x")
    (message,) = await worker.queue("q").receive()
    worker.end()
    await minibroker_clock.advance(29)
    assert await queue.receive() == []
    await minibroker_clock.advance(2)
    (message,) = await queue.receive()
    assert message.attempt == 2
    assert (await queue.stats())["queues"]["q"]["worker_lost"] == 1


@pytest.mark.usefixtures("refused_at_once")
async def test_a_full_disk_refuses_publishes_and_takes_acks(
    minibroker: MemoryBroker, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """What the broker has to say of it goes to the application's log, and nowhere else."""
    queue = minibroker.queue("q")
    await queue.publish(b"x")
    (message,) = await queue.receive()
    minibroker.fill_disk()
    with pytest.raises(DiskFull):
        await queue.publish(b"y")
    await message.ack(confirmed=True)
    minibroker.free_disk()
    await queue.publish(b"z")
    said = [record for record in caplog.records if record.name == "minibroker.broker"]
    assert [record.levelname for record in said] == ["ERROR"]
    assert said[0].getMessage().startswith("disk_full bytes=")
    assert capfd.readouterr() == ("", "")


async def test_what_a_crash_took_from_a_handler_is_told(minibroker_clock: MemoryBroker) -> None:
    """A lazy message that was begun and lost with the crash cannot be acked any more."""
    queue = minibroker_clock.queue("q")
    await queue.set(durability="memory")
    await queue.publish(b"x")
    (message,) = await queue.receive()
    await minibroker_clock.crash()
    with pytest.raises(LeaseLost):
        await message.ack(confirmed=True)


@pytest.mark.parametrize("_", range(12))
async def test_a_worker_that_comes_back_after_a_crash_keeps_what_it_had_begun(
    minibroker_clock: MemoryBroker, _: int
) -> None:
    """Its begin was not safe, and another consumer, who may be back first, waits for it."""
    queue, worker = minibroker_clock.queue("q"), minibroker_clock.client("worker")
    await queue.publish(b"w")
    (first,) = await worker.queue("q").receive()  # that it takes from the queue is safe
    await first.ack(confirmed=True)
    await queue.publish(b"x")
    minibroker_clock.hold_syncs()
    (message,) = await worker.queue("q").receive()
    async with queue.consume() as others:
        await minibroker_clock.crash()
        await message.ack(confirmed=True)
        await queue.publish(b"y")
        assert (await anext(aiter(others))).body == b"y"
    worker.end()
