"""Results, over both clients: what a handler returns, and what else may become of a message."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

import pytest

import minibroker
from minibroker import Progress


async def begun(queue: Any, result_ms: int = 60_000) -> Any:
    """Return a message of a queue that keeps results."""
    await queue.set(result_ms=result_ms, max_attempts=1)
    await queue.publish(b"work")
    [message] = await queue.receive(wait=5)
    return message


@pytest.mark.parametrize("result", [None, b"raw", "text", {"a": [1, None]}, 7.5])
async def test_a_result_comes_as_it_was_said_before_and_after(queue: Any, result: Any) -> None:
    message = await begun(queue)
    before = asyncio.ensure_future(queue.result(message.id))
    with pytest.raises(minibroker.Timeout, match="nothing yet"):
        await queue.result(message.id, wait=0)
    await message.complete(result, confirmed=True)
    assert await before == await queue.result(message.id, wait=0) == result


async def test_a_plain_ack_is_a_result_of_nothing(queue: Any) -> None:
    message = await begun(queue)
    async with message.process():
        pass
    assert await queue.result(message.id) is None


async def test_a_worker_may_ask_for_it_where_the_queue_does_not(queue: Any) -> None:
    message = await begun(queue, result_ms=0)
    await message.complete("kept", kept=60, confirmed=True)
    assert await queue.result(message.id) == "kept"
    message = await begun(queue, result_ms=0)
    await message.complete("not kept", confirmed=True)
    with pytest.raises(minibroker.Timeout):
        await queue.result(message.id, wait=0)


async def test_a_result_that_nobody_keeps_is_said_once(
    queue: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """By hand and in a step; not where nothing was said, or it is kept."""
    for verb in ("complete", "result"):
        for value in (None, "lost", "lost, too"):
            message = await begun(queue, result_ms=0)
            if verb == "complete":
                await message.complete(value)
            else:
                async with message.step() as step:
                    step.result(value)
    message = await begun(queue, result_ms=0)
    await message.complete("kept", kept=60)
    message = await begun(queue)
    await message.complete("kept")
    (said,) = [
        record.getMessage() for record in caplog.records if "kept for" in record.getMessage()
    ]
    assert f"of {queue.name} is told to those who wait for it now, and kept for nobody" in said
    assert f"minibroker queue set {queue.name} result_ms=" in said


async def test_a_queue_that_a_publish_made_keeps_what_its_worker_declares(
    queue: Any, broker: Any
) -> None:
    """Also of messages that wait already."""
    first = (await queue.publish(b"work")).id
    declared = broker.queue(queue.name, result_ms=60_000)
    [message] = await declared.receive(wait=5)
    await message.complete("kept", confirmed=True)
    assert await queue.result(first) == "kept"
    assert declared.differs == {}


async def test_a_dead_message_says_why(queue: Any) -> None:
    message = await begun(queue)
    waiting = asyncio.ensure_future(queue.result(message.id))
    await message.nack(ValueError("no such order"))
    with pytest.raises(
        minibroker.MessageFailed, match="is dead: ValueError: no such order"
    ) as caught:
        await waiting
    assert (caught.value.state, caught.value.error_class) == ("DEAD", "ValueError")


async def test_a_cancelled_message_says_so(queue: Any) -> None:
    message = await begun(queue)
    waiting = asyncio.ensure_future(queue.result(message.id))
    await queue.cancel([message.id])
    with pytest.raises(minibroker.MessageFailed, match="was cancelled"):
        await waiting


async def test_progress_is_told_while_the_work_goes_on(queue: Any) -> None:
    message = await begun(queue)
    told: SimpleQueue[Progress] = SimpleQueue()
    waiting = asyncio.ensure_future(queue.result(message.id, on_progress=told.put))
    for share, note in ((0.25, "read"), (0.5, "half")):
        await message.progress(share, note)
        assert await asyncio.to_thread(told.get, timeout=10) == Progress(share, note)
    await message.complete("all", confirmed=True)
    assert await waiting == "all"
    assert told.empty()
    with pytest.raises(minibroker.LeaseLost):
        await message.progress(1)


async def test_a_result_is_a_part_of_a_step(broker: Any, queue: Any) -> None:
    message = await begun(queue)
    async with message.step() as step:
        step.result({"id": 5})
        step.publish(f"{queue.name}-next", b"n")
    assert await queue.result(message.id) == {"id": 5}
    with pytest.raises(ValueError, match="ack that first"):
        broker.step().result(1)


@dataclass
class Total:
    """What a handler returns."""

    cents: int


async def test_a_call_returns_what_a_handler_does(broker: Any, queue: Any) -> None:
    """By asyncio's own `run`, whichever client calls; a sync handler runs in a thread of it."""
    await queue.set(result_ms=60_000, max_attempts=1)

    def handle(message: Any) -> Any:
        if message.body == "bad":
            raise KeyError("bad")
        return Total(message.body)

    running = asyncio.ensure_future(queue.run(handle))
    try:
        assert await queue.call(5) == {"cents": 5}
        assert await queue.call(7, result_type=Total) == Total(7)
        with pytest.raises(minibroker.MessageFailed, match="KeyError"):
            await queue.call("bad")
        with pytest.raises(minibroker.Timeout):
            await queue.call(9, delay=60, timeout=0.2)
    finally:
        running.cancel()
        await broker.close()
        await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize(
    ("result", "error"),
    [(object(), TypeError), ("x" * 65_536, minibroker.TooLarge)],
    ids=["type", "size"],
)
async def test_what_can_be_no_result_is_refused_before(
    queue: Any, result: Any, error: type[Exception]
) -> None:
    message = await begun(queue)
    with pytest.raises(error):
        await message.complete(result)
    for share, note in ((2, ""), ("half", ""), (0.5, b"")):
        with pytest.raises((TypeError, minibroker.BadValue)):
            await message.progress(share, note)
    await message.ack(confirmed=True)


async def test_who_waits_for_what_is_nowhere_is_told_so(broker: Any, queue: Any) -> None:
    """He waited until his deadline, for nothing."""
    never = minibroker.MessageId((await queue.publish(b"x")).origin, 2**40)
    with pytest.raises(minibroker.UnknownMessage, match="nothing is known"):
        await queue.result(never, timeout=60)
    [message] = await queue.receive()
    await message.ack(confirmed=True)
    with pytest.raises(minibroker.UnknownMessage, match="nothing is known"):
        await queue.result(message.id, timeout=60)
    with pytest.raises(minibroker.Timeout):
        await queue.result(message.id, wait=0)
