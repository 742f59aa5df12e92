"""Queues of one session, and queues with one active consumer, over both clients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import minibroker


async def names(broker: Any) -> set[str]:
    """Return the names of all queues."""
    return set((await broker.stats())["queues"])


async def test_a_temporary_queue_is_there_for_its_block(broker: Any, queue: Any) -> None:
    """Bound to an exchange it gets what its pattern takes; it ends with what is in it."""
    exchange = broker.exchange(queue.name)
    await exchange.declare("topic", unroutable="drop")
    async with broker.temporary_queue(durability="memory") as mine:
        assert mine.name.startswith("gen-")
        await exchange.bind(mine, "kern.#")
        await exchange.publish(b"1", routing_key="kern.critical")
        await exchange.publish(b"2", routing_key="cron")
        await exchange.publish(b"3", routing_key="kern")
        async with mine.consume() as messages:
            async for message in messages:
                assert message.body == b"1"
                async with message.process():
                    break
        assert mine.name in await names(broker)
    assert mine.name not in await names(broker)
    assert not (await exchange.publish(b"4", routing_key="kern")).queues
    with pytest.raises(minibroker.UnknownQueue):
        await mine.publish(b"5")


async def test_it_ends_with_an_error_too(broker: Any) -> None:
    """Which goes on."""
    temporary = broker.temporary_queue()
    mine = await temporary.__aenter__()
    await mine.publish(b"1")
    assert not await temporary.__aexit__(ZeroDivisionError, ZeroDivisionError(), None)
    assert mine.name not in await names(broker)


async def test_a_queue_of_one_session_is_refused_to_others(
    broker: Any, connect: Callable[..., Any], server: Any, queue: Any
) -> None:
    """They may publish to it; it ends with the session."""
    async with connect(server.url, name="owner", timeout=10) as owner:
        mine = owner.queue(queue.name, exclusive=True, max_attempts=3)
        assert (await mine.declared())["max_attempts"] == 3
        assert (await queue.publish(b"1")).id
        with pytest.raises(minibroker.ExclusiveQueue, match="owner"):
            await queue.receive()
        with pytest.raises(minibroker.ExclusiveQueue):
            await queue.purge()
        other = broker.queue(queue.name, exclusive=True)
        with pytest.raises(minibroker.ExclusiveQueue):
            await other.declared()
        (message,) = await mine.receive()
        assert message.body == b"1"
    assert queue.name not in await names(broker)


async def test_of_two_consumers_one_gets_everything(
    broker: Any, connect: Callable[..., Any], server: Any, queue: Any
) -> None:
    """And the other one what is left when the first one is gone."""
    await queue.set(active_consumers="one")
    second = broker.queue(queue.name)
    async with (
        connect(server.url, name="first", timeout=10) as first,
        first.queue(queue.name).consume() as messages,
    ):
        await queue.publish_many([b"1", b"2", b"3"])
        async for message in messages:
            assert message.body == b"1"
            assert await second.receive() == []
            await message.ack(confirmed=True)
            break
        active = (await queue.stats())["queues"][queue.name]["active"]
        assert active["client"] == "first"
    (message,) = await second.receive()
    assert message.body == b"2"
    await message.ack(confirmed=True)
