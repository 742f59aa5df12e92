"""The attached connection: what its thread renews, begins and releases, with a clock passed in."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Callable
from time import monotonic
from typing import Any

import pytest
from fake_server import FakeServer
from steps import fill, settle_loop

import minibroker
from minibroker.aio import consumer, driver, queue
from minibroker.contract import wire
from minibroker.session.delivery import drop
from minibroker.session.settlements import ENDED, HELD
from minibroker.shell import attached
from minibroker.shell.attached import STUCK_S, TICK_S, Attached


class Recorder(Attached):
    """The thread's object, never started; keeps what it would write."""

    def __init__(self, driver: Any) -> None:
        super().__init__(driver)
        self.sent: list[tuple[dict[str, object], bytes]] = []
        self._pinged_at = float("inf")

    def _send(self, parts: list[dict[str, object]], columns: bytes) -> None:
        self._request += 1
        self.sent += [(part, columns) for part in parts]

    def ops(self) -> list[tuple[object, list[int]]]:
        """Return (operation, sequences of the runs) of what was sent, and forget it."""
        sent, self.sent = self.sent, []
        return [
            (
                part["op"],
                [
                    sequence
                    for _, _, first, count in wire.RUN.iter_unpack(columns)
                    for sequence in range(first, first + count)
                ],
            )
            for part, columns in sent
        ]

    def _in_loop(self, function: Callable[..., object], *args: Any) -> None:
        if function is drop:
            function(*args)


async def begun(broker: minibroker.Broker, server: FakeServer, at: float) -> Any:
    """Return a message that began at `at`."""
    fill(server, 1)
    [message] = await broker.queue("q").receive(1, lease=30)
    message.begun_at = at
    return message


async def test_a_lease_is_renewed_each_third_of_its_length(
    broker: minibroker.Broker, server: FakeServer
) -> None:
    await begun(broker, server, at=100.0)
    thread = Recorder(broker._driver)
    thread._turned_at = 1e9
    thread.tick(109.9)
    assert thread.ops() == []
    thread.tick(110.1)
    assert thread.ops() == [("extend", [0])]
    thread.tick(119.9)
    assert thread.ops() == []
    thread.tick(120.2)
    assert thread.ops() == [("extend", [0])]


async def test_the_renewal_keeps_the_length_of_the_lease(
    broker: minibroker.Broker, server: FakeServer
) -> None:
    server.lease_ms = 900
    await begun(broker, server, at=100.0)
    thread = Recorder(broker._driver)
    thread._turned_at = 1e9
    thread.tick(100.31)
    assert thread.sent[0][0] == {"op": "extend", "queue": "q", "runs": 1, "lease_ms": 900}
    assert thread._tick_s() <= 0.15


async def test_nothing_is_renewed_longer_than_max_run(server: FakeServer) -> None:
    async with minibroker.connect(max_run=60) as broker:
        message = await begun(broker, server, at=100.0)
        thread = Recorder(broker._driver)
        thread._turned_at = 1e9
        thread.tick(159.0)
        assert thread.ops() == [("extend", [0])]
        thread.tick(170.0)
        assert thread.ops() == []
        await message.ack()


async def test_a_settlement_that_is_not_confirmed_keeps_its_lease(
    broker: minibroker.Broker, server: FakeServer
) -> None:
    message = await begun(broker, server, at=100.0)
    server.withhold = True
    await message.ack()
    thread = Recorder(broker._driver)
    thread._turned_at = 1e9
    thread.tick(111.0)
    assert thread.ops() == [("extend", [0])]
    await settle_loop()
    server.links[-1].peer.confirm(1)
    server.links[-1].deliver()
    await settle_loop()
    thread.tick(133.0)
    assert thread.ops() == []


async def test_a_loop_that_stands_still_loses_what_it_has_not_begun(
    broker: minibroker.Broker, server: FakeServer
) -> None:
    """What a handler works on is begun and stays; what waits behind it goes to others."""
    fill(server, 4)
    async with broker.queue("q").consume(prefetch=4) as messages:
        iterator = aiter(messages)
        running = await anext(iterator)
        broker._driver.last_write = float("inf")
        second = await anext(iterator)  # its begin waits for the end of this turn
        [consumer] = broker._driver.consumers.values()
        waiting = list(consumer._buffer)
        thread = Recorder(broker._driver)
        thread._turned_at = 100.0
        thread.tick(100.0 + STUCK_S)
        assert "release" not in dict(thread.ops())
        thread.tick(100.1 + STUCK_S)
        ops = dict(thread.ops())
        assert ops["release"] == [2, 3]
        assert ops["begin"] in ([0, 1], [1])  # that of the first may have been written already
        assert [message.state for message in waiting] == [ENDED, ENDED]
        thread.tick(100.2 + STUCK_S)
        assert "release" not in dict(thread.ops())
        assert HELD not in (running.state, second.state)
        await running.ack()
        await second.ack()


