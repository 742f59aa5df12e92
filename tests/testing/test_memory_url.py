"""memory://: the verbs of the client on a broker in this process."""

from __future__ import annotations

import asyncio
import gc
import sys

import pytest
import uvloop

import minibroker
from minibrokerd import inprocess

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


async def test_a_message_goes_through() -> None:
    async with minibroker.connect("memory://") as broker:
        queue = broker.queue("emails")
        confirm = await queue.publish({"to": "bob"}, headers={"trace": "1"})
        assert confirm.durability == "sync"
        (message,) = await queue.receive()
        assert (message.id, message.body) == (confirm.id, {"to": "bob"})
        assert message.headers == {"trace": "1"}
        await message.ack(confirmed=True)
        counters = (await broker.stats())["queues"]["emails"]
        assert (counters["acked"], counters["ready"], counters["begun"]) == (1, 0, 0)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_run_works_in_either_loop_without_a_socket(
    loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is opened, no thread is started, and nothing is left that would warn."""
    opened: list[str] = []
    taken = {"socket.socket", "socket.connect", "open", "os.mkdir", "_thread.start_new_thread"}

    async def main() -> list[int]:
        async with minibroker.connect("memory://") as broker:
            queue = broker.queue("q")
            listening.append(True)
            await queue.publish_many(list(range(1000)))
            done: list[int] = []
            over = asyncio.Event()

            async def handle(message: minibroker.Message[int]) -> None:
                done.append(message.body)
                if len(done) == 1000:
                    over.set()

            run = asyncio.create_task(queue.run(handle, concurrency=16))
            await over.wait()
            run.cancel()
            await asyncio.wait([run])
            listening.clear()
            return done

    listening: list[bool] = []
    sys.addaudithook(
        lambda event, _: opened.append(event) if listening and event in taken else None
    )
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        assert sorted(runner.run(main())) == list(range(1000))
    assert opened == []
    gc.collect()


async def test_a_name_is_one_broker_and_no_name_a_new_one() -> None:
    async with (
        minibroker.connect("memory://shared") as one,
        minibroker.connect("memory://shared") as other,
        minibroker.connect("memory://") as alone,
        minibroker.connect("memory://") as apart,
    ):
        await one.queue("q").publish(b"x")
        (message,) = await other.queue("q").receive()
        assert message.body == b"x"
        await message.ack(confirmed=True)
        await alone.queue("q").publish(b"y")
        assert await apart.queue("q").receive() == []
    inprocess.forget("shared")


async def test_a_named_broker_is_there_when_nobody_is_connected() -> None:
    async with minibroker.connect("memory://kept") as broker:
        await broker.queue("q").publish(b"x")
    async with minibroker.connect("memory://kept") as broker:
        (message,) = await broker.queue("q").receive()
        assert message.body == b"x"
    inprocess.forget("kept")
    async with minibroker.connect("memory://kept") as broker:
        assert await broker.queue("q").receive() == []
    inprocess.forget("kept")


async def test_loops_of_two_threads_share_a_broker() -> None:
    """A waiting receive in one loop is answered by a publish in another, and a delay by whoever waits."""

    async def publish() -> None:
        async with minibroker.connect("memory://threads") as broker:
            await broker.queue("q").publish(b"now")
            await broker.queue("q").publish(b"later", delay=0.05)

    async with minibroker.connect("memory://threads") as broker:
        waiting = asyncio.create_task(broker.queue("q").receive(wait=20))
        await broker.ping()
        await asyncio.to_thread(asyncio.run, publish())
        (message,) = await waiting
        assert message.body == b"now"
        (message,) = await broker.queue("q").receive(wait=20)
        assert message.body == b"later"
    inprocess.forget("threads")


async def test_a_client_whose_loop_is_gone_is_gone() -> None:
    """Its messages come back, as those of a process that died."""

    async def begin_and_leave() -> None:
        broker = await minibroker.connect("memory://left")
        await broker.queue("q").publish(b"x")
        await broker.queue("q").receive()

    await asyncio.to_thread(asyncio.run, begin_and_leave())
    async with minibroker.connect("memory://left") as broker:
        before = (await broker.stats())["server"]["connections"]
        left = inprocess.find("left")
        for pipe in list(left.pipes):
            pipe.readable()  # as when the broker has something for it
        left.step()
        assert (await broker.stats())["server"]["connections"] < before
    inprocess.forget("left")


async def test_a_slow_reader_is_given_no_more_than_a_socket_would_hold() -> None:
    """From the soft limit on the broker waits, and goes on when the client reads."""
    async with minibroker.connect("memory://") as broker:
        queue = broker.queue("q")
        for _ in range(40):
            await queue.publish(bytes(100_000))
        got = 0
        async with queue.consume(prefetch=40) as messages:
            async for message in messages:
                await message.ack()
                got += 1
                if got == 40:
                    break
        assert got == 40


async def test_an_error_of_the_broker_ends_it_and_not_the_process() -> None:
    async with minibroker.connect("memory://broken", timeout=1) as broker:
        inside = inprocess.find("broken")
        inside.engine.stop_at(KeyError("injected"))
        with pytest.raises(minibroker.MinibrokerError):
            await broker.queue("q").publish(b"x", timeout=0.1)
    with pytest.raises(minibroker.ConnectionLost, match="injected"):
        await minibroker.connect("memory://broken", connect_timeout=0.1)
    inprocess.forget("broken")


@pytest.mark.parametrize("place", ["core.core.Core.apply", "engine.engine.Engine._write"])
async def test_a_mistake_of_the_broker_does_not_come_out_of_a_call(
    place: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told and ends the broker; the caller sees a connection that is lost."""
    async with minibroker.connect("memory://", timeout=1) as broker:
        await broker.queue("q").publish(b"x")

        def fail(*_: object) -> None:
            raise KeyError("injected")

        monkeypatch.setattr(f"minibrokerd.{place}", fail)
        with pytest.raises(minibroker.MinibrokerError):
            await broker.queue("q").publish(b"y", timeout=0.1)
        (told,) = [record for record in caplog.records if record.levelname == "ERROR"]
        assert "KeyError: 'injected'" in told.getMessage()


@pytest.mark.parametrize("url", ["memory://a/b", "memory://a?x=1", "memory://a b", "memory://u@x"])
def test_a_name_is_plain(url: str) -> None:
    with pytest.raises(ValueError, match="memory://name"):
        minibroker.connect(url)
