"""What `minibroker top` knows of queues: two looks at a broker make numbers, and rates, in an order.

Nothing here asks a terminal, a clock or a broker: looks come in, rows of numbers go out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final

from minibrokerd.cli.selecting import is_pattern
from minibrokerd.text.units import duration_text

NAME: Final = "queue"  # to sort by it
UNKNOWN: Final = -1.0  # a rate, of what was looked at once


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the table; where there is no room, those of the largest `rank` go first."""

    head: str
    number: str  # as `stats` and the API call it
    rank: int
    is_rate: bool = False


COLUMNS: Final = (
    Column("ready", "ready", 0),
    Column("begun", "begun", 1),
    Column("held", "held", 9),
    Column("delayed", "delayed", 11),
    Column("consumers", "consumers", 4),
    Column("in/s", "published", 2, True),
    Column("done/s", "acked", 3, True),
    Column("failed/s", "failed", 8, True),
    Column("dead/s", "dead_lettered", 10, True),
    Column("oldest", "oldest", 5),
    Column("wait", "wait", 6),
    Column("run", "run", 7),
)
AT: Final = {column.number: at for at, column in enumerate(COLUMNS)}
RATES: Final = tuple(column.number for column in COLUMNS if column.is_rate)
SPANS: Final = ("wait", "run")
SORTS: Final = (NAME, *AT)


@dataclass(frozen=True, slots=True)
class Seen:
    """One queue at one look."""

    at_ms: int  # when it was looked at; of a clock that never goes back
    is_dlq: bool
    oldest_ms: int  # for which the oldest ready message has been ready
    counts: Mapping[str, int]  # what `stats` says
    wait_ms: float = UNKNOWN  # for less than which 95 of 100 waited of late
    run_ms: float = UNKNOWN


@dataclass(frozen=True, slots=True)
class Look:
    """What a broker said at one time: its overview, and its queues by name."""

    overview: Mapping[str, Any]
    queues: Mapping[str, Seen]


@dataclass(frozen=True, slots=True)
class Row:
    """One queue in numbers, in the order of `COLUMNS`."""

    name: str
    is_dlq: bool
    numbers: tuple[float, ...]

    def __getitem__(self, number: str) -> float:
        return self.numbers[AT[number]]


def rate(name: str, before: Seen | None, now: Seen) -> float:
    """Return how much a counter grew a second; UNKNOWN for a queue that was not seen before.

    Counters start at zero with the broker, and with a queue that is made again.
    """
    ms = now.at_ms - before.at_ms if before else 0
    if before is None or ms <= 0:
        return UNKNOWN
    grown = now.counts[name] - before.counts[name]
    return (grown if grown >= 0 else now.counts[name]) * 1_000 / ms


def rows_of(look: Look, before: Look | None) -> list[Row]:
    """Return all queues of a look; their rates are those since the look `before`."""
    earlier = before.queues if before else {}
    return [
        Row(
            name,
            seen.is_dlq,
            tuple(_number(column, earlier.get(name), seen) for column in COLUMNS),
        )
        for name, seen in look.queues.items()
    ]


def _number(column: Column, before: Seen | None, now: Seen) -> float:
    if column.is_rate:
        return rate(column.number, before, now)
    if column.number == "oldest":
        return now.oldest_ms if now.counts["ready"] else UNKNOWN
    if column.number in SPANS:
        return now.wait_ms if column.number == "wait" else now.run_ms
    return now.counts[column.number]


def fits(name: str, filter: str) -> bool:
    """Return whether the API lists a queue for this filter: a pattern, or a part of the name."""
    return fnmatchcase(name, filter) if is_pattern(filter) else filter in name


def ordered(rows: Iterable[Row], sort: str, reverse: bool) -> list[Row]:
    """Return rows by name, or largest first; `reverse` turns that round, and equal ones stand by name."""
    by_name = sorted(rows, key=lambda row: row.name, reverse=reverse and sort == NAME)
    if sort == NAME:
        return by_name
    at = AT[sort]
    return sorted(by_name, key=lambda row: row.numbers[at], reverse=not reverse)


def cell(column: Column, number: float) -> str:
    """Return a number as the table shows it."""
    if number < 0:
        return "-"
    if column.number == "oldest":
        return age_text(number)
    if column.number in SPANS:
        return span_text(number)
    return rate_text(number) if column.is_rate else f"{number:,}"


def rate_text(number: float) -> str:
    """Return a rate; a small one with a decimal, as 0.2 a second is not nothing."""
    if number < 0:
        return "-"
    return f"{number:,.0f}" if number >= 10 or number == 0 else f"{number:.1f}"


def span_text(ms: float) -> str:
    """Return a time that may be short: in ms, or with a decimal of a second."""
    if ms < 1_000:
        return f"{ms:.0f}ms"
    return f"{ms / 1_000:.1f}s" if ms < 10_000 else age_text(ms)


def age_text(ms: float) -> str:
    """Return a time in whole seconds."""
    return duration_text(ms // 1_000 * 1_000)
