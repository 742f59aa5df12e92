"""Taskiq's receiver in this loop: what becomes of messages when something goes wrong, or ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from taskiq import SimpleRetryMiddleware, TaskiqMiddleware
from taskiq.depends.progress_tracker import TaskProgress
from taskiq.exceptions import ResultGetError, SendTaskError
from taskiq.formatters.json_formatter import JSONFormatter
from taskiq.receiver import Receiver

import minibroker
from minibroker.contract.errors import LeaseLost, TooLarge
from minibroker.contrib.taskiq import MinibrokerBroker, MinibrokerResultBackend
from support.broker import BrokerServer


@pytest.fixture
async def client(broker_server: BrokerServer) -> AsyncIterator[minibroker.Broker]:
    """A client of its own, to look with."""
    async with minibroker.connect(broker_server.url) as connected:
        yield connected


@pytest.fixture
async def broker(broker_server: BrokerServer) -> AsyncIterator[MinibrokerBroker]:
    """Minibroker for Taskiq."""
    made = MinibrokerBroker(broker_server.url)
    made.is_worker_process = True
    yield made
    await made.shutdown()


@asynccontextmanager
async def working(broker: MinibrokerBroker) -> AsyncIterator[None]:
    """A receiver while the block runs."""
    finish = asyncio.Event()
    receiver = Receiver(broker, max_async_tasks=4, run_startup=False)
    work = asyncio.create_task(receiver.listen(finish))
    try:
        yield
    finally:
        finish.set()
        await work


async def dead(client: minibroker.Broker) -> list[str]:
    peeked = await client.queue("taskiq.dlq").peek(10)
    return [each.history[-1]["error_class"] for each in peeked]


async def test_what_was_read_and_not_started_goes_back(
    broker: MinibrokerBroker, client: minibroker.Broker
) -> None:
    """The generator's end gives it back, without an attempt; what Taskiq still does with it is for nothing."""
    await client.queue("taskiq").publish(b"{}")
    listening = broker.listen()
    ackable = await anext(listening)
    await listening.aclose()
    await broker._client.ping()  # behind what the end of the generator wrote
    counters = (await client.stats())["queues"]["taskiq"]
    assert (counters["consumers"], counters["held"], counters["ready"]) == (0, 0, 1)
    [message] = await client.queue("taskiq").receive(wait=30)
    assert message.attempt == 1
    with pytest.raises(LeaseLost):
        broker.formatter.loads(ackable.data)
    await ackable.ack()  # type: ignore[misc]
    await message.ack(confirmed=True)


async def test_what_runs_over_a_death_of_the_broker_is_acked_where_it_ended(
    broker: MinibrokerBroker, broker_server: BrokerServer
) -> None:
    """And the worker goes on listening."""
    runs: list[int] = []
    started, goes_on = asyncio.Event(), asyncio.Event()

    @broker.task(task_name="work")
    async def work(number: int) -> None:
        runs.append(number)
        started.set()
        await goes_on.wait()

    await work.kiq(1)
    async with working(broker):
        await asyncio.wait_for(started.wait(), 30)
        await asyncio.to_thread(broker_server.kill)
        goes_on.set()
        await asyncio.to_thread(broker_server.restart)
        await work.kiq(2)
        async with minibroker.connect(broker_server.url) as client:
            await client.queue("taskiq").join(timeout=60)
    assert runs == [1, 2]


async def test_failures_are_kept_unless_they_are_tried_again(
    broker: MinibrokerBroker, client: minibroker.Broker
) -> None:
    """One that is kicked again is acked; of the last failure the error is in the history."""
    broker.with_middlewares(SimpleRetryMiddleware(no_result_on_retry=False))
    runs = []

    @broker.task(task_name="bad", retry_on_error=True, max_retries=3)
    async def bad() -> None:
        runs.append(1)
        raise ValueError("no good")

    await bad.kiq()
    async with working(broker):
        await client.queue("taskiq").join(timeout=60, delayed=True)
    assert len(runs) == 3
    assert await dead(client) == ["ValueError"]


async def test_what_nobody_can_run_is_dead(
    broker: MinibrokerBroker, client: minibroker.Broker
) -> None:
    """Taskiq acks both: bytes that it cannot parse, and a task that is not there."""
    queue = client.queue("taskiq")
    await queue.publish(b"rubbish")
    gone = b'{"task_id": "1", "task_name": "gone", "labels": {}, "args": [], "kwargs": {}}'
    await queue.publish(gone)
    async with working(broker):
        await queue.join(timeout=60)
    assert sorted(await dead(client)) == ["", "JSONDecodeError"]


async def test_failures_are_done_where_nobody_wants_them(
    broker_server: BrokerServer, client: minibroker.Broker
) -> None:
    """As with Taskiq's other brokers."""
    broker = MinibrokerBroker(broker_server.url, keep_failed=False)

    @broker.task(task_name="bad")
    async def bad() -> None:
        raise ValueError("no good")

    await bad.kiq()
    async with working(broker):
        await client.queue("taskiq").join(timeout=60)
    assert (await client.stats())["queues"]["taskiq"]["acked"] == 1
    await broker.shutdown()


