"""The client against a real broker: kills, restarts, a loop that computes, processes that die."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import Any

import pytest
import uvloop

import minibroker
from minibroker.session.delivery import DeliveryRun
from support.broker import BrokerServer
from support.processes import DEADLINE_S, look_until
from support.renewals import LEASE_S, renewed, see_renewed


def busy(seconds: float) -> None:
    """Compute in pure Python: the loop stands still, other threads get their turns."""
    end = monotonic() + seconds
    while monotonic() < end:
        sum(range(1_000))


async def round_trip(url: str) -> list[Any]:
    """Publish, consume, fail, dead-letter, redrive; return the bodies in the order of their acks."""
    bodies: list[Any] = []
    async with minibroker.connect(url, name="tester") as broker:
        queue = broker.queue("trip")
        await queue.set(max_attempts=1)
        await asyncio.gather(*[queue.publish({"n": n}, headers={"h": n}) for n in range(50)])
        await queue.publish_many([b"raw"] * 50, key="k")
        async with queue.consume(prefetch=16) as messages:
            async for message in messages:
                async with message.process():
                    if message.body == {"n": 7} and not bodies.count("failed"):
                        bodies.append("failed")
                        raise ValueError("seven")
                    bodies.append(message.body)
                if len(bodies) == 100:
                    break
        [dead] = await broker.queue("trip.dlq").peek()
        assert (dead.body, dead.headers) == ({"n": 7}, {"h": 7})
        text = dead.history[0]["error_text"]
        assert re.fullmatch(r"seven \(client/test_real_broker.py:\d+ in round_trip\)", text)
        assert dead.history[0]["client"] == "tester"
        assert await broker.queue("trip.dlq").redrive([dead.id]) == 1
        [again] = await queue.receive(5, wait=5)
        assert again.id == dead.id
        await again.ack(confirmed=True)
        counters = (await queue.stats())["queues"]["trip"]
        assert [counters[name] for name in ("ready", "held", "begun")] == [0, 0, 0]
    return bodies


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_a_round_trip(broker_server: BrokerServer, run: Callable[[Any], Any]) -> None:
    bodies = run(round_trip(broker_server.url))
    assert [body for body in bodies if body == b"raw"] == [b"raw"] * 50
    assert sorted(body["n"] for body in bodies if isinstance(body, dict)) == [
        n for n in range(50) if n != 7
    ]


async def test_nothing_is_lost_or_doubled_when_the_broker_is_killed(
    broker_server: BrokerServer,
) -> None:
    """Callers wait through kill -9 and restart; unanswered frames are sent again, applied once."""
    async with minibroker.connect(broker_server.url) as broker:
        queue = broker.queue("q")
        confirmed: list[Any] = []
        enough = asyncio.Event()

        async def produce(start: int) -> None:
            for number in range(start, start + 200):
                confirmed.append((await queue.publish(number)).id)
                if len(confirmed) == 100:
                    enough.set()

        producers = [asyncio.ensure_future(produce(start)) for start in (0, 1_000, 2_000)]
        await enough.wait()
        broker_server.kill()
        await asyncio.to_thread(broker_server.restart)
        await asyncio.gather(*producers)
        assert len(set(confirmed)) == 600
        seen = []
        async with queue.consume(prefetch=100) as messages:
            async for message in messages:
                async with message.process():
                    seen.append((message.id, message.body))
                if len(seen) == 600:
                    break
        assert {identity for identity, _ in seen} == set(confirmed)
        assert await queue.receive() == []


async def test_a_handler_outlives_the_broker(broker_server: BrokerServer) -> None:
    """What is begun stays with its handler over kill -9: RESUME names it, its ack counts."""
    told: list[Any] = []
    async with minibroker.connect(
        broker_server.url, on_settle_error=lambda *args: told.append(args)
    ) as broker:
        queue = broker.queue("q")
        await queue.publish_many([b"a", b"b", b"c"])
        seen = []
        async with queue.consume(prefetch=2) as messages:
            async for message in messages:
                async with message.process():
                    seen.append(message.body)
                    if len(seen) == 1:
                        await asyncio.sleep(0)
                        broker_server.kill()
                        await asyncio.to_thread(broker_server.restart)
                        await queue.publish(b"d")  # returns on the new connection
                if len(seen) == 4:
                    break
        assert seen == [b"a", b"b", b"c", b"d"]
        assert told == []
        assert await queue.receive() == []


async def test_a_handler_that_computes_keeps_its_lease(broker_server: BrokerServer) -> None:
    async with minibroker.connect(broker_server.url) as broker:
        queue = broker.queue("q")
        await queue.set(lease_ms=1_000 * LEASE_S)
        await queue.publish(b"a")
        async with queue.consume() as messages:
            async for message in messages:
                async with message.process():
                    await attached(broker)
                    with ThreadPoolExecutor(1) as pool:
                        seen = pool.submit(see_renewed, broker_server.url, "q", message.id)
                        while not seen.done():
                            sum(range(1_000))
                        seen.result()
                    assert not message.lost
                break
        assert not message.lost
        counters = (await queue.stats())["queues"]["q"]
        assert (counters["acked"], counters["expired"]) == (1, 0)


async def attached(broker: minibroker.Broker) -> None:
    """Return when the second connection is open."""
    thread: Any = broker._driver.attached
    assert thread is not None
    assert await asyncio.to_thread(thread.connected.wait, 10)


async def test_a_loop_that_stands_still_gives_back_what_waits_behind(
    broker_server: BrokerServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("minibroker.shell.attached.STUCK_S", 0.5)
    monkeypatch.setattr("minibroker.shell.attached.TICK_S", 0.1)
    async with minibroker.connect(broker_server.url) as broker:
        queue = broker.queue("q")
        await queue.publish_many([b"a", b"b", b"c"])
        async with queue.consume(prefetch=3) as messages:
            first = await anext(aiter(messages))
            await attached(broker)
            [consumer] = broker._driver.consumers.values()
            assert len(consumer._buffer) == 2
            busy(1.5)
            assert len(consumer._buffer) == 0
            await first.ack(confirmed=True)
        counters = (await queue.stats())["queues"]["q"]
        assert (counters["acked"], counters["ready"] + counters["delayed"]) == (1, 2)


SCRIPT = """
import asyncio, sys
import minibroker

