"""Steps, over both clients: all of one happens or nothing, whatever becomes of its message and its queues."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

import minibroker


async def begun(queue: Any, count: int = 1, lease: float | None = None) -> list[Any]:
    """Publish messages and receive them."""
    await queue.publish_many([b"%d" % number for number in range(count)])
    messages: list[Any] = await queue.receive(count, wait=5, lease=lease)
    return messages


async def fail(step: Any) -> None:
    """End the block of a step with an error."""
    async with step:
        raise ZeroDivisionError


async def end(step: Any) -> None:
    """End a step."""
    async with step:
        pass


async def bodies(broker: Any, *names: str) -> list[list[Any]]:
    """Return what lies in each of some queues."""
    found = []
    for name in names:
        try:
            found.append([each.body for each in await broker.queue(name).peek()])
        except minibroker.UnknownQueue:
            found.append([])
    return found


async def test_a_step_acks_and_publishes_to_several_queues(broker: Any, queue: Any) -> None:
    [message] = await begun(queue)
    mails, audit = f"{queue.name}-mails", broker.queue(f"{queue.name}-audit")
    async with message.step() as step:
        step.publish(mails, {"n": 1}, key="k", headers={"h": 1})
        step.publish(audit, b"a")
        step.publish_many(mails, ["x", b"y"])
        step.publish(mails, b"z", max_attempts=3, delay=60, priority=6)
        assert len(step.confirms) == 0
    assert await bodies(broker, queue.name, mails, audit.name) == [
        [], [{"n": 1}, "x", b"y", b"z"], [b"a"],
    ]  # fmt: skip
    peeked = await broker.queue(mails).peek()
    first = peeked[0]
    assert (first.info["key"], first.headers, peeked[3].info["state"]) == ("k", {"h": 1}, "DELAYED")
    assert (peeked[3].info["max_attempts"], peeked[3].info["priority"]) == (3, 6)
    expected = [peeked[0].id, (await audit.peek())[0].id, *(each.id for each in peeked[1:])]
    assert [confirm.id for confirm in step.confirms] == expected
    with pytest.raises(minibroker.LeaseLost, match="settled before"):
        await message.ack()
    with pytest.raises(RuntimeError, match="over"):
        step.publish(mails, b"late")


async def test_a_step_without_a_message_publishes_to_all_its_queues(
    broker: Any, queue: Any
) -> None:
    names = [f"{queue.name}-{number}" for number in range(5)]
    async with broker.step() as step:
        for name in names:
            step.publish(name, name)
    assert await bodies(broker, *names) == [[name] for name in names]
    async with broker.step():
        pass  # nothing to do is done at once


async def test_an_error_in_its_block_leaves_everything_as_it_was(broker: Any, queue: Any) -> None:
    [message] = await begun(queue)
    step = message.step()
    step.publish(f"{queue.name}-next", b"")
    with pytest.raises(ZeroDivisionError):
        await fail(step)
    assert await bodies(broker, f"{queue.name}-next") == [[]]
    await message.ack(confirmed=True)


async def test_a_step_whose_lease_was_lost_stores_nothing(broker: Any, queue: Any) -> None:
    [message] = await begun(queue)
    step = message.step()
    await queue.cancel([message.id])
    step.publish(f"{queue.name}-next", b"")
    with pytest.raises(minibroker.LeaseLost):
        await end(step)
    assert await bodies(broker, f"{queue.name}-next") == [[]]
    with pytest.raises(minibroker.LeaseLost):
        message.step()


async def test_a_step_in_a_handler_ends_its_message_once(broker: Any, queue: Any) -> None:
    [message] = await begun(queue)
    async with message.process(), message.step() as step:
        step.publish(f"{queue.name}-next", b"n")
    assert await bodies(broker, queue.name, f"{queue.name}-next") == [[], [b"n"]]
    assert (await queue.stats())["queues"][queue.name]["lost_settlements"] == 0


@pytest.mark.parametrize(
    ("settings", "count", "error"),
    [
        ({"max_messages": 2}, 3, minibroker.TooLarge),
        ({"max_messages": 2}, 2, minibroker.Busy),
    ],
    ids=["too_large", "busy"],
)
@pytest.mark.usefixtures("refused_at_once")
async def test_a_refused_step_leaves_its_message_to_be_settled(
    broker: Any, queue: Any, settings: dict[str, int], count: int, error: type[Exception]
) -> None:
    [message] = await begun(queue)
    small = broker.queue(f"{queue.name}-small")
    await small.set(**settings)
    await small.publish(b"there")
    step = message.step()
    step.publish(f"{queue.name}-next", b"n")
    step.publish_many(small, [b""] * count)
    with pytest.raises(error):
        await end(step)
    assert await bodies(broker, small.name, f"{queue.name}-next") == [[b"there"], []]
    [waiting] = await queue.peek()
    assert waiting.info["state"] == "BEGUN"
    await message.nack("later", delay=0, confirmed=True)
    [again] = await queue.receive(wait=5)
    assert again.attempt == 2


async def test_many_acks_of_several_queues_are_one_step(broker: Any, queue: Any) -> None:
    other = broker.queue(f"{queue.name}-other")
    messages = [*await begun(queue, 5), *await begun(other, 3)]
    async with broker.step() as step:
        for message in messages:
            step.ack(message)
        step.publish(f"{queue.name}-next", b"done")
    assert await bodies(broker, queue.name, other.name) == [[], []]


@pytest.mark.parametrize("follows", [True, False], ids=["with a publish", "acks alone"])
async def test_one_lost_message_stops_a_step_and_the_others_are_still_held(
    broker: Any, queue: Any, follows: bool
) -> None:
    first, second, third = await begun(queue, 3)
    step = broker.step()
    for message in (first, second, third):
        step.ack(message)
    await queue.cancel([second.id])
    if follows:
        step.publish(f"{queue.name}-next", b"")
    with pytest.raises(minibroker.LeaseLost):
        await end(step)
    assert await bodies(broker, f"{queue.name}-next") == [[]]
    await first.ack(confirmed=True)
    await third.ack(confirmed=True)


@dataclass
class Mail:
    """A typed body."""

    to: str


async def test_a_typed_queue_checks_what_a_step_publishes(broker: Any, queue: Any) -> None:
    mails = broker.queue(f"{queue.name}-mails", Mail)
    async with broker.step() as step:
        step.publish(mails, Mail("bob"))
        step.publish_many(mails, [Mail("eve")])
        with pytest.raises(TypeError):
            step.publish(mails, {"to": 5})
    assert [message.body for message in await mails.receive(5)] == [Mail("bob"), Mail("eve")]


async def test_what_can_be_no_step_is_refused_before_anything_is_sent(
    broker: Any, queue: Any
) -> None:
    step = broker.step()
    with pytest.raises(TypeError):
        step.publish(7, b"")
    with pytest.raises(minibroker.BadName):
        step.publish("", b"")
    with pytest.raises(TypeError):
        step.publish(queue, object())
    with pytest.raises(minibroker.TooLarge, match="at most 1000"):
        step.publish_many(queue, [b""] * 1_001)
    for number in range(65):
        step.publish(f"{queue.name}-{number}", b"")
    with pytest.raises(minibroker.TooLarge, match="65 parts"):
        await end(step)
    late = broker.step(timeout=0)
    late.publish(queue, b"")
    with pytest.raises(minibroker.NotSent):
        await end(late)
    with pytest.raises(minibroker.UnknownQueue):
        await queue.settings()  # nothing was made
