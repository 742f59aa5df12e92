"""How `minibroker top` fills a terminal of any width: the lines above the table, and the table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from minibrokerd.cli.layout import GAP, fit, width_of
from minibrokerd.cli.printing import printable
from minibrokerd.cli.top_numbers import (
    COLUMNS,
    NAME,
    RATES,
    UNKNOWN,
    Row,
    age_text,
    cell,
    rate_text,
)
from minibrokerd.text.counts import count_text

NAME_LEAST: Final = 12  # cells that the names keep, before a column goes
MIB: Final = 1 << 20


class Style(Enum):
    """How a line stands out."""

    PLAIN = "plain"
    HEAD = "head"
    CHOSEN = "chosen"
    ALARM = "alarm"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the screen."""

    text: str
    style: Style = Style.PLAIN


@dataclass(frozen=True, slots=True)
class Letters:
    """What the terminal can show: `clean` makes any text such that it can."""

    ellipsis: str = "..."
    falls: str = "v"  # behind the head of the column that is sorted by: the largest stands first
    rises: str = "^"
    clean: Callable[[str], str] = printable


class Table:
    """The table of queues; columns keep their width, or grow, from look to look."""

    def __init__(self, letters: Letters) -> None:
        self._letters = letters
        self._width = 0
        self._longest = 0  # name
        self._widths: list[int] = []

    def lines(self, rows: Sequence[Row], width: int, sort: str, reverse: bool) -> list[str]:
        """Return the head, with a mark at what is sorted by, and a line for each row."""
        heads = [self._head(column.head, column.number, sort, reverse) for column in COLUMNS]
        cells = [[cell(*each) for each in zip(COLUMNS, row.numbers, strict=True)] for row in rows]
        if width != self._width:
            self._width, self._widths, self._longest = width, [0] * len(heads), 0
        for at, known in enumerate(self._widths):
            self._widths[at] = max(known, len(heads[at]), *(len(row[at]) for row in cells), 0)
        shown = self._shown(sort)
        names = [
            self._head(NAME, NAME, sort, not reverse),
            *(self._letters.clean(row.name) for row in rows),
        ]
        self._longest = max(self._longest, *map(width_of, names))
        room = max(min(width - self._needed(shown), self._longest), 0)
        return [
            fit(self._line(name, room, numbers, shown), width, "")
            for name, numbers in zip(names, [heads, *cells], strict=True)
        ]

    def _head(self, head: str, number: str, sort: str, reverse: bool) -> str:
        return head + (self._letters.rises if reverse else self._letters.falls) * (number == sort)

    def _shown(self, sort: str) -> list[int]:
        """Return the columns that there is room for; that of the order goes last."""
        ranks = [-1 if column.number == sort else column.rank for column in COLUMNS]
        shown = sorted(range(len(COLUMNS)), key=ranks.__getitem__)
        while shown and self._needed(shown) + NAME_LEAST > self._width:
            shown.pop()
        return sorted(shown)

    def _needed(self, shown: Iterable[int]) -> int:
        return sum(self._widths[at] + GAP for at in shown)

    def _line(self, name: str, room: int, numbers: Sequence[str], shown: Sequence[int]) -> str:
        name = fit(name, room, self._letters.ellipsis)
        name += " " * (room - width_of(name))
        return name + "".join(" " * GAP + numbers[at].rjust(self._widths[at]) for at in shown)


def broker_parts(said: Mapping[str, Any]) -> list[str]:
    """Return what the overview says of the broker itself."""
    log = said["log"]
    free = log["free_bytes"]
    phase = said["phase"]
    if phase == "recovering":
        phase += f" {said['recovered_percent']} %"
    return [
        f"minibroker {said['version']}",
        phase,
        f"up {age_text(said['now_unix_ms'] - said['started_unix_ms'])}",
        count_text(said["connections"], "connection"),
        f"memory {said['resident_bytes'] // MIB:,} of {said['memory_limit_bytes'] // MIB:,} MiB",
        f"log {log['disk_bytes'] // MIB:,} MiB"
        + (f", {free // MIB:,} MiB free" if free >= 0 else ""),
        *(["NO SPACE"] if log["lacks_space"] else []),
        f"sync p99 {log['sync_p99_ms']:.1f} ms",
    ]


def queue_parts(rows: Sequence[Row], every: int) -> list[str]:
    """Return what these rows, of `every` queue, come to; messages in dead-letter queues are `dead`."""
    sums = {
        name: sum(int(row[name]) for row in rows if not row.is_dlq)
        for name in ("ready", "begun", "held", "delayed")
    }
    dead = sum(int(row["ready"]) for row in rows if row.is_dlq)
    rates = {}
    for name in RATES:
        known = [row[name] for row in rows if row[name] >= 0]
        rates[name] = sum(known) if known or not rows else UNKNOWN
    return [
        f"{len(rows):,} of {count_text(every, 'queue')}"
        if len(rows) != every
        else count_text(every, "queue"),
        *(f"{name} {value:,}" for name, value in sums.items()),
        f"dead {dead:,}",
        f"in {rate_text(rates['published'])}/s",
        f"done {rate_text(rates['acked'])}/s",
        f"failed {rate_text(rates['failed'])}/s",
    ]


def flowed(parts: Iterable[str], width: int, ellipsis: str) -> list[str]:
    """Return parts in as few lines as they need; what does not fit into one goes on in the next, unbroken."""
    lines = [""]
    for part in parts:
        line = f"{lines[-1]}{' ' * GAP if lines[-1] else ''}{part}"
        if lines[-1] and width_of(line) > width:
            lines.append(part)
        else:
            lines[-1] = line
    return [fit(line, width, ellipsis) for line in lines if line]
