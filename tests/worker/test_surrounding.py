"""What surrounds handlers: the lifespan of the app, and middleware."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest
from test_working import HEAD, counters
from worker_process import WorkerProcess

import minibroker

StartWorker = Callable[..., WorkerProcess]

NOTES = (
    HEAD
    + """
def note(*words):
    with open("notes", "a") as file:
        print(*words, file=file)
"""
)
LIFE = (
    NOTES
    + """
@app.lifespan
async def life(app):
    note("enter")
    try:
        yield {"db": "open"}
    finally:
        note("exit")

@app.handler("jobs")
async def work(message):
    note(app.state["db"], message.body)
    pathlib.Path("began").touch()
    while message.body == "waits" and not pathlib.Path("go").exists():
        await asyncio.sleep(0.02)
    note("worked")
"""
)
IDLE = """
@app.handler("jobs")
async def work(message):
    note("worked")
"""


def notes(worker: WorkerProcess) -> list[str]:
    """Return what the app noted."""
    path = worker.folder / "notes"
    return path.read_text().splitlines() if path.exists() else []


# -- lifespan -------------------------------------------------------------------------------------


async def test_the_lifespan_is_left_after_the_last_handler(
    start_worker: StartWorker, broker: minibroker.Broker
) -> None:
    await broker.queue("jobs").publish("waits")
    worker = start_worker(LIFE)
    worker.sees("began")
    worker.signal()
    worker.says("draining")
    (worker.folder / "go").touch()
    assert worker.ends() == 0, worker.output
    assert notes(worker) == ["enter", "open waits", "worked", "exit"]


def test_an_error_on_entering_ends_the_worker_with_its_place(start_worker: StartWorker) -> None:
    worker = start_worker(
        NOTES
        + "@app.lifespan\nasync def life(app):\n    raise OSError('no database')\n    yield\n"
        + IDLE
    )
    assert worker.ends() == 72, worker.output
    assert "no database" in worker.output
    assert "app.py" in worker.output


async def test_an_error_on_leaving_is_told_and_what_was_done_is_acked(
    start_worker: StartWorker, broker: minibroker.Broker
) -> None:
    await broker.queue("jobs").publish("x")
    worker = start_worker(
        NOTES
        + "@app.lifespan\nasync def life(app):\n    yield\n    raise OSError('cannot close')\n"
        + IDLE,
        "--burst",
    )
    assert worker.ends() == 72, worker.output
    assert "cannot close" in worker.output
    assert (await counters(broker, "jobs"))["acked"] == 1


@pytest.mark.parametrize("signals", [1, 2])
def test_a_stop_does_not_wait_for_ever_for_a_lifespan_that_never_begins(
    start_worker: StartWorker, signals: int
) -> None:
    worker = start_worker(
        NOTES
        + "@app.lifespan\nasync def life(app):\n    note('enter')\n    await asyncio.sleep(3600)\n    yield\n"
        + IDLE,
        *("--drain-timeout", "200ms" if signals == 1 else "1h"),
    )
    worker.sees("notes")
    if signals == 1:
        worker.signal()
    else:
        worker.insists()
    assert worker.ends() == 71, worker.output
    assert "it did not begin" in worker.says_at_the_end("not_finished")["running"]


async def test_a_stop_does_not_wait_for_ever_for_a_lifespan_that_never_ends(
    start_worker: StartWorker, broker: minibroker.Broker
) -> None:
    await broker.queue("jobs").publish("x")
    worker = start_worker(
        NOTES
        + "@app.lifespan\nasync def life(app):\n    yield\n    await asyncio.sleep(3600)\n"
        + IDLE,
        *("--drain-timeout", "100ms"),
    )
    worker.says("done")
    worker.signal()
    assert worker.ends() == 71, worker.output
    assert "it did not end" in worker.says_at_the_end("not_finished")["running"]
    assert (await counters(broker, "jobs"))["acked"] == 1


async def test_a_task_group_may_surround_the_work(
    start_worker: StartWorker, broker: minibroker.Broker
) -> None:
    """It must be left in the task that entered it."""
    await broker.queue("jobs").publish("x")
    worker = start_worker(
        NOTES
        + """
