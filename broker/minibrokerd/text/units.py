"""Durations and sizes as people type and read them: `1h30m`, `250ms`; `512M`, `64MiB`."""

from __future__ import annotations

import math
import re
from typing import Final

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
