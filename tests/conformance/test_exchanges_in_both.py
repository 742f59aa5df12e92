"""Exchanges over both clients, on a server and on a broker in process."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from kinds_of_bodies import KINDS

import minibroker
from minibroker.contract import limits


@pytest.fixture
def exchange(broker: Any, queue: Any) -> Any:
    """An exchange of this test's own; that its queue has the same name means nothing."""
    return broker.exchange(queue.name)


async def bodies(queue: Any, count: int) -> list[Any]:
    """Receive and ack all that is ready in a queue, up to one more than `count`."""
    messages = await queue.receive(count + 1)
    for message in messages:
        await message.ack(confirmed=True)
    return [message.body for message in messages]


async def test_an_exchange_is_declared_shown_changed_and_deleted(
    broker: Any, exchange: Any
) -> None:
    made = await exchange.declare("topic")
    assert made == minibroker.ExchangeInfo(exchange.name, "topic", "refuse", "", 0, 0, 0, 0)
    assert await exchange.declare("topic") == made
    rest = broker.exchange(f"{exchange.name}.rest")
    await rest.declare("fanout")
    other = await exchange.declare("topic", unroutable="drop", alternate=rest.name)
    assert (other.unroutable, other.alternate) == ("drop", rest.name)
    assert await exchange.show() == other
    assert other in await broker.exchanges()
    with pytest.raises(minibroker.BadValue, match="topic"):
        await exchange.declare("direct")
    assert await exchange.delete()
    assert not await exchange.delete()
    with pytest.raises(minibroker.UnknownExchange):
        await exchange.show()
    with pytest.raises(minibroker.UnknownExchange):
        await exchange.publish(b"")


async def test_what_a_declaration_does_not_say_stays(broker: Any, exchange: Any) -> None:
    """A program that declares at its start takes back nothing that somebody chose."""
    await broker.exchange(f"{exchange.name}.rest").declare("fanout")
    rest = f"{exchange.name}.rest"
    await exchange.declare("topic", unroutable="drop", alternate=rest)
    for said, stands in (
        ({}, ("drop", rest)),
        ({"unroutable": "refuse"}, ("refuse", rest)),
        ({"alternate": ""}, ("refuse", "")),
    ):
        found = await exchange.declare("topic", **said)
        assert (found.unroutable, found.alternate) == stands, said


async def test_an_alternate_that_is_not_there_is_refused(broker: Any, exchange: Any) -> None:
    """It would be found out by the first message that nobody takes; where those are dropped, by nobody."""
    with pytest.raises(minibroker.UnknownExchange, match="alternate"):
        await exchange.declare("topic", unroutable="drop", alternate="misspelt")
    assert exchange.name not in [each.name for each in await broker.exchanges()]
    made = await exchange.declare("topic")
    with pytest.raises(minibroker.UnknownExchange, match="alternate"):
        await exchange.declare("topic", unroutable="drop", alternate="misspelt")
    assert await exchange.show() == made


async def test_a_topic_leads_to_queues(broker: Any, exchange: Any, queue: Any) -> None:
    """Whatever they are named by; the answer says which, and under which ids."""
    kern, every = broker.queue(f"{queue.name}.kern"), broker.queue(f"{queue.name}.all")
    await exchange.declare("topic")
    assert await exchange.bind(kern, "kern.*")
    assert await exchange.bind(every.name, "#")
    assert not await exchange.bind(every, "#")
    routed = await exchange.publish({"n": 1}, routing_key="kern.critical", key="k", priority=3)
    assert set(routed.queues) == set(routed.ids) == {kern.name, every.name}
    assert routed.durability == "sync"
    for each in (kern, every):
        (message,) = await each.receive(2)
        assert (message.id, message.body) == (routed.ids[each.name], {"n": 1})
        assert message.key == "k"
        await message.ack()
    assert (await exchange.publish(b"2", routing_key="mail")).queues == (every.name,)
    assert sorted(await exchange.bindings(), key=str) == [
        minibroker.Binding(every.name, "", "#"),
        minibroker.Binding(kern.name, "", "kern.*"),
    ]
    assert await exchange.unbind(every, "#")
    assert not await exchange.unbind(every, "#")
    with pytest.raises(minibroker.Unroutable):
        await exchange.publish(b"3", routing_key="mail")
    assert await bodies(every, 1) == [b"2"]


async def test_an_exchange_leads_to_another(broker: Any, exchange: Any, queue: Any) -> None:
    inner = broker.exchange(f"{queue.name}.inner")
    await inner.declare("fanout")
    await exchange.declare("direct", unroutable="drop")
    await inner.bind(queue)
    await exchange.bind(inner, "in")
    assert (await exchange.publish(b"1", routing_key="in")).queues == (queue.name,)
    assert await exchange.bindings() == [minibroker.Binding("", inner.name, "in")]
    dropped = await exchange.publish(b"2", routing_key="out")
    assert (dropped.queues, dropped.ids) == ((), {})
    assert (await exchange.show()).unroutable_count == 1
    assert await exchange.unbind(inner, "in")


