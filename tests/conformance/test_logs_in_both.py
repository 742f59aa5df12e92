"""Retained logs, their groups and readers over both clients, on a server and on a broker in process."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import minibroker

WAIT_S = 10.0  # for what comes as soon as it can


@pytest.fixture
async def log(broker: Any, queue: Any) -> Any:
    """A retained log of this test's own, with nothing in it."""
    await queue.set(kind="log")
    return broker.log(queue.name)


async def handled(queue: Any, count: int) -> list[Any]:
    """Receive and ack messages until there are so many; return (offset, body) of each."""
    found: list[Any] = []
    while len(found) < count:
        messages = await queue.receive(count - len(found), wait=WAIT_S)
        assert messages, found
        for message in messages:
            await message.ack(confirmed=True)
            found.append((message.offset, message.body))
    return found


async def test_each_group_gets_each_message(broker: Any, queue: Any, log: Any) -> None:
    confirms = await queue.publish_many(["a", "b", "c"], key="k")
    offsets = [confirm.sequence for confirm in confirms]
    for group in ("audit", "mail"):
        made = await log.declare_group(group)
        assert (made.name, made.queue) == (group, f"{queue.name}@{group}")
        found = await handled(broker.queue(made.queue), 3)
        assert found == list(zip(offsets, "abc", strict=True))
    info = await log.show()
    assert [group.name for group in info.groups] == ["audit", "mail"]
    assert [(group.lag, group.waiting, group.begun) for group in info.groups] == [(0, 0, 0)] * 2
    assert (info.first, info.messages, info.next_offset) == (offsets[0], 3, offsets[-1] + 1)


async def test_a_group_that_is_there_stays_where_it_is(queue: Any, log: Any) -> None:
    await queue.publish_many([b""] * 5)
    made = await log.declare_group("late", "next")
    assert (made.position, made.lag) == (5, 0)
    assert await log.declare_group("late", "first") == made


async def test_a_group_is_moved_by_offset_and_by_time(broker: Any, queue: Any, log: Any) -> None:
    await queue.publish_many(range(5))
    group = broker.queue(f"{queue.name}@audit")
    await log.declare_group("audit")
    assert await handled(group, 5) == [(n, n) for n in range(5)]
    moved = await log.seek("audit", 3)
    assert (moved.seeks, moved.name) == (1, "audit")
    assert await handled(group, 2) == [(3, 3), (4, 4)]
    for start in ("first", datetime.now(UTC) - timedelta(hours=1)):
        await log.seek("audit", start)
        assert await handled(group, 5) == [(n, n) for n in range(5)]
    await log.seek("audit", "next")
    await queue.publish("new")
    assert await handled(group, 1) == [(5, "new")]


async def test_a_worker_hears_that_its_group_was_moved(broker: Any, queue: Any, log: Any) -> None:
    await queue.publish("a")
    await log.declare_group("audit")
    group = broker.queue(f"{queue.name}@audit")
    (begun,) = await group.receive(1, wait=WAIT_S)
    await log.seek("audit", "first")
    with pytest.raises(minibroker.LeaseLost):
        await begun.ack(confirmed=True)
    (again,) = await group.receive(1, wait=WAIT_S)
    assert (again.offset, again.attempt) == (begun.offset, 1)
    assert again.id != begun.id
    await again.ack(confirmed=True)


async def test_what_a_group_cannot_do_is_in_its_dead_letters(
    broker: Any, queue: Any, log: Any
) -> None:
    await queue.publish_many(["good", "bad"])
    await log.declare_group("audit")
    group = broker.queue(f"{queue.name}@audit")
    good, bad = await group.receive(2, wait=WAIT_S)
    await good.ack(confirmed=True)
    await bad.reject("no use", confirmed=True)
    dead = broker.queue(f"{group.name}.dlq")
    (message,) = await dead.receive(1)
    assert (message.body, message.offset) == ("bad", 1)
    await message.release(confirmed=True)
    await log.seek("audit", "next")
    assert len(await dead.peek()) == 1


async def test_what_is_sent_twice_is_stored_once(queue: Any, log: Any) -> None:
    first = await queue.publish("a", dedupe_id="1")
    again = await queue.publish("a", dedupe_id="1")
    assert (again.duplicate, again.id) == (True, first.id)
    assert (await log.show()).next_offset == 1


