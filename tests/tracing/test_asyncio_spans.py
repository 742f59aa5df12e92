"""docs/decisions/0034: what asyncio's client records, verb by verb, with the real SDK."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.trace import SpanKind, StatusCode
from recorded import Recorded, attributes_of, id_of, linked_by, parent_of, trace_of

import minibroker
from minibroker.aio.message import Message
from minibroker.testing import MemoryBroker

ELSEWHERE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
async def broker(recorded: Recorded) -> AsyncIterator[MemoryBroker]:
    """A broker in memory whose client is traced."""
    async with MemoryBroker() as made:
        yield made


async def take(queue: minibroker.Queue[Any]) -> Message[Any]:
    """Return the next message of a queue, without a span."""
    async with queue.consume() as messages:
        async for message in messages:
            return message
    raise AssertionError("the iteration has ended")


async def test_a_publish_is_a_producer_whose_context_the_message_carries(
    broker: MemoryBroker, recorded: Recorded
) -> None:
    with trace.get_tracer("test").start_as_current_span("request") as request:
        confirm = await broker.queue("emails").publish({"to": "bob"}, headers={"tenant": 7})
    span = recorded.one("publish emails")
    assert span.kind is SpanKind.PRODUCER
    assert parent_of(span) == request.get_span_context().span_id
    assert attributes_of(span) == {
        "messaging.system": "minibroker",
        "messaging.operation.name": "publish",
        "messaging.operation.type": "send",
        "messaging.destination.name": "emails",
        "messaging.client.id": "test",
        "messaging.message.id": str(confirm.id),
    }
    scope = span.instrumentation_scope
    assert scope is not None
    assert scope.schema_url == "https://opentelemetry.io/schemas/1.44.0"
    assert scope.version == minibroker.__version__
    headers = (await broker.queue("emails").peek())[0].headers
    assert headers["tenant"] == 7
    assert headers["traceparent"].startswith(f"00-{trace_of(span):032x}-{id_of(span):016x}-")


async def test_a_handler_runs_within_a_consumer_that_is_a_child_of_the_producer(
    broker: MemoryBroker, recorded: Recorded
) -> None:
    queue = broker.queue("emails")
    await queue.publish(b"1", key="bob")
    message = await take(queue)
    async with message.process():
        with trace.get_tracer("test").start_as_current_span("work"):
            pass
    assert not trace.get_current_span().get_span_context().is_valid
    sent, span, work = (
        recorded.one("publish emails"),
        recorded.one("process emails"),
        recorded.one("work"),
    )
    assert span.kind is SpanKind.CONSUMER
    assert (parent_of(span), linked_by(span)) == (id_of(sent), [id_of(sent)])
    assert parent_of(work) == id_of(span)
    assert trace_of(work) == trace_of(sent)
    assert attributes_of(span) | {
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.message.id": str(message.id),
        "messaging.minibroker.message.attempt": 1,
        "messaging.minibroker.message.key": "bob",
        "messaging.minibroker.settlement": "ack",
    } == attributes_of(span)
    assert span.status.status_code is StatusCode.UNSET


async def test_a_retry_is_another_child_of_the_same_producer(
    broker: MemoryBroker, recorded: Recorded
) -> None:
    queue = broker.queue("emails", max_attempts=3, retry_delay_ms=0)
    await queue.publish(b"1")

    async def handler(message: Message[Any]) -> None:
        if message.attempt < 3:
            raise LookupError("no such card")

    run = asyncio.create_task(queue.run(handler))
    await queue.join(timeout=20, delayed=True)
    run.cancel()
    await asyncio.wait([run])
    sent, spans = recorded.one("publish emails"), recorded.named("process emails")
    assert [parent_of(span) for span in spans] == [id_of(sent)] * 3
    attempts = [attributes_of(span)["messaging.minibroker.message.attempt"] for span in spans]
    assert attempts == [1, 2, 3]
    assert [span.status.status_code for span in spans] == [StatusCode.ERROR] * 2 + [
        StatusCode.UNSET
    ]
    assert attributes_of(spans[0])["error.type"] == "LookupError"
    assert (spans[0].status.description or "").startswith("no such card")
    nacks = recorded.named("nack emails")
    assert [parent_of(nack) for nack in nacks] == [id_of(span) for span in spans[:2]]
    assert {nack.kind for nack in nacks} == {SpanKind.CLIENT}


async def test_dead_letters_and_redriven_ones_are_of_the_same_trace(
    broker: MemoryBroker, recorded: Recorded
) -> None:
    queue, dead = broker.queue("emails", max_attempts=1), broker.queue("emails.dlq")
    await queue.publish(b"1")
    async with (await take(queue)).process():
        raise LookupError("no such card")
    async with (await take(dead)).process():
        pass
    await queue.publish(b"2")
    async with (await take(queue)).process():
        raise LookupError("no such card")
    assert await dead.redrive() == 1
    async with (await take(queue)).process():
        pass
    first, second = map(trace_of, recorded.named("publish emails"))
    assert [trace_of(span) for span in recorded.named("process emails")] == [first, second, second]
    assert trace_of(recorded.one("process emails.dlq")) == first


async def test_many_messages_carry_the_context_of_one_span(
    broker: MemoryBroker, recorded: Recorded
) -> None:
    queue = broker.queue("emails")
    await queue.publish_many([b"1", b"2", b"3"])
    sent = recorded.one("publish emails")
    assert sent.kind is SpanKind.PRODUCER
    assert attributes_of(sent)["messaging.batch.message_count"] == 3
    assert "messaging.message.id" not in attributes_of(sent)
    assert len({peeked.headers["traceparent"] for peeked in await queue.peek()}) == 1


async def test_what_an_exchange_routes_carries_the_context_of_its_publish(
    broker: MemoryBroker, recorded: Recorded
) -> None:
    """In each queue; bindings look at what the application gave, so nothing of it is matched."""
    exchange = broker.exchange("mails")
    await exchange.declare("headers")
    await exchange.bind("emails", "any tenant=7 traceparent")
    await exchange.publish(b"1", headers={"tenant": 7})
    with pytest.raises(minibroker.Unroutable):
        await exchange.publish_many([b"2", b"3"], headers={"tenant": 8})
    sent, failed = recorded.named("publish mails")
    (peeked,) = await broker.queue("emails").peek()
    assert peeked.headers["traceparent"].startswith(f"00-{trace_of(sent):032x}-{id_of(sent):016x}-")
    assert attributes_of(failed)["messaging.batch.message_count"] == 2
    assert attributes_of(failed)["error.type"] == "Unroutable"


async def test_a_receive_links_to_each_producer(broker: MemoryBroker, recorded: Recorded) -> None:
    queue = broker.queue("emails")
    assert await queue.receive() == []
    assert recorded.named("receive emails") == []
    ids = [(await queue.publish(body)).id for body in (b"1", b"2")]
    messages = await queue.receive(5)
    for message in messages:
        async with message.process():
            pass
    span, sent = recorded.one("receive emails"), recorded.named("publish emails")
    assert (span.kind, parent_of(span)) == (SpanKind.CLIENT, 0)
    assert linked_by(span) == [id_of(each) for each in sent]
    assert [dict(link.attributes or {})["messaging.message.id"] for link in span.links] == [
        str(each) for each in ids
    ]
    assert attributes_of(span)["messaging.batch.message_count"] == 2
    assert [parent_of(each) for each in recorded.named("process emails")] == [
        id_of(s) for s in sent
    ]
    # Each delivery counts once, as received.
    assert recorded.points("messaging.client.consumed.messages") == {("receive", ""): 2}


@pytest.mark.parametrize("verb", ["ack", "nack", "reject", "release"])
async def test_a_settlement_by_hand_is_a_span_of_its_own(
    verb: str, broker: MemoryBroker, recorded: Recorded
) -> None:
    queue = broker.queue("emails")
    await queue.publish(b"1")
    message = await take(queue)
    await getattr(message, verb)(*(["550"] if verb == "reject" else []), confirmed=True)
    span = recorded.one(f"{verb} emails")
    assert span.kind is SpanKind.CLIENT
    assert linked_by(span) == [id_of(recorded.one("publish emails"))]
    assert attributes_of(span)["messaging.operation.type"] == "settle"
    assert attributes_of(span)["messaging.message.id"] == str(message.id)
    with pytest.raises(minibroker.LeaseLost):
        await message.ack()
    assert attributes_of(recorded.named("ack emails")[-1])["error.type"] == "LeaseLost"


@pytest.mark.parametrize(
    ("mode", "parent", "links"),
    [
        (None, "request", ["publish"]),
        ("parent", "publish", ["publish", "request"]),
        ("link", "request", ["publish"]),
    ],
)
async def test_what_is_current_is_the_parent_unless_told_otherwise(
    mode: str | None, parent: str, links: list[str], recorded: Recorded
) -> None:
    async with minibroker.connect("memory://", tracing=mode) as client:
        queue = client.queue("emails")
        await queue.publish(b"1")
        message = await take(queue)
        with trace.get_tracer("test").start_as_current_span("request"):
            async with message.process():
                pass
    ids = {
        "publish": id_of(recorded.one("publish emails")),
        "request": id_of(recorded.one("request")),
    }
    span = recorded.one("process emails")
    assert parent_of(span) == ids[parent]
    assert linked_by(span) == [ids[link] for link in links]


async def test_with_link_the_work_is_a_trace_of_its_own(recorded: Recorded) -> None:
    async with minibroker.connect("memory://", tracing="link") as client:
        queue = client.queue("emails")
        await queue.publish(b"1")
        async with (await take(queue)).process():
            pass
    sent, span = recorded.one("publish emails"), recorded.one("process emails")
    assert (parent_of(span), linked_by(span)) == (0, [id_of(sent)])
    assert trace_of(span) != trace_of(sent)


async def test_a_context_of_the_applications_own_is_left_alone(
    broker: MemoryBroker, recorded: Recorded
) -> None:
    """As the conventions say: the span of the publish is no creation context then, and links to it."""
    queue = broker.queue("emails")
    headers = {"traceparent": ELSEWHERE, "tracestate": "vendor=1"}
    await queue.publish(b"1", headers=headers)
    span = recorded.one("publish emails")
    assert (span.kind, linked_by(span)) == (SpanKind.CLIENT, [0xB7AD6B7169203331])
    assert (await queue.peek())[0].headers == headers
    async with (await take(queue)).process():
        state = trace.get_current_span().get_span_context().trace_state
    assert parent_of(recorded.one("process emails")) == 0xB7AD6B7169203331
    assert state == {"vendor": "1"}


async def test_baggage_reaches_the_handler(broker: MemoryBroker) -> None:
    queue = broker.queue("emails")
    token = context.attach(baggage.set_baggage("tenant", "7"))
    await queue.publish(b"1")
    context.detach(token)
    async with (await take(queue)).process():
        assert baggage.get_baggage("tenant") == "7"
    assert baggage.get_baggage("tenant") is None


@pytest.mark.parametrize(
    "value",
    [b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", 7, None, ["x"], "", b"\xff"],
)
async def test_a_strange_header_is_no_context_and_no_error(
    value: Any, broker: MemoryBroker, recorded: Recorded
) -> None:
    """Anybody may have written it, in any language: bytes are read as text, what is no text is not there."""
    queue = broker.queue("emails")
    await queue.publish(b"1", headers={"traceparent": value})
    async with (await take(queue)).process():
        pass
    known = 0xB7AD6B7169203331
    expected = known if value == ELSEWHERE.encode() else id_of(recorded.one("publish emails"))
    assert parent_of(recorded.one("process emails")) == expected


async def test_a_thread_has_the_span_that_is_current(
    broker: MemoryBroker, recorded: Recorded
) -> None:
    queue = broker.queue("emails")
    await queue.publish(b"1")

    def handler(message: Message[Any]) -> None:
        with trace.get_tracer("test").start_as_current_span("work"):
            pass

    run = asyncio.create_task(queue.run(handler))
    await queue.join(timeout=20)
    run.cancel()
    await asyncio.wait([run])
    assert parent_of(recorded.one("work")) == id_of(recorded.one("process emails"))


@pytest.mark.usefixtures("refused_at_once")
async def test_a_publish_that_fails_says_why(broker: MemoryBroker, recorded: Recorded) -> None:
    with pytest.raises(TypeError):
        await broker.queue("emails").publish(object())
    broker.fill_disk()
    with pytest.raises(minibroker.DiskFull):
        await broker.queue("emails").publish(b"1")
    spans = recorded.named("publish emails")
    assert [attributes_of(span)["error.type"] for span in spans] == ["TypeError", "DiskFull"]
    assert {span.status.status_code for span in spans} == {StatusCode.ERROR}


async def test_an_error_given_to_a_settlement_is_that_of_the_work(
    broker: MemoryBroker, recorded: Recorded
) -> None:
    """The worker settles so inside the block, which then ends well."""
    queue = broker.queue("emails")
    await queue.publish(b"1")
    async with (await take(queue)).process() as message:
        await message.reject(LookupError("no such card"))
    work, reject = recorded.one("process emails"), recorded.one("reject emails")
    assert attributes_of(work)["error.type"] == "LookupError"
    assert attributes_of(work)["messaging.minibroker.settlement"] == "reject"
    assert (parent_of(reject), reject.status.status_code) == (id_of(work), StatusCode.UNSET)


async def test_a_lost_lease_is_the_error_of_the_work(
    broker: MemoryBroker, recorded: Recorded
) -> None:
    queue = broker.queue("emails")
    await queue.publish(b"1")
    async with (await take(queue)).process() as message:
        await queue.purge()
        await message.extend()
    work = recorded.one("process emails")
    assert attributes_of(work)["error.type"] == "LeaseLost"
    assert "messaging.minibroker.settlement" not in attributes_of(work)


async def test_metrics_say_how_many_and_how_long(broker: MemoryBroker, recorded: Recorded) -> None:
    queue = broker.queue("emails", max_attempts=1)
    await queue.publish_many([b"1", b"2"])
    await queue.publish(b"3")
    with pytest.raises(TypeError):
        await queue.publish(object())
    for error in (None, LookupError("no such card"), None):
        async with (await take(queue)).process():
            if error is not None:
                raise error
    sent = recorded.points("messaging.client.sent.messages")
    assert sent == {("publish", ""): 3, ("publish", "TypeError"): 1}
    assert recorded.points("messaging.client.consumed.messages") == {("process", ""): 3}
    work = recorded.points("messaging.process.duration")
    assert {key: count for key, (count, _) in work.items()} == {
        ("process", ""): 2,
        ("process", "LookupError"): 1,
    }
    operations = recorded.points("messaging.client.operation.duration")
    assert {key: count for key, (count, _) in operations.items()} == {
        ("publish", ""): 2,
        ("publish", "TypeError"): 1,
        ("nack", ""): 1,
    }
    spans = recorded.named("publish emails")
    seconds = sum((span.end_time or 0) - (span.start_time or 0) for span in spans) / 1e9
    assert sum(total for (name, _), (_, total) in operations.items() if name == "publish") == (
        pytest.approx(seconds)
    )


async def test_a_queue_of_a_type_is_traced_too(broker: MemoryBroker, recorded: Recorded) -> None:
    queue = broker.queue("numbers", int)
    await queue.publish(5)
    assert (await take(queue)).body == 5
    with pytest.raises(TypeError):
        await queue.publish("five")  # type: ignore[arg-type]
    assert recorded.one("publish numbers")
