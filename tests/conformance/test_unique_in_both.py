"""Unique keys and dedupe ids, over both clients: what the confirm says, one by one and in many."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import minibroker


async def test_a_duplicate_is_confirmed_with_the_message_that_stands(queue: Any) -> None:
    first = await queue.publish("first", unique_key="k")
    again = await queue.publish("again", unique_key="k")
    assert (again.id, again.duplicate, again.replaced) == (first.id, True, None)
    assert (first.duplicate, first.replaced) == (False, None)
    [message] = await queue.receive(10)
    assert message.body == "first"
    await message.ack(confirmed=True)
    assert not (await queue.publish("next", unique_key="k")).duplicate


async def test_calls_at_the_same_time_each_hear_of_their_own(queue: Any) -> None:
    """They share a frame, with plain ones between them."""
    keys = ["a", None, "b", "a", None, "b", "a"]
    confirms = await asyncio.gather(*[queue.publish(b"x", unique_key=key) for key in keys])
    stored = [c for c in confirms if not c.duplicate]
    assert len({c.id for c in stored}) == len(stored) == 4
    by_key = {
        key: {c.id for c, own in zip(confirms, keys, strict=True) if own == key} for key in "ab"
    }
    assert all(len(ids) == 1 for ids in by_key.values())
    assert len(await queue.peek()) == 4


async def test_replace_names_what_it_replaced(queue: Any) -> None:
    old = await queue.publish("old", unique_key="k", delay=60)
    new = await queue.publish("new", unique_key="k", unique="replace")
    assert (new.duplicate, new.replaced) == (False, old.id)
    latest = await queue.publish("latest", unique_key="k", unique="keep-latest", delay=60)
    assert latest.replaced == new.id
    [message] = await queue.receive(10)
    assert (message.body, message.id) == ("latest", latest.id)
    beside = await queue.publish("beside", unique_key="k", unique="replace")
    assert (beside.duplicate, beside.replaced) == (False, None)
    explained = await queue.explain(old.id)
    assert f"{new.id} (tester) has its unique key" in str(explained)


async def test_many_with_ids_are_safe_to_repeat(queue: Any) -> None:
    bodies = list(range(1_200))
    ids = [f"order-{number}" for number in bodies]
    first = await queue.publish_many(bodies[:700], dedupe_ids=ids[:700])
    again = await queue.publish_many(bodies, dedupe_ids=ids)
    assert [c.duplicate for c in again] == [True] * 700 + [False] * 500
    assert [c.id for c in again][:700] == [c.id for c in first]
    assert sorted(m.body for m in await queue.peek(1_000)) == bodies[:1_000]
    assert (await queue.stats())["queues"][queue.name]["duplicates"] == 700


async def test_the_window_is_over_at_once_where_the_publish_says_so(queue: Any) -> None:
    await queue.publish(1, dedupe_id="1", dedupe_window=0.001)
    await queue.publish(2, dedupe_id="2", dedupe_window=60)
    while (await queue.publish(1, dedupe_id="1", dedupe_window=0.001)).duplicate:
        pass
    assert (await queue.publish(2, dedupe_id="2")).duplicate


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"unique_key": 5}, TypeError),
        ({"unique_key": ""}, minibroker.BadValue),
        ({"dedupe_id": "x" * 256}, minibroker.BadValue),
        ({"unique_key": "k", "unique": "sometimes"}, minibroker.BadValue),
        ({"dedupe_id": "1", "dedupe_window": 0}, minibroker.BadValue),
    ],
)
async def test_what_cannot_be_sent(queue: Any, arguments: Any, error: Any) -> None:
    with pytest.raises(error):
        await queue.publish(b"", **arguments)
    with pytest.raises(minibroker.BadValue):
        await queue.publish_many([1, 2], unique_keys=["only one"])


# Arguments that say how another one works, and do nothing where that is missing.
ALONE: list[tuple[dict[str, Any], str]] = [
    ({"unique": "replace"}, "unique is 'replace' and there is no unique_key"),
    ({"unique": "keep-latest", "dedupe_id": "d"}, "unique is 'keep-latest' and there is no"),
    ({"dedupe_window": 60}, "dedupe_window is 60 and there is no dedupe_id"),
    ({"dedupe_window": 60, "unique_key": "k"}, "dedupe_window is 60 and there is no dedupe_id"),
    ({"if_dead": "run"}, "if_dead is 'run' and there is no after"),
]


def of_many(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of `publish` as `publish_many` has them for one body."""
    many = {"unique_key": "unique_keys", "dedupe_id": "dedupe_ids"}
    return {
        many.get(name, name): [value] if name in many else value
        for name, value in arguments.items()
    }


