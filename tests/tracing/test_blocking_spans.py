"""docs/decisions/0034: what minibroker.sync records, verb by verb, in threads, with the real SDK."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.trace import SpanKind
from recorded import Recorded, attributes_of, id_of, linked_by, parent_of, trace_of

import minibroker
from minibroker.sync.message import Message
from minibroker.sync.queue import Queue
from minibroker.testing import SyncMemoryBroker


@pytest.fixture
def broker(recorded: Recorded) -> Iterator[SyncMemoryBroker]:
    """A broker in memory whose client is traced."""
    with SyncMemoryBroker() as made:
        yield made


def take(queue: Queue[Any]) -> Message[Any]:
    """Return the next message of a queue, without a span."""
    with queue.consume() as messages:
        for message in messages:
            return message
    raise AssertionError("the iteration has ended")


def test_a_message_is_published_and_processed_in_one_trace(
    broker: SyncMemoryBroker, recorded: Recorded
) -> None:
    queue = broker.queue("emails", str)
    confirm = queue.publish("hello", headers={"tenant": 7})
    message = take(queue)
    with message.process(), trace.get_tracer("test").start_as_current_span("work"):
        pass
    assert not trace.get_current_span().get_span_context().is_valid
    sent, span = recorded.one("publish emails"), recorded.one("process emails")
    assert (sent.kind, span.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER)
    assert (parent_of(span), linked_by(span)) == (id_of(sent), [id_of(sent)])
    assert parent_of(recorded.one("work")) == id_of(span)
    assert attributes_of(sent)["messaging.message.id"] == str(confirm.id)
    assert attributes_of(span)["messaging.minibroker.settlement"] == "ack"
    assert message.headers["tenant"] == 7
    assert recorded.points("messaging.client.consumed.messages") == {("process", ""): 1}


def test_many_share_a_span_and_a_receive_links_to_it(
    broker: SyncMemoryBroker, recorded: Recorded
) -> None:
    queue = broker.queue("emails")
    assert queue.receive() == []
    queue.publish_many([b"1", b"2"])
    for message in queue.receive(5):
        with message.process():
            pass
    sent, span = recorded.one("publish emails"), recorded.one("receive emails")
    assert linked_by(span) == [id_of(sent)] * 2
    assert attributes_of(span)["messaging.batch.message_count"] == 2
    assert recorded.points("messaging.client.sent.messages") == {("publish", ""): 2}
    assert recorded.points("messaging.client.consumed.messages") == {("receive", ""): 2}


def test_what_an_exchange_routes_carries_the_context_of_its_publish(
    broker: SyncMemoryBroker, recorded: Recorded
) -> None:
    """In each queue; bindings look at what the application gave, so nothing of it is matched."""
    exchange = broker.exchange("mails")
    exchange.declare("headers")
    exchange.bind("emails", "any tenant=7 traceparent")
    exchange.publish(b"1", headers={"tenant": 7})
    with pytest.raises(minibroker.Unroutable):
        exchange.publish_many([b"2", b"3"], headers={"tenant": 8})
    sent, failed = recorded.named("publish mails")
    (peeked,) = broker.queue("emails").peek()
    assert peeked.headers["traceparent"].startswith(f"00-{trace_of(sent):032x}-{id_of(sent):016x}-")
    assert attributes_of(failed)["messaging.batch.message_count"] == 2
    assert attributes_of(failed)["error.type"] == "Unroutable"


@pytest.mark.parametrize("verb", ["ack", "nack", "reject", "release"])
def test_a_settlement_by_hand_is_a_span_of_its_own(
    verb: str, broker: SyncMemoryBroker, recorded: Recorded
) -> None:
    queue = broker.queue("emails")
    queue.publish(b"1")
    message = take(queue)
    getattr(message, verb)(*(["550"] if verb == "reject" else []), confirmed=True)
    span = recorded.one(f"{verb} emails")
    assert span.kind is SpanKind.CLIENT
    assert linked_by(span) == [id_of(recorded.one("publish emails"))]
    with pytest.raises(minibroker.LeaseLost):
        message.ack()
    assert attributes_of(recorded.named("ack emails")[-1])["error.type"] == "LeaseLost"


@pytest.mark.parametrize("concurrency", [1, 2])
def test_a_run_has_a_span_for_each_attempt(
    concurrency: int, broker: SyncMemoryBroker, recorded: Recorded
) -> None:
    queue = broker.queue("emails", max_attempts=2, retry_delay_ms=0)
    queue.publish(b"1")

    def handler(message: Message[Any]) -> None:
        with trace.get_tracer("test").start_as_current_span("work"):
            if message.attempt == 1:
                raise LookupError("no such card")
        raise SystemExit  # which ends the run

    with pytest.raises(SystemExit):
        queue.run(handler, concurrency=concurrency)
    sent, spans = recorded.one("publish emails"), recorded.named("process emails")
    assert [attributes_of(span)["error.type"] for span in spans] == ["LookupError", "SystemExit"]
    assert [parent_of(span) for span in spans] == [id_of(sent)] * 2
    assert [parent_of(work) for work in recorded.named("work")] == [id_of(span) for span in spans]
    assert [parent_of(nack) for nack in recorded.named("nack emails")] == [
        id_of(span) for span in spans
    ]
    assert {trace_of(span) for span in recorded.exporter.get_finished_spans()} == {trace_of(sent)}


@pytest.mark.usefixtures("refused_at_once")
def test_a_publish_that_fails_says_why(broker: SyncMemoryBroker, recorded: Recorded) -> None:
    broker.fill_disk()
    with pytest.raises(minibroker.DiskFull):
        broker.queue("emails").publish(b"1")
    with pytest.raises(minibroker.DiskFull):
        broker.queue("emails").publish_many([b"1", b"2"])
    spans = recorded.named("publish emails")
    assert [attributes_of(span)["error.type"] for span in spans] == ["DiskFull"] * 2
    assert recorded.points("messaging.client.sent.messages") == {("publish", "DiskFull"): 3}


def test_an_error_that_settles_nothing_is_that_of_the_work(
    broker: SyncMemoryBroker, recorded: Recorded
) -> None:
    queue = broker.queue("emails")
    queue.publish_many([b"1", b"2"])
    with take(queue).process() as message:
        message.ack()
        raise LookupError("no such card")
    with pytest.raises(KeyboardInterrupt), take(queue).process():
        raise KeyboardInterrupt  # which releases
    works = [attributes_of(span) for span in recorded.named("process emails")]
    assert [work["error.type"] for work in works] == ["LookupError", "KeyboardInterrupt"]
    settled = [work["messaging.minibroker.settlement"] for work in works]
    assert settled == ["ack", "release"]
