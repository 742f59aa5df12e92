"""A worker that is asked to stop: what runs is finished, what has not begun goes back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from time import monotonic

import pytest
from test_working import HEAD, counters
from worker_process import WorkerProcess

import minibroker
from minibrokerd.process.stopping import TWICE_S
from minibrokerd.workers.place import Place, Seat
from support.broker import BrokerServer
from support.processes import DEADLINE_S, LOOK_EVERY_S, lasts
from support.renewals import LEASE_S

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


# Of two messages each of two workers has one: so both have begun, and drain.
ONE_EACH = WAITS.replace("concurrency=2", "concurrency=1")


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
    await broker.queue("jobs").set(lease_ms=1_000 * LEASE_S)
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


# -- one asking that arrives as two signals, and signals that come late ---------------------------


async def test_a_signal_that_arrives_twice_is_one(
    start_worker: StartWorker, broker: minibroker.Broker
) -> None:
    """`timeout` of the coreutils signals its child, and then the child's group."""
    await broker.queue("jobs").publish("1")
    worker = start_worker(WAITS)
    worker.sees("began-1")
    worker.signal(signal.SIGTERM)
    worker.signal(signal.SIGINT)  # two of a number may be one before they arrive
    worker.says("draining")
    (worker.folder / "go").touch()
    assert worker.ends() == 0, worker.output
    assert (await counters(broker, "jobs"))["acked"] == 1


async def test_ctrl_c_at_a_terminal_reaches_supervisor_and_workers_and_is_one(
    start_worker: StartWorker, broker: minibroker.Broker
) -> None:
    """The supervisor hands on what the workers have had already."""
    await broker.queue("jobs").publish_many(["1", "2"])
    worker = start_worker(ONE_EACH, "--processes", "2")
    worker.says("worker_started", 2)
    worker.sees("began-1", "began-2")
    os.killpg(worker.process.pid, signal.SIGINT)
    worker.says("draining", 2)
    worker.says("workers_stopping")
    (worker.folder / "go").touch()
    assert worker.ends() == 0, worker.output
    assert (await counters(broker, "jobs"))["acked"] == 2


async def test_to_a_supervised_worker_signals_are_one_asking_however_late(
    start_worker: StartWorker, broker: minibroker.Broker
) -> None:
    """On a busy machine that of the group and the one that is handed on may be any time apart."""
    await broker.queue("jobs").publish_many(["1", "2"])
    worker = start_worker(ONE_EACH, "--processes", "2")
    worker.says("worker_started", 2)
    worker.sees("began-1", "began-2")
    pids = [event["pid"] for event in worker.events("worker_started")]
    worker.signal()
    worker.says("draining", 2)
    until = monotonic() + 2 * TWICE_S
    while monotonic() < until:
        for pid in pids:
            os.kill(pid, signal.SIGTERM)
        assert lasts(worker.process, LOOK_EVERY_S), worker.output
    (worker.folder / "go").touch()
    assert worker.ends() == 0, worker.output
    assert (await counters(broker, "jobs"))["acked"] == 2


async def test_a_stop_that_follows_a_hangup_cuts_nothing_off(
    start_worker: StartWorker, broker: minibroker.Broker
) -> None:
    """The worker that is being replaced is asked to stop for the second time, by nobody who is in a hurry."""
    await broker.queue("jobs").publish_many(["1", "2"])
    worker = start_worker(ONE_EACH, "--processes", "2")
    worker.says("worker_started", 2)
    worker.sees("began-1", "began-2")
    worker.signal(signal.SIGHUP)
    worker.says("draining")
    assert lasts(worker.process, 2 * TWICE_S)
    worker.signal()
    worker.says("draining", 2)
    (worker.folder / "go").touch()
    assert worker.ends() == 0, worker.output
    assert (await counters(broker, "jobs"))["acked"] == 2


async def test_a_supervisor_that_is_asked_twice_hurries_its_workers(
    start_worker: StartWorker, broker: minibroker.Broker
) -> None:
    await broker.queue("jobs").publish_many(["1", "2"])
    worker = start_worker(ONE_EACH, "--processes", "2")
    worker.says("worker_started", 2)
    worker.sees("began-1", "began-2")
    worker.signal()
    worker.says("draining", 2)
    worker.insists()
    assert worker.ends() == 71, worker.output
    assert (await counters(broker, "jobs"))["ready"] == 2


def test_a_worker_that_was_killed_when_the_stop_came_is_named(start_worker: StartWorker) -> None:
    worker = start_worker(WAITS, "--processes", "2")
    worker.says("worker_started", 2)
    worker.signal(signal.SIGSTOP)  # it learns both at once
    os.kill(worker.events("worker_started")[0]["pid"], signal.SIGKILL)
    worker.signal()
    worker.signal(signal.SIGCONT)
    assert worker.ends() == 71, worker.output
    assert worker.events("worker_ended")[0]["how"] == "SIGKILL"


