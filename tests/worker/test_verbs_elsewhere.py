"""Handlers outside the loop, in threads and in processes: what they return, and the verbs that they have."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from test_working import HEAD
from worker_process import WorkerProcess

import minibroker
from minibroker import Confirm

StartWorker = Callable[..., WorkerProcess]

ELSEWHERE = ("thread", "process")
SHOP = (
    HEAD
    + """
import datetime
import minibroker.sync

@app.handler("orders", executor={executor!r}, timeout=60)
def order(body: str, message: minibroker.sync.Message):
    message.progress(0.5, "half of " + body)
    message.extend(60)
    if body == "waits":
        while not pathlib.Path("go").exists():
            time.sleep(0.01)
    if body == "too far":
        message.progress(2)
    if body == "steps":
        with message.step(timeout=datetime.timedelta(seconds=20)) as step:
            step.publish("mails", {{"to": body}}, headers={{"a": 1}}, delay=datetime.timedelta(0))
            step.publish_many("parcels", [b"1", b"2"], key="k", unique_keys=iter(["u", "v"]))
            step.publish("parcels", b"dropped", unique_key="u")
            step.publish("parcels", b"3", unique_key="stands", unique="replace")
            step.route("done", {{"order": body}}, routing_key="orders.steps", key="k")
            step.result(["stored", len(body)])
        pathlib.Path("confirms").write_text(repr(list(step.confirms)))
        (routed,) = step.routed
        pathlib.Path("routed").write_text(f"{{routed.ids['audit']}}:{{routed.durability}}:{{len(routed.queues)}}")
        return "not this"
    if body == "breaks":
        with message.step() as step:
            step.publish("mails", "never")
            raise LookupError("in the block")
    if body == "misspells":
        try:
            with message.step() as step:
                step.publish("m a i l s", "never")
        except minibroker.BadName as error:
            return "refused: " + error.code
    if body == "twice":
        with message.step() as step:
            pass
        with message.step() as step:
            step.publish("mails", "never")
    return {{"worked": body}}
"""
)


@pytest.mark.parametrize("executor", ELSEWHERE)
async def test_what_a_handler_returns_is_the_result_and_its_progress_is_told(
    start_worker: StartWorker, broker: minibroker.Broker, executor: str
) -> None:
    orders = broker.queue("orders")
    await orders.set(result_ms=3_600_000, max_attempts=1)
    plain = await orders.publish("plain")
    far = await orders.publish("too far")
    waits = await orders.publish("waits")
    worker = start_worker(SHOP.format(executor=executor))
    assert await orders.result(plain.id) == {"worked": "plain"}
    with pytest.raises(minibroker.MessageFailed, match="share is 2"):
        await orders.result(far.id)

    def heard(progress: object) -> None:
        told.append(progress)
        (worker.folder / "go").touch()

    told: list[object] = []
    assert await orders.result(waits.id, on_progress=heard) == {"worked": "waits"}
    assert told[0] == (0.5, "half of waits")


@pytest.mark.parametrize("executor", ELSEWHERE)
async def test_a_step_is_done_as_one_or_not_at_all(
    start_worker: StartWorker, broker: minibroker.Broker, executor: str
) -> None:
    orders, mails = broker.queue("orders"), broker.queue("mails")
    await orders.set(result_ms=3_600_000, max_attempts=1)
    await broker.exchange("done").declare("topic")
    await broker.exchange("done").bind("audit", "orders.*")
    stands = await broker.queue("parcels").publish(b"stands", unique_key="stands")
    steps = await orders.publish("steps")
    rest = await orders.publish_many(["breaks", "misspells", "twice"])
    worker = start_worker(SHOP.format(executor=executor))
    assert await orders.result(steps.id) == ["stored", 5]
    with pytest.raises(minibroker.MessageFailed, match="LookupError: in the block"):
        await orders.result(rest[0].id)
    assert await orders.result(rest[1].id) == "refused: bad_name"
    assert worker.says("failed", error="LeaseLost")["follows"]  # it was over
    (mail,) = await mails.peek()
    assert (mail.body, mail.headers) == ({"to": "steps"}, {"a": 1})
    parcels = await broker.queue("parcels").peek()
    assert [(each.body, each.info["key"]) for each in parcels] == [
        (b"1", "k"),
        (b"2", "k"),
        (b"3", ""),
    ]
    ids = [mail.id, *(each.id for each in parcels)]
    expected = [Confirm(*id, "sync") for id in ids]
    expected.insert(3, Confirm(*parcels[0].id, "sync", duplicate=True))
    expected[-1] = Confirm(*ids[-1], "sync", replaced=stands.id)
    assert worker.reads("confirms") == repr(expected)
    (audit,) = await broker.queue("audit").peek()
    assert audit.body == {"order": "steps"}
    assert worker.reads("routed") == f"{audit.id}:sync:1"


LEFT = (
    HEAD
    + """
