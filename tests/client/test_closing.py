"""Leaving a connection: after all tasks were cancelled, while handlers run, without a server, after a fork."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
from time import monotonic
from typing import Any

import pytest
from fake_server import FakeServer
from steps import consume_one, fill, settle_loop, settled

import minibroker
from support.broker import BrokerServer

IDLE_WORKER = """
import asyncio, sys, time
import minibroker

async def worker():
    async with minibroker.connect(sys.argv[1]) as broker:
        await broker.queue("jobs").run(lambda message: asyncio.sleep(0))

async def main():
    task = asyncio.create_task(worker())
    await asyncio.wait([task], timeout=0.5)

began = time.monotonic()
asyncio.run(main())
print(time.monotonic() - began)
"""


async def test_after_all_tasks_were_cancelled_calls_are_still_answered(
    broker: minibroker.Broker,
) -> None:
    queue = broker.queue("q")
    await queue.publish(b"1")
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await asyncio.sleep(0)
    assert (await asyncio.wait_for(queue.publish(b"2"), 30)).id.sequence == 1


def test_a_worker_whose_tasks_are_all_cancelled_waits_for_no_deadline(
    broker_server: BrokerServer,
) -> None:
    """It took three deadlines of 30 s each; one has not passed."""
    command = [sys.executable, "-c", IDLE_WORKER, broker_server.url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=True)
    assert float(done.stdout) < 30


async def test_a_connection_is_tried_again_after_its_attempt_was_cancelled(
    broker: minibroker.Broker, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = asyncio.Event()

    async def hang(address: Any, received: Any) -> Any:
        tried.set()
        await asyncio.Event().wait()

    monkeypatch.setattr("minibroker.aio.dialling.dial", hang)
    server.links[-1].fail(ConnectionResetError("cut"))
    await tried.wait()
    monkeypatch.setattr("minibroker.aio.dialling.dial", server.dial)
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    assert await asyncio.wait_for(broker.queue("q").publish(b"a"), 30)


async def test_close_waits_for_the_handlers_of_a_run(server: FakeServer) -> None:
    fill(server, 1)
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def handle(message: minibroker.Message[Any]) -> None:
        begun.set()
        await go_on.wait()

    async with minibroker.connect() as broker:
        run = asyncio.ensure_future(broker.queue("q").run(handle))
        await begun.wait()
        closing = asyncio.ensure_future(broker.close())
        await settle_loop()
        assert not closing.done()
        go_on.set()
        await closing
        assert settled(server, "ack") == [0]
        await run


async def test_close_cancels_handlers_when_its_deadline_is_near(server: FakeServer) -> None:
    fill(server, 1)
    begun = asyncio.Event()

    async def handle(message: minibroker.Message[Any]) -> None:
        begun.set()
        await asyncio.Event().wait()

    async with minibroker.connect(timeout=0.3) as broker:
        run = asyncio.ensure_future(broker.queue("q").run(handle))
        await begun.wait()
    assert settled(server, "release") == [0]
    await asyncio.wait([run])


async def test_a_handler_may_close_its_own_connection(server: FakeServer) -> None:
    fill(server, 1)
    broker = await minibroker.connect()

    async def handle(message: minibroker.Message[Any]) -> None:
        await broker.close()

    await asyncio.wait_for(broker.queue("q").run(handle), 30)
    with pytest.raises(minibroker.Closed):
        await broker.ping()


async def test_what_waited_in_vain_is_not_waited_for_again(server: FakeServer) -> None:
    """A run, then the connection leave: one deadline, not one for each."""
    fill(server, 1)
    seen = asyncio.Event()

    async def handle(message: minibroker.Message[Any]) -> None:
        seen.set()

    waits: list[int] = []
    async with minibroker.connect(timeout=0.4) as broker:
        at = broker._driver.machine.timers.at
        run = asyncio.ensure_future(broker.queue("q").run(handle))
        await seen.wait()
        await settle_loop()
        server.mute = True

        def counted(when_ms: int, item: Any) -> int:
            waits.append(when_ms)
            return at(when_ms, item)

        broker._driver.machine.timers.at = counted  # type: ignore[method-assign]
        run.cancel()
        await asyncio.wait([run])
    assert len(set(waits)) == 1  # all of them end at the same instant


async def test_who_waits_for_a_settlement_hears_when_another_task_closes_what_was_lost(
    broker: minibroker.Broker, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was said of it stands in no frame that could be answered."""

    async def hang(address: Any, received: Any) -> Any:
        await asyncio.Event().wait()

    fill(server, 1)
    [message] = await broker.queue("q").receive(1)
    monkeypatch.setattr("minibroker.aio.dialling.dial", hang)
    server.links[-1].fail(ConnectionResetError("cut"))
    ack = asyncio.ensure_future(message.ack(confirmed=True))
    await settle_loop()
    assert not ack.done()
    broker._driver.close("another task left")
    with pytest.raises(minibroker.OutcomeUnknown):
        await asyncio.wait_for(ack, 10)


