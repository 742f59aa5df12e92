"""Ways out of a handler, in the loop, in threads and in processes: what they cost, and what the worker does."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable

import pytest
from test_working import HEAD, counters
from worker_process import WorkerProcess

import minibroker
from support.broker import BrokerServer

StartWorker = Callable[..., WorkerProcess]

HANDLERS = {
    "loop": '@app.handler("jobs")\nasync def work(message):\n    fall(message)\n',
    "thread": '@app.handler("jobs")\ndef work(message):\n    fall(message)\n',
    "process": '@app.handler("jobs", executor="process")\ndef work(message):\n    fall(message)\n',
}
EXECUTORS = pytest.mark.parametrize("executor", HANDLERS)


def source(executor: str, body: str) -> str:
    """Return an app whose handler does this with `message`."""
    lines = "".join(f"    {line}\n" for line in body.strip().splitlines())
    return f"{HEAD}import sys\n\ndef fall(message):\n{lines}\n{HANDLERS[executor]}"


# -- Retry ----------------------------------------------------------------------------------------


@EXECUTORS
async def test_retry_names_its_own_delay_and_costs_an_attempt(
    start_worker: StartWorker, broker: minibroker.Broker, executor: str
) -> None:
    """The queue's own would be an hour."""
    jobs = broker.queue("jobs")
    await jobs.set(max_attempts=2, retry_delay_ms=3_600_000, retry_cap_ms=3_600_000)
    await jobs.publish("x")
    worker = start_worker(source(executor, 'raise Retry("the bank is busy", delay=0.3)'))
    last = worker.says("failed", 2, error="Retry")
    assert worker.events("failed")[0]["follows"] == "attempt 1 of 2, again in 0.3 s"
    assert last["follows"] == "attempt 2 of 2, to jobs.dlq"
    assert "the bank is busy" in last["text"]
    (dead,) = await broker.queue("jobs.dlq").peek()
    first, second = dead.history
    assert 290 <= second["started_unix_ms"] - first["ended_unix_ms"] < 60_000


@EXECUTORS
async def test_a_retry_that_names_no_delay_says_so(
    start_worker: StartWorker, broker: minibroker.Broker, executor: str
) -> None:
    await broker.queue("jobs").set(retry_delay_ms=20)
    await broker.queue("jobs").publish("x")
    worker = start_worker(
        source(executor, 'if message.attempt == 1:\n    raise Retry("soon", delay=-1)')
    )
    assert "delay is -1" in worker.says("failed", error="BadValue")["text"]
    assert worker.says("done")["attempt"] == 2


@EXECUTORS
async def test_a_retry_may_let_its_whole_key_wait(
    start_worker: StartWorker, broker: minibroker.Broker, executor: str
) -> None:
    """As after "too many requests": the next of the key waits, that of another does not."""
    jobs = broker.queue("jobs")
    await jobs.set(retry_delay_ms=10, retry_jitter_percent=0)
    for key in ("alice", "alice", "bob"):
        await jobs.publish("x", key=key)
    body = 'if message.key == "alice":\n    raise Retry("slow down", key_delay=600)'
    worker = start_worker(source(executor, body))
    assert worker.says("done")["queue"] == "jobs"
    assert worker.says("failed", error="Retry")["follows"] == "attempt 1 of 5, again in 0.0 s"
    assert len(worker.events("failed")) == 1
    found = await jobs.peek()
    assert [message.info["key"] for message in found] == ["alice", "alice"]
    assert (await jobs.explain(found[-1].id)).reason == "key_paused"


# -- what is no Exception -------------------------------------------------------------------------

FALLS = [
    ("sys.exit(3)", "SystemExit", 1),
    ("raise GeneratorExit", "GeneratorExit", 1),
    ('raise type("Outcome", (BaseException,), {})("stop")', "Outcome", 1),
    ("raise KeyboardInterrupt", "KeyboardInterrupt", 0),
]


@pytest.mark.parametrize(("fall", "name", "charged"), FALLS)
@pytest.mark.parametrize("executor", ["loop", "thread"])
async def test_what_ends_a_process_ends_the_worker(
    start_worker: StartWorker,
    broker: minibroker.Broker,
    executor: str,
    fall: str,
    name: str,
    charged: int,
) -> None:
    """README, what counts as an attempt: all but an interrupt is charged, and comes again."""
    await broker.queue("jobs").publish_many(["x", "behind it"])
    worker = start_worker(source(executor, fall))
    assert worker.ends() == 72, worker.output
    assert name in worker.says_at_the_end("worker_failed")["exception"]
    numbers = await counters(broker, "jobs")
    assert (numbers["failed"], numbers["acked"], numbers["worker_lost"]) == (charged, 0, 0)
    assert numbers["ready"] + numbers["delayed"] == 2


@pytest.mark.parametrize(("fall", "name"), [each[:2] for each in FALLS])
async def test_in_a_process_of_its_own_it_is_a_failure_like_another(
    start_worker: StartWorker, broker: minibroker.Broker, fall: str, name: str
) -> None:
    await broker.queue("jobs").set(retry_delay_ms=20)
    await broker.queue("jobs").publish("x")
    worker = start_worker(source("process", f"if message.attempt == 1:\n    {fall}"))
    worker.says("failed", error=name)
    assert worker.says("done")["attempt"] == 2
    worker.signal()
    assert worker.ends() == 0, worker.output


async def test_a_supervisor_starts_a_worker_again_that_a_handler_ended(
    start_worker: StartWorker, broker: minibroker.Broker
) -> None:
    await broker.queue("jobs").set(retry_delay_ms=20)
    await broker.queue("jobs").publish("x")
    worker = start_worker(
        source("loop", "if message.attempt == 1:\n    sys.exit(3)"), "--processes", "2"
    )
    assert worker.says("worker_ended")["how"] == "exit code 72"
    assert worker.says("done")["attempt"] == 2


# -- processes that die with nothing to do --------------------------------------------------------


async def test_a_process_that_died_idle_costs_no_message_an_attempt(
    start_worker: StartWorker, broker: minibroker.Broker
) -> None:
    await broker.queue("jobs").publish("first")
    worker = start_worker(
        source(
            "process", 'import os\npathlib.Path(f"pid-{message.body}").write_text(str(os.getpid()))'
        )
    )
    worker.says("done")
    pid = int(worker.reads("pid-first"))
    pidfd = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    assert select.select([pidfd], [], [], 30)[0]
    os.close(pidfd)
    await broker.queue("jobs").publish("second")
    assert worker.says("done", 2)["attempt"] == 1
    assert (await counters(broker, "jobs"))["failed"] == 0


# -- the fencing token ----------------------------------------------------------------------------


async def test_the_token_grows_with_every_delivery_over_a_restart_of_the_broker_too(
    start_worker: StartWorker, broker: minibroker.Broker, broker_server: BrokerServer
) -> None:
    await broker.queue("jobs").set(retry_delay_ms=20, max_attempts=20)
    await broker.queue("jobs").publish("x")
    worker = start_worker(
        source(
            "loop",
            'with open("tokens", "a") as file:\n    print(message.token, file=file)\nraise LookupError',
        )
    )
    worker.says("failed", 2)
    broker_server.kill()
    broker_server.restart()
    worker.says("broker_back")
    worker.says("failed", len(worker.events("failed")) + 2)
    tokens = [int(line) for line in worker.reads("tokens").split()]
    assert len(tokens) >= 4
    assert tokens == sorted(set(tokens)), "an older one could pass for the newest"
