"""Settlements by hand, over both clients."""

from __future__ import annotations

from typing import Any

import pytest

import minibroker


async def begun(queue: Any, lease: float | None = None) -> Any:
    """Publish a message and receive it."""
    await queue.publish(b"x")
    [message] = await queue.receive(wait=5, lease=lease)
    return message


@pytest.mark.parametrize("confirmed", [False, True])
async def test_a_release_is_not_charged(queue: Any, confirmed: bool) -> None:
    message = await begun(queue)
    await message.release(confirmed)
    [again] = await queue.receive(wait=5)
    assert again.attempt == 1


async def test_a_nack_comes_back_after_its_delay(queue: Any) -> None:
    message = await begun(queue)
    await message.nack("not now", delay=0, confirmed=True)
    [again] = await queue.receive(wait=5)
    assert again.attempt == 2
    await again.nack(ValueError("later"), delay=60, confirmed=True)
    assert await queue.receive() == []
    [waiting] = await queue.peek()
    assert waiting.history[0]["error_text"] == "not now"


async def test_a_reject_goes_to_the_dlq_at_once(broker: Any, queue: Any) -> None:
    message = await begun(queue)
    await message.reject("never", confirmed=True)
    [dead] = await broker.queue(f"{queue.name}.dlq").peek()
    assert dead.id == message.id


async def test_it_ends_once(queue: Any) -> None:
    message = await begun(queue)
    await message.ack()
    for settle in (message.ack, message.nack, message.release, message.extend):
        with pytest.raises(minibroker.LeaseLost, match="settled before"):
            await settle()
    with pytest.raises(minibroker.LeaseLost):
        await message.reject("x")


async def test_a_lease_is_extended_by_hand(queue: Any) -> None:
    message = await begun(queue, lease=5)
    await message.extend(60)
    await message.extend()
    await message.ack(confirmed=True)


async def test_what_was_purged_meanwhile_is_lost(queue: Any) -> None:
    message = await begun(queue)
    assert await queue.purge() == 1
    with pytest.raises(minibroker.LeaseLost):
        await message.ack(confirmed=True)
    assert message.lost


@pytest.mark.parametrize(
    ("verb", "arguments", "error"),
    [
        ("nack", {"error": 5}, TypeError),
        ("nack", {"delay": -1}, minibroker.BadValue),
        ("reject", {"error": None}, TypeError),
        ("extend", {"lease": 0}, minibroker.BadValue),
    ],
)
async def test_a_wrong_argument_settles_nothing(
    queue: Any, verb: str, arguments: dict[str, Any], error: type[Exception]
) -> None:
    message = await begun(queue)
    with pytest.raises(error):
        await getattr(message, verb)(**arguments)
    await message.ack(confirmed=True)


async def test_after_the_end_nothing_can_be_confirmed(connect: Any, server: Any) -> None:
    async with connect(server.url) as broker:
        queue = broker.queue("closed")
        message = await begun(queue)
    for call in (message.ack(confirmed=True), queue.publish(b""), queue.receive(), broker.ping()):
        with pytest.raises(minibroker.Closed):
            await call
    await broker.close()
