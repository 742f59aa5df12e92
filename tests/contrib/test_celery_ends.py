"""Ways in which a task of `celery worker` is cut off, or its worker is told to stop, each done to a real one.

The table "How a worker ends" of docs/guide/celery.md has one row for each; test_celery_worker.py has the signals
to a whole group, and the SIGKILL of a worker.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

pytest.importorskip("celery", reason="the extra celery is not installed")

from celery_workers import StartWorker, Worker

import minibroker.sync
from support.broker import BrokerServer
from support.processes import look_until

ONE = ("-P", "prefork", "-c", "1", "--prefetch-multiplier", "2")


def is_acked(server: BrokerServer, worker: Worker) -> None:
    """Return when nothing is left in the queue; what was rejected is not acked."""
    with minibroker.sync.connect(server.url) as broker:
        queue = broker.queue("celery")
        look_until(lambda: not queue.peek(), worker.process, "all was acked")
        assert not broker.queue("celery.dlq", max_attempts=1).peek()


def began(worker: Worker, word: str) -> list[str]:
    """Return how often a task had been delivered before, for each time that it began."""
    return [line.split()[-1] for line in worker.lines() if line.startswith(f"{word} began")]


@pytest.mark.parametrize("comes_again", [False, True])
def test_a_process_of_the_pool_is_killed(
    shop, start_worker: StartWorker, broker_server: BrokerServer, tmp_path: Path, comes_again: bool
) -> None:
    """As when memory is short, and by `--time-limit`: its task has failed and is acked.

    With `task_reject_on_worker_lost`, or if late tasks are not to be acked, it is an attempt that failed.
    """
    says = {True: "yes", False: "no"}
    worker = start_worker(
        *("--time-limit", "1", *ONE),
        f"task_reject_on_worker_lost={says[comes_again]}",
        f"task_acks_on_failure_or_timeout={says[not comes_again]}",
    )
    gates = {word: tmp_path / word for word in ("killed", "late")}
    shop.wait.apply_async(("killed", str(gates["killed"])), time_limit=100)
    worker.says("killed began 0")
    (stats,) = shop.app.control.inspect(timeout=20, limit=1).stats().values()
    (child,) = stats["pool"]["processes"]
    os.kill(child, signal.SIGKILL)
    shop.wait.delay("late", str(gates["late"]))
    if comes_again:
        for word, gate in gates.items():
            worker.says(f"{word} began 1")
            gate.touch()
            worker.says(f"{word} ended")
    else:
        for why in ("WorkerLostError", "Hard time limit"):
            look_until(lambda why=why: why in worker.log(), worker.process, why)  # type: ignore[misc]
    shop.say_task.delay("next")
    worker.says("next 0")
    is_acked(broker_server, worker)
    for word in gates:
        assert began(worker, word)[:2] == (["0", "1"] if comes_again else ["0"])


@pytest.mark.parametrize(
    ("signals", "flags", "heard"),
    [
        ([signal.SIGTERM, signal.SIGTERM], (), "Warm shutdown"),
        ([signal.SIGQUIT], ("worker_soft_shutdown_timeout=2",), "Initiating Soft Shutdown"),
    ],
    ids=["SIGTERM twice", "SIGQUIT with a soft shutdown"],
)
def test_what_runs_comes_to_its_end(
    shop,
    start_worker: StartWorker,
    broker_server: BrokerServer,
    tmp_path: Path,
    signals: list[signal.Signals],
    flags: tuple[str, ...],
    heard: str,
) -> None:
    """And is acked; what waits is there for the next worker, as if nobody had had it."""
    gate = tmp_path / "gate"
    worker = start_worker(*ONE, *flags)
    shop.wait.delay("long", str(gate))
    worker.says("long began 0")
    shop.say_task.delay("waits")
    with minibroker.sync.connect(broker_server.url) as broker:
        queue = broker.queue("celery")
        look_until(lambda: bool(queue.peek(state="HELD")), worker.process, "it is fetched")
        for each in signals:
            worker.process.send_signal(each)
            look_until(lambda: heard in worker.log(), worker.process, heard)
        gate.touch()
        worker.process.wait(60)
        assert worker.lines() == ["long began 0", "long ended"]
        (left,) = queue.peek()
        assert (left.headers["task"], left.info["state"]) == ("say", "READY")
        assert not any(left.attempts.values())


def test_a_request_of_its_own_begins_as_it_is_handed_over(
    shop, start_worker: StartWorker, broker_server: BrokerServer, tmp_path: Path
) -> None:
    """Nobody says when such a task starts: it is charged from the start, and others do not get it."""
    gate = tmp_path / "gate"
    worker = start_worker("-P", "threads", "-c", "1", "--prefetch-multiplier", "4")
    shop.wait.delay("long", str(gate))
    worker.says("long began 0")
    with minibroker.sync.connect(broker_server.url) as broker:
        queue = broker.queue("celery")
        shop.own.delay("own")
        shop.say_task.delay("lent")

        def states() -> dict[str, str]:
            return {each.headers["task"]: each.info["state"] for each in queue.peek()}

        look_until(lambda: "READY" not in states().values(), worker.process, "all are fetched")
        look_until(
            lambda: states() == {"wait": "BEGUN", "own": "BEGUN", "say": "HELD"},
            worker.process,
            "what is lent has not begun",
        )
    gate.touch()
    worker.says("own 0")
    worker.says("lent 0")
    is_acked(broker_server, worker)
