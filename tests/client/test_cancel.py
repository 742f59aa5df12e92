"""`cancel` of both clients: handlers stop within a second, and what they say afterwards is refused by a code."""

from __future__ import annotations

import asyncio
import logging
import threading
from time import monotonic
from typing import Any

import pytest
from session_world import World

import minibroker
import minibroker.sync
from minibroker import LeaseLost, MessageCancelled, MessageId
from minibroker.session.events import Welcomed
from minibroker.session.revoked import told
from minibroker.session.settlements import BEGUN, ENDED
from minibrokerd import inprocess
from support.processes import DEADLINE_S, LOOK_EVERY_S

LEASE_S = 36_000  # a renewal is hours away, and tells nobody that a message was cancelled


async def test_a_handler_is_cancelled_at_once_and_the_next_message_runs() -> None:
    """With a reason that names who did it; what waited never runs; nothing goes to the dead-letter queue."""
    stopped: asyncio.Queue[tuple[Any, str, bool]] = asyncio.Queue()
    began: asyncio.Queue[Any] = asyncio.Queue()

    async def handler(message: Any) -> None:
        began.put_nowait(message.body)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError as error:
            stopped.put_nowait((message.body, str(error), message.cancelled))
            raise

    async with (
        minibroker.connect("memory://cancel", name="worker") as broker,
        minibroker.connect("memory://cancel", name="boss") as boss,
    ):
        jobs = boss.queue("jobs", max_attempts=1)
        run = asyncio.create_task(broker.queue("jobs").run(handler, lease=LEASE_S))
        ids = [(await jobs.publish(n)).id for n in range(4)]
        assert await began.get() == 0
        assert await jobs.cancel(ids[1:3]) == 2
        assert await jobs.cancel([ids[0]]) == 1
        async with asyncio.timeout(60):
            assert await stopped.get() == (0, "cancelled by boss", True)
            assert await began.get() == 3
            assert await jobs.cancel(client="worker") == 1
            assert await stopped.get() == (3, "cancelled by boss", True)
        counters = (await jobs.stats())["queues"]["jobs"]
        assert (counters["cancelled"], counters["acked"], counters["failed"]) == (4, 0, 0)
        assert counters["dead_lettered"] == counters["begun"] == counters["held"] == 0
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
    inprocess.forget("cancel")


async def test_what_was_taken_in_advance_never_begins() -> None:
    """It is in the buffer of a consumer when it is cancelled; its place is for another message."""
    async with minibroker.connect("memory://") as broker:
        queue = broker.queue("jobs")
        ids = [(await queue.publish(n)).id for n in range(4)]
        async with queue.consume(prefetch=3) as messages:
            first = await anext(aiter(messages))
            assert await queue.cancel(ids[1:3]) == 2
            await first.ack()
            second = await anext(aiter(messages))
            assert (first.body, second.body) == (0, 3)
            await second.ack()
        assert (await queue.stats())["queues"]["jobs"]["held"] == 0


@pytest.mark.parametrize("verb", ["ack", "nack", "reject", "release", "extend"])
async def test_what_is_said_of_it_is_refused_by_a_code(verb: str) -> None:
    """`cancelled`, which is a lost lease to programs that know no better; the hook hears it once."""
    told: list[Any] = []
    hook = lambda message, error: told.append((message.id, error.code))  # noqa: E731
    async with minibroker.connect("memory://", name="me", on_settle_error=hook) as broker:
        queue = broker.queue("jobs")
        id = (await queue.publish(b"x")).id
        (message,) = await queue.receive()
        assert await queue.cancel([id]) == 1
        settle = {"reject": lambda: message.reject("no", confirmed=True), "extend": message.extend}
        other = lambda: getattr(message, verb)(confirmed=True)  # noqa: E731
        with pytest.raises(MessageCancelled, match="was cancelled") as caught:
            await settle.get(verb, other)()
        assert isinstance(caught.value, LeaseLost)
        assert caught.value.code == "cancelled"
        assert told == [(id, "cancelled")]
        assert await queue.receive() == []


@pytest.mark.parametrize("over", [False, True])
def test_a_session_that_comes_back_learns_what_was_cancelled(over: bool) -> None:
    """Of the lost ones the first; also where the ack of it was made while the connection was away."""
    world = World()
    world.publish(b"a", b"b")
    world.turn()
    first, second = world.consume().messages
    for message in (first, second):
        message.state = BEGUN
    if over:
        first.state = ENDED
    event = Welcomed([first, second], [first])
    for lost, error in told(event):
        for message in lost:
            message.lose(cancelled=isinstance(error, MessageCancelled))
    assert (first.cancelled, second.cancelled, second.lost) == (True, False, True)
    assert first.lost_error().code == "cancelled"


async def test_an_ack_on_its_way_is_refused_too() -> None:
    """It was written before the client heard of the cancel, and reached the server after it."""
    async with (
        minibroker.connect("memory://race", name="worker") as broker,
        minibroker.connect("memory://race", name="boss") as boss,
    ):
        await boss.queue("jobs").publish(b"x")
        (message,) = await broker.queue("jobs").receive()
        cancel = asyncio.create_task(boss.queue("jobs").cancel([message.id]))
        await asyncio.sleep(0)
        try:
            await message.ack(confirmed=True)
        except MessageCancelled:
            assert await cancel == 1
        else:
            assert await cancel == 0
    inprocess.forget("race")


def test_a_thread_is_told_that_it_should_stop(caplog: pytest.LogCaptureFixture) -> None:
    """It cannot be interrupted: a line says so, and `message.cancelled` is true; its ack is refused."""
    began, ended, never = threading.Event(), threading.Event(), threading.Event()
    seen: list[bool] = []

    def handler(message: Any) -> None:
        seen.append(message.cancelled)
        began.set()
        end_s = monotonic() + DEADLINE_S
        while not message.cancelled and monotonic() < end_s:
            never.wait(LOOK_EVERY_S)
        seen.append(message.cancelled)
        ended.set()

    with (
        caplog.at_level(logging.WARNING, "minibroker"),
        minibroker.sync.connect("memory://threads", name="worker") as broker,
        minibroker.sync.connect("memory://threads", name="boss") as boss,
    ):
        jobs = boss.queue("jobs")
        id = jobs.publish(b"x").id
        run = threading.Thread(target=lambda: broker.queue("jobs").run(handler, lease=LEASE_S))
        run.start()
        assert began.wait(DEADLINE_S)
        assert jobs.cancel([id]) == 1
        # For the server it is over; the worker hears of it a moment later, and would not once it is closed.
        assert ended.wait(DEADLINE_S)
        jobs.join(timeout=DEADLINE_S)
        broker.close()
        run.join(DEADLINE_S)
        assert not run.is_alive()
    assert seen == [False, True]
    assert "which cannot be interrupted" in caplog.text
    inprocess.forget("threads")


async def test_arguments() -> None:
    async with minibroker.connect("memory://") as broker:
        queue = broker.queue("jobs")
        await queue.publish(b"x", key="k")
        for wrong in ({}, {"ids": [MessageId(1, 0)], "key": "k"}, {"key": 1}, {"client": b"w"}):
            with pytest.raises(TypeError):
                await queue.cancel(**wrong)  # type: ignore[arg-type]
        with pytest.raises(minibroker.BadValue):
            await queue.cancel(state="done")
        assert await queue.cancel([]) == 0
        assert await queue.cancel(state="ready", key="other") == 0
        assert await queue.cancel(state="ready", key="k") == 1
