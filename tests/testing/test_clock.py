"""`advance`: what becomes due does so at its time, in order, and no call ends of it."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from minibroker import LeaseLost, Message
from minibroker.testing import MemoryBroker

DAY_S = 86_400


async def test_a_delay_of_a_week_takes_no_week(minibroker_clock: MemoryBroker) -> None:
    queue = minibroker_clock.queue("mail")
    await queue.publish(b"later", delay=timedelta(days=7))
    await minibroker_clock.advance(7 * DAY_S - 1)
    assert await queue.receive() == []
    await minibroker_clock.advance(1)
    (message,) = await queue.receive()
    assert message.body == b"later"


async def test_retries_come_at_their_times_and_end_in_the_dead_letter_queue(
    minibroker_clock: MemoryBroker,
) -> None:
    queue = minibroker_clock.queue("mail")
    await queue.set(max_attempts=4, retry_delay_ms=1_000)
    times: list[float] = []

    async def fail(message: Message[Any]) -> None:
        times.append(minibroker_clock.now_s)
        raise ValueError("no")

    start_s = minibroker_clock.now_s
    run = asyncio.create_task(queue.run(fail))
    await queue.publish(b"x")
    await minibroker_clock.advance(60)
    run.cancel()
    assert [round(time - start_s, 1) for time in times][:1] == [0.0]
    waits = [later - earlier for earlier, later in pairwise(times)]
    assert len(waits) == 3
    for wait, doubled in zip(waits, (1, 2, 4), strict=True):
        assert 0.8 * doubled <= wait <= 1.2 * doubled + 0.01
    (dead,) = await minibroker_clock.queue("mail.dlq").peek()
    assert dead.attempts["failed"] == 4


async def test_handlers_in_threads_are_waited_for(minibroker_clock: MemoryBroker) -> None:
    """The retry of a plain function counts from when it failed, also if that takes a moment."""
    queue = minibroker_clock.queue("mail")
    await queue.set(max_attempts=3, retry_delay_ms=1_000)
    gate = threading.Event()
    runs: list[float] = []

    def fail(message: Message[Any]) -> None:
        runs.append(minibroker_clock.now_s)
        gate.wait(0.02)
        raise ValueError("no")

    run = asyncio.create_task(queue.run(fail))
    await queue.publish(b"x")
    await minibroker_clock.advance(3_600)
    run.cancel()
    assert len(runs) == 3
    assert runs[2] - runs[0] < 10


async def test_a_lease_that_runs_is_renewed_until_max_run(minibroker_clock: MemoryBroker) -> None:
    """A handler that hangs keeps its message for twelve hours and no longer."""
    queue = minibroker_clock.queue("mail")
    await queue.publish(b"x")
    (message,) = await queue.receive()
    await minibroker_clock.advance(11 * 3_600)
    assert (await queue.stats())["queues"]["mail"]["begun"] == 1
    await minibroker_clock.advance(2 * 3_600)
    counters = (await queue.stats())["queues"]["mail"]
    assert (counters["begun"], counters["expired"]) == (0, 1)
    with pytest.raises(LeaseLost):
        await message.ack(confirmed=True)


async def test_a_receive_waits_in_the_time_of_the_broker(minibroker_clock: MemoryBroker) -> None:
    queue = minibroker_clock.queue("mail")
    await queue.publish(b"x", delay=50)
    waiting = asyncio.create_task(queue.receive(wait=60))
    await minibroker_clock.advance(49)
    assert not waiting.done()
    await minibroker_clock.advance(1)
    (message,) = await waiting
    assert message.body == b"x"
    await message.ack()
    nothing = asyncio.create_task(queue.receive(wait=60))
    await minibroker_clock.advance(60)
    assert await nothing == []


async def test_calls_and_signs_of_life_do_not_end_of_a_jump(
    minibroker_clock: MemoryBroker, caplog: pytest.LogCaptureFixture
) -> None:
    async with minibroker_clock.queue("mail").consume() as messages:
        minibroker_clock.hold_syncs()
        publish = asyncio.create_task(minibroker_clock.queue("mail").publish(b"x"))
        await minibroker_clock.advance(365 * DAY_S)
        assert not publish.done()
        minibroker_clock.release_syncs()
        await publish
        message = await anext(aiter(messages))
        await message.ack(confirmed=True)
    assert not caplog.records


async def test_a_clock_that_goes_is_moved_on_too(minibroker: MemoryBroker) -> None:
    """Without `minibroker_clock` time passes by itself, and what was due far ahead comes soon after a jump."""
    queue = minibroker.queue("mail")
    await queue.publish(b"x", delay=3_600)
    await minibroker.advance(3_599.95)
    (message,) = await queue.receive(wait=20)
    assert message.body == b"x"


async def test_delays_run_out_in_their_order(minibroker_clock: MemoryBroker) -> None:
    queue = minibroker_clock.queue("mail")
    got: list[tuple[Any, int]] = []
    start_s = minibroker_clock.now_s

    async def note(message: Message[Any]) -> None:
        got.append((message.body, round(minibroker_clock.now_s - start_s)))

    run = asyncio.create_task(queue.run(note))
    for delay in (30, 10, 20):
        await queue.publish(delay, delay=delay)
    await minibroker_clock.advance(60)
    run.cancel()
    assert got == [(10, 10), (20, 20), (30, 30)]
