"""Spans that several processes wrote to one file, as the trees that they make."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Span = dict[str, Any]


def read_spans(path: Path) -> list[Span]:
    """Return the spans of a file, one JSON object a line, in the order in which they started."""
    spans = [json.loads(line) for line in path.read_text().splitlines()]
    return sorted(spans, key=lambda span: span["start_time"])


def tree_of(spans: list[Span]) -> str:
    """Return the spans of one trace as lines, each below its parent; those that miss it stand on top."""
    children: dict[str | None, list[Span]] = {}
    known = {span["context"]["span_id"] for span in spans}
    for span in spans:
        children.setdefault(span["parent_id"] if span["parent_id"] in known else None, []).append(
            span
        )
    lines: list[str] = []

    def add(parent: str | None, depth: int) -> None:
        for span in children.get(parent, ()):
            lines.append("  " * depth + _line(span))
            add(span["context"]["span_id"], depth + 1)

    add(None, 0)
    return "\n".join(lines)


def _line(span: Span) -> str:
    attributes = span["attributes"]
    words = [span["name"], span["kind"].removeprefix("SpanKind.")]
    if (attempt := attributes.get("messaging.minibroker.message.attempt")) is not None:
        words.append(f"attempt={attempt}")
    if "error.type" in attributes:
        words.append(attributes["error.type"])
    return " ".join(words)
