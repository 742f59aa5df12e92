"""Durations, times and sizes as options take them: with units, and in a range."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import click

from minibroker.contract.log_commands import OFFSET, STARTS, TIME
from minibrokerd.text.units import (
    DURATIONS,
    MS,
    duration_text,
    parse_bytes,
    parse_ms,
    size_text,
)

NOW: Final = "now"
START_WORDS: Final = tuple(word for word in STARTS if word not in (OFFSET, TIME))
LONGEST_MS: Final = 365 * MS["d"]  # of an option that has no bound of its own


class Duration(click.ParamType):  # type: ignore[type-arg]  # it takes none in older releases
    """A duration in a range; a plain number is one of seconds, and the value is a float of seconds."""

    name = "duration"

    def __init__(self, low_ms: int = 0, high_ms: int = LONGEST_MS) -> None:
        self.low_ms = low_ms
        self.high_ms = high_ms

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the seconds; click.ParamType."""
        if isinstance(value, int | float):
            return float(value)
        try:
            ms = parse_ms(str(value))
        except (ValueError, OverflowError) as error:
            self.fail(str(error), param, ctx)
        if not self.low_ms <= ms <= self.high_ms:
            least, most = map(duration_text, (self.low_ms, self.high_ms))
            self.fail(f"{value} is out of range: at least {least} and at most {most}", param, ctx)
        return ms / 1_000


class Size(click.ParamType):  # type: ignore[type-arg]
    """A size in a range; the value is an integer of bytes."""

    name = "size"

    def __init__(self, low: int = 0, high: int | None = None, step: int = 1) -> None:
        self.low = low
        self.high = high
        self.step = step  # sizes are multiples of it

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the bytes; click.ParamType."""
        if isinstance(value, int):
            return value
        try:
            size = parse_bytes(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if size < self.low or (self.high is not None and size > self.high):
            most = "" if self.high is None else f" and at most {size_text(self.high)}"
            self.fail(f"{value} is out of range: at least {size_text(self.low)}{most}", param, ctx)
        if size % self.step:
            self.fail(f"{value} is not a multiple of {size_text(self.step)}", param, ctx)
        return size


class Start(click.ParamType):  # type: ignore[type-arg]  # it takes none in older releases
    """Where in a retained log: `first`, `last`, `next`, an offset, how long ago, or a date with a time."""

    name = "start"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> str | int | datetime:
        """Return the word, the offset or the time; click.ParamType."""
        if isinstance(value, int | datetime):
            return value
        text = str(value).strip()
        if text in START_WORDS:
            return text
        if text.isdecimal():
            return int(text)
        try:
            at = datetime.fromisoformat(text)
            return at if at.tzinfo is not None else at.astimezone()
        except (ValueError, OverflowError):
            pass
        try:
            ms = parse_ms(text.removesuffix("ago").rstrip())
            return datetime.now(UTC) - timedelta(milliseconds=ms)
        except (ValueError, OverflowError):
            self.fail(
                f"{text!r} is no place in a log: write {', '.join(START_WORDS)}, an offset, how long ago, "
                f"{DURATIONS}, or 2030-01-31T09:00+01:00",
                param,
                ctx,
            )


class When(click.ParamType):  # type: ignore[type-arg]  # it takes none in older releases
    """A time: `now`, a duration from now on, or a date with a time and a zone."""

    name = "when"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float | datetime:
        """Return seconds from now, or the time; click.ParamType."""
        text = str(value)
        if text == NOW:
            return 0.0
        try:
            at = datetime.fromisoformat(text)
            return at if at.tzinfo is not None else at.astimezone()
        except (ValueError, OverflowError):  # it is no date, or one of no year that a zone has
            pass
        try:
            return parse_ms(text) / 1_000
        except ValueError:
            self.fail(
                f"{text!r} is no time: write `now`, a duration {DURATIONS}, or 2030-01-31T09:00+01:00",
                param,
                ctx,
            )