def test_the_handler_of_a_signal_hears_the_supervisor() -> None:
    """So does a worker whose loop is stuck."""
    with Seat(1, 2, is_first=True) as seat:
        _, descriptor = seat.environment()
        place = Place(1, 2, 1, os.dup(descriptor))
        assert not place.is_hurried()
        seat.hurry()
        assert place.is_hurried()
        assert place.is_hurried(), "it is said once"
        place._socket.close()


@pytest.mark.parametrize(
    ("flags", "last"), [((), "worker_stopped"), (("--processes", "2"), "workers_stopped")]
)
def test_signals_that_come_late_change_nothing(
    start_worker: StartWorker, flags: tuple[str, ...], last: str
) -> None:
    """Until the very end of the interpreter: no traceback, and no other exit code."""
    worker = start_worker(WAITS, *flags)
    worker.says("worker_started", 2 if flags else 1)
    worker.signal()
    deadline = monotonic() + DEADLINE_S
    while worker.process.poll() is None:
        if worker.events(last):
            worker.signal()
        assert monotonic() < deadline
    assert worker.ends() == 0, worker.output
    assert "Traceback" not in worker.output


def test_a_hangup_means_nothing_to_a_worker_without_a_supervisor(start_worker: StartWorker) -> None:
    """It has nothing to read again, and nobody to replace it by; without a terminal it leaves an event."""
    worker = start_worker(WAITS)
    worker.says("worker_started")
    worker.signal(signal.SIGHUP)
    worker.says("signal_ignored", signal="SIGHUP")
    worker.signal()
    assert worker.ends() == 0, worker.output


# -- what cannot be stopped -----------------------------------------------------------------------


async def test_a_thread_of_the_application_does_not_hold_the_process(
    start_worker: StartWorker, broker: minibroker.Broker
) -> None:
    """The interpreter would wait for it, and so would asyncio for the one of `to_thread`."""
    await broker.queue("jobs").publish("1")
    worker = start_worker(
        HEAD
        + """
import threading

@app.handler("jobs")
async def work(message):
    threading.Thread(target=threading.Event().wait, name="mine").start()
    loop, begun = asyncio.get_running_loop(), asyncio.Event()

    def never_ends():
        loop.call_soon_threadsafe(begun.set)
        threading.Event().wait()

    asyncio.ensure_future(asyncio.to_thread(never_ends))
    await begun.wait()
""",
        "--burst",
    )
    assert worker.ends() == 0, worker.output
    assert "mine" in worker.says_at_the_end("left_at_once")["threads"]
    assert (await counters(broker, "jobs"))["acked"] == 1


@pytest.mark.parametrize("executor", ["thread", "process"])
async def test_a_plain_handler_that_never_returns_is_left_at_the_deadline(
    start_worker: StartWorker, broker: minibroker.Broker, executor: str
) -> None:
    """Its message is given back, uncharged: it is the worker that ends."""
    await broker.queue("jobs").publish("1")
    worker = start_worker(
        HEAD
        + f"""
import threading

@app.handler("jobs", executor="{executor}")
def work(message):
    pathlib.Path("began-1").touch()
    threading.Event().wait()
""",
        *("--drain-timeout", "100ms"),
    )
    worker.sees("began-1")
    worker.signal()
    assert worker.ends() == 71, worker.output
    assert "jobs 1-0 for" in worker.says_at_the_end("not_finished")["running"]
    (message,) = await broker.queue("jobs").peek()
    assert (message.info["state"], message.history) == ("READY", [])


def test_the_backstop_ends_a_process_whose_loop_is_stuck() -> None:
    """Whatever blocks it: it is another thread that looks."""
    code = (
        "import threading; from minibrokerd.process import logs; "
        "from minibrokerd.workers.backstop import Backstop; "
        "logs.configure('text', 'info'); Backstop().start(0.1, 71); threading.Event().wait()"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert ended.returncode == 71
    assert "left_at_once code=71" in ended.stderr


def test_a_stop_while_the_broker_is_away_does_not_wait_for_it(
    start_worker: StartWorker, broker_server: BrokerServer
) -> None:
    """Nothing runs, so there is nothing to finish."""
    worker = start_worker(WAITS, "--health-file", "health", "--drain-timeout", "1h")
    worker.sees("health")
    broker_server.kill()
    worker.says("broker_away")
    worker.signal()
    assert worker.ends() == 0, worker.output