import threading
import minibroker.sync

def late(message):
    while not pathlib.Path("second").exists():
        time.sleep(0.01)
    try:
        with message.step() as step:
            step.publish("mails", "late")
        pathlib.Path("late").write_text("done")
    except RuntimeError as error:
        pathlib.Path("late").write_text(str(error))

@app.handler("orders", executor="process", concurrency=1, timeout=60)
def order(body: str, message: minibroker.sync.Message):
    if body == "first":
        threading.Thread(target=late, args=(message,)).start()
        return "left a thread"
    pathlib.Path("second").touch()
    while not pathlib.Path("late").exists():
        time.sleep(0.01)
    return pathlib.Path("late").read_text()
"""
)


async def test_a_thread_that_a_handler_left_asks_nothing_of_the_next_message(
    start_worker: StartWorker, broker: minibroker.Broker
) -> None:
    orders = broker.queue("orders")
    await orders.set(result_ms=3_600_000, max_attempts=1)
    first = await orders.publish("first")
    start_worker(LEFT)
    assert await orders.result(first.id) == "left a thread"
    second = await orders.publish("second")
    assert await orders.result(second.id) == f"the handler of message {first.id} has ended"
    with pytest.raises(minibroker.UnknownQueue):
        await broker.queue("mails").peek()


CHAINS = (
    HEAD
    + """
import minibroker.sync

@app.handler("orders", executor={executor!r}, concurrency=1, timeout=60)
def order(body: str, message: minibroker.sync.Message):
    if body == "first":
        with message.step() as step:
            step.publish("orders", "second")
            step.then("orders", "third", if_dead="run")
            step.publish("orders", "fourth", after=[message.id])
            step.result("first")
    elif body != "second":
        pathlib.Path(body).write_text(repr(message.after))
"""
)


@pytest.mark.parametrize("executor", ELSEWHERE)
async def test_what_comes_after_others_and_what_became_of_those(
    start_worker: StartWorker, broker: minibroker.Broker, executor: str
) -> None:
    orders = broker.queue("orders")
    await orders.set(result_ms=3_600_000, max_attempts=1)
    first = await orders.publish("first")
    worker = start_worker(CHAINS.format(executor=executor))
    assert await orders.result(first.id) == "first"
    for sequence, body in ((2, "third"), (3, "fourth")):
        await orders.result(minibroker.MessageId(first.id.origin, sequence))
        assert worker.reads(body) == "After(done=1, dead=0)"


async def test_a_run_has_the_same_verbs_in_its_threads(broker: minibroker.Broker) -> None:
    jobs = broker.queue("jobs")
    await jobs.set(result_ms=3_600_000)
    ids = [(await jobs.publish(body)).id for body in ("steps", "awaits", "completes")]

    async def awaited(message: minibroker.Message[str]) -> str:
        async with message.step() as step:
            step.publish("mails", message.body)
        return "over"

    def work(message: Any) -> object:
        if message.body == "awaits":
            return awaited(message)
        message.progress(0.1)
        if message.body == "steps":
            with message.step() as step:
                step.publish("mails", message.body)
                step.result("stepped")
        else:
            message.complete("completed", confirmed=True)
        return None

    running = asyncio.ensure_future(broker.queue("jobs").run(work, concurrency=1))
    assert await jobs.result(ids[0]) == "stepped"
    assert await jobs.result(ids[2]) == "completed"
    running.cancel()
    await asyncio.wait([running])
    assert {each.body for each in await broker.queue("mails").peek()} == {"steps", "awaits"}


def test_an_async_handler_has_the_message_of_asyncio() -> None:
    import minibroker.sync

    async def work(message: minibroker.sync.Message) -> None:  # type: ignore[type-arg]
        pass

    with pytest.raises(TypeError, match=r"its message is a minibroker\.Message"):
        minibroker.App().handler("jobs")(work)
