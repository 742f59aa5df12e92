"""`publish` and `publish_many`: one turn, few frames; what is known when something goes wrong."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fake_server import FakeServer

import minibroker
from minibroker.session.outbox import GROUP_MESSAGES


async def settle_loop() -> None:
    """Let everything run that can run now."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_confirm_has_id_and_durability(broker: minibroker.Broker) -> None:
    queue = broker.queue("q")
    await queue.publish(b"a")
    confirm = await queue.publish({"a": 1})
    assert (str(confirm.id), confirm.durability) == ("1-1", "sync")
    assert confirm.id == minibroker.MessageId(1, 1)


async def test_calls_of_one_turn_leave_as_few_frames(
    broker: minibroker.Broker, server: FakeServer
) -> None:
    queue = broker.queue("q")
    confirms = await asyncio.gather(*[queue.publish(b"%d" % n) for n in range(1_200)])
    assert [part["count"] for part in server.parts("publish")] == [500, 500, 200]
    assert [confirm.id.sequence for confirm in confirms] == list(range(1_200))
    assert [stored[2] for stored in server.queue("q").ready] == [b"%d" % n for n in range(1_200)]


async def test_every_caller_gets_the_id_of_its_own_message(
    broker: minibroker.Broker, server: FakeServer
) -> None:
    """Single calls, many at once, other queues and other values, all in one turn."""
    first, second = broker.queue("a"), broker.queue("b")
    one, many, other, keyed = await asyncio.gather(
        first.publish(b"one"),
        first.publish_many([b"m0", {"m": 1}, b"m2"], headers={"h": 1}),
        second.publish(b"other", delay=1.5),
        first.publish("text", key="k"),
    )
    stored = {item[0]: item for item in server.queue("a").ready}
    assert stored[one.id.sequence][2] == b"one"
    assert [stored[confirm.id.sequence][3] for confirm in many] == [0, 1, 0]
    assert stored[many[0].id.sequence][1] == b"\x81\xa1h\x01"
    assert stored[keyed.id.sequence][4] == "k"
    assert server.queue("b").ready[other.id.sequence][2] == b"other"
    assert [part.get("delay_ms") for part in server.parts("publish")] == [None, 1_500]


async def test_publish_many_returns_a_lazy_sequence(broker: minibroker.Broker) -> None:
    confirms = await broker.queue("q").publish_many([b"x"] * 1_234)
    assert len(confirms) == 1_234
    assert [confirm.id.sequence for confirm in confirms] == list(range(1_234))
    assert confirms[-1].id == (1, 1_233)
    assert [confirm.id.sequence for confirm in confirms[2:8:3]] == [2, 5]
    with pytest.raises(IndexError):
        confirms[1_234]
    assert list(await broker.queue("q").publish_many([])) == []


@pytest.mark.parametrize(
    ("error", "arguments"),
    [
        (TypeError, {"body": object()}),
        (TypeError, {"body": b"", "headers": {"a": object()}}),
        (minibroker.BadValue, {"body": b"", "delay": -1}),
        (minibroker.BadValue, {"body": b"", "key": "k" * 256}),
        (minibroker.TooLarge, {"body": bytes(1024 * 1024 + 1)}),
    ],
)
async def test_what_cannot_be_sent_is_refused_before_anything_is(
    broker: minibroker.Broker, server: FakeServer, error: type[Exception], arguments: Any
) -> None:
    with pytest.raises(error):
        await broker.queue("q").publish(**arguments)
    assert server.parts("publish") == []


async def test_a_cancel_before_the_write_withdraws(
    broker: minibroker.Broker, server: FakeServer
) -> None:
    queue = broker.queue("q")
    tasks = [asyncio.ensure_future(queue.publish(b"%d" % n)) for n in range(3)]
    many = asyncio.ensure_future(queue.publish_many([b"m"] * 4))
    asyncio.get_running_loop().call_soon(tasks[1].cancel)  # after the calls, before the flush
    asyncio.get_running_loop().call_soon(many.cancel)
    results = await asyncio.gather(*tasks, many, return_exceptions=True)
    assert [type(result) for result in results] == [
        minibroker.Confirm,
        asyncio.CancelledError,
        minibroker.Confirm,
        asyncio.CancelledError,
    ]
    assert [stored[2] for stored in server.queue("q").ready] == [b"0", b"2"]
    last = results[2]
    assert isinstance(last, minibroker.Confirm)
    assert last.id.sequence == 1


