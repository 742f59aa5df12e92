"""Spans and metrics of one connection, by OpenTelemetry's conventions for messaging, version 1.44 (decision 34).

Both clients use it alike: `with` around a call that sends, receives or settles, `begin` and `end` around the block
of a message. Where a message comes from stands in its headers, as the propagators of the program write it:
`traceparent` and `tracestate` unless told otherwise. This is the one module that imports OpenTelemetry, which is
an extra (tracing.py); it imports the API alone, what becomes of spans is the program's matter.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import time_ns
from types import TracebackType
from typing import Any, Final

from opentelemetry import context, metrics, propagate, trace
from opentelemetry.context import Context
from opentelemetry.propagators.textmap import Getter
from opentelemetry.trace import (
    Link,
    Span,
    SpanKind,
    Status,
    StatusCode,
    format_span_id,
    format_trace_id,
)

from minibroker.contract.errors import BodyError
from minibroker.session.address import Server
from minibroker.session.arguments import Options
from minibroker.session.error_text import describe
from minibroker.session.message import MessageData

SCHEMA: Final = "https://opentelemetry.io/schemas/1.44.0"
BUCKETS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
ATTEMPT: Final = "messaging.minibroker.message.attempt"
KEY: Final = "messaging.minibroker.message.key"
SETTLEMENT: Final = "messaging.minibroker.settlement"
Attributes = dict[str, str | int]


class _Texts(Getter[Mapping[str, Any]]):
    """Reads headers that anybody may have written: what is no text is not there."""

    def get(self, carrier: Mapping[str, Any], key: str) -> list[str] | None:
        value = carrier.get(key)
        if type(value) is bytes:
            value = value.decode("ascii", "replace")
        return [value] if type(value) is str else None

    def keys(self, carrier: Mapping[str, Any]) -> list[str]:
        return list(carrier)


TEXTS: Final = _Texts()


class Telemetry:
    """What makes the spans and metrics of one connection."""

    def __init__(self, options: Options) -> None:
        self._mode = options.tracing
        ours: str = sys.modules["minibroker"].__version__
        self._tracer = trace.get_tracer("minibroker", ours, schema_url=SCHEMA)
        meter = metrics.get_meter("minibroker", ours, schema_url=SCHEMA)
        self.operation_duration = meter.create_histogram(
            "messaging.client.operation.duration",
            "s",
            "Duration of messaging operation initiated by a producer or consumer client.",
            explicit_bucket_boundaries_advisory=BUCKETS_S,
        )
        self.process_duration = meter.create_histogram(
            "messaging.process.duration",
            "s",
            "Duration of processing operation.",
            explicit_bucket_boundaries_advisory=BUCKETS_S,
        )
        self.sent = meter.create_counter(
            "messaging.client.sent.messages",
            "{message}",
            "Number of messages producer attempted to send to the broker.",
        )
        self.consumed = meter.create_counter(
            "messaging.client.consumed.messages",
            "{message}",
            "Number of messages that were delivered to the application.",
        )
        self._shared: Attributes = {"messaging.system": "minibroker"}
        if isinstance(options.address, Server):
            host, port = options.address.place
            self._shared |= {"server.address": host, "server.port": port}
        self._client: Attributes = {"messaging.client.id": options.name}

    # ---- what a client does ----

    def sending(self, queue: str, headers: Any, count: int | None = None) -> Sending:
        """Return the block of a publish; `count`: of how many messages, if it is one of many."""
        return Sending(self, queue, headers, count)

    def receiving(self, queue: str) -> Receiving:
        """Return the block of a receive."""
        return Receiving(self, queue)

    def settling(self, message: Any, name: str, error: BaseException | str | None) -> Settling:
        """Return the block of a settlement; `error`: what it says of the handler."""
        work = message.work
        if work is not None:
            work.settled(name, error)
        return Settling(self, message, name)

    def begin(self, message: Any) -> Work:
        """Begin the span of the work on a message, and make it the current one; it ends by `end`."""
        self.count_consumed(message, "process")
        return Work(self, message)

    def count_consumed(self, message: Any, name: str) -> None:
        """Count a message that the application has got, once for each delivery."""
        if not message.counted:
            message.counted = True
            self.consumed.add(1, self.of_operation(name, message.queue))

    # ---- spans ----

    def start(
        self,
        name: str,
        kind: SpanKind,
        attributes: Attributes,
        links: Sequence[Link] = (),
        within: Context | None = None,
        at_ns: int | None = None,
    ) -> Span:
        """Start a span of an operation on a queue."""
        title = f"{name} {attributes['messaging.destination.name']}"
        attributes = self._client | attributes
        return self._tracer.start_span(title, within, kind, attributes, links, at_ns)

    def of_operation(self, name: str, queue: str) -> Attributes:
        """Return what spans and metrics of an operation have in common."""
        return self._shared | {
            "messaging.operation.name": name,
            "messaging.operation.type": TYPES[name],
            "messaging.destination.name": queue,
        }

    def place(self, message: MessageData[Any]) -> tuple[Context, list[Link]]:
        """Return the context that the work on a message runs in, and what its span links to.

        What is current here (a request, a job) is the parent, unless told otherwise, else the message's producer.
        """
        here = context.get_current()
        ambient = trace.get_current_span(here)
        carried = carried_by(message, trace.set_span_in_context(trace.INVALID_SPAN, here))
        producer = trace.get_current_span(carried).get_span_context()
        links = [Link(producer)] if producer.is_valid else []
        is_within = ambient.get_span_context().is_valid
        if self._mode == "parent" and producer.is_valid:
            if is_within:
                links.append(Link(ambient.get_span_context()))
            return carried, links
        if is_within or self._mode == "link":
            return trace.set_span_in_context(ambient, carried), links
        return carried, links


TYPES: Final = {
    "publish": "send",
    "receive": "receive",
    "process": "process",
    "ack": "settle",
    "nack": "settle",
    "reject": "settle",
    "release": "settle",
}


class Sending:
    """The block of a publish: `headers` are those to send, with the context of its span."""

    def __init__(self, telemetry: Telemetry, queue: str, headers: Any, count: int | None) -> None:
        self._telemetry = telemetry
        self._most = 1 if count is None else count
        self._is_single = count is None
        self._attributes = telemetry.of_operation("publish", queue)
        self._begun_ns = time_ns()
        given = _given(headers)
        # A context that the application wrote itself stays: somebody else is the producer.
        kind = SpanKind.CLIENT if given else SpanKind.PRODUCER
        many: Attributes = {} if count is None else {"messaging.batch.message_count": count}
        own = self._attributes | many
        self._span = telemetry.start("publish", kind, own, given, at_ns=self._begun_ns)
        self.headers = headers if given else _with_context(headers, self._span)

    def stored(self, message_id: object) -> None:
        """Note under which id the message is stored."""
        self._span.set_attribute("messaging.message.id", str(message_id))

    def __enter__(self) -> Sending:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        stored = self._stored(error)
        if stored:
            self._telemetry.sent.add(stored, self._attributes)
        _end(
            self._span, self._begun_ns, self._telemetry.operation_duration, self._attributes, error
        )
        if stored < self._most:  # with the type of the error now
            self._telemetry.sent.add(self._most - stored, self._attributes)

    def _stored(self, error: BaseException | None) -> int:
        """Return how many messages are known to be stored; the error of many says of which it is not."""
        if error is None:
            return self._most
        failed = getattr(error, "failed", None)
        return 0 if failed is None or self._is_single else self._most - len(failed)


class Receiving:
    """The block of a receive, whose span is made behind it: only then it is known what it links to."""

    def __init__(self, telemetry: Telemetry, queue: str) -> None:
        self._telemetry = telemetry
        self._attributes = telemetry.of_operation("receive", queue)
        self._begun_ns = time_ns()
        self.messages: Sequence[Any] = ()

    def __enter__(self) -> Receiving:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self.messages and not isinstance(error, Exception):
            return  # who asks again and again would fill his store with spans of nothing
        links = []
        for message in self.messages:
            self._telemetry.count_consumed(message, "receive")
            producer = producer_of(message)
            if producer.is_valid:
                links.append(Link(producer, {"messaging.message.id": str(message.id)}))
        count: Attributes = {"messaging.batch.message_count": len(self.messages)}
        span = self._telemetry.start(
            "receive", SpanKind.CLIENT, self._attributes | count, links, at_ns=self._begun_ns
        )
        _end(span, self._begun_ns, self._telemetry.operation_duration, self._attributes, error)


class Settling:
    """The block of a settlement."""

    def __init__(self, telemetry: Telemetry, message: Any, name: str) -> None:
        self._telemetry = telemetry
        telemetry.count_consumed(message, name)
        self._attributes = telemetry.of_operation(name, message.queue)
        self._begun_ns = time_ns()
        links = []
        if message.work is None and (producer := producer_of(message)).is_valid:
            links.append(Link(producer))
        own = self._attributes | of_message(message)
        self._span = telemetry.start(name, SpanKind.CLIENT, own, links, at_ns=self._begun_ns)

    def __enter__(self) -> Settling:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _end(
            self._span, self._begun_ns, self._telemetry.operation_duration, self._attributes, error
        )


class Work:
    """The span of the work on one message, current from `Telemetry.begin` to `end`."""

    __slots__ = (
        "_attributes",
        "_begun_ns",
        "_error",
        "_settlement",
        "_span",
        "_telemetry",
        "_token",
    )

    def __init__(self, telemetry: Telemetry, message: Any) -> None:
        self._telemetry = telemetry
        self._attributes = telemetry.of_operation("process", message.queue)
        self._error: BaseException | str | None = None
        self._settlement = ""
        within, links = telemetry.place(message)
        own = self._attributes | of_message(message)
        self._begun_ns = time_ns()
        self._span = telemetry.start(
            "process", SpanKind.CONSUMER, own, links, within, self._begun_ns
        )
        self._token = context.attach(trace.set_span_in_context(self._span, within))

    @property
    def ids(self) -> tuple[str, str]:
        """The ids of trace and span, as logs have them; empty without a provider of traces."""
        at = self._span.get_span_context()
        if not at.is_valid:
            return "", ""
        return format_trace_id(at.trace_id), format_span_id(at.span_id)

    def settled(self, name: str, error: BaseException | str | None) -> None:
        """Note what was said of the message; a `nack` and a `reject` say that the work has failed."""
        self._settlement = name
        if name in ("nack", "reject"):
            self._error = error if error is not None else ""

    def end(self, error: BaseException | None) -> None:
        """End it, with the error that ended the block, and make current what was so before."""
        if self._settlement:
            self._span.set_attribute(SETTLEMENT, self._settlement)
        why = error if error is not None else self._error
        _end(self._span, self._begun_ns, self._telemetry.process_duration, self._attributes, why)
        context.detach(self._token)


# ---- into another process ----


def packed_context() -> dict[str, str]:
    """Return the current context, as propagators write it."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return carrier