async def test_a_loop_is_not_blamed_for_a_lost_connection(
    broker: minibroker.Broker, server: FakeServer
) -> None:
    """While the thread had none it did not ask whether the loop turns: after an outage it begins anew to look."""
    fill(server, 3)
    async with broker.queue("q").consume(prefetch=3) as messages:
        running = await anext(aiter(messages))
        thread = Recorder(broker._driver)
        thread._turned_at -= 2 * STUCK_S
        thread._wire = thread  # type: ignore[assignment]  # there is one
        thread._session, thread._address = broker._driver.session.session_id, broker._driver.address
        bell: Any = Once(thread)
        thread._serve(bell)
        assert "release" not in dict(thread.ops())
        [consumer] = broker._driver.consumers.values()
        assert len(consumer._buffer) == 2
        await running.ack()


class Once:
    """A bell that ends the thread when it is first waited for."""

    def __init__(self, thread: Attached) -> None:
        self._thread = thread

    def wait(self, *_: object) -> bool:
        """Nobody rings."""
        self._thread._stopped = True
        return False


async def test_signs_of_life_go_out_twice_as_often_as_needed(
    broker: minibroker.Broker, server: FakeServer
) -> None:
    thread = Recorder(broker._driver)
    thread._turned_at = 1e9
    thread._pinged_at = 100.0
    thread.tick(107.4)
    assert thread.ops() == []
    thread.tick(107.6)
    assert thread.ops() == [("ping", [])]


async def test_a_refused_renewal_loses_the_message(
    broker: minibroker.Broker, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = await begun(broker, server, at=100.0)
    thread = Recorder(broker._driver)
    thread._turned_at = 1e9
    thread.tick(111.0)
    monkeypatch.setattr(thread, "_in_loop", lambda function, *args: function(*args))
    lost = wire.RUN.pack(message.token, 1, 0, 1)
    header = {"op": "confirm", "request": thread._request, "results": [{"lost": 1}]}
    thread._take(wire.Frame(header, lost, b"", b""))
    assert message.lost


class Rings:
    """Counts how often the bell is rung."""

    def __init__(self) -> None:
        self.count = 0

    def ring(self) -> None:
        """Ring it."""
        self.count += 1


async def test_a_delivery_under_a_short_lease_wakes_the_thread(broker: minibroker.Broker) -> None:
    """It may sleep for a second, and the lease end before that; for a usual lease it is left alone."""
    thread = Recorder(broker._driver)
    thread._bell = bell = Rings()  # type: ignore[assignment]
    thread._wakes_at = monotonic() + TICK_S
    thread.delivered(30_000)
    assert bell.count == 0
    thread.delivered(500)
    assert bell.count == 1
    thread._wakes_at = monotonic()  # it is awake: it looks by itself
    thread.delivered(500)
    assert bell.count == 1


async def test_a_lease_that_was_asked_for_is_renewed_as_that(
    broker: minibroker.Broker, server: FakeServer
) -> None:
    """Shorter or longer than the one that was granted."""
    message = await begun(broker, server, at=100.0)
    thread = Recorder(broker._driver)
    thread._turned_at = 1e9
    for lease_ms, before, due in ((1_000, 100.3, 100.4), (90_000, 129.0, 131.0)):
        thread._extended[message] = (100.0, lease_ms)
        thread._renewed.clear()
        thread.tick(before)
        assert thread.ops() == []
        thread.tick(due)
        assert thread.sent[0][0]["lease_ms"] == lease_ms
        thread.ops()
    await message.ack()
    await settle_loop()
    thread.tick(140.0)
    assert not thread._extended


async def test_the_thread_outlives_an_error_of_its_own(
    broker: minibroker.Broker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Without it every lease would end, in silence."""
    thread = Recorder(broker._driver)
    tries = []

    def fail() -> None:
        tries.append(1)
        if len(tries) == 2:
            thread.stop()
        raise struct.error("a frame of odd length")

    monkeypatch.setattr(thread, "_connect", fail)
    monkeypatch.setattr("minibroker.shell.attached.RETRY_S", 0.01)
    thread.start()
    for _ in range(1_000):
        await asyncio.to_thread(thread.connected.wait, 0.02)
        if len(tries) == 2:
            break
    assert len(tries) == 2
    assert "goes on" in caplog.text


async def test_an_extend_and_an_ack_in_one_turn_both_count(
    broker: minibroker.Broker, server: FakeServer
) -> None:
    """The extend is written first, and each is confirmed by its own part."""
    message = await begun(broker, server, at=100.0)
    await asyncio.gather(message.extend(60), message.ack(confirmed=True))
    assert [op for op, *_ in server.settled if op != "begin"] == ["extend", "ack"]
    assert not message.lost


async def test_a_thousand_lost_messages_are_two_lines(
    broker: minibroker.Broker, server: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    fill(server, 1_000)
    messages = await broker.queue("q").receive(1_000)
    for at in range(0, 1_000, 100):
        broker._driver.lose(messages[at : at + 100], minibroker.LeaseLost("gone"))
    broker._driver._telling.say_the_rest()
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    assert "and 99 others" in lines[0]
    assert "900 more messages are lost" in lines[1]


@pytest.mark.parametrize("module", [attached, consumer, driver, queue])
def test_what_renews_leases_has_no_clock_that_tests_freeze(module: object) -> None:
    """freezegun replaces each function of `time` that a module has a name for."""
    assert time.monotonic not in vars(module).values()
