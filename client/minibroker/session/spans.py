"""Arguments as the application gives them: spans of time (seconds, or a timedelta) in ms, whole numbers, texts.

A wrong type raises TypeError, a value outside its range BadValue; both name the argument, and nothing was sent.
"""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

from minibroker.contract.errors import BadValue

Span = float | timedelta


def in_seconds(value: Any) -> Any:
    """Return a span as a number of seconds, and what is no timedelta as it is."""
    return value.total_seconds() if isinstance(value, timedelta) else value


def milliseconds(name: str, span: Span, most_ms: int, least_ms: int = 0) -> int:
    """Return the argument `name` in ms, rounded up; more than 0 never becomes 0.

    Raises:
        TypeError: it is no int, float or timedelta.
        BadValue: it is negative, not a number, or outside its range.
    """
    if isinstance(span, bool) or not isinstance(span, (int, float, timedelta)):
        raise TypeError(
            f"{name} is {shown(span)}; it must be seconds or a timedelta, like 7200 or timedelta(hours=2)"
        )
    # in_seconds, written out: each receive and renewal comes past here.
    seconds = span.total_seconds() if isinstance(span, timedelta) else span
    try:
        span_ms = math.ceil(round(seconds * 1000, 6))
    except (OverflowError, ValueError):
        span_ms = -1
    if not least_ms <= span_ms <= most_ms:
        raise BadValue(
            f"{name} is {shown(span)}; it must be {least_ms / 1000:g} to {most_ms / 1000:g} seconds"
        )
    return span_ms


def whole(name: str, value: int, least: int, most: int) -> int:
    """Return the argument `name`, a whole number.

    Raises:
        TypeError: it is no int.
        BadValue: it is outside its range.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is {shown(value)}; it must be an int")
    if not least <= value <= most:
        raise BadValue(f"{name} is {shown(value)}; it must be {least} to {most}")
    return value


def of_type(name: str, value: object, kind: type | tuple[type, ...], meaning: str) -> None:
    """Raise TypeError if the argument `name` is not of `kind`, which `meaning` says in words."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} is {shown(value)}; it must be {meaning}")


def shown(value: object) -> str:
    """Return a short text for a value that was refused, whatever its `repr` does."""
    try:
        return f"{value!r:.100}"
    except Exception as error:  # noqa: BLE001 - code of the application
        return f"a {type(value).__name__} whose repr raises {type(error).__name__}"
