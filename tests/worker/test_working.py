"""`minibroker worker` end to end: real processes, a real broker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from worker_process import WorkerProcess

import minibroker

StartWorker = Callable[..., WorkerProcess]

HEAD = """
import asyncio, dataclasses, datetime, decimal, pathlib, time, uuid
from minibroker import Message
from minibroker.worker import App, Reject, Retry
app = App()
"""


async def counters(broker: minibroker.Broker, queue: str) -> dict[str, Any]:
    """Return the counters of a queue; zeros if there is none yet."""
    stats = await broker.stats()
    found: dict[str, Any] = stats["queues"].get(queue, {})
    return found


async def test_an_async_handler_works_off_a_queue(
    start_worker: StartWorker, broker: minibroker.Broker
) -> None:
    emails = broker.queue("emails")
    await emails.publish_many([{"to": f"user {number}"} for number in range(50)])
    worker = start_worker(
        HEAD
        + """
@app.handler("emails", concurrency=8)
async def send(message):
    with open("sent", "a") as file:
        print(message.body["to"], file=file)
""",
        "--burst",
    )
    assert worker.ends() == 0, worker.output
    assert len(worker.events("done", queue="emails", attempt=1)) == 50
    assert len(set(worker.reads("sent").splitlines())) == 50
    assert (await counters(broker, "emails"))["acked"] == 50


async def test_a_handler_makes_the_group_that_it_works_for(
    start_worker: StartWorker, broker: minibroker.Broker
) -> None:
    """With its settings; one that is there stays where it is."""
    log = broker.queue("events", kind="log")
    await log.publish_many([b"%d" % number for number in range(2_000)])
    source = """
@app.handler("events@audit", concurrency=50, start=500, max_attempts=3)
async def audit(message):
    with open("seen", "ab") as file:
        file.write(message.raw + b"\\n")
"""
    worker = start_worker(HEAD + source, "--burst")
    assert worker.ends() == 0, worker.output
    seen = (worker.folder / "seen").read_bytes().split()
    assert sorted(map(int, seen)) == list(range(500, 2_000))
    assert (await broker.queue("events@audit").settings())["max_attempts"] == 3
    again = start_worker(HEAD + source.replace("500", '"first"'), "--burst")
    assert again.ends() == 0, again.output
    assert (worker.folder / "seen").read_bytes().split() == seen


async def test_a_plain_handler_runs_in_threads(
    start_worker: StartWorker, broker: minibroker.Broker
) -> None:
    await broker.queue("photos").publish_many([b"a", b"b"])
    worker = start_worker(
        HEAD
        + """
import threading
both = threading.Barrier(2)

@app.handler("photos", concurrency=2)
def shrink(message):
    both.wait(30)
""",
        "--burst",
    )
    assert worker.ends() == 0, worker.output
    assert len(worker.events("done", queue="photos")) == 2


async def test_a_body_becomes_the_type_of_the_annotation(
    start_worker: StartWorker, broker: minibroker.Broker
) -> None:
    body = {"to": "bob", "at": "2026-01-02T03:04:05Z", "price": "1.50"}
    await broker.queue("emails").publish(body)
    worker = start_worker(
        HEAD
        + """
@dataclasses.dataclass
class Email:
    to: str
    at: datetime.datetime
    price: decimal.Decimal

@app.handler("emails")
async def send(email: Email, message: Message):
    assert email.at.year == 2026 and email.price == decimal.Decimal("1.5")
    pathlib.Path(email.to).write_text(str(message.token))
""",
        "--burst",
    )
    assert worker.ends() == 0, worker.output
    assert int(worker.reads("bob")) > 2**40


async def test_a_body_that_does_not_fit_is_dead_at_once_with_its_reason(
    start_worker: StartWorker, broker: minibroker.Broker
) -> None:
    await broker.queue("emails").publish({"to": "bob", "age": "old"})
    worker = start_worker(
        HEAD
        + """
@dataclasses.dataclass
class Email:
    to: str
    age: int

@app.handler("emails")
async def send(email: Email):
    pathlib.Path("called").touch()
""",
        "--burst",
    )
    assert worker.ends() == 0, worker.output
    (dead,) = await broker.queue("emails.dlq").peek()
    (attempt,) = dead.history
    assert "Expected `int`, got `str` - at `$.age`" in attempt["error_text"]
    assert not (worker.folder / "called").exists()
    assert worker.says("rejected", queue="emails")["follows"] == "attempt 1 of 5, to emails.dlq"


async def test_a_failure_says_what_follows(
    start_worker: StartWorker, broker: minibroker.Broker
) -> None:
    emails = broker.queue("emails")
    await emails.set(max_attempts=2, retry_delay_ms=50, retry_jitter_percent=0)
    await emails.publish("bob")
    worker = start_worker(
        HEAD
        + """
@app.handler("emails")
async def send(message):
    raise ValueError("no such mailbox")