@pytest.mark.parametrize(("arguments", "said"), ALONE)
async def test_what_would_do_nothing_is_refused(
    broker: Any, queue: Any, arguments: Any, said: str
) -> None:
    """Nobody would notice that each of the messages is stored."""
    with pytest.raises(minibroker.BadValue, match=said):
        await queue.publish(b"", **arguments)
    with pytest.raises(minibroker.BadValue, match=said):
        await queue.publish("not bytes", timeout=5, **arguments)
    is_of_many = "if_dead" not in arguments
    if is_of_many:
        with pytest.raises(minibroker.BadValue, match=said):
            await queue.publish_many([b""], **of_many(arguments))
    await queue.publish(b"begun", ttl=60)
    [message] = await queue.receive(wait=5)
    async with message.step() as step:
        with pytest.raises(minibroker.BadValue, match=said):
            step.publish(queue, b"", **arguments)
        if is_of_many:
            with pytest.raises(minibroker.BadValue, match=said):
                step.publish_many(queue, [b""], **of_many(arguments))
    if "unique" in arguments and "dedupe_id" not in arguments:
        with pytest.raises(minibroker.BadValue, match=said):
            await broker.schedules.set(f"alone-{queue.name}", "@daily", queue.name, **arguments)
    assert await queue.peek() == []


@pytest.mark.parametrize(
    "arguments", [{"unique": "drop"}, {"dedupe_window": None}, {"if_dead": "dead-letter"}]
)
async def test_what_is_so_anyway_may_be_said(queue: Any, arguments: Any) -> None:
    await queue.publish(b"x", **arguments)
    assert len(await queue.peek()) == 1


# ---- in a step ----


async def end(step: Any) -> None:
    """End a step."""
    async with step:
        pass


async def test_a_step_says_of_each_follow_up_what_a_publish_says(broker: Any, queue: Any) -> None:
    """By its index among the calls, whatever frame parts they leave in: other terms and queues in between."""
    [jobs, other] = [broker.queue(f"{queue.name}-{name}") for name in ("jobs", "other")]
    stands = await jobs.publish("stands", unique_key="k", delay=60)
    await queue.publish("work")
    [message] = await queue.receive(wait=5)
    async with message.step() as step:
        step.publish(jobs, "plain")
        step.publish(other, "elsewhere", unique_key="k")
        step.publish(jobs, "dropped", unique_key="k")
        step.publish_many(jobs, [1, 2, 3], unique_keys=["a", "b", "a"], dedupe_ids=["1", "2", "3"])
        step.publish(jobs, "replaces", unique_key="k", unique="replace", priority=3)
        step.publish(jobs, "again", dedupe_id="2", dedupe_window=60)
    confirms = list(step.confirms)
    assert [confirm.duplicate for confirm in confirms] == [
        False, False, True, False, False, True, False, True,
    ]  # fmt: skip
    assert [confirm.replaced for confirm in confirms] == [*[None] * 6, stands.id, None]
    plain, elsewhere, dropped, first, second, third, replaces, again = (c.id for c in confirms)
    assert (dropped, third, again) == (stands.id, first, second)
    assert {m.id: m.body for m in await jobs.peek(10)} == {
        plain: "plain", first: 1, second: 2, replaces: "replaces",
    }  # fmt: skip
    assert [m.id for m in await other.peek()] == [elsewhere]


@pytest.mark.parametrize("mode", ["drop", "replace", "keep-latest"])
async def test_the_message_that_a_step_acks_holds_its_key_no_more(queue: Any, mode: str) -> None:
    """The lock is the message, and that ends: a job may publish the next one of its own key, and one alone."""
    await queue.publish("first", unique_key="k", delay=0)
    [message] = await queue.receive(wait=5)
    async with message.step() as step:
        step.publish(queue.name, "next", unique_key="k", unique=mode, delay=60)
        step.publish(queue.name, "last", unique_key="k", unique=mode, delay=60)
    [following, last] = step.confirms
    assert (following.duplicate, following.replaced) == (False, None)
    expected = (following.id, True, None) if mode == "drop" else (last.id, False, following.id)
    assert (last.id, last.duplicate, last.replaced) == expected
    assert [each.id for each in await queue.peek()] == [last.id]


@pytest.mark.usefixtures("refused_at_once")
async def test_a_step_that_is_refused_holds_no_key_and_remembers_no_id(
    broker: Any, queue: Any
) -> None:
    full = broker.queue(f"{queue.name}-full")
    await full.set(max_messages=1)
    await full.publish("full")
    await queue.publish("work")
    [message] = await queue.receive(wait=5)
    step = message.step()
    step.publish(queue.name, "next", unique_key="k")
    step.publish(queue.name, "once", dedupe_id="1")
    step.publish(full, "no room")
    with pytest.raises(minibroker.Busy):
        await end(step)
    assert not (await queue.publish("next", unique_key="k")).duplicate
    assert not (await queue.publish("once", dedupe_id="1")).duplicate
    await message.ack(confirmed=True)


@pytest.mark.parametrize("names", [{"unique_key": "k"}, {"dedupe_id": "1"}])
async def test_nothing_comes_after_what_may_be_there_already(
    broker: Any, queue: Any, names: dict[str, str]
) -> None:
    async with broker.step() as step:
        step.publish(queue, "first", **names)
        with pytest.raises(minibroker.BadValue, match="leave them out"):
            step.then(queue, "after")
        with pytest.raises(minibroker.BadValue, match="leave them out"):
            step.publish(queue, "after", after=[minibroker.MessageId(1, 0)], **names)
        with pytest.raises(minibroker.BadValue):
            step.publish(queue, "nothing", **dict.fromkeys(names, ""))
    assert [message.body for message in await queue.peek()] == ["first"]
