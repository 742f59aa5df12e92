"""Spans of time as the application gives them (seconds, or a timedelta), in milliseconds."""

from __future__ import annotations

import math
from datetime import timedelta

from minibroker.errors import BadValue

Span = float | timedelta


def milliseconds(span: Span, most_ms: int) -> int:
    """Return `span` in ms, rounded up; more than 0 never becomes 0.

    Raises:
        BadValue: it is negative, not a number, or longer than `most_ms`; nothing was sent.
    """
    seconds = span.total_seconds() if isinstance(span, timedelta) else span
    try:
        span_ms = math.ceil(round(seconds * 1000, 6))
    except (OverflowError, ValueError):
        span_ms = -1
    if not 0 <= span_ms <= most_ms:
        raise BadValue(f"{span!r} is no span of 0 to {most_ms / 1000:g} seconds")
    return span_ms