"""
    )
    last = worker.says("failed", 2, error="ValueError")
    assert worker.events("failed")[0]["follows"] == "attempt 1 of 2, again in 0.1 s"
    assert last["follows"] == "attempt 2 of 2, to emails.dlq"
    assert "no such mailbox" in last["text"]


async def test_whatever_fails_together_knows_of_how_many_attempts_it_was_one(
    start_worker: StartWorker, broker: minibroker.Broker
) -> None:
    """Those that fail while the settings are asked for, too; what was acked before does not come again."""
    await broker.queue("emails").publish_many([b"x"] * 8)
    await broker.queue("bills").publish("x")
    worker = start_worker(
        HEAD
        + """
all = asyncio.Barrier(8)

@app.handler("emails", concurrency=8)
async def send(message):
    if message.attempt == 1:
        await all.wait()
    raise ValueError("no such mailbox")

@app.handler("bills")
async def pay(message):
    await message.ack()
    raise ValueError("the printer")
"""
    )
    worker.says("failed", 9)
    failed = worker.events("failed")[:9]
    assert {each["follows"].partition(",")[0] for each in failed} == {"attempt 1 of 5"}
    (bill,) = [each for each in failed if each["queue"] == "bills"]
    assert bill["follows"] == "attempt 1 of 5, settled or lost before"


async def test_what_follows_is_true_for_a_message_with_attempts_of_its_own(
    start_worker: StartWorker, broker: minibroker.Broker
) -> None:
    """The queue says five; what the line says is when the message really comes again, or where it goes."""
    emails = broker.queue("emails")
    await emails.set(max_attempts=5, retry_delay_ms=400, retry_jitter_percent=50)
    await emails.publish("thrice", max_attempts=3)
    await emails.publish("once", max_attempts=1)
    worker = start_worker(
        HEAD
        + """
@app.handler("emails")
async def send(message: Message):
    with open("times", "a") as file:
        print(message.body, message.attempt, message.max_attempts, time.time(), file=file)
    raise ValueError("no such mailbox")
"""
    )
    worker.says("failed", 4)
    lines = [line.split() for line in worker.reads("times").splitlines()]
    assert {(body, most) for body, _, most, _ in lines} == {("thrice", "3"), ("once", "1")}
    said = [each["follows"] for each in worker.events("failed")]
    assert "attempt 1 of 1, to emails.dlq" in said
    assert said[-1] == "attempt 3 of 3, to emails.dlq"
    (first, again) = (
        each for each in said if each.startswith(("attempt 1 of 3", "attempt 2 of 3"))
    )
    times = [float(at) for body, _, _, at in lines if body == "thrice"]
    for text, before, after in ((first, times[0], times[1]), (again, times[1], times[2])):
        promised = float(text.removesuffix(" s").rpartition(" ")[2])
        assert promised - 0.051 <= after - before  # it is said in tenths of a second; never early
    assert len(await broker.queue("emails.dlq").peek()) == 2


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("", "the app has no handlers"),
        ('@app.handler("a")\ndef work(): pass\n', "takes the message"),
        ('@app.handler("a")\ndef work(x, y): pass\n', "annotate one of the two"),
        ('@app.handler("a", durabilty="sync")\ndef work(x): pass\n', "unknown setting"),
        ("1/0", "ZeroDivisionError"),
        ("app = 3", "not a minibroker.App"),
    ],
)
def test_an_app_that_cannot_work_is_refused(
    start_worker: StartWorker, source: str, said: str
) -> None:
    worker = start_worker(HEAD + source)
    assert worker.ends() == 2
    assert said in worker.output


async def test_a_queue_without_handler_is_refused_and_one_of_two_is_chosen(
    start_worker: StartWorker, broker: minibroker.Broker
) -> None:
    await broker.queue("a").publish("x")
    await broker.queue("b").publish("x")
    source = HEAD + '@app.handler("a")\n@app.handler("b")\nasync def work(message): pass\n'
    refused = start_worker(source, "--queues", "a,c")
    assert refused.ends() == 2
    assert "--queues: no handler for the queue 'c'; the app has some for b, a" in refused.output
    assert "worker_started" not in refused.output
    empty = start_worker(source, "--queues", ",")
    assert (empty.ends(), "names no queue" in empty.output) == (2, True)
    assert start_worker(source, "--burst", "--queues", "a").ends() == 0
    assert (await counters(broker, "a"))["acked"] == 1
    assert (await counters(broker, "b"))["ready"] == 1


async def test_settings_of_a_handler_are_declared_and_those_of_the_server_are_left(
    start_worker: StartWorker, broker: minibroker.Broker
) -> None:
    await broker.queue("old").set(max_attempts=7)
    worker = start_worker(
        HEAD
        + """
@app.handler("new", max_attempts=2, lease_ms=5_000)
async def work(message):
    pass

@app.handler("old", max_attempts=2)
async def work_on(message):
    pass
"""
    )
    said = worker.says("settings_differ")["text"]
    assert "the queue old stays as it is: max_attempts is 7, this program declares 2" in said
    await broker.queue("new").publish("1")
    worker.says("done")
    settings = await broker.queue("new").settings()
    assert (settings["max_attempts"], settings["lease_ms"]) == (2, 5_000)
    assert (await broker.queue("old").settings())["max_attempts"] == 7
