"""Each way out of a queue, over both clients: who waits for the result is told it at once, and in words."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import minibroker
from minibroker.contract.ends import ENDS
from minibroker.contract.reasons import REASONS

Story = Callable[
    [Any, Any], Awaitable[str]
]  # ends the message of an id, and returns what is said of it


async def done(queue: Any, waits: Any) -> str:
    await waits()
    [message] = await queue.receive(wait=5)
    await message.complete("all", kept=60)
    return ""


async def acked(queue: Any, waits: Any) -> str:
    await waits()
    [message] = await queue.receive(wait=5)
    await message.ack()
    return "was acked, and its queue keeps no results"


async def dead(queue: Any, waits: Any) -> str:
    await waits()
    [message] = await queue.receive(wait=5)
    await message.reject(ValueError("no such order"))
    return "is dead: ValueError: no such order"


async def dead_of_overflow(queue: Any, waits: Any) -> str:
    await queue.set(max_messages=1, overflow="dead-letter")
    await waits()
    await queue.publish(b"next")
    return "is dead: QueueFull: it holds 1 of its 1 max_messages"


async def cancelled(queue: Any, waits: Any) -> str:
    await queue.cancel([await waits()])
    return "was cancelled by tester"


async def purged(queue: Any, waits: Any) -> str:
    await waits()
    await queue.purge()
    return "was purged by tester"


async def deleted(queue: Any, waits: Any) -> str:
    await waits()
    await queue.delete(force=True)
    return f"ended with its queue {queue.name}, which was deleted"


async def unused(queue: Any, waits: Any) -> str:
    await queue.set(delete_unused_ms=200)
    await waits()
    return f"ended with its queue {queue.name}, which was deleted, or ended by itself: unused"


async def expired(queue: Any, waits: Any) -> str:
    await waits(ttl=0.1)
    return "expired: its time to live was over"


async def dropped(queue: Any, waits: Any) -> str:
    await queue.set(max_messages=1, overflow="drop-oldest")
    await waits()
    await queue.publish(b"next")
    return f"was dropped: {queue.name} was full"


async def replaced(queue: Any, waits: Any) -> str:
    await waits(unique_key="k")
    confirm = await queue.publish(b"next", unique_key="k", unique="replace")
    return f"was replaced by {confirm.id} \\(tester\\), which has its unique key"


STORIES: dict[str, tuple[Story, ...]] = {
    "DONE": (done,),
    "ACKED": (acked,),
    "DEAD": (dead, dead_of_overflow),
    "CANCELLED": (cancelled,),
    "PURGED": (purged,),
    "DELETED": (deleted, unused),
    "EXPIRED": (expired,),
    "DROPPED": (dropped,),
    "REPLACED": (replaced,),
}
# Nobody has heard of the id of what was not stored; and to damage the log of a broker takes a disk.
IN_THE_CORE_ALONE = {"DUPLICATE", "DAMAGED"}


def test_each_end_has_a_story() -> None:
    assert set(STORIES) | IN_THE_CORE_ALONE == set(ENDS)


ALL = [(state, story) for state, stories in STORIES.items() for story in stories]


MOST_TRIES = 20


@pytest.mark.parametrize(("state", "story"), ALL, ids=[story.__name__ for _, story in ALL])
async def test_who_waits_hears_of_it(broker: Any, queue: Any, state: str, story: Story) -> None:
    """Where nothing is kept, who asked too late is told nothing: then it is tried again, with another queue."""
    for number in range(MOST_TRIES):
        try:
            await _one(broker.queue(f"{queue.name}-{number}"), state, story)
        except (minibroker.Timeout, minibroker.UnknownQueue):
            continue
        return
    pytest.fail("it was told nothing")


async def _one(queue: Any, state: str, story: Story) -> None:
    waiting: list[asyncio.Future[Any]] = []

    async def waits(**options: Any) -> minibroker.MessageId:
        confirm = await queue.publish(b"work", **options)
        waiting.append(asyncio.ensure_future(queue.result(confirm.id, wait=1)))
        await asyncio.sleep(0)  # its frame is written
        return confirm.id

    says = await story(queue, waits)
    [came_to] = await asyncio.gather(*waiting, return_exceptions=True)
    if state == "DONE":
        assert came_to == "all"
        return
    if not isinstance(came_to, minibroker.MessageFailed):
        raise came_to
    assert re.match(f"message [0-9]+-0 {says}", str(came_to)), came_to
    assert (came_to.state, came_to.code) == (state, "message_failed")
    assert came_to.reason == ENDS[state].reason
    assert came_to.reason in REASONS
