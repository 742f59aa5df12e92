"""Durations and sizes as people type and read them: `1h30m`, `250ms`; `512M`, `64MiB`."""

from __future__ import annotations

import math
import re
from typing import Any, Final

import click

MS: Final[dict[str, int]] = {
    "ms": 1,
    "s": 1_000,
    "m": 60_000,
    "min": 60_000,
    "h": 3_600_000,
    "d": 86_400_000,
    "w": 7 * 86_400_000,
}
SHOWN_MS: Final = ("d", "h", "m", "s", "ms")
BYTES: Final[dict[str, int]] = {
    "b": 1,
    **{letter: 1024**power for power, letter in enumerate("kmgt", 1)},
    **{f"{letter}ib": 1024**power for power, letter in enumerate("kmgt", 1)},
    **{f"{letter}b": 1000**power for power, letter in enumerate("kmgt", 1)},
}
SHOWN_BYTES: Final = ("TiB", "GiB", "MiB", "KiB")
LONGEST_MS: Final = 365 * MS["d"]  # of an option that has no bound of its own
DURATIONS: Final = "like 250ms, 30s, 5m, 1h30m or 2d"
SIZES: Final = "like 4096, 512K, 64MiB or 2G (of 1,024; kB, MB and GB are of 1,000)"

_NUMBER: Final = re.compile(r"(\d+(?:\.\d*)?|\.\d+)", re.ASCII)
_PART: Final = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([a-z]+)", re.ASCII)


def parse_ms(text: str, plain: str = "s") -> int | float:
    """Return a duration in milliseconds, an int if they are whole; a number without a unit is in `plain`.

    Raises:
        ValueError: it is none; each unit may stand once, the larger ones first.
    """
    text = text.strip().lower()
    if _NUMBER.fullmatch(text):
        return _product(text, MS[plain])
    total: int | float = 0
    at, last = 0, math.inf
    while at < len(text):
        found = _PART.match(text, at)
        if found is None or MS.get(found[2], last) >= last:
            raise ValueError(f"{text!r} is no duration; write one {DURATIONS}")
        last = MS[found[2]]
        total += _product(found[1], MS[found[2]])
        at = found.end()
    if not text:
        raise ValueError(f"an empty text is no duration; write one {DURATIONS}")
    return total


def parse_bytes(text: str) -> int:
    """Return a size in bytes; a number without a unit is one of bytes.

    Raises:
        ValueError: it is none, or no whole number of bytes.
    """
    text = text.strip().lower()
    found = _PART.fullmatch(text) or _NUMBER.fullmatch(text)
    unit = found[2] if found and found.re is _PART else "b"
    if found is None or unit not in BYTES:
        raise ValueError(f"{text!r} is no size; write one {SIZES}")
    size = _product(found[1], BYTES[unit])
    if isinstance(size, float):
        raise ValueError(f"{text!r} is no whole number of bytes")
    return size


def _product(number: str, unit: int) -> int | float:
    """Return `number`, which may have decimals, times `unit`: exactly, where that is whole."""
    whole, _, decimals = number.partition(".")
    scale = int("1" + "0" * len(decimals))
    product: int = int(whole + decimals) * unit
    return product / scale if product % scale else product // scale


def duration_text(ms: float) -> str:
    """Return a duration of milliseconds in its units, exactly: `1h30m`, `250ms`, `0s`."""
    left, parts = int(ms), []
    rest = ms - left  # of a millisecond
    for unit in SHOWN_MS:
        count, left = divmod(left, MS[unit])
        if unit == "ms" and rest:
            parts.append(f"{count + rest:.10g}ms")
        elif count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def size_text(size: int) -> str:
    """Return a size in the largest unit that divides it: `64MiB`, `1000B`."""
    for unit in SHOWN_BYTES:
        if size and not size % BYTES[unit.lower()]:
            return f"{size // BYTES[unit.lower()]}{unit}"
    return f"{size}B"


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