@contextmanager
def unpacked_context(carrier: Mapping[str, str]) -> Iterator[None]:
    """Make current what `packed_context` said elsewhere."""
    token = context.attach(propagate.extract(carrier))
    try:
        yield
    finally:
        context.detach(token)


# ---- helpers ----


def of_message(message: MessageData[Any]) -> Attributes:
    """Return the attributes of spans that are about one message."""
    found: Attributes = {"messaging.message.id": str(message.id), ATTEMPT: message.attempt}
    if message.key is not None:
        found[KEY] = message.key
    return found


def carried_by(message: MessageData[Any], within: Context) -> Context:
    """Return `within` with what the headers of a message carry."""
    try:
        headers = message.headers
    except BodyError:  # they are the application's; who looks at them will hear of it
        return within
    return propagate.extract(headers, within, TEXTS) if headers else within


def producer_of(message: MessageData[Any]) -> trace.SpanContext:
    """Return the span context that a message was published in; one that is not valid if it has none."""
    return trace.get_current_span(carried_by(message, Context())).get_span_context()


def _end(
    span: Span,
    begun_ns: int,
    duration: metrics.Histogram,
    attributes: Attributes,
    error: BaseException | str | None,
) -> None:
    """End a span, and say on it and in `attributes` how; the exception itself is in the log (conventions)."""
    if error is not None:
        kind, text = describe(error)
        attributes["error.type"] = kind.decode() or "_OTHER"
        if span.is_recording():
            span.set_attribute("error.type", attributes["error.type"])
            span.set_status(Status(StatusCode.ERROR, text.decode()))
    ended_ns = max(begun_ns, time_ns())  # the clock may have been set back
    duration.record((ended_ns - begun_ns) / 1e9, attributes, trace.set_span_in_context(span))
    span.end(ended_ns)


def _given(headers: Any) -> list[Link]:
    """Return a link to the context that the application itself has put into headers, if it has."""
    if not headers or not isinstance(headers, Mapping):
        return []
    given = trace.get_current_span(propagate.extract(headers, Context(), TEXTS)).get_span_context()
    return [Link(given)] if given.is_valid else []


def _with_context(headers: Any, span: Span) -> Any:
    """Return `headers` with the context of `span`."""
    if headers is not None and not isinstance(headers, Mapping):
        return headers  # which is refused by whoever packs them
    carrier: dict[str, object] = {} if headers is None else dict(headers)
    propagate.inject(carrier, trace.set_span_in_context(span))
    return carrier
