"""How many frames and writes a consumer needs that acks each message: counted, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import Mock

import pytest

from minibroker.aio.consumer import Consumer
from minibroker.sync import keeper as keepers
from minibroker.sync.keeper import SOON_S
from minibroker.testing import MemoryBroker, SyncMemoryBroker

MESSAGES = 1_000
EACH_S = 0.00002  # of virtual time, which a message takes


class Turns:
    """The bell of a keeper: what the application does happens while the keeper waits for it."""

    def __init__(self) -> None:
        self.work: Callable[[], bool] = lambda: False
        self._rings = False
        self.now_s = 0.0
        self.waits = 0

    def clock(self) -> float:
        return self.now_s

    def ring(self) -> None:
        self._rings = True

    def wait(self, timeout_s: float) -> None:
        self.waits += 1
        until_s = self.now_s + timeout_s
        while not self._rings and self.now_s < until_s and self.work():
            self.now_s += EACH_S
        self._rings = False

    def close(self) -> None:
        """There is no descriptor."""


@contextmanager
def consuming(
    prefetch: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Turns, Any, Iterator[Any], Callable[[], None]]]:
    """Yield turns, driver, messages, and what a keeper's thread would run."""
    started: list[Callable[[], None]] = []
    monkeypatch.setattr(keepers, "start_thread", started.append)
    with SyncMemoryBroker(stopped=True) as broker:
        queue = broker.queue("q")
        queue.publish_many([b"x"] * count)
        driver: Any = broker._driver
        with queue.consume(prefetch=prefetch) as messages:
            turns = Turns()
            driver.keeper._bell.close()
            driver.keeper._bell, driver.clock, driver.last_write = turns, turns.clock, 0.0
            driver.link.write = Mock(wraps=driver.link.write)
            yield turns, driver, iter(messages), started[0]


def blocking_counts(prefetch: int, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int, int]:
    """Consume and ack `MESSAGES`; return frames of settlements, writes, turns of the keeper."""
    with consuming(prefetch, MESSAGES, monkeypatch) as (turns, driver, messages, run):
        left = MESSAGES

        def work() -> bool:
            nonlocal left
            if left:
                left -= 1
                next(messages).ack()
            if not left:
                driver.keeper.stop()
            return left > 0

        turns.work = work
        first = driver.session.window.next_sequence
        run()
        return (
            driver.session.window.next_sequence - first,
            driver.link.write.call_count,
            turns.waits,
        )


# Half a window each, and what waits for a millisecond leaves with the next begin.
BLOCKING = {1: 1_000, 8: 250, 32: 62, 1_000: 19}
TURNS = 5  # of the keeper: one in 5 ms, whatever the messages are


@pytest.mark.parametrize("prefetch", BLOCKING)
def test_a_blocking_consumer_settles_by_half_windows(
    prefetch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames, writes, turns = blocking_counts(prefetch, monkeypatch)
    assert (frames, writes) == (BLOCKING[prefetch], BLOCKING[prefetch])
    assert turns <= TURNS


def test_an_ack_that_stays_alone_is_written_by_the_keeper(monkeypatch: pytest.MonkeyPatch) -> None:
    with consuming(32, 1, monkeypatch) as (turns, driver, messages, run):
        since: list[float] = []

        def work() -> bool:
            if not since:
                next(messages).ack()
                since.append(turns.now_s)
            elif not driver.session.owing:
                driver.keeper.stop()
                return False
            return True

        turns.work = work
        run()
        assert SOON_S - EACH_S <= turns.now_s - since[0] <= SOON_S + 2 * EACH_S


# One task: half a window each. Several that take turns: what they ack in one turn of the loop is one frame, and so
# is what they begin in it, if their handlers wait for anything.
AIO_TASKS = {1: 1_000, 8: 125, 32: 32, 1_000: 1}
AIO_ONE = {1: 1_000, 8: 250, 32: 63, 1_000: 2}


def standing() -> float:
    return 0.0


def still(broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let no time pass for consumers, and return the driver."""
    monkeypatch.setattr(Consumer.__anext__, "__defaults__", (standing,))
    driver = broker._driver
    driver.clock, driver.last_write = standing, 0.0
    return driver


@pytest.mark.parametrize("prefetch", AIO_ONE)
async def test_a_task_settles_by_half_windows(
    prefetch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with MemoryBroker() as broker:
        queue = broker.queue("q")
        await queue.publish_many([b"x"] * MESSAGES)
        driver = still(broker, monkeypatch)
        async with queue.consume(prefetch=prefetch) as messages:
            writes = driver.link.write = Mock(wraps=driver.link.write)
            first, left = driver.session.window.next_sequence, MESSAGES
            async for message in messages:
                await message.ack()
                left -= 1
                if not left:
                    break
            await driver.drained()
            frames = driver.session.window.next_sequence - first
            assert (frames, writes.call_count) == (AIO_ONE[prefetch], AIO_ONE[prefetch])


@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize("others", [False, True])
async def test_half_a_window_leaves_before_the_loop_turns(
    others: bool, slow: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not while another task has a message, which may end in this turn; nor if a half takes a millisecond."""
    async with MemoryBroker() as broker:
        queue = broker.queue("q")
        await queue.publish_many([b"x"] * MESSAGES)
        driver = still(broker, monkeypatch)
        async with queue.consume(prefetch=32) as messages:
            iterator = aiter(messages)
            kept = [await anext(iterator)]  # the only one that is waited for
            if not others:
                await kept.pop().ack()
            turns = Mock(wraps=asyncio.sleep)
            monkeypatch.setattr(asyncio, "sleep", turns)
            writes = driver.link.write = Mock(wraps=driver.link.write)
            for _ in range(16 - (not others)):
                await (await anext(iterator)).ack()
            if slow:
                driver.last_write = -1.0
            assert (writes.call_count, turns.call_count) == (0, 0)
            await (await anext(iterator)).ack()
            assert (writes.call_count, turns.call_count) == (1, others or slow)
            for message in kept:
                await message.ack()


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("concurrency", AIO_TASKS)
async def test_tasks_that_take_turns_share_frames(
    concurrency: int, waits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with MemoryBroker() as broker:
        queue = broker.queue("q")
        await queue.publish_many([b"x"] * MESSAGES)
        driver = still(broker, monkeypatch)
        writes = driver.link.write = Mock(wraps=driver.link.write)
        done, left = asyncio.Event(), MESSAGES

        async def handle(message: Any) -> None:
            nonlocal left
            if waits:
                await asyncio.sleep(0)
            left -= 1
            if not left:
                done.set()

        first = driver.session.window.next_sequence
        running = asyncio.create_task(queue.run(handle, concurrency=concurrency))
        await done.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        frames = driver.session.window.next_sequence - first
        begins = AIO_TASKS[concurrency] if waits else 0
        assert frames == AIO_TASKS[concurrency]
        assert writes.call_count <= frames + begins + 3  # the wish to consume, its end
