"""`minibroker top`: the numbers of all queues, live in a terminal, or once, or as JSON for programs."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import click

from minibrokerd.cli.http_api import Away, HttpApi, Refused, asking, http_option
from minibrokerd.cli.options import json_option, option, timeout_option
from minibrokerd.cli.printing import note, print_json, print_table, say
from minibrokerd.cli.ranges import Duration
from minibrokerd.cli.top_lines import broker_parts, queue_parts
from minibrokerd.cli.top_looking import Looker, look_at, pause_s
from minibrokerd.cli.top_numbers import (
    COLUMNS,
    NAME,
    RATES,
    SORTS,
    Look,
    Row,
    cell,
    ordered,
    rows_of,
)
from minibrokerd.cli.top_screen import Screen

Shown = Callable[[Look, Look], None]


@click.command()
@option("--every", type=Duration(100), default="1s", help="Time between two looks.")
@option(
    "--filter",
    default="",
    help="Only queues with this in their name, or that fit a pattern, like 'mail*'.",
)
@option(
    "--sort",
    type=click.Choice(SORTS),
    default="ready",
    metavar="COLUMN",
    help=f"Largest first, by one of: {', '.join(SORTS[1:])}; or by name: {NAME}.",
)
@option("--reverse", is_flag=True, help="Smallest first, or names from the end of the alphabet.")
@option("--once", is_flag=True, help="Print one table, of two looks that are --every apart.")
@http_option
@timeout_option
@json_option
def top(
    every: float,
    filter: str,
    sort: str,
    reverse: bool,
    once: bool,
    http: str,
    as_json: bool,
) -> None:
    """Show all queues with their rates, live: keys sort, filter, and show one in detail; ? lists them.

    Rates are of the time between two looks. With --json each look is one document, until Ctrl-C or --once.
    """
    print_look: Shown = partial(_print_json if as_json else _print_table, sort, reverse)
    if not (once or as_json):
        try:
            from minibrokerd.cli import top_terminal
        except ImportError as error:  # not every build of Python has curses
            raise _no_screen(str(error)) from error
        if reason := top_terminal.why_not():
            raise _no_screen(reason)
    with asking(http) as api:
        first = look_at(api, filter)
        if once or as_json:
            _print_looks(api, first, filter, every, once, print_look)
        else:
            letters = top_terminal.letters()
            screen = Screen(first, filter=filter, sort=sort, reverse=reverse, letters=letters)
            top_terminal.show(screen, partial(Looker, api, filter, every))


def _no_screen(reason: str) -> click.UsageError:
    return click.UsageError(f"{reason}: --once prints one table, --json a document for each look.")


def _print_looks(
    api: HttpApi, before: Look, filter: str, every: float, once: bool, print_look: Shown
) -> None:
    """Print looks, `every` so many seconds; when the broker goes, wait until it is back."""
    away = False
    while True:
        time.sleep(max(every, pause_s(before)))
        try:
            look = look_at(api, filter)
        except (Away, Refused) as error:
            if once:
                raise
            if not away:
                note(f"the broker is away: {error}")
            away = True
            continue
        away = False
        print_look(look, before)
        if once:
            return
        before = look


def _print_table(sort: str, reverse: bool, look: Look, before: Look) -> None:
    rows = ordered(rows_of(look, before), sort, reverse)
    say(", ".join(broker_parts(look.overview)))
    say(", ".join(queue_parts(rows, look.overview["queues"])))
    cells = [[row.name, *map(cell, COLUMNS, row.numbers)] for row in rows]
    heads = (NAME, *(column.head for column in COLUMNS))
    print_table(heads, cells, "no queues", heads[:1], fold=True)


def _print_json(sort: str, reverse: bool, look: Look, before: Look) -> None:
    rows = ordered(rows_of(look, before), sort, reverse)
    print_json({"overview": look.overview, "queues": [_value(row, look) for row in rows]})


def _value(row: Row, look: Look) -> dict[str, Any]:
    seen = look.queues[row.name]
    return {
        "name": row.name,
        "is_dlq": row.is_dlq,
        "oldest_ready_ms": seen.oldest_ms,
        "wait_p95_ms": seen.wait_ms if seen.wait_ms >= 0 else None,
        "run_p95_ms": seen.run_ms if seen.run_ms >= 0 else None,
        "counts": seen.counts,
        "rates": {name: round(row[name], 3) if row[name] >= 0 else None for name in RATES},
    }
