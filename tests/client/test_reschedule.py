"""`reschedule`, `peek(order="due")` and `peek(unique_key=...)` of both clients, on a broker in this process."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

import minibroker
import minibroker.sync
from minibroker import MessageId, NotWaiting


async def test_what_is_delayed_goes_by_its_new_time(minibroker_clock: Any) -> None:
    """Over pages of one message each; a time of another zone is the same time."""
    queue = minibroker_clock.queue("mails")
    ids = [(await queue.publish(b"x", delay=delay)).id for delay in (30, 10, 20)]
    await queue.publish(b"ready")

    async def order() -> list[MessageId]:
        seen, after = [], b""
        while True:
            page = await queue.peek(1, order="due", after=after)
            seen += [message.id for message in page]
            after = page.next
            if not after:
                return seen

    assert await order() == [ids[1], ids[2], ids[0]]
    await queue.reschedule(ids[1], delay=timedelta(hours=1))
    assert await order() == [ids[2], ids[0], ids[1]]
    due = (await queue.explain(ids[2])).until
    assert due is not None
    await queue.reschedule(
        ids[0], at=due.astimezone(timezone(timedelta(hours=5))) - timedelta(seconds=1)
    )
    assert await order() == [ids[0], ids[2], ids[1]]
    await queue.reschedule(ids[0], at=datetime(2000, 1, 1, tzinfo=UTC))
    assert (await queue.stats())["queues"]["mails"]["ready"] == 2
    assert {message.id for message in await queue.receive(9)} >= {ids[0]}


async def test_what_does_not_wait_is_refused_in_words() -> None:
    async with minibroker.connect("memory://") as broker:
        queue = broker.queue("mails")
        id = (await queue.publish(b"x")).id
        (message,) = await queue.receive()
        with pytest.raises(
            NotWaiting, match="1-0 of mails does not wait: a worker works on it"
        ) as caught:
            await queue.reschedule(id, delay=1)
        assert (caught.value.code, caught.value.retryable) == ("not_waiting", False)
        await message.ack(confirmed=True)
        with pytest.raises(NotWaiting, match="not there; nothing was changed"):
            await queue.reschedule(id, delay=1)


def test_arguments_of_the_blocking_client() -> None:
    with minibroker.sync.connect("memory://") as broker:
        queue = broker.queue("mails")
        id = queue.publish(b"x", delay=60).id
        for wrong in ({}, {"delay": 1, "at": datetime.now(UTC)}, {"at": datetime(2030, 1, 1)}):
            with pytest.raises(TypeError):
                queue.reschedule(id, **wrong)  # type: ignore[arg-type]
        with pytest.raises(minibroker.BadValue):
            queue.reschedule(id, delay=-1)
        with pytest.raises(minibroker.BadValue, match="order"):
            queue.peek(order="due", state="READY")
        queue.reschedule(id, delay=0)
        (message,) = queue.receive()
        assert message.attempt == 1


async def test_a_look_by_a_unique_key() -> None:
    """With asyncio; the newest that holds it. A key that is none is refused before anything is sent."""
    async with minibroker.connect("memory://") as broker:
        queue = broker.queue("mails")
        await queue.publish(b"x")
        await queue.publish(b"ann", unique_key="ann")
        assert [found.raw for found in await queue.peek(unique_key="ann")] == [b"ann"]
        assert await queue.peek(unique_key="bob") == []
        with pytest.raises(minibroker.BadValue):
            await queue.peek(unique_key="")


def test_a_look_by_a_unique_key_that_blocks() -> None:
    with minibroker.sync.connect("memory://") as broker:
        queue = broker.queue("mails")
        id = queue.publish(b"ann", unique_key="ann").id
        assert [found.id for found in queue.peek(unique_key="ann")] == [id]
        with pytest.raises(minibroker.BadValue, match="no ids"):
            queue.peek(ids=[id], unique_key="ann")
