"""The table of checks: what `minibroker check` and the webhooks look at, and from where on it is wrong.

One number each, with a bound from which on it is a warning and one from which on it is critical. Flags, documents,
perfdata and webhooks are made of these rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Final

from minibrokerd.text.units import duration_text, parse_ms

OFF: Final = "off"


class Level(IntEnum):
    """How bad it is; the numbers are the exit codes of the monitoring plug-in API."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3


class Unit(Enum):
    """What a number counts, as perfdata spells it."""

    SECONDS = "s"
    PERCENT = "%"
    COUNT = ""


@dataclass(frozen=True, slots=True)
class Bounds:
    """From where on a number is a warning, and critical; None: never."""

    warning: float | None = None
    critical: float | None = None


@dataclass(frozen=True, slots=True)
class Check:
    """One row. Printed as one row of docs/operating.md; `bounds` is the default as it is typed.

    `falls`: less is worse. `of_queues`: it is about queues, of which some may be chosen.
    """

    name: str
    unit: Unit
    bounds: str
    meaning: str
    falls: bool = False
    of_queues: bool = False

    @property
    def label(self) -> str:
        """Its name in perfdata and JSON."""
        return self.name.replace("-", "_")


CHECKS: Final[Mapping[str, Check]] = {
    row.name: row
    for row in (
        Check(
            "oldest-ready",
            Unit.SECONDS,
            "5m,30m",
            "for how long the oldest ready message of a queue has been ready",
            of_queues=True,
        ),
        Check(
            "dead-letters",
            Unit.COUNT,
            "1,100",
            "messages that went to a dead-letter queue within the window",
            of_queues=True,
        ),
        Check(
            "consumers-gone",
            Unit.SECONDS,
            "1m,5m",
            "for how long a queue with ready messages has had no consumer",
            of_queues=True,
        ),
        Check(
            "group-lag",
            Unit.COUNT,
            "100000,1000000",
            "messages behind the position of a group of a retained log",
            of_queues=True,
        ),
        Check(
            "disk-free",
            Unit.PERCENT,
            "10%,5%",
            "free space of the file system of the log; critical as well while publishes are refused for it",
            falls=True,
        ),
        Check(
            "sync-p99",
            Unit.SECONDS,
            "100ms,1s",
            "time within which 99 % of the batches of the window were safe on the disk",
        ),
        Check(
            "memory",
            Unit.PERCENT,
            "80%,95%",
            "resident memory, of the limit from which on publishes may be answered with `busy`",
        ),
        Check("connections", Unit.PERCENT, "80%,95%", "open connections, of those that fit"),
        Check(
            "starting",
            Unit.SECONDS,
            "1s,5m",
            "for how long the broker has been reading its log, and takes no work; 0: it does",
        ),
    )
}


def parse_bounds(check: Check, text: str) -> Bounds:
    """Return the bounds that a text means: `WARNING,CRITICAL`, either left empty, or `off`.

    Raises:
        ValueError: it means none, or being critical would come before the warning.
    """
    text = text.strip()
    if text == OFF:
        return Bounds()
    parts = text.split(",")
    if len(parts) > 2 or not any(part.strip() for part in parts):
        raise ValueError(f"{text!r} is not WARNING,CRITICAL (either may be left empty) or {OFF}")
    first, second = [_number(check, part.strip()) for part in [*parts, ""][:2]]
    if first is None or second is None:
        return Bounds(first, second)
    if first < second if check.falls else second < first:
        order = "less" if check.falls else "more"
        raise ValueError(f"{text!r}: what is critical must be {order} than what is a warning")
    return Bounds(first, second)


def _number(check: Check, text: str) -> float | None:
    if not text:
        return None
    if check.unit is Unit.SECONDS:
        return parse_ms(text) / 1_000
    number = text.removesuffix("%") if check.unit is Unit.PERCENT else text
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        kind = "percentage, like 80%" if check.unit is Unit.PERCENT else "number"
        raise ValueError(f"{text!r} is no {kind}")
    return value


def bounds_text(check: Check, bounds: Bounds) -> str:
    """Return bounds as they are typed."""
    if bounds == Bounds():
        return OFF
    return ",".join(
        "" if each is None else value_text(check, each).replace(",", "")  # which parts the two
        for each in (bounds.warning, bounds.critical)
    )


def level_of(check: Check, bounds: Bounds, value: float) -> Level:
    """Return how bad a value is."""
    for level, bound in ((Level.CRITICAL, bounds.critical), (Level.WARNING, bounds.warning)):
        if bound is not None and (value <= bound if check.falls else value >= bound):
            return level
    return Level.OK


def value_text(check: Check, value: float) -> str:
    """Return a value for people: `5m`, `12.5%`, `3`."""
    if check.unit is not Unit.SECONDS:
        return f"{value:,.4g}{check.unit.value}" if value < 1_000 else f"{value:,.0f}"
    if value < 1:
        return duration_text(float(f"{value * 1_000:.3g}"))
    return f"{value:.2g}s" if value < 10 else duration_text(round(value) * 1_000)