async def test_a_reader_needs_no_group(queue: Any, log: Any) -> None:
    before = datetime.now(UTC)
    await queue.publish({"n": 1}, key="k", headers={"h": 1})
    await queue.publish_many([b"2", b"3"])
    page = await log.read("first", wait=WAIT_S)
    while len(page) < 3:
        page += await log.read(page[-1].offset + 1, wait=WAIT_S)
    assert [(m.offset, m.key, m.body) for m in page] == [
        (0, "k", {"n": 1}), (1, None, b"2"), (2, None, b"3"),
    ]  # fmt: skip
    assert page[0].headers == {"h": 1}
    assert abs(page[0].published_at - before) < timedelta(minutes=1)
    assert [m.offset for m in await log.read(1)] == [1, 2]
    assert [m.offset for m in await log.read("last")] == [2]
    assert await log.read("next") == []
    assert (await log.show()).groups == []


async def test_a_reader_waits_and_follows(queue: Any, log: Any) -> None:
    found: list[Any] = []

    async def follow() -> None:
        async for message in log.follow("first"):
            found.append(message.body)
            if len(found) == 3:
                return

    reading = asyncio.create_task(follow())
    for n in range(3):
        await queue.publish(n)
    await asyncio.wait_for(reading, WAIT_S)
    assert found == [0, 1, 2]
    waiting = asyncio.create_task(log.read("next", wait=WAIT_S))
    while not waiting.done():
        await queue.publish("new")
    assert (await waiting)[0].body == "new"
    assert await log.read(10**6, wait=0.01) == []


async def test_order_by_key_with_one_worker_a_key(broker: Any, queue: Any, log: Any) -> None:
    """The second message of a key is handed out when the first has ended, and not before."""
    await queue.publish_many([1, 2], key="a")
    await queue.publish(3, key="b")
    await log.declare_group("audit")
    group = broker.queue(f"{queue.name}@audit")
    await group.set(key_concurrency=1)
    messages: list[Any] = []
    while len(messages) < 2:
        messages += await group.receive(3, wait=WAIT_S)
    assert [message.body for message in messages] == [1, 3]
    for message in messages:
        await message.ack(confirmed=True)
    assert await handled(group, 1) == [(1, 2)]


async def test_what_makes_no_sense_is_refused(broker: Any, queue: Any, log: Any) -> None:
    with pytest.raises(minibroker.UnknownQueue, match="no group 'audit'"):
        await broker.queue(f"{queue.name}@audit").receive(1)
    with pytest.raises(minibroker.UnknownQueue):
        await log.seek("audit", "first")
    with pytest.raises(minibroker.BadValue, match="make a group"):
        await queue.receive(1)
    for name in ("", "a@b", "a.dlq", "a b"):
        with pytest.raises(minibroker.BadName):
            await log.declare_group(name)
    for start in ("middle", -1, 2**46):
        with pytest.raises(minibroker.BadValue):
            await log.declare_group("audit", start)
    for wrong in (None, 1.5, datetime(2026, 1, 1)):
        with pytest.raises(TypeError):
            await log.read(wrong)
    with pytest.raises(minibroker.BadValue):
        await log.read("first", most_bytes=0)
    await log.declare_group("audit")
    with pytest.raises(minibroker.BadName, match="publish to its log"):
        await broker.queue(f"{queue.name}@audit").publish("x")
    for more in ({"delay": 1}, {"ttl": 1}, {"priority": 1}, {"unique_key": "u"}):
        with pytest.raises(minibroker.BadValue):
            await queue.publish("x", **more)
    work = broker.queue(f"{queue.name}-work")
    await work.publish("x")
    with pytest.raises(minibroker.BadValue, match="no retained log"):
        await broker.log(work.name).show()
    with pytest.raises(minibroker.UnknownQueue):
        await broker.log(f"{queue.name}-none").read()
    (message,) = await work.receive(1)
    assert message.offset is None
    await message.ack(confirmed=True)


async def test_a_log_and_a_group_are_deleted_as_queues(broker: Any, queue: Any, log: Any) -> None:
    await queue.publish("a")
    await log.declare_group("audit")
    await log.declare_group("mail")
    group = broker.queue(f"{queue.name}@audit")
    await handled(group, 1)
    await group.delete(force=True)
    assert [each.name for each in (await log.show()).groups] == ["mail"]
    with pytest.raises(minibroker.QueueInUse):
        await queue.delete()
    await queue.delete(force=True)
    with pytest.raises(minibroker.UnknownQueue):
        await log.show()
    with pytest.raises(minibroker.UnknownQueue):
        await broker.queue(f"{queue.name}@mail").receive(1)
