"""Which queues a list shows, and in which order: a pattern of names, a column to sort by, the first so many."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Final

import click

from minibrokerd.cli.completing import complete_queue
from minibrokerd.cli.options import Function, option

WILD: Final = frozenset("*?[")  # none of them may stand in a name
TOTAL: Final = "(total)"  # no name of a queue


def pattern_argument(function: Function) -> Function:
    """Add the argument that names one queue, or a pattern of names."""
    argument = click.argument(
        "queue", default="", metavar="[QUEUE|PATTERN]", shell_complete=complete_queue
    )
    return argument(function)


def list_options(columns: Sequence[str]) -> Callable[[Function], Function]:
    """Return what adds `--sort`, by one of these columns, and `--count`."""

    def add(function: Function) -> Function:
        count = option(
            "--count", type=click.IntRange(min=1), help="Most queues to show; all, if not given."
        )
        sort = option(
            "--sort",
            type=click.Choice(["queue", *columns]),
            default="queue",
            metavar="COLUMN",
            help=f"Largest first, by one of: {', '.join(columns)}. By name, if not given.",
        )
        return sort(count(function))

    return add


def is_pattern(text: str) -> bool:
    """Return whether it is a pattern, not a name."""
    return not WILD.isdisjoint(text)


def matches(name: str, pattern: str) -> bool:
    """Return whether a list for `pattern` (or a name, or nothing) shows the queue."""
    return not pattern or fnmatchcase(name, pattern)


def selected(
    rows: Iterable[Mapping[str, Any]], sort: str, count: int | None
) -> list[Mapping[str, Any]]:
    """Return the rows in their order, at most `count`; those that are equal stand by name."""
    ordered = sorted(rows, key=lambda row: str(row["queue"]))
    if sort != "queue":
        ordered.sort(key=lambda row: -row[sort])
    return ordered[:count]


def total(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Return the sum of every number of the rows; what else is said of single queues has none."""
    names = [name for name, value in rows[0].items() if isinstance(value, int)] if rows else []
    return {name: sum(row[name] for row in rows) for name in names}
