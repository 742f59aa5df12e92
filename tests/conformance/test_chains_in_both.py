"""Messages that come after others, over both clients: batches with a callback, chains, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

import minibroker
from minibroker import After


async def work_off(queue: Any, *, well: int, badly: int = 0) -> None:
    """Receive and end messages of a queue."""
    for number in range(well + badly):
        [message] = await queue.receive(wait=5)
        await (message.ack() if number < well else message.reject(ValueError("no")))


async def test_a_batch_calls_back_once_with_its_counts(broker: Any, queue: Any) -> None:
    after = broker.queue(f"{queue.name}-after")
    async with broker.step() as step:
        step.publish_many(queue.name, [b"a", b"b", b"c"])
        step.publish(f"{queue.name}-other", b"d")
        step.then(after.name, {"album": 5}, if_dead="run")
    callback = step.confirms[-1].id
    assert (await after.explain(callback)).reason == "waits_for"
    assert "4 of 4" in str(await after.explain(callback))
    await work_off(queue, well=2, badly=1)
    await work_off(broker.queue(f"{queue.name}-other"), well=1)
    [message] = await after.receive(wait=5)
    assert (message.id, message.body, message.after) == (callback, {"album": 5}, After(3, 1))
    await message.ack()
    assert await after.receive(wait=0) == []


async def test_a_chain_runs_in_order_and_dies_of_its_first(broker: Any, queue: Any) -> None:
    names = [f"{queue.name}-{number}" for number in range(3)]
    for badly in (0, 1):
        async with broker.step() as step:
            step.publish(names[0], b"first")
            step.then(names[1], b"second")
            step.then(names[2], b"third")
        await work_off(broker.queue(names[0]), well=1 - badly, badly=badly)
        if badly:
            [dead] = await broker.queue(f"{names[2]}.dlq").receive(wait=5)
            assert dead.id == step.confirms[2].id
            return
        for name in names[1:]:
            [message] = await broker.queue(name).receive(wait=5)
            assert message.after == After(int(name[-1]), 0)
            await message.ack()


async def test_after_ids_that_are_known(broker: Any, queue: Any) -> None:
    await queue.set(result_ms=60_000)
    over = await queue.publish(b"a")
    await work_off(queue, well=1)
    waits = await queue.publish(b"b")
    async with broker.step() as step:
        step.publish(f"{queue.name}-after", b"c", after=[over.id, waits.id])
    await work_off(queue, well=1)
    [message] = await broker.queue(f"{queue.name}-after").receive(wait=5)
    assert message.after == After(2, 0)
    [plain] = await work_on_plain(queue)
    assert plain.after is None


async def work_on_plain(queue: Any) -> Any:
    """Return a message that waited for nothing."""
    await queue.publish(b"plain")
    return await queue.receive(wait=5)


async def publish_after(broker: Any, queue: Any, id: minibroker.MessageId) -> None:
    """Publish two messages in a step, of which the second comes after that of an id."""
    async with broker.step() as step:
        step.publish(queue.name, b"b")
        step.publish(queue.name, b"c", after=[id])


async def test_what_is_not_known_is_refused_and_nothing_of_the_step_done(
    broker: Any, queue: Any
) -> None:
    confirm = await queue.publish(b"a")
    await work_off(queue, well=1)
    with pytest.raises(minibroker.UnknownMessage, match="nothing is known"):
        await publish_after(broker, queue, confirm.id)
    assert await queue.receive(wait=0) == []


async def test_what_is_wrong_is_said_at_once(broker: Any, queue: Any) -> None:
    async with broker.step() as step:
        with pytest.raises(ValueError, match="published nothing"):
            step.then(queue.name, b"a")
        with pytest.raises(minibroker.BadValue, match="if_dead"):
            step.publish(queue.name, b"a", after=[minibroker.MessageId(1, 0)], if_dead="walk")
        with pytest.raises(minibroker.BadValue, match="names no message"):
            step.publish(queue.name, b"a", after=[])
        with pytest.raises(minibroker.TooLarge, match="at most 1000"):
            step.publish(
                queue.name, b"a", after=[minibroker.MessageId(1, at) for at in range(1_001)]
            )


async def test_a_publish_of_its_own_comes_after_others(broker: Any, queue: Any) -> None:
    first = await queue.publish(b"first")
    after = broker.queue(f"{queue.name}-after")
    terms: dict[str, Any] = {"headers": {"a": 1}, "priority": 3, "timeout": 10}
    confirm = await after.publish({"n": 1}, after=[first.id], if_dead="run", **terms)
    assert (await after.explain(confirm.id)).reason == "waits_for"
    await work_off(queue, well=0, badly=1)
    [message] = await after.receive(wait=5)
    assert (message.id, message.body, message.headers) == (confirm.id, {"n": 1}, {"a": 1})
    assert message.after == After(0, 1)
    await message.ack()
    with pytest.raises(minibroker.UnknownMessage):
        await after.publish(b"x", after=[minibroker.MessageId(first.origin, 2**40)])
    for wrong in ({"unique_key": "k"}, {"dedupe_id": "d"}, {"if_dead": "walk"}):
        with pytest.raises(minibroker.BadValue):
            await after.publish(b"x", after=[first.id], **wrong)
    assert await after.receive(wait=0) == []


async def test_a_typed_queue_publishes_after_others(broker: Any, queue: Any) -> None:
    first = await queue.publish(b"first")
    numbers = broker.queue(f"{queue.name}-after", body_type=list[int])
    await numbers.publish([1, 2], after=[first.id])
    with pytest.raises(TypeError):
        await numbers.publish(["a"], after=[first.id])
    await work_off(queue, well=1)
    [message] = await numbers.receive(wait=5)
    assert message.body == [1, 2]
    await message.ack()


async def test_explain_names_the_nearest_of_a_long_chain(broker: Any, queue: Any) -> None:
    async with broker.step() as step:
        step.publish(queue.name, b"0")
        for number in range(1, 7):
            step.then(f"{queue.name}-{number}", b"x")
    last, nearest = (confirm.id for confirm in (step.confirms[-1], step.confirms[-2]))
    explained = str(await broker.queue(f"{queue.name}-6").explain(last))
    assert f"6 of 6: {step.confirms[0].id}, {step.confirms[1].id}, 3 more, {nearest}" in explained