@app.lifespan
async def life(app):
    async with asyncio.TaskGroup() as group:
        ticking = group.create_task(asyncio.sleep(3600))
        yield group
        ticking.cancel()
    note("left")
"""
        + IDLE,
        "--burst",
    )
    assert worker.ends() == 0, worker.output
    assert notes(worker) == ["worked", "left"]


# -- middleware -----------------------------------------------------------------------------------

MIDDLEWARE = (
    NOTES
    + """
import contextlib

@app.middleware
async def outer(message):
    note("outer in")
    try:
        yield
    except LookupError as error:
        note("outer sees", error)
        raise
    finally:
        note("outer out")

class Inner(contextlib.AbstractAsyncContextManager):
    def __init__(self, message):
        self.message = message
    async def __aenter__(self):
        note("inner in")
    async def __aexit__(self, kind, error, trace):
        note("inner out", kind and kind.__name__)

app.middleware(Inner)
"""
)


async def test_the_first_one_declared_is_the_outermost_and_sees_failures(
    start_worker: StartWorker, broker: minibroker.Broker
) -> None:
    await broker.queue("jobs").set(max_attempts=1)
    await broker.queue("jobs").publish_many(["well", "fails"])
    worker = start_worker(
        MIDDLEWARE
        + """
@app.handler("jobs")
def work(message):
    note(message.body)
    if message.body == "fails":
        raise LookupError("nobody")
"""
    )
    assert "nobody" in worker.says("failed", error="LookupError")["text"]
    worker.signal()
    assert worker.ends() == 0, worker.output
    assert notes(worker) == [
        *("outer in", "inner in", "well", "inner out None", "outer out"),
        *("outer in", "inner in", "fails", "inner out LookupError"),
        *("outer sees nobody", "outer out"),
    ]


async def test_what_leaves_the_middleware_is_what_counts(
    start_worker: StartWorker, broker: minibroker.Broker
) -> None:
    """It may swallow a failure, make one into another, and refuse a message before its handler."""
    await broker.queue("jobs").set(max_attempts=3, retry_delay_ms=20)
    await broker.queue("jobs").publish_many(["swallowed", "turned", "refused"])
    worker = start_worker(
        NOTES
        + """
@app.middleware
async def guard(message):
    if message.body == "refused":
        raise Reject("not for us")
    try:
        yield
    except LookupError:
        if message.body == "turned":
            raise Reject("it will never be there")

@app.handler("jobs")
async def work(message):
    note("called", message.body)
    raise LookupError("nobody")
"""
    )
    worker.says("rejected", 2)
    assert worker.says("done")["attempt"] == 1
    worker.signal()
    assert worker.ends() == 0, worker.output
    assert notes(worker) == ["called swallowed", "called turned"]
    numbers = await counters(broker, "jobs")
    assert (numbers["acked"], numbers["dead_lettered"]) == (1, 2)


async def test_it_surrounds_handlers_in_threads_and_in_processes_too(
    start_worker: StartWorker, broker: minibroker.Broker
) -> None:
    await broker.queue("threads").publish("a")
    await broker.queue("processes").publish("b")
    worker = start_worker(
        NOTES
        + """
@app.middleware
async def around(message):
    yield
    note("around", message.body)

@app.handler("threads")
def in_thread(message):
    note("thread")

@app.handler("processes", executor="process")
def in_process(message):
    note("process")
""",
        "--burst",
    )
    assert worker.ends() == 0, worker.output
    assert sorted(notes(worker)) == ["around a", "around b", "process", "thread"]


async def test_it_is_left_when_its_handler_is_cancelled_at_the_end_of_a_drain(
    start_worker: StartWorker, broker: minibroker.Broker
) -> None:
    await broker.queue("jobs").publish("waits")
    worker = start_worker(
        MIDDLEWARE
        + """
@app.handler("jobs")
async def work(message):
    pathlib.Path("began").touch()
    await asyncio.sleep(3600)
""",
        *("--drain-timeout", "100ms"),
    )
    worker.sees("began")
    worker.signal(signal.SIGINT)
    assert worker.ends() == 71, worker.output
    assert notes(worker)[2:] == ["inner out CancelledError", "outer out"]
    (message,) = await broker.queue("jobs").peek()
    assert (message.info["state"], message.history) == ("READY", [])