async def test_headers_are_what_bindings_look_at(exchange: Any, queue: Any) -> None:
    """Those that are text or numbers; or only what `match` says."""
    await exchange.declare("headers", unroutable="drop")
    await exchange.bind(queue, "all format=pdf pages=7")
    headers = {"format": "pdf", "pages": 7, "more": [1], "yes": True}
    assert (await exchange.publish(b"1", headers=headers)).queues == (queue.name,)
    assert (await exchange.publish(b"2", headers=headers, match={})).queues == ()
    match = {"format": "pdf", "pages": "7"}
    assert (await exchange.publish(b"3", match=match)).queues == (queue.name,)
    first, second = await queue.receive(3)
    assert (first.headers, second.headers) == (headers, {})
    for message in (first, second):
        await message.ack()


async def test_a_header_that_is_longer_than_any_pattern_is_only_there(
    exchange: Any, queue: Any
) -> None:
    await exchange.declare("headers")
    await exchange.bind(queue, "all long")
    assert (await exchange.publish(b"1", headers={"long": "x" * 10_000})).queues == (queue.name,)


async def test_many_are_routed_in_frames(broker: Any, exchange: Any, queue: Any) -> None:
    """More than one frame takes; ids follow each other in each queue."""
    other = broker.queue(f"{queue.name}.other")
    await exchange.declare("fanout")
    await exchange.bind(queue)
    await exchange.bind(other)
    many = await exchange.publish_many([str(n) for n in range(1_100)], headers={"a": "b"})
    for each in (queue, other):
        assert [one.ids[each.name].sequence for one in many] == list(range(1_100))
        got = [message.body for message in await each.receive(1_000)]
        assert got == [str(n) for n in range(1_000)]


async def test_many_go_to_many_queues(broker: Any, exchange: Any) -> None:
    """However many messages there are: a frame is one entry in each queue; also with bodies of both kinds."""
    await exchange.declare("fanout")
    for n in range(25):
        await exchange.bind(f"{exchange.name}.{n}")
    many = await exchange.publish_many([b"x", "y"] * 600, key="k", delay=3_600)
    assert [len(each.queues) for each in many] == [25] * 1_200
    calls = [exchange.publish(b"z", key=f"k{n}", delay=3_600) for n in range(500)]
    assert len({each.ids[f"{exchange.name}.0"] for each in await asyncio.gather(*calls)}) == 500
    counters = await broker.queue(f"{exchange.name}.24").stats()
    assert counters["queues"][f"{exchange.name}.24"]["delayed"] == 1_700


async def test_more_than_may_leave_for_one_frame_is_told(broker: Any, exchange: Any) -> None:
    """500 messages to 21 queues of which the oldest leave for them; and half of them is taken."""
    await exchange.declare("fanout")
    for n in range(21):
        limits = {"max_messages": 600, "overflow": "drop-oldest"}
        await exchange.bind(broker.queue(f"{exchange.name}.{n}", **limits))
    with pytest.raises(minibroker.LimitReached) as caught:
        await exchange.publish_many([b""] * 500)
    assert list(caught.value.confirms or ()) == [None] * 500
    assert len(caught.value.failed or ()) == 500
    assert len(await exchange.publish_many([b""] * 250)) == 250


async def test_callers_of_one_moment_have_each_their_own_answer(exchange: Any, queue: Any) -> None:
    await exchange.declare("direct", unroutable="drop")
    await exchange.bind(queue, "k")
    asked = [
        exchange.publish(str(n), routing_key="k" if n % 3 else "else", delay=n % 2)
        for n in range(30)
    ]
    routed = await asyncio.gather(*asked)
    assert [bool(each.queues) for each in routed] == [bool(n % 3) for n in range(30)]
    ids = {n: each.ids[queue.name] for n, each in enumerate(routed) if each.queues}
    assert len(set(ids.values())) == 20
    for n, id in ids.items():
        (peeked,) = await queue.peek(1, ids=[id])
        assert peeked.body == str(n)


async def test_a_step_routes(broker: Any, exchange: Any, queue: Any) -> None:
    """With an ack and a publish; or nothing of it happens."""
    done, audit = broker.queue(f"{queue.name}.done"), broker.queue(f"{queue.name}.audit")
    await exchange.declare("direct")
    await exchange.bind(done, "done")
    await exchange.bind(audit, "done")
    await queue.publish(b"job")
    (job,) = await queue.receive()

    async def nobody_takes(step: Any) -> None:
        async with step:
            step.publish(done, b"own")
            step.ack(job)
            step.route(exchange, b"x", routing_key="nobody")

    step = broker.step()
    with pytest.raises(minibroker.Unroutable):
        await nobody_takes(step)
    assert (list(await done.peek(10)), step.routed) == ([], [])
    nowhere = broker.exchange(f"{queue.name}.nowhere")
    await nowhere.declare("fanout", unroutable="drop")
    await done.publish(b"held", unique_key="u")
    step = broker.step()
    async with step:
        step.ack(job)
        step.route(exchange, b"1", routing_key="done")
        step.publish(done, b"own", unique_key="u")
        step.route(nowhere, b"lost")
        step.route(exchange.name, b"2", routing_key="done", priority=9)
        step.route(exchange, b"3", routing_key="done", headers={"a": 1})
    first, dropped, second, third = step.routed
    assert dropped.ids == {}
    peeked = {each.id: each.body for each in await done.peek(10)}
    assert [peeked[each.ids[done.name]] for each in (first, second, third)] == [b"1", b"2", b"3"]
    (own,) = step.confirms
    assert (own.duplicate, peeked[own.id]) == (True, b"held")
    assert await bodies(audit, 3) == [b"2", b"1", b"3"]


