"""What `minibroker top` shows of one look at a broker, as lines for a terminal of some width.

Nothing here asks a terminal, a clock or a broker: two looks and a width come in, lines go out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from minibrokerd.cli.layout import GAP, fit, width_of
from minibrokerd.cli.printing import printable
from minibrokerd.cli.units import duration_text

NAME_LEAST: Final = 12  # cells that the names keep, before a column goes
MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the table of queues; those of the largest `rank` go first where there is no room."""

    head: str
    number: str  # in `counts` of a queue
    rank: int
    is_rate: bool = False


COLUMNS: Final = (
    Column("ready", "ready", 0),
    Column("begun", "begun", 1),
    Column("held", "held", 6),
    Column("delayed", "delayed", 7),
    Column("consumers", "consumers", 4),
    Column("in/s", "published", 2, True),
    Column("done/s", "acked", 3, True),
    Column("failed/s", "failed", 8, True),
    Column("dead/s", "dead_lettered", 9, True),
)
OLDEST: Final = Column("oldest", "", 5)


@dataclass(frozen=True, slots=True)
class Look:
    """What the HTTP API said at one time: its overview and its queues."""

    overview: Mapping[str, Any]
    queues: Sequence[Mapping[str, Any]]


def rate(name: str, before: Mapping[str, int] | None, now: Mapping[str, int], ms: int) -> int:
    """Return how much a counter grew a second within `ms`; 0 at the first look.

    Counters start at zero with the broker, and with a queue that is made again.
    """
    if before is None or ms <= 0:
        return 0
    grown = now[name] - before[name]
    return round((grown if grown >= 0 else now[name]) * 1_000 / ms)


def table(look: Look, before: Look | None, width: int, ellipsis: str) -> list[str]:
    """Return the head and a line for each queue, none wider than `width` cells."""
    rows, columns = _rows(look, before), [*COLUMNS, OLDEST]
    heads = [column.head for column in columns]
    cells_by_column = zip(heads, *(row[1:] for row in rows), strict=True)
    widths = [max(map(width_of, cells)) for cells in cells_by_column]
    shown = sorted(range(len(columns)), key=lambda at: columns[at].rank)
    while shown and _needed(widths, shown) + NAME_LEAST > width:
        shown.pop()
    shown.sort()
    longest = max([width_of("queue"), *(width_of(row[0]) for row in rows)])
    room = min(longest, max(width - _needed(widths, shown), 0))
    lines = []
    for name, *cells in [["queue", *heads], *rows]:
        name = fit(name, room, ellipsis)
        line = name + " " * (room - width_of(name))
        lines.append(line + "".join(" " * GAP + cells[at].rjust(widths[at]) for at in shown))
    return lines


def _needed(widths: Sequence[int], shown: Sequence[int]) -> int:
    return sum(widths[at] + GAP for at in shown)


def _rows(look: Look, before: Look | None) -> list[list[str]]:
    ms = look.overview["now_unix_ms"] - before.overview["now_unix_ms"] if before else 0
    earlier = {row["name"]: row["counts"] for row in before.queues} if before else {}
    rows = []
    for queue in look.queues:
        name, counts = queue["name"], queue["counts"]
        cells = [
            rate(column.number, earlier.get(name), counts, ms)
            if column.is_rate
            else counts[column.number]
            for column in COLUMNS
        ]
        rows.append([printable(name), *(f"{cell:,}" for cell in cells), _age(queue)])
    return rows


def _age(queue: Mapping[str, Any]) -> str:
    ms = queue["oldest_ready_ms"]
    return duration_text(ms // 1_000 * 1_000) if queue["counts"]["ready"] else "-"


def header(look: Look, before: Look | None, width: int, away: str, ellipsis: str) -> list[str]:
    """Return the lines above the table; `away`: since when nobody answers, empty while somebody does.

    What does not fit into a line goes on in the next one, and is never broken.
    """
    said = look.overview
    log, ms = said["log"], 0
    if before is not None:
        ms = said["now_unix_ms"] - before.overview["now_unix_ms"]
    counted = before.overview["counted"] if before else None
    free = log["free_bytes"]
    up_ms = (said["now_unix_ms"] - said["started_unix_ms"]) // 1_000 * 1_000
    parts = [
        f"minibroker {said['version']}",
        *([f"AWAY {away}"] if away else []),
        said["phase"],
        f"up {duration_text(up_ms)}",
        f"{said['connections']:,} connections",
        f"memory {said['memory_bytes'] // MIB:,} of {said['memory_limit_bytes'] // MIB:,} MiB",
        f"log {log['disk_bytes'] // MIB:,} MiB" + (f", {free // MIB:,} free" if free >= 0 else ""),
        f"sync p99 {log['sync_p99_ms']:.1f} ms",
        f"{said['queues']:,} queues",
        f"ready {said['messages']['ready']:,}",
        f"begun {said['messages']['begun']:,}",
        f"in {rate('published', counted, said['counted'], ms):,}/s",
        f"done {rate('acked', counted, said['counted'], ms):,}/s",
        f"failed {rate('failed', counted, said['counted'], ms):,}/s",
    ]
    lines = [""]
    for part in parts:
        line = f"{lines[-1]}{' ' * GAP if lines[-1] else ''}{part}"
        if lines[-1] and width_of(line) > width:
            lines.append(part)
        else:
            lines[-1] = line
    return [fit(line, width, ellipsis) for line in lines]
