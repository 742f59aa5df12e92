"""A worker that is asked to stop: what runs is finished, what has not begun goes back."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest
from test_working import HEAD, counters
from worker_process import WorkerProcess

import minibroker

StartWorker = Callable[..., WorkerProcess]

WAITS = (
    HEAD
    + """
@app.handler("jobs", concurrency=2)
async def work(message):
    await asyncio.sleep(0)  # the begin is written at the end of the turn
    pathlib.Path(f"began-{message.body}").touch()
    while not pathlib.Path("go").exists():
        await asyncio.sleep(0.02)
"""
)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains(
    start_worker: StartWorker, broker: minibroker.Broker, number: int
) -> None:
    await broker.queue("jobs").publish_many(["1", "2", "3", "4"])
    worker = start_worker(WAITS)
    worker.sees("began-1", "began-2")
    worker.signal(number)
    said = worker.says("draining", deadline_s=30.0)
    assert "jobs 1-0 for" in said["running"]
    (worker.folder / "go").touch()
    assert worker.ends() == 0, worker.output
    numbers = await counters(broker, "jobs")
    assert (numbers["acked"], numbers["ready"], numbers["failed"]) == (2, 2, 0)


async def test_at_the_deadline_of_the_drain_what_runs_is_named_and_given_back(
    start_worker: StartWorker, broker: minibroker.Broker
) -> None:
    await broker.queue("jobs").publish("1")
    worker = start_worker(WAITS, "--drain-timeout", "100ms")
    worker.sees("began-1")
    worker.signal()
    assert worker.ends() == 71
    assert "jobs 1-0 for" in worker.events("not_finished")[0]["running"]
    (message,) = await broker.queue("jobs").peek()
    assert (message.info["state"], message.history) == ("READY", [])


async def test_a_second_signal_ends_it(
    start_worker: StartWorker, broker: minibroker.Broker
) -> None:
    await broker.queue("jobs").publish("1")
    worker = start_worker(WAITS)
    worker.sees("began-1")
    worker.signal()
    worker.says("draining")
    worker.insists()
    assert worker.ends() == 71
    assert (await counters(broker, "jobs"))["ready"] == 1


async def test_a_worker_that_is_killed_costs_an_attempt(
    start_worker: StartWorker, broker: minibroker.Broker
) -> None:
    await broker.queue("jobs").set(lease_ms=200)
    await broker.queue("jobs").publish("1")
    first = start_worker(WAITS)
    first.sees("began-1")
    first.signal(signal.SIGKILL)
    assert first.ends() == -signal.SIGKILL
    (first.folder / "go").touch()
    second = start_worker(WAITS)
    assert second.says("done", queue="jobs")["attempt"] == 2
    second.signal()
    assert second.ends() == 0
    assert (await counters(broker, "jobs"))["worker_lost"] == 1