async def test_a_confirmed_settlement_after_the_end_is_refused_at_once(server: FakeServer) -> None:
    fill(server, 5)
    async with minibroker.connect() as broker:
        messages = await broker.queue("q").receive(5)
    ack, nack, reject, release, extend = messages
    for call in (
        ack.ack(confirmed=True),
        nack.nack("no", confirmed=True),
        reject.reject("no", confirmed=True),
        release.release(confirmed=True),
        extend.extend(5),
    ):
        with pytest.raises(minibroker.Closed):
            await asyncio.wait_for(call, 30)


async def test_a_child_of_a_fork_closes_at_once_and_publishes_nothing(
    broker_server: BrokerServer,
) -> None:
    """The socket is the parent's: the child leaves it alone, in this loop or in one of its own."""
    async with minibroker.connect(broker_server.url, timeout=30) as broker:
        queue = broker.queue("q")
        waiting = asyncio.ensure_future(queue.publish(b"of the parent"))
        await asyncio.sleep(0)  # its group is open
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            began, told = monotonic(), []
            try:
                for step in (queue.publish(b"x"), broker.close(), queue.publish_many([b"x"])):
                    try:
                        step.send(None)
                    except StopIteration:
                        told.append("done")
                    except minibroker.Closed:
                        told.append("closed")
                os.write(writing, f"{told} {monotonic() - began < 30}".encode())
            finally:
                os._exit(0)
        await asyncio.to_thread(os.waitpid, pid, 0)
        assert os.read(reading, 200) == b"['closed', 'done', 'closed'] True"
        os.close(reading)
        os.close(writing)
        assert (await waiting).id.sequence == 0
        assert (await queue.publish(b"y")).id.sequence == 1


async def test_a_child_of_a_fork_settles_nothing_of_its_parent(broker_server: BrokerServer) -> None:
    """Whatever a copy of a handler does in the child, the leases stay the parent's."""
    async with minibroker.connect(broker_server.url) as broker:
        queue = broker.queue("q")
        await queue.publish_many([b"x"] * 8)
        received = await queue.receive(5)
        ack, nack, reject, release, extend = received
        async with queue.consume(prefetch=3) as messages:
            held = await anext(aiter(messages))
            reading, writing = os.pipe()
            pid = os.fork()
            if pid == 0:
                told = []
                try:
                    for step in (
                        ack.ack(),
                        nack.nack("no"),
                        reject.reject("no"),
                        release.release(),
                        extend.extend(60),
                        held.process().__aexit__(None, None, None),
                        aiter(messages).__anext__(),
                        queue.receive(),
                    ):
                        try:
                            step.send(None)  # type: ignore[attr-defined]
                        except Exception as error:  # noqa: BLE001 - the parent compares them
                            told.append(type(error).__name__)
                    broker._driver.flush()
                    os.write(writing, ",".join(told).encode())
                finally:
                    os.write(writing, b".")
                    os._exit(0)
            await asyncio.to_thread(os.waitpid, pid, 0)
            told = os.read(reading, 200).decode().rstrip(".").split(",")
            assert (
                told.pop(5) == "StopIteration"
            )  # the copy of a block ends as one whose message was lost
            assert len(told) == 7
            assert set(told) <= {"Closed", "LeaseLost"}
            os.close(reading)
            os.close(writing)
            for message in (*received, held):
                await message.ack(confirmed=True)
        counters = (await queue.stats())["queues"]["q"]
        assert [counters[name] for name in ("acked", "failed", "rejected", "lost_settlements")] == [
            6,
            0,
            0,
            0,
        ]


async def test_a_lost_connection_is_told_once(
    broker: minibroker.Broker, server: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Lost, trying, back: a line each, whatever waits."""
    caplog.set_level(logging.INFO, "minibroker")
    for _ in range(20):
        server.queue("q")
    server.links[-1].fail(ConnectionResetError("cut"))
    await broker.queue("q").publish(b"a")
    lines = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert [level for level, _ in lines] == ["WARNING", "INFO", "INFO"]
    lost, trying, back = [text for _, text in lines]
    assert "is lost: cut" in lost
    assert "trying again" in trying
    assert "attempt 1" in trying
    assert "again after" in back


async def test_a_message_settled_after_the_end_is_no_error(server: FakeServer) -> None:
    fill(server, 1)
    async with minibroker.connect() as broker:
        message = await consume_one(broker)
    await message.ack()
