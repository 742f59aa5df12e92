"""Handlers in threads and in processes: time-outs, kills, and what they cost."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from test_working import HEAD, counters
from worker_process import WorkerProcess

import minibroker
from minibroker.worker.child import packed
from support.renewals import LEASE_S, renewed

StartWorker = Callable[..., WorkerProcess]

IN_PROCESS = (
    HEAD
    + """
import os

@app.handler("jobs", executor="process", concurrency=2, timeout=60)
def work(body: str, message: Message):
    print(body)
    pathlib.Path(f"pid-{body}-{message.attempt}").write_text(str(os.getpid()))
    if body == "hangs" and message.attempt == 1:
        time.sleep(3600)
    if body == "refused":
        raise Reject("550")
    if body == "fails":
        raise LookupError("no card")
"""
)


def is_running(pid: int) -> bool:
    """Return whether there is a process of this number."""
    return Path(f"/proc/{pid}").exists()


async def test_a_killed_process_costs_its_message_an_attempt_and_the_others_go_on(
    start_worker: StartWorker, broker: minibroker.Broker
) -> None:
    jobs = broker.queue("jobs")
    await jobs.set(retry_delay_ms=20)
    await jobs.publish_many(["hangs", *map(str, range(10))])
    worker = start_worker(IN_PROCESS)
    worker.says("done", 10)
    worker.sees("pid-hangs-1")  # its process may be the last one that has started
    os.kill(int(worker.reads("pid-hangs-1")), signal.SIGKILL)
    failed = worker.says("failed", error="ProcessDied")
    assert "was killed by SIGKILL" in failed["text"]
    assert worker.says("done", 11)["attempt"] == 2
    numbers = await counters(broker, "jobs")
    assert (numbers["failed"], numbers["acked"], numbers["worker_lost"]) == (1, 11, 0)


async def test_a_time_out_kills_the_process(
    start_worker: StartWorker, broker: minibroker.Broker
) -> None:
    await broker.queue("jobs").set(retry_delay_ms=20)
    await broker.queue("jobs").publish("hangs")
    worker = start_worker(IN_PROCESS.replace("timeout=60", "timeout=2"))
    assert worker.says("failed", error="HandlerTimeout")["ms"] >= 2_000
    first = int(worker.reads("pid-hangs-1"))
    assert worker.says("done")["attempt"] == 2
    assert not is_running(first)


async def test_errors_of_a_process_keep_their_class_and_text(
    start_worker: StartWorker, broker: minibroker.Broker
) -> None:
    await broker.queue("jobs").publish_many(["refused", "fails"])
    await broker.queue("jobs").publish({"no": "text"})
    worker = start_worker(IN_PROCESS)
    worker.says("rejected", error="Reject")
    assert worker.says("rejected", error="BodyError")["text"].startswith(
        "the body does not fit str"
    )
    failed = worker.says("failed")
    assert (failed["error"], failed["follows"][:16]) == ("LookupError", "attempt 1 of 5, ")
    assert "no card (app/app.py:" in failed["text"]


async def test_processes_end_with_their_worker(
    start_worker: StartWorker, broker: minibroker.Broker
) -> None:
    await broker.queue("jobs").publish("hangs")
    worker = start_worker(IN_PROCESS)
    worker.sees("pid-hangs-1")
    pid = int(worker.reads("pid-hangs-1"))
    pidfd = os.pidfd_open(pid)
    worker.signal(signal.SIGKILL)
    worker.ends()
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    assert poll.poll(30_000), "it goes on without its worker"
    os.close(pidfd)


async def test_a_thread_that_runs_for_too_long_fails_and_its_slot_goes_on(
    start_worker: StartWorker, broker: minibroker.Broker
) -> None:
    await broker.queue("jobs").publish_many(["spins", "next"])
    worker = start_worker(
        HEAD
        + """
@app.handler("jobs", timeout=0.2)
def work(message):
    while message.body == "spins" and message.attempt == 1:
        pass
"""
    )
    assert worker.says("failed", error="HandlerTimeout")["id"] == "1-0"
    worker.says("done", 2)


async def test_a_process_that_computes_keeps_its_lease(
    start_worker: StartWorker, broker: minibroker.Broker
) -> None:
    confirm = await broker.queue("jobs").publish("x")
    worker = start_worker(
        HEAD
        + f"""
@app.handler("jobs", executor="process", lease={LEASE_S})
def work(message):
    while not pathlib.Path("go").exists():
        pass
"""
    )
    await renewed(broker.queue("jobs"), confirm.id)
    (worker.folder / "go").touch()
    assert worker.says("done")["attempt"] == 1
    assert (await counters(broker, "jobs"))["lost_settlements"] == 0


def test_a_process_ends_with_a_worker_that_was_killed_before_it_had_heard_of_it() -> None:
    """What is unread when a socket closes makes its end a reset: found by the story, as processes that stayed."""
    ours, theirs = socket.socketpair()
    code = f"from minibroker.worker.child import main; main({theirs.fileno()})"
    process = subprocess.Popen([sys.executable, "-c", code], pass_fds=[theirs.fileno()])
    theirs.close()
    try:
        first = {
            "module": "minibroker.worker.following",
            "name": "dlq_of",
            "path": sys.path,
            "level": 20,
        }
        ours.sendall(packed(first))
        assert select.select([ours], [], [], 30)[0], "it does not say that it has started"
        ours.close()
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
