"""One rule of deadlines: each call's own, else that of the connection; and one that has passed sends nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from minibroker import BadValue, Broker, MessageId, NotSent, Timeout

Verb = Callable[[Any, Any, float], Awaitable[object]]  # broker, queue, timeout
ID = MessageId(1, 0)

PUBLISHES: dict[str, Verb] = {
    "publish": lambda _, queue, s: queue.publish(b"x", timeout=s),
    "publish with a key": lambda _, queue, s: queue.publish({"a": 1}, key="k", timeout=s),
    "publish with terms": lambda _, queue, s: queue.publish(b"x", max_attempts=2, timeout=s),
    "publish_many": lambda _, queue, s: queue.publish_many([b"x"] * 600, timeout=s),
}
ASKS: dict[str, Verb] = {
    "receive": lambda _, queue, s: queue.receive(timeout=s),
    "receive with a wait": lambda _, queue, s: queue.receive(wait=0.05, timeout=s),
    "peek": lambda _, queue, s: queue.peek(timeout=s),
    "redrive": lambda broker, queue, s: broker.queue(f"{queue.name}.dlq").redrive(timeout=s),
    "purge": lambda _, queue, s: queue.purge(timeout=s),
    "move": lambda _, queue, s: queue.move("elsewhere", [ID], timeout=s),
    "delete": lambda _, queue, s: queue.delete(timeout=s),
    "settings": lambda _, queue, s: queue.settings(timeout=s),
    "declared": lambda _, queue, s: queue.declared(timeout=s),
    "stats of a queue": lambda _, queue, s: queue.stats(timeout=s),
    "join": lambda _, queue, s: queue.join(timeout=s),
    "stats": lambda broker, _, s: broker.stats(timeout=s),
    "ping": lambda broker, _, s: broker.ping(timeout=s),
}


@pytest.mark.parametrize("verb", [*PUBLISHES, *ASKS])
async def test_a_deadline_that_has_passed_sends_nothing(
    broker: Broker, queue: Any, verb: str
) -> None:
    """Whether the answer would have been quick does not matter, so it is the same each time."""
    for _ in range(3):
        with pytest.raises(NotSent if verb in PUBLISHES else Timeout, match=r"timeout=0|after 0 s"):
            await (PUBLISHES | ASKS)[verb](broker, queue, 0)
    assert queue.name not in (await broker.stats())["queues"]


async def test_each_body_of_a_late_publish_many_has_its_fate(queue: Any) -> None:
    with pytest.raises(NotSent) as caught:
        await queue.publish_many([b"x"] * 600, timeout=0)
    assert caught.value.confirms is not None
    assert list(caught.value.confirms) == [None] * 600
    assert caught.value.failed is not None
    assert all(isinstance(caught.value.failed[index], NotSent) for index in range(600))


async def test_no_call_waits_longer_for_a_server_that_is_away(
    connect: Callable[..., Any], free_port: int
) -> None:
    """The connection allows half a minute, and none of them needs it."""
    broker = await connect(f"minibroker://127.0.0.1:{free_port}", lazy=True)
    queue = broker.queue("q")
    async with asyncio.timeout(15):
        errors = await asyncio.gather(
            *(call(broker, queue, 0.05) for call in (PUBLISHES | ASKS).values()),
            return_exceptions=True,
        )
    assert [type(error) for error in errors] == [NotSent] * len(PUBLISHES) + [Timeout] * len(ASKS)
    with pytest.raises(
        Timeout, match=r"q is not done after 0\.05 s: stats was not answered in time"
    ):
        await queue.join(timeout=0.05)
    await broker.close()


@pytest.mark.parametrize("name", ["timeout", "connect_timeout"])
async def test_a_connection_without_time_is_refused(
    connect: Callable[..., Any], server: Any, name: str
) -> None:
    with pytest.raises(BadValue, match=f"{name} is 0; it must be 0.001 to"):
        await connect(server.url, **{name: 0})
