"""Jobs that are cancelled while a worker of its own process works on them: a task, a process, a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from test_working import HEAD, counters
from worker_process import WorkerProcess

import minibroker
from support.broker import BrokerServer
from support.processes import look_until

StartWorker = Callable[..., WorkerProcess]
LEASE_S = 36_000  # a renewal is hours away, and tells nobody that a message was cancelled

JOBS = (
    HEAD
    + """
import os

@app.handler("tasks")
async def task(body: str):
    pathlib.Path("task-began").touch()
    try:
        await asyncio.sleep(3600)
    except asyncio.CancelledError as error:
        pathlib.Path("task-ended").write_text(str(error))
        raise

@app.handler("processes", executor="process")
def process(body: str):
    pathlib.Path("process-began").write_text(str(os.getpid()))
    time.sleep(3600)

@app.handler("threads")
def thread(body: str, message: Message):
    pathlib.Path("thread-began").touch()
    while not message.cancelled:
        time.sleep(0.01)
    pathlib.Path("thread-ended").touch()
"""
)


async def test_a_task_a_process_and_a_thread(
    start_worker: StartWorker, broker: minibroker.Broker
) -> None:
    """The first two end long before a renewal; a thread is told, and a line says that it cannot be interrupted."""
    ids = {}
    for name in ("tasks", "processes", "threads"):
        ids[name] = (await broker.queue(name).publish("x", max_attempts=1, lease=LEASE_S)).id
    worker = start_worker(JOBS)
    await asyncio.to_thread(worker.sees, "task-began", "process-began", "thread-began")
    pid = int(worker.reads("process-began"))

    async def cancel(queue: str, over: Callable[[], bool]) -> None:
        assert await broker.queue(queue).cancel([ids[queue]]) == 1
        await asyncio.to_thread(look_until, over, worker.process, f"{queue} stop")
        assert (await counters(broker, queue))["cancelled"] == 1

    await cancel("tasks", lambda: (worker.folder / "task-ended").exists())
    assert "cancelled by " in worker.reads("task-ended")
    await cancel("processes", lambda: not Path(f"/proc/{pid}").exists())
    await cancel("threads", lambda: (worker.folder / "thread-ended").exists())
    assert "which cannot be interrupted" in worker.output
    for name in ids:
        found = await counters(broker, name)
        assert not any(found[each] for each in ("begun", "failed", "acked", "dead_lettered"))


async def test_over_a_kill_of_the_broker(broker_server: BrokerServer) -> None:
    """What waited and was cancelled stays so; what was worked on is refused when its worker comes back."""
    async with minibroker.connect(broker_server.url, timeout=20) as connection:
        queue = connection.queue("jobs")
        waits = (await queue.publish(b"waits")).id
        (first,) = await queue.receive(lease=60)
        runs = (await queue.publish(b"runs")).id
        (second,) = await queue.receive(lease=60)
        assert {first.id, second.id} == {waits, runs}
        await first.release(confirmed=True)
        assert await queue.cancel([waits, runs]) == 2
        await asyncio.to_thread(broker_server.kill)
        await asyncio.to_thread(broker_server.restart)
        with_error = None
        try:
            await second.ack(confirmed=True)
        except minibroker.LeaseLost as error:
            with_error = error
        assert with_error is not None
        assert with_error.code == "cancelled"
        assert await queue.receive(9, wait=1.5) == []
        assert (await queue.explain(runs)).reason == "ended"
