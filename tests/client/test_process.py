"""`process` and the settlements made by hand: what each end of a handler does, and what is lost."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from fake_server import FakeServer
from steps import consume_one, fill, settle_loop, settled

import minibroker

# ---- process ----


async def test_an_exception_nacks_with_its_error_and_goes_no_further(
    broker: minibroker.Broker, server: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    fill(server, 1)
    message = await consume_one(broker)
    async with message.process():
        raise ValueError("no such address")
    await settle_loop()
    assert settled(server, "nack") == [0]
    assert b"ValueError" in server.frames[-1]
    assert b"no such address" in server.frames[-1]
    assert "delay_ms" not in server.parts("nack")[0]
    assert "attempt 1" in caplog.text


async def test_reraise_lets_it_through(broker: minibroker.Broker, server: FakeServer) -> None:
    fill(server, 1)
    message = await consume_one(broker)
    with pytest.raises(ValueError, match="x"):
        async with message.process(reraise=True):
            raise ValueError("x")
    await settle_loop()
    assert settled(server, "nack") == [0]


async def test_an_undecodable_body_is_rejected(
    broker: minibroker.Broker, server: FakeServer
) -> None:
    server.queue("q").ready.append((0, b"", b"\xc1", 1, ""))
    message = await consume_one(broker)
    async with message.process():
        message.body  # noqa: B018 - reading it is what raises
    await settle_loop()
    assert settled(server, "reject") == [0]
    assert message.raw == b"\xc1"


async def test_what_was_settled_inside_is_left_alone(
    broker: minibroker.Broker, server: FakeServer
) -> None:
    fill(server, 2)
    for verb in ("ack", "release"):
        message = await consume_one(broker)
        async with message.process():
            await getattr(message, verb)()
            raise ValueError("too late")
    await settle_loop()
    assert [op for op, *_ in server.settled] == ["ack", "release"]


async def test_settling_twice_is_refused(broker: minibroker.Broker, server: FakeServer) -> None:
    fill(server, 1)
    message = await consume_one(broker)
    await message.ack()
    for again in (message.ack(), message.nack(), message.release(), message.extend()):
        with pytest.raises(minibroker.LeaseLost, match="before"):
            await again


async def test_a_confirmed_ack_waits(broker: minibroker.Broker, server: FakeServer) -> None:
    fill(server, 2)
    server.withhold = True
    task = asyncio.ensure_future((await consume_one(broker)).ack(confirmed=True))
    await settle_loop()
    assert not task.done()
    server.links[-1].peer.confirm(1)
    server.links[-1].deliver()
    await task
    server.withhold = False
    server.lost = {1}
    with pytest.raises(minibroker.LeaseLost):
        await (await consume_one(broker)).ack(confirmed=True)


async def test_nack_and_extend_carry_their_times(
    broker: minibroker.Broker, server: FakeServer
) -> None:
    fill(server, 1)
    message = await consume_one(broker)
    await message.extend(lease=2)
    await message.nack("later", delay=1.5, confirmed=True)
    assert server.parts("extend")[0]["lease_ms"] == 2_000
    assert server.parts("nack")[0]["delay_ms"] == 1_500


# ---- lost messages ----


async def test_a_refused_settlement_is_told_once(
    server: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[tuple[Any, Any]] = []
    async with minibroker.connect(on_settle_error=lambda *args: told.append(args)) as broker:
        fill(server, 1)
        server.lost = {0}
        message = await consume_one(broker)
        assert not message.lost
        async with message.process():
            pass
    assert message.lost
    assert [(entry[0], type(entry[1])) for entry in told] == [(message, minibroker.LeaseLost)]
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


async def test_a_message_is_lost_only_once(
    broker: minibroker.Broker, server: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    fill(server, 1)
    message = await consume_one(broker)
    error = minibroker.LeaseLost("gone")
    broker._driver.lose([message], error)
    broker._driver.lose([message], error)
    assert len(caplog.records) == 1


async def test_the_handler_of_a_lost_message_is_cancelled_and_the_loop_goes_on(
    broker: minibroker.Broker, server: FakeServer
) -> None:
    fill(server, 2)
    ran: list[int] = []

    async def work() -> None:
        async with broker.queue("q").consume(prefetch=2) as messages:
            async for message in messages:
                async with message.process():
                    ran.append(message.sequence)
                    if message.sequence == 0:
                        broker._driver.lost_runs([(message.token, 1, 0, 1)])
                        await asyncio.Event().wait()
                if message.sequence == 1:
                    break

    task = asyncio.ensure_future(work())
    await task
    assert ran == [0, 1]
    assert task.cancelling() == 0
    assert settled(server, "ack") == [1]


async def test_a_lost_handler_is_cancelled_while_it_waits(
    broker: minibroker.Broker, server: FakeServer
) -> None:
    fill(server, 1)
    message = await consume_one(broker)
    waiting = asyncio.Event()

    async def work() -> None:
        async with message.process(reraise=True):
            waiting.set()
            await asyncio.Event().wait()

    task = asyncio.ensure_future(work())
    await waiting.wait()
    broker._driver.lost_runs([(message.token, 1, 0, 1)])
    with pytest.raises(minibroker.LeaseLost):
        await task


async def test_a_foreign_cancellation_of_a_lost_handler_still_counts(
    broker: minibroker.Broker, server: FakeServer
) -> None:
    fill(server, 1)
    message = await consume_one(broker)
    waiting = asyncio.Event()

    async def work() -> None:
        async with message.process():
            waiting.set()
            await asyncio.Event().wait()

    task = asyncio.ensure_future(work())
    await waiting.wait()
    broker._driver.lost_runs([(message.token, 1, 0, 1)])
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