async def test_a_cancel_after_the_write_reaches_nobody_else(
    broker: minibroker.Broker, server: FakeServer
) -> None:
    server.withhold = True
    tasks = [asyncio.ensure_future(broker.queue("q").publish(b"%d" % n)) for n in range(2)]
    await settle_loop()
    tasks[0].cancel()
    server.links[-1].peer.confirm(1)
    server.links[-1].deliver()
    assert (await tasks[1]).id.sequence == 1
    assert len(server.queue("q").ready) == 2


@pytest.mark.parametrize("gone", [[0], [6], [2, 3], [0, 1, 5, 6], list(range(7))])
async def test_whoever_is_gone_when_the_confirms_come_keeps_none_from_the_others(
    broker: minibroker.Broker, server: FakeServer, gone: list[int]
) -> None:
    """The first one, the last, neighbours, all: each other caller gets the id of its own message."""
    server.withhold = True
    tasks = [asyncio.ensure_future(broker.queue("q").publish(b"%d" % n)) for n in range(7)]
    await settle_loop()
    for index in gone:
        tasks[index].cancel()
    server.links[-1].peer.confirm(1)
    server.links[-1].deliver()
    kept = [index for index in range(7) if index not in gone]
    confirms = await asyncio.gather(*(tasks[index] for index in kept))
    assert [confirm.sequence for confirm in confirms] == kept