async def test_what_comes_then_needs_more_than_a_routed_message(
    broker: Any, exchange: Any, queue: Any
) -> None:
    """It would wait for nothing."""
    await exchange.declare("fanout", unroutable="drop")
    async with broker.step() as step:
        step.route(exchange, b"1")
        with pytest.raises(ValueError, match="published nothing"):
            step.then(queue, b"2")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"routing_key": "x" * 256}, minibroker.BadValue),
        ({"routing_key": 5}, TypeError),
        ({"match": {"a": 1.5}}, TypeError),
        ({"match": {"a": True}}, TypeError),
        ({"match": {5: "a"}}, TypeError),
        ({"match": ["a"]}, TypeError),
        ({"match": {"a": 2**64}}, minibroker.BadValue),
        ({"match": {str(n): n for n in range(33)}}, minibroker.BadValue),
        ({"headers": {f"{n:0200}": "ü" * 255 for n in range(32)}}, minibroker.BadValue),
        ({"priority": 10}, minibroker.BadValue),
        ({"body": object()}, TypeError),
    ],
)
async def test_what_cannot_be_routed_is_refused(
    exchange: Any, options: dict[str, Any], error: type[Exception]
) -> None:
    """Before anything is sent: the connection stands."""
    with pytest.raises(error):
        await exchange.publish(**{"body": b"", **options})
    await exchange.declare("fanout")


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda e: e.declare("round"), minibroker.BadValue),
        (lambda e: e.declare(5), TypeError),
        (lambda e: e.declare("topic", unroutable="x" * 100), minibroker.BadValue),
        (lambda e: e.declare("topic", alternate="x" * 125), minibroker.BadName),
        (lambda e: e.bind(5), TypeError),
        (lambda e: e.bind("q", "x" * 256), minibroker.BadValue),
        (lambda e: e.bind("q.dlq"), minibroker.BadName),
        (lambda e: e.bind("", "x"), minibroker.BadName),
        (lambda e: e.bind("q", "any"), minibroker.BadValue),
    ],
)
async def test_what_can_be_no_exchange_or_binding_is_refused(
    exchange: Any, call: Any, error: type[Exception]
) -> None:
    await exchange.declare("fanout")
    with pytest.raises(error):
        await call(exchange)


@pytest.mark.parametrize("name", ["", "x" * 125, "\ud800"])
async def test_a_name_that_is_none_is_refused(broker: Any, name: str) -> None:
    with pytest.raises(minibroker.BadName):
        broker.exchange(name)


async def test_what_is_of_another_connection_is_refused(
    broker: Any, exchange: Any, queue: Any, connect: Any, server: Any
) -> None:
    async with connect(server.url, timeout=10) as other:
        with pytest.raises(ValueError, match="another connection"):
            await other.exchange("e").bind(queue)
        step = other.step()
        async with step:
            with pytest.raises(ValueError, match="another connection"):
                step.route(exchange, b"")
            with pytest.raises(TypeError, match="it must be the name"):
                step.route(other.queue("q"), b"")


async def test_bindings_and_exchanges_come_page_by_page(
    broker: Any, exchange: Any, queue: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker in process has pages of three; a server has its own."""
    monkeypatch.setattr(limits, "MAX_LISTED", 3)
    await exchange.declare("direct")
    for n in range(8):
        await exchange.bind(queue, f"k{n}" + "x" * 200)
        await broker.exchange(f"{queue.name}.{n}").declare("fanout")
    patterns = sorted(each.pattern[:2] for each in await exchange.bindings())
    assert patterns == [f"k{n}" for n in range(8)]
    names = [each.name for each in await broker.exchanges()]
    assert names == sorted(names)
    assert {f"{queue.name}.{n}" for n in range(8)} <= set(names)


@pytest.mark.parametrize("kind", sorted(KINDS.keys() - {"typeddict"}))
async def test_objects_are_published_as_to_a_queue(exchange: Any, queue: Any, kind: str) -> None:
    """Alone, among many and in a step; a reader who says the type has it back."""
    await exchange.declare("fanout")
    await exchange.bind(queue)
    made = KINDS[kind].made()
    await exchange.publish(made)
    await exchange.publish_many([made])
    await queue.publish(made)
    messages = await queue.receive(4)
    assert len(messages) == 3
    assert [message.raw for message in messages] == [messages[2].raw] * 3
