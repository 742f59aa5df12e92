"""Spans and metrics that were recorded, and the questions that tests have about them."""

from __future__ import annotations

from typing import Any

from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter


class Recorded:
    """What a process has recorded."""

    def __init__(self, reader: InMemoryMetricReader) -> None:
        self.exporter = InMemorySpanExporter()
        self.reader = reader

    def named(self, name: str) -> list[ReadableSpan]:
        """Return the spans of a name that have ended, in the order in which they ended."""
        return [span for span in self.exporter.get_finished_spans() if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        """Return the only span of a name."""
        found = self.named(name)
        assert len(found) == 1, [span.name for span in self.exporter.get_finished_spans()]
        return found[0]

    def points(self, name: str) -> dict[tuple[str, str], Any]:
        """Return the points of a metric by operation and error: (count, sum) of a histogram, else the value."""
        data = self.reader.get_metrics_data()
        found: dict[tuple[str, str], Any] = {}
        for resource in data.resource_metrics if data is not None else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    if metric.name == name:
                        found |= {_key(point): _value(point) for point in metric.data.data_points}
        return found


def _key(point: Any) -> tuple[str, str]:
    attributes = point.attributes
    return attributes["messaging.operation.name"], attributes.get("error.type", "")


def _value(point: Any) -> Any:
    return (point.count, point.sum) if hasattr(point, "count") else point.value


def id_of(span: ReadableSpan) -> int:
    """Return the id of a span."""
    assert span.context is not None
    return span.context.span_id


def trace_of(span: ReadableSpan) -> int:
    """Return the id of the trace that a span is in."""
    assert span.context is not None
    return span.context.trace_id


def parent_of(span: ReadableSpan) -> int:
    """Return the id of the parent, 0 if it has none."""
    return span.parent.span_id if span.parent is not None else 0


def linked_by(span: ReadableSpan) -> list[int]:
    """Return the ids of the spans that a span links to."""
    return [link.context.span_id for link in span.links]


def attributes_of(span: ReadableSpan) -> dict[str, Any]:
    """Return the attributes of a span."""
    return dict(span.attributes or {})