@pytest.mark.usefixtures("refused_at_once")
async def test_a_refusal_reaches_every_caller(
    broker: minibroker.Broker, server: FakeServer
) -> None:
    server.refuse = lambda header: {"code": "disk_full", "text": "no", "retryable": True}
    queue = broker.queue("q")
    results = await asyncio.gather(
        queue.publish(b"a"),
        queue.publish_many([b"b"] * 2),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [minibroker.DiskFull] * 2
    assert results[0] is not results[1]
    server.refuse = lambda header: None


async def test_a_written_publish_past_its_deadline_is_unknown(
    broker: minibroker.Broker, server: FakeServer
) -> None:
    server.withhold = True
    with pytest.raises(minibroker.OutcomeUnknown) as caught:
        await broker.queue("q").publish(b"a", timeout=0.02)
    assert isinstance(caught.value, TimeoutError)
    assert len(server.queue("q").ready) == 1
    server.withhold = False
    server.links[-1].peer.confirm(1)  # too late for anybody, and no harm
    server.links[-1].deliver()
    assert (await broker.queue("q").publish(b"b")).sequence == 1


async def test_an_unknown_outcome_says_why_there_is_no_connection(
    broker: minibroker.Broker, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unreachable(*args: Any) -> Any:
        raise ConnectionRefusedError("nobody there")

    server.withhold = True
    task = asyncio.ensure_future(broker.queue("q").publish(b"a", timeout=0.05))
    await settle_loop()
    monkeypatch.setattr("minibroker.aio.dialling.dial", unreachable)
    server.links[-1].fail(ConnectionResetError("gone"))
    with pytest.raises(minibroker.OutcomeUnknown, match=r"stored or not \((gone|nobody)"):
        await task
    server.withhold = False  # the broker is closed behind the test, and would ask for half a minute
    monkeypatch.setattr("minibroker.aio.dialling.dial", server.dial)


async def test_an_unwritten_publish_past_its_deadline_is_not_sent(
    broker: minibroker.Broker, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unreachable(*args: Any) -> Any:
        raise ConnectionRefusedError("nobody there")

    monkeypatch.setattr("minibroker.aio.dialling.dial", unreachable)
    server.links[-1].fail(ConnectionResetError("gone"))
    await settle_loop()
    with pytest.raises(minibroker.NotSent, match=r"gone|nobody") as caught:
        await broker.queue("q").publish(b"a", timeout=0.02)
    assert caught.value.retryable
    monkeypatch.setattr("minibroker.aio.dialling.dial", server.dial)
    await broker.queue("q").publish(b"b")
    assert [stored[2] for stored in server.queue("q").ready] == [b"b"]


async def test_unanswered_publishes_survive_a_lost_connection(
    broker: minibroker.Broker, server: FakeServer
) -> None:
    """Sent again byte for byte, applied once, and confirmed to the caller."""
    server.withhold = True
    task = asyncio.ensure_future(broker.queue("q").publish(b"a"))
    gone = asyncio.ensure_future(broker.queue("q").publish(b"b", timeout=0.02))
    await settle_loop()
    with pytest.raises(minibroker.OutcomeUnknown):
        await gone
    server.withhold = False
    server.links[-1].fail(ConnectionResetError("gone"))
    assert (await task).id.sequence == 0
    sequences = [header.get("sequence") for header in server.headers]
    assert sequences == [None, 1, 2, None, 1]  # hello, two publishes, resume, one again


async def test_what_does_not_fit_the_window_waits(
    broker: minibroker.Broker, server: FakeServer
) -> None:
    """1,024 frames unanswered; callers wait, nothing fails."""
    server.withhold = True
    queues = [broker.queue(f"q{n}") for n in range(1_100)]
    tasks = [asyncio.ensure_future(queue.publish(b"a")) for queue in queues]
    await settle_loop()
    assert len(server.parts("publish")) == 1_024
    server.withhold = False
    for sequence in range(1, 1_025):
        server.links[-1].peer.confirm(sequence)
    server.links[-1].deliver()
    assert len(await asyncio.gather(*tasks)) == 1_100


async def test_a_publish_refused_by_a_stopping_server_waits_for_the_next(
    broker: minibroker.Broker, server: FakeServer
) -> None:
    def refuse(header: Any) -> Any:
        if header["parts"][0]["op"] == "publish":
            return {"code": "shutting_down", "text": "bye", "retryable": True}
        return None

    server.refuse = refuse
    task = asyncio.ensure_future(broker.queue("q").publish(b"a"))
    await settle_loop()
    assert not task.done()
    server.refuse = lambda header: None
    server.links[-1].fail(ConnectionResetError("stopped"))
    assert (await task).id.sequence == 0


async def test_leaving_waits_for_publishes(server: FakeServer) -> None:
    async with minibroker.connect() as broker:
        task = asyncio.ensure_future(broker.queue("q").publish(b"a"))
        await asyncio.sleep(0)
    assert (await task).id.sequence == 0
    with pytest.raises(minibroker.Closed):
        await broker.queue("q").publish(b"b")
    assert server.parts("goodbye") == [{"op": "goodbye"}]


async def test_leaving_ends_at_its_deadline_and_says_what_is_known(server: FakeServer) -> None:
    broker = await minibroker.connect(timeout=0.05)
    server.withhold = True
    written = asyncio.ensure_future(broker.queue("q").publish(b"a", timeout=9))
    await settle_loop()
    await broker.close()
    await broker.close()
    with pytest.raises(minibroker.OutcomeUnknown):
        await written


async def test_a_call_without_an_answer_times_out(
    broker: minibroker.Broker, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker._driver, "timeout_ms", 20)
    monkeypatch.setattr(server.links[-1].peer, "_part", lambda *args: b"")
    with pytest.raises(minibroker.Timeout) as caught:
        await broker.stats()
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.code == "timeout"


@pytest.mark.parametrize("url", ["http://x", "minibroker://", "minibroker://x/path", "x"])
def test_a_wrong_url_is_a_value_error(url: str) -> None:
    with pytest.raises(ValueError, match="minibroker://host") as caught:
        minibroker.connect(url)
    assert str(caught.value).count("form") == 1


async def test_a_server_that_is_not_there_is_named(server: FakeServer, monkeypatch: Any) -> None:
    async def unreachable(*args: Any) -> Any:
        raise ConnectionRefusedError("refused")

    monkeypatch.setattr("minibroker.aio.dialling.dial", unreachable)
    with pytest.raises(minibroker.ConnectionLost, match=r"10.0.0.1:7272.*refused"):
        await minibroker.connect("minibroker://10.0.0.1", connect_timeout=0.05)


async def test_a_refused_login_is_raised(server: FakeServer) -> None:
    server.refuse = lambda header: {"code": "login_refused", "text": "old", "retryable": False}
    with pytest.raises(minibroker.LoginRefused):
        await minibroker.connect()


def test_frames_are_small_enough_for_several_under_way() -> None:
    assert GROUP_MESSAGES == 500