async def test_a_retry_that_is_refused_is_a_death(
    broker_server: BrokerServer, client: minibroker.Broker
) -> None:
    """The old message is not left with a worker that has forgotten it."""
    broker = MinibrokerBroker(
        broker_server.url, settings={"max_messages": 1, "overflow": "reject"}
    ).with_middlewares(SimpleRetryMiddleware())

    @broker.task(task_name="bad", retry_on_error=True)
    async def bad() -> None:
        raise ValueError("no good")

    await bad.kiq()
    async with working(broker):
        await client.queue("taskiq").join(timeout=60)
    assert await dead(client) == ["QueueFull"]
    await broker.shutdown()


async def test_what_the_receiver_forgets_comes_back_until_it_is_dead(
    broker_server: BrokerServer, client: minibroker.Broker
) -> None:
    """An error of a middleware ends the receiver's task, and nobody acks: the attempt has failed."""

    class Breaks(TaskiqMiddleware):
        def pre_execute(self, message: Any) -> Any:
            raise RuntimeError("broken")

    broker = MinibrokerBroker(
        broker_server.url, settings={"max_attempts": 2, "retry_delay_ms": 0}
    ).with_middlewares(Breaks())

    @broker.task(task_name="work")
    async def work() -> None:
        raise AssertionError("it never starts")

    await work.kiq()
    async with working(broker):
        await client.queue("taskiq").join(timeout=60, delayed=True)
    [peeked] = await client.queue("taskiq.dlq").peek(10)
    assert [each["error_class"] for each in peeked.history] == ["RuntimeError", "RuntimeError"]
    await broker.shutdown()


async def test_who_only_listens_declares_the_queue_with_its_settings(
    broker_server: BrokerServer, client: minibroker.Broker
) -> None:
    """A worker need not kick anything for that."""
    await client.queue("taskiq").publish(b"{}")
    broker = MinibrokerBroker(broker_server.url, settings={"max_attempts": 2})
    listening = broker.listen()
    await anext(listening)
    assert (await client.queue("taskiq").settings())["max_attempts"] == 2
    await listening.aclose()
    await broker.shutdown()


async def test_priorities_and_queues_of_labels_and_another_formatter(
    broker: MinibrokerBroker, client: minibroker.Broker
) -> None:
    """A higher priority first, above 9 as 9; a formatter that is set later begins messages, too."""
    broker.with_formatter(JSONFormatter())
    runs: list[int] = []

    @broker.task(task_name="work")
    async def work(number: int) -> None:
        runs.append(number)

    await work.kiq(0)
    await work.kicker().with_labels(priority=5).kiq(5)
    await work.kicker().with_labels(priority=99).kiq(99)
    await work.kicker().with_labels(queue_name="other").kiq(7)
    async with working(broker):
        await client.queue("taskiq").join(timeout=60)
    assert runs == [99, 5, 0]
    assert (await client.stats())["queues"]["other"]["ready"] == 1


async def test_a_producer_is_told_that_the_broker_is_away(broker_server: BrokerServer) -> None:
    """Within the deadline of its client; only a worker waits."""
    broker = MinibrokerBroker(broker_server.url, timeout=0.1)

    @broker.task(task_name="work")
    async def work() -> None: ...

    broker_server.kill()
    with pytest.raises(SendTaskError):
        await work.kiq()
    await broker.shutdown()


async def test_results_and_progress(broker_server: BrokerServer) -> None:
    """Both have the id of the task; a result is gone after it was read where it is not to be kept."""
    backend = MinibrokerResultBackend(broker_server.url)
    once = MinibrokerResultBackend(broker_server.url, queue_name="once", keep_results=False)
    broker = MinibrokerBroker(broker_server.url).with_result_backend(backend)

    @broker.task(task_name="add")
    async def add(a: int, b: int) -> int:
        return a + b

    sent = await add.kiq(1, 2)
    assert not await backend.is_result_ready(sent.task_id)
    with pytest.raises(ResultGetError):
        await backend.get_result(sent.task_id)
    async with minibroker.connect(broker_server.url) as client:
        counters = (await client.stats())["queues"]["taskiq-results"]
    assert counters["published"] == 0, "a look leaves nothing behind"
    async with working(broker):
        result = await sent.wait_result(check_interval=0.01, timeout=60)
    assert result.return_value == 3
    assert await backend.get_progress(sent.task_id) is None
    await backend.set_progress(sent.task_id, TaskProgress(state="half", meta={"of": 2}))
    assert (await backend.get_progress(sent.task_id)) == TaskProgress(state="half", meta={"of": 2})
    await once.set_result("1", result)
    assert (await once.get_result("1")).return_value == 3
    assert not await once.is_result_ready("1")
    async with minibroker.connect(broker_server.url) as client:
        assert await client.queue("once").peek() == []
    await once.shutdown()
    await broker.shutdown()


async def test_who_waits_for_a_result_that_is_too_large_hears_so(
    broker_server: BrokerServer,
) -> None:
    """At once, and not a time-out; the task ran, and is not run again."""
    backend = MinibrokerResultBackend(broker_server.url)
    broker = MinibrokerBroker(broker_server.url).with_result_backend(backend)
    runs = []

    @broker.task(task_name="grow")
    async def grow() -> str:
        runs.append(1)
        return "x" * 2_000_000

    sent = await grow.kiq()
    async with working(broker):
        result = await sent.wait_result(check_interval=0.01, timeout=60)
    assert result.is_err
    with pytest.raises(TooLarge, match="return its name"):
        result.raise_for_error()
    assert runs == [1]
    await broker.shutdown()
