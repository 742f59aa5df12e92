"""Several processes under one command: what ends is started again, and whoever watches is told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from urllib.error import HTTPError
from urllib.request import urlopen

from test_working import HEAD, counters
from worker_process import WorkerProcess

import minibroker
from support.processes import look_until
from support.renewals import LEASE_S

StartWorker = Callable[..., WorkerProcess]

STAYS = (
    HEAD
    + """
@app.handler("jobs", concurrency=1)
async def work(message):
    await asyncio.sleep(0)  # the begin is written at the end of the turn
    pathlib.Path(f"began-{message.body}-{message.attempt}").write_text(str(os.getpid()))
    while not pathlib.Path("go").exists():
        await asyncio.sleep(0.02)
"""
)
QUICK = (
    HEAD
    + """
@app.handler("jobs", concurrency=1)
async def work(message):
    pathlib.Path(f"did-{message.body}").write_text(str(os.getpid()))
"""
)


async def test_a_killed_worker_costs_an_attempt_and_is_started_again(
    start_worker: StartWorker, broker: minibroker.Broker
) -> None:
    queue = broker.queue("jobs")
    await queue.set(lease_ms=1_000 * LEASE_S)
    await queue.publish_many(["1", "2"])
    worker = start_worker("import os\n" + STAYS, "--processes", "2")
    worker.sees("began-1-1", "began-2-1")
    first, second = (int(worker.reads(f"began-{n}-1")) for n in "12")
    assert first != second
    os.kill(first, signal.SIGKILL)
    assert worker.says("worker_ended")["how"] == "SIGKILL"
    worker.sees("began-1-2")
    worker.says("worker_started", 3)
    (worker.folder / "go").touch()
    await queue.join(timeout=30)
    worker.signal()
    assert worker.ends() == 0, worker.output
    assert worker.events("workers_stopped")[0]["code"] == 0
    numbers = await counters(broker, "jobs")
    assert (numbers["acked"], numbers["worker_lost"]) == (2, 1)


async def test_a_process_is_replaced_after_so_many_messages(
    start_worker: StartWorker, broker: minibroker.Broker
) -> None:
    queue = broker.queue("jobs")
    await queue.publish_many([str(n) for n in range(7)])
    worker = start_worker("import os\n" + QUICK, "--max-messages", "3")
    worker.sees(*(f"did-{n}" for n in range(7)))
    await queue.join(timeout=30)
    did = Counter(worker.reads(f"did-{n}") for n in range(7))
    assert sorted(did.values()) == [1, 3, 3]
    worker.signal()
    assert worker.ends() == 0, worker.output
    numbers = await counters(broker, "jobs")
    assert (numbers["acked"], numbers["failed"], numbers["worker_lost"]) == (7, 0, 0)


def looked_at(file: str) -> int:
    """Return the exit code of a look at a health file."""
    command = [sys.executable, "-m", "minibrokerd", "ping", "--worker", file]
    return subprocess.run(command, check=False).returncode


async def test_health_is_said_by_a_file_and_a_port(
    start_worker: StartWorker, broker: minibroker.Broker
) -> None:
    worker = start_worker(
        "import os\n" + QUICK, "--health-file", "health.json", "--health-port", "0"
    )
    address = worker.says("health")["address"]
    worker.sees("health.json")

    def is_well() -> bool:
        try:
            with urlopen(address, timeout=5) as answer:
                said: bool = json.load(answer)["well"]
                return said
        except HTTPError:
            return False

    look_until(is_well, worker.process, "a good answer")
    file = str(worker.folder / "health.json")
    assert looked_at(file) == 0
    worker.signal()
    assert worker.ends() == 0, worker.output
    os.utime(file, (0, 0))
    assert looked_at(file) == 69


async def test_an_app_that_cannot_be_loaded_ends_all_of_them(start_worker: StartWorker) -> None:
    worker = start_worker("raise RuntimeError('no settings')", "--processes", "2")
    assert worker.ends() == 2, worker.output
    assert "no settings" in worker.output
