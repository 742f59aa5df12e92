"""Publishes to exchanges: their frames, their order, and what becomes of them when something goes wrong."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fake_server import FakeServer
from steps import settle_loop

import minibroker

BUSY = {"code": "busy", "text": "full", "retryable": True, "retry_ms": 20}


@pytest.fixture
def exchange(broker: minibroker.Broker, server: FakeServer) -> minibroker.Exchange:
    """One that leads to two queues."""
    server.leads["e"] = ["a", "b"]
    return broker.exchange("e")


def bodies(server: FakeServer, queue: str) -> list[bytes]:
    """Return what is stored, in order."""
    return [stored[2] for stored in server.queue(queue).ready]


async def test_calls_of_one_turn_that_share_a_routing_key_share_a_frame(
    broker: minibroker.Broker, exchange: minibroker.Exchange, server: FakeServer
) -> None:
    """And the headers that bindings look at; one call of another kind between them is one frame more."""
    calls = [exchange.publish(b"%d" % n, routing_key="k", headers={"a": 1}) for n in range(600)]
    calls.append(exchange.publish(b"x", routing_key="k"))
    calls.append(exchange.publish(b"y", routing_key="other"))
    routed = await asyncio.gather(*calls, broker.queue("e").publish(b"own"))
    parts = server.parts("route")
    assert [part["count"] for part in parts] == [500, 100, 1, 1]
    said = [(part["routing_key"], part.get("match")) for part in parts]
    assert said == [("k", {"a": 1}), ("k", {"a": 1}), ("k", None), ("other", None)]
    for n, each in enumerate(routed[:-1]):
        assert isinstance(each, minibroker.Routed)
        assert each.queues == ("a", "b")
        assert [id.sequence for id in each.ids.values()] == [n, n]
        assert each.durability == "lazy"
    assert isinstance(routed[-1], minibroker.Confirm)


async def test_the_order_of_calls_is_that_of_each_queue(
    exchange: minibroker.Exchange, server: FakeServer
) -> None:
    """Whatever their routing keys, terms and time-outs are; also when the first is refused for now."""
    refused = iter([BUSY] * 3)
    server.refuse = lambda header: (
        next(refused, None) if header["parts"][0]["op"] == "route" else None
    )
    calls = [
        exchange.publish(b"%d" % n, routing_key=f"k{n % 3}", priority=n % 2, key="k", timeout=10)
        for n in range(9)
    ]
    first = asyncio.ensure_future(calls[0])
    await settle_loop()
    await asyncio.gather(first, *calls[1:])
    assert bodies(server, "a") == bodies(server, "b") == [b"%d" % n for n in range(9)]


async def test_what_is_unanswered_survives_a_lost_connection(
    exchange: minibroker.Exchange, server: FakeServer
) -> None:
    """Sent again byte for byte, applied once, and told to who still waits."""
    server.withhold = True
    task = asyncio.ensure_future(exchange.publish(b"1", routing_key="k"))
    gone = asyncio.ensure_future(exchange.publish(b"2", routing_key="k", timeout=0.02))
    await settle_loop()
    with pytest.raises(minibroker.OutcomeUnknown):
        await gone
    server.withhold = False
    server.links[-1].fail(ConnectionResetError("gone"))
    assert (await task).queues == ("a", "b")
    sequences = [header.get("sequence") for header in server.headers]
    assert sequences == [None, 1, 2, None, 1]  # hello, two publishes, resume, one again
    assert server.payloads[1] == server.payloads[4]


async def test_a_cancel_before_the_write_withdraws(
    exchange: minibroker.Exchange, server: FakeServer
) -> None:
    tasks = [asyncio.ensure_future(exchange.publish(b"%d" % n)) for n in range(3)]
    many = asyncio.ensure_future(exchange.publish_many([b"m"] * 4))
    asyncio.get_running_loop().call_soon(tasks[1].cancel)  # after the calls, before the flush
    asyncio.get_running_loop().call_soon(many.cancel)
    results: list[Any] = await asyncio.gather(*tasks, many, return_exceptions=True)
    assert [type(result).__name__ for result in results] == [
        "Routed", "CancelledError", "Routed", "CancelledError",
    ]  # fmt: skip
    assert bodies(server, "a") == [b"0", b"2"]
    assert results[2].ids["b"].sequence == 1


async def test_a_cancel_after_the_write_reaches_nobody_else(
    exchange: minibroker.Exchange, server: FakeServer
) -> None:
    server.withhold = True
    tasks = [asyncio.ensure_future(exchange.publish(b"%d" % n)) for n in range(3)]
    await settle_loop()
    tasks[1].cancel()
    server.links[-1].peer.confirm(1)
    server.links[-1].deliver()
    assert [(await tasks[n]).ids["a"].sequence for n in (0, 2)] == [0, 2]


async def test_a_refused_group_is_taken_apart(
    exchange: minibroker.Exchange, server: FakeServer
) -> None:
    """One of fifty calls is at fault: it alone is refused, and what is left says all that it said."""

    def refuse(header: dict[str, Any]) -> dict[str, Any] | None:
        guilty = b"bad" in server.judged.blob
        return {"code": "too_large", "text": "no", "retryable": False} if guilty else None

    server.refuse = refuse
    wishes = [b"%02d" % n if n != 17 else b"bad" for n in range(50)]
    results = await asyncio.gather(
        *(exchange.publish(body, routing_key="k", match={"a": "b"}) for body in wishes),
        return_exceptions=True,
    )
    assert [n for n, result in enumerate(results) if isinstance(result, Exception)] == [17]
    assert bodies(server, "b") == [body for body in wishes if body != b"bad"]
    for part in server.parts("route"):
        assert (part["exchange"], part["routing_key"], part["match"]) == ("e", "k", {"a": "b"})


@pytest.mark.parametrize("code", ["unroutable", "unknown_exchange"])
async def test_what_every_message_would_meet_is_told_at_once(
    exchange: minibroker.Exchange, server: FakeServer, code: str
) -> None:
    """One frame for fifty calls, and each its own error."""
    server.refuse = lambda header: {"code": code, "text": "no", "retryable": False}
    results = await asyncio.gather(
        *(exchange.publish(b"x") for _ in range(50)), return_exceptions=True
    )
    assert {getattr(result, "code", None) for result in results} == {code}
    assert len(set(map(id, results))) == 50
    assert len(server.parts("route")) == 1
    server.refuse = lambda header: None


async def test_at_the_deadline_the_refusal_is_raised(
    exchange: minibroker.Exchange, server: FakeServer
) -> None:
    server.refuse = lambda header: BUSY if header["parts"][0]["op"] == "route" else None
    with pytest.raises(minibroker.Busy):
        await exchange.publish(b"a", timeout=0.2)
    assert len(server.parts("route")) > 2
    with pytest.raises(minibroker.NotSent):
        await exchange.publish(b"a", timeout=0)
    server.refuse = lambda header: None


async def test_many_that_fail_say_what_was_stored(
    exchange: minibroker.Exchange, server: FakeServer
) -> None:
    """500 are, 500 are not, 100 are; the confirms are of the exchange's kind."""
    count = 0

    def refuse(header: dict[str, Any]) -> dict[str, Any] | None:
        nonlocal count
        count += 1
        return {"code": "bad_value", "text": "no", "retryable": False} if count == 2 else None

    server.refuse = refuse
    with pytest.raises(minibroker.BadValue) as caught:
        await exchange.publish_many([b"x"] * 1_100)
    confirms: Any = caught.value.confirms
    assert [each is None for each in confirms] == [500 <= n < 1_000 for n in range(1_100)]
    assert confirms[1_050].ids["b"].sequence == 550
    assert len(caught.value.failed or ()) == 500
    server.refuse = lambda header: None