async def main():
    broker = await minibroker.connect(sys.argv[1], name="child")
    queue = broker.queue("q")
    if sys.argv[2] == "exit":
        [message] = await queue.receive(1, wait=5)
        print("got", message.body, flush=True)
        return
    async for message in queue.consume():
        print("got", message.body, flush=True)
        while True:
            sum(range(1000))

asyncio.run(main())
"""


def child(url: str, mode: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, url, mode], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )


async def test_renewals_die_with_the_process(broker_server: BrokerServer) -> None:
    """kill -9 of a worker that computes: its message comes back after the lease, marked."""
    async with minibroker.connect(broker_server.url) as broker:
        queue = broker.queue("q")
        await queue.set(lease_ms=1_000 * LEASE_S)
        confirm = await queue.publish(b"a")
        worker = child(broker_server.url, "compute")
        try:
            assert worker.stdout is not None
            assert await asyncio.to_thread(worker.stdout.readline) == b"got b'a'\n"
            await renewed(queue, confirm.id)
            os.kill(worker.pid, signal.SIGKILL)
            [message] = await queue.receive(1, wait=DEADLINE_S)
            assert (message.attempt, message.marked) == (2, True)
            await message.ack()
        finally:
            worker.kill()
            worker.communicate()


async def test_the_thread_does_not_keep_a_process_alive(broker_server: BrokerServer) -> None:
    async with minibroker.connect(broker_server.url) as broker:
        await broker.queue("q").publish(b"a")
        worker = child(broker_server.url, "exit")
        try:
            await asyncio.to_thread(worker.wait, 20)
        finally:
            worker.kill()
            worker.communicate()


async def test_a_forked_child_does_not_speak_for_its_parent(broker_server: BrokerServer) -> None:
    async with minibroker.connect(broker_server.url) as broker:
        await broker.queue("q").publish(b"a")
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                broker._driver.flush()
                broker._driver.check_open()
                os.write(writing, b"open")
            except minibroker.Closed:
                os.write(writing, b"closed")
            finally:
                os._exit(0)
        await asyncio.to_thread(os.waitpid, pid, 0)
        assert os.read(reading, 10) == b"closed"
        os.close(reading)
        os.close(writing)
        assert (await broker.queue("q").publish(b"b")).id.sequence == 1


async def test_a_break_releases_what_it_held(broker_server: BrokerServer) -> None:
    """Without it the messages would stay where they are: no lease runs for what has not begun."""
    async with minibroker.connect(broker_server.url) as broker:
        queue = broker.queue("q")
        await queue.publish_many([b"a"] * 10)
        async for message in queue.consume(prefetch=10):
            await message.ack()
            break
        assert len(await queue.receive(9, wait=20)) > 0


async def test_a_large_body_comes_back(broker_server: BrokerServer) -> None:
    body = os.urandom(1024 * 1024)
    async with minibroker.connect(broker_server.url) as broker:
        queue = broker.queue("q")
        await asyncio.gather(*[queue.publish(body) for _ in range(40)])
        seen = 0
        async with queue.consume(prefetch=40) as messages:
            async for message in messages:
                async with message.process(reraise=True):
                    assert message.body == body
                seen += 1
                if seen == 40:
                    break


async def test_run_ends_with_what_it_began(broker_server: BrokerServer) -> None:
    async with minibroker.connect(broker_server.url) as broker:
        queue = broker.queue("q")
        await queue.publish_many([b"a"] * 100)
        done = []
        enough = asyncio.Event()

        async def handler(message: minibroker.Message[bytes]) -> None:
            await asyncio.sleep(0)
            done.append(message.id)
            if len(done) >= 50:
                enough.set()

        task = asyncio.ensure_future(queue.run(handler, concurrency=8))
        await enough.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        counters = (await queue.stats())["queues"]["q"]
        assert counters["acked"] == len(done)
        assert (counters["held"], counters["begun"]) == (0, 0)
        assert counters["ready"] + counters["delayed"] == 100 - len(done)


def living_runs() -> int:
    """Return how many runs of deliveries live; the collector sees them, and each message keeps its own."""
    gc.collect()
    return sum(isinstance(each, DeliveryRun) for each in gc.get_objects())


async def none_is_left(before: int, server: BrokerServer) -> None:
    """Wait until no more runs live than before: the threads that renewed leases end within a second."""
    await asyncio.to_thread(
        look_until, lambda: living_runs() <= before, server.process, "an end of all messages"
    )


async def test_no_message_outlives_its_connection(broker_server: BrokerServer) -> None:
    """The collector does not see messages: whatever became of them, their circles are broken by hand."""
    before = living_runs()
    for _ in range(3):
        async with minibroker.connect(broker_server.url) as broker:
            queue = broker.queue("left")
            await queue.publish_many([b"x"] * 100)
            taken = await queue.receive(5)
            await taken[0].nack("once")
            async with queue.consume(prefetch=20) as messages:
                async for message in messages:
                    async with message.process():
                        break
            consumer = aiter(queue.consume(prefetch=20))
            held = await anext(consumer)
        await held.ack()  # nobody is told
    taken.clear()
    del message, held, consumer, messages, queue, broker
    await none_is_left(before, broker_server)


async def test_a_long_connection_does_not_gather_messages(broker_server: BrokerServer) -> None:
    """What has ended goes, some deliveries later."""
    before = living_runs()
    async with minibroker.connect(broker_server.url) as broker:
        queue = broker.queue("long")
        for _ in range(1_000):
            await queue.publish(b"x")
            (message,) = await queue.receive(wait=10)
            await message.ack()
        assert living_runs() - before < 200


async def test_a_cancelled_handler_is_not_kept(broker_server: BrokerServer) -> None:
    """Its task holds the error, whose frames hold the message: the message must let go of the task."""
    before = living_runs()

    async def handle(message: minibroker.Message[bytes]) -> None:
        async with message.process():
            await asyncio.Event().wait()

    async with minibroker.connect(broker_server.url) as broker:
        queue: minibroker.Queue[bytes] = broker.queue("cancelled")
        for _ in range(100):
            await queue.publish(b"x")
            (message,) = await queue.receive(wait=10)
            handler = asyncio.ensure_future(handle(message))
            await asyncio.sleep(0)
            handler.cancel()
            await asyncio.wait([handler])
            del handler
        await queue.purge()
    del message
    await none_is_left(before, broker_server)
