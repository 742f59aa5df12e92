"""Looks and changes by hand, and connecting, over both clients."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable
from typing import Any

import pytest

import minibroker
from support.broker import BrokerServer
from support.late_joins import left_of


async def test_settings_are_set_and_shown(queue: Any) -> None:
    assert (await queue.set(max_attempts=3))["max_attempts"] == 3
    assert (await queue.settings())["max_attempts"] == 3
    for wrong in ({"max_attempts": 0}, {"colour": 1}):
        with pytest.raises(minibroker.BadValue):
            await queue.set(**wrong)


async def test_peek_pages_and_names(queue: Any) -> None:
    confirms = await queue.publish_many([b"%d" % number for number in range(10)])
    page = await queue.peek(4)
    assert [peeked.body for peeked in page] == [b"0", b"1", b"2", b"3"]
    rest = await queue.peek(100, after=page.next)
    assert [peeked.id for peeked in rest] == [confirm.id for confirm in confirms][4:]
    assert [peeked.body for peeked in await queue.peek(ids=[confirms[7].id])] == [b"7"]
    assert [peeked.body for peeked in await queue.peek(2, skip=3)] == [b"3", b"4"]
    assert await queue.peek(ids=[]) == []


async def test_messages_are_moved_purged_and_their_queue_deleted(broker: Any, queue: Any) -> None:
    confirms = await queue.publish_many([b"x"] * 10)
    target = broker.queue(f"{queue.name}-target")
    assert await queue.move(target.name, count=3) == 3
    assert await queue.move(target.name, [confirms[9].id]) == 1
    assert await queue.purge([confirms[8].id]) == 1
    assert await queue.purge([]) == await queue.move(target.name, []) == 0
    with pytest.raises(minibroker.QueueInUse):
        await queue.delete()
    assert await queue.delete(force=True) == 5
    with pytest.raises(minibroker.UnknownQueue):
        await queue.stats()
    assert await target.purge() == 4


async def test_dead_messages_are_grouped_and_go_back_by_a_filter(broker: Any, queue: Any) -> None:
    """The place in the code tells two groups of one class apart."""
    await queue.publish_many([b"%d" % number for number in range(5)], key="k")
    for message in await queue.receive(5):
        try:
            _fail(int(message.body))
        except ValueError as error:
            await message.reject(error)
    dead = broker.queue(f"{queue.name}.dlq")
    most, least = await dead.error_groups()
    assert (most.count, least.count) == (3, 2)
    assert {most.error_class, least.error_class} == {"ValueError"}
    assert most.place.endswith("in _fail")
    assert most.place != least.place
    assert most.first <= most.last
    where = minibroker.Where(group=least.group, key="k", younger=3600)
    assert [group.count for group in await dead.error_groups(where=where)] == [2]
    assert await dead.redrive(where=where) == 2
    assert [group.group for group in await dead.error_groups()] == [most.group]
    assert await dead.redrive(where=minibroker.Where(older=3600)) == 0
    assert await dead.redrive([]) == 0, "none is not all"
    with pytest.raises(TypeError):
        await dead.redrive([most.example], where=where)
    with pytest.raises(TypeError):
        await dead.redrive(where="key = k")
    with pytest.raises(minibroker.BadValue):
        await dead.redrive(where=minibroker.Where(key="k" * 300))


async def test_a_redrive_that_goes_on_by_itself(broker: Any, queue: Any) -> None:
    """It is shown, ends, can be stopped, and there is one at a time."""
    await queue.publish_many([b"x"] * 5)
    for message in await queue.receive(5):
        await message.reject("no")
    dead = broker.queue(f"{queue.name}.dlq")
    assert await dead.redrive_state() is None
    assert await dead.stop_redrive() is None
    state = await dead.start_redrive(where=minibroker.Where(cause="rejected"), canary=1, rate=1)
    assert (state.canary, state.rate, state.ended, state.is_over) == (1, 1, None, False)
    with pytest.raises(minibroker.LimitReached):
        await dead.start_redrive()
    state = await dead.stop_redrive()
    assert (state.state, state.is_over) == ("stopped", True)
    wrongs: tuple[dict[str, Any], ...] = ({"ids": []}, {"rate": -1}, {"canary": 101})
    for wrong in wrongs:
        with pytest.raises(minibroker.BadValue):
            await dead.start_redrive(**wrong)
    with pytest.raises(TypeError):
        await dead.start_redrive([(1, 0)], where=minibroker.Where())
    assert (await dead.redrive_state()).why.endswith("stopped it")


async def test_a_message_is_published_again_changed_or_not(broker: Any, queue: Any) -> None:
    """The original stays where it is, and is named in the new one."""
    confirm = await queue.publish({"to": "ann"}, headers={"n": 1}, key="k")
    (message,) = await queue.receive()
    await message.reject("no such box")
    dead = broker.queue(f"{queue.name}.dlq")
    await dead.requeue(confirm.id)
    await dead.requeue(confirm.id, {"to": "bob"}, headers={"n": 2}, key="", queue=queue.name)
    one, other = await queue.peek()
    original = {"minibroker-original": str(confirm.id)}
    assert (one.body, one.headers) == ({"to": "ann"}, {"n": 1, **original})
    assert (other.body, other.headers) == ({"to": "bob"}, {"n": 2, **original})
    assert (one.info["key"], other.info["key"]) == ("k", "")
    assert [each.id for each in await dead.peek()] == [confirm.id]
    with pytest.raises(minibroker.BadValue):
        await dead.requeue(one.id)


async def test_times_are_read(queue: Any) -> None:
    await queue.publish_many([b"x"] * 3)
    (message, _) = await queue.receive(2)
    assert (await queue.times()).handlers is None
    await message.ack(confirmed=True)
    found = await queue.times(target=60)
    assert (found.waits.count, found.runs.count, found.backlog, found.at_work) == (2, 1, 1, 1)
    assert found.handlers >= 0
    with pytest.raises(minibroker.BadValue):
        await queue.times(target=0)


async def test_times_of_groups_of_keys_are_read(queue: Any) -> None:
    await queue.publish_many([b"x"] * 3, key="a:1")
    assert (await queue.times()).groups == ()
    await queue.set(times_by="before-colon")
    await queue.publish(b"x", key="b:1")
    for message in await queue.receive(4, wait=5):
        await message.ack(confirmed=True)
    found = {
        each.group: (each.waits.count, each.runs.count) for each in (await queue.times()).groups
    }
    assert found == {"a": (3, 3), "b": (1, 1)}


def _fail(number: int) -> None:
    if number % 2:
        raise ValueError(f"{number} is odd")
    raise ValueError(f"{number} is even")


@pytest.mark.parametrize("verb", ["peek", "redrive", "purge"])
async def test_ids_are_message_ids(queue: Any, verb: str) -> None:
    with pytest.raises(TypeError):
        await getattr(queue, verb)(ids=["1-2"])


async def test_the_server_is_looked_at(broker: Any) -> None:
    await broker.ping()
    value = await broker.stats()
    assert set(value) == {"queues", "server"}
    assert broker.server_version == minibroker.__version__


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"url": "redis://localhost"}, ValueError),
        ({"url": 5}, TypeError),
        ({"name": 5}, TypeError),
        ({"timeout": "x"}, TypeError),
        ({"timeout": -1}, minibroker.BadValue),
        ({"lazy": 1}, TypeError),
        ({"on_settle_error": 5}, TypeError),
    ],
)
async def test_a_wrong_argument_of_connect_is_refused(
    connect: Callable[..., Any], arguments: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        await connect(**arguments)


async def test_where_nobody_listens_there_is_no_connection(
    connect: Callable[..., Any], free_port: int
) -> None:
    with pytest.raises(
        minibroker.ConnectionLost, match="does `minibroker serve` run there"
    ) as lost:
        await connect(f"minibroker://127.0.0.1:{free_port}", connect_timeout=0.2)
    shown = "".join(traceback.format_exception(lost.value))
    assert "TimeoutError" not in shown, "the time-out and its cancellation say nothing more"


async def test_lazily_the_server_may_come_later(
    connect: Callable[..., Any], free_port: int, tmp_path: Any
) -> None:
    async with connect(f"minibroker://127.0.0.1:{free_port}", lazy=True, timeout=30) as broker:
        server = BrokerServer(tmp_path / "late", port=free_port)
        try:
            await broker.queue("q").publish(b"x")
            [message] = await broker.queue("q").receive()
            await message.ack(confirmed=True)
        finally:
            server.close()


async def test_a_lost_lease_is_told_to_the_application(
    connect: Callable[..., Any], server: BrokerServer
) -> None:
    told: list[Any] = []
    async with connect(
        server.url, on_settle_error=lambda message, error: told.append((message.id, error))
    ) as broker:
        queue = broker.queue("told")
        await queue.publish(b"x")
        [message] = await queue.receive(wait=5)
        await queue.purge()
        with pytest.raises(minibroker.LeaseLost):
            await message.ack(confirmed=True)
    [error] = [error for number, error in told if number == message.id]
    assert isinstance(error, minibroker.LeaseLost)


async def test_the_work_of_a_queue_is_waited_for(queue: Any) -> None:
    await queue.join(timeout=1)  # of one that does not exist
    await queue.publish(b"x")
    assert await left_of(queue) == "1 ready"
    [message] = await queue.receive()
    waiting = asyncio.ensure_future(queue.join(timeout=30))
    await message.nack(delay=60, confirmed=True)
    await waiting
    assert await left_of(queue, delayed=True) == "1 delayed"
