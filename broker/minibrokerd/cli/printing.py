"""What commands print: tables for people, one JSON value a line for programs, progress on long work.

Results go to standard output and everything about them (progress, notes, errors) to standard error, so that a
pipe carries results alone. Text that came from clients is escaped: it must not steer a terminal.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click

from minibrokerd import exits

if TYPE_CHECKING:  # rich takes 60 ms to import, and most calls print one line
    from rich.console import Console
    from rich.table import Table

LEAST_WIDTH: Final = 20  # of a last column that is cut to fit the terminal
Advance = Callable[[int], None]
WIDE: Final = 10_000  # columns of a table that is piped: nothing is cut or wrapped


def fail(text: str, code: int) -> NoReturn:
    """End the command with a message and an exit code."""
    click.echo(f"minibroker: {printable(text)}", err=True)
    sys.exit(code)


def leave_closed_pipe() -> NoReturn:
    """End the command because nobody reads its output any more, as after `| head`."""
    # What is still buffered would fail again when the interpreter flushes it.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(exits.PIPE)


def note(text: str) -> None:
    """Say something beside the results."""
    click.echo(text, err=True)


def print_json(value: object) -> None:
    """Print one line; bytes are printed as text, everything else that JSON does not know as its `str`."""
    line = json.dumps(value, default=_plain, ensure_ascii=False)
    if not line.isprintable():  # JSON escapes some of what steers a terminal, not all
        line = "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in line)
    click.echo(line)


def print_text(text: str) -> None:
    """Print text as it stands; for a terminal what could steer it is escaped, lines and tabs stay."""
    if sys.stdout.isatty():
        text = "".join(c if c in "\n\t" else printable(c) for c in text)
    click.echo(text, color=True)  # else click takes escape sequences out of what goes to a pipe


def print_table(heads: Sequence[str], rows: Iterable[Sequence[object]], empty: str) -> None:
    """Print rows under their heads, numbers to the right; `empty` if there are none."""
    table = table_of(heads, rows)
    if table.row_count:
        _console(least_width=_least_width(table)).print(table)
    else:
        click.echo(empty)


def table_of(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """Return a table whose columns of numbers are aligned to the right, and whose last one gives way."""
    from rich.table import Table
    from rich.text import Text

    cells = [[cell_of(value) for value in row] for row in rows]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for at, head in enumerate(heads):
        widest = max(map(len, (head, *(row[at] for row in cells))))
        table.add_column(
            Text(head),
            justify="right" if cells and all(_is_number(row[at]) for row in cells) else "left",
            no_wrap=True,
            overflow="ellipsis",
            min_width=widest if at < len(heads) - 1 else min(widest, LEAST_WIDTH),
        )
    for row in cells:
        table.add_row(*map(Text, row))
    return table


def _least_width(table: Table) -> int:
    """Return the width below which a terminal wraps lines, rather than that a number is cut."""
    return sum((column.min_width or 0) + 2 for column in table.columns)


def _is_number(cell: str) -> bool:
    return cell.replace(",", "").replace(".", "", 1).isdigit()


def cell_of(value: object) -> str:
    """Return a value as the text of a cell, control characters escaped."""
    return f"{value:,}" if isinstance(value, int | float) else printable(str(value))


def printable(text: str) -> str:
    """Return text that cannot steer a terminal: control characters as their escapes."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def text_of(body: object) -> str:
    """Return a body as text: strings and bytes as they are, everything else as JSON."""
    if isinstance(body, bytes):
        return body.decode("utf-8", "backslashreplace")
    return body if isinstance(body, str) else json.dumps(body, default=_plain, ensure_ascii=False)


@contextmanager
def progress(
    what: str, total: int | None, *, prints: bool, unit: str = "messages"
) -> Iterator[Advance]:
    """Yield what counts progress, shown on standard error while the block runs, if that is a terminal.

    `prints`: the block prints results as it goes, so the bar stays away when those go to a terminal, too.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
    )
    console = _console(stderr=True)
    hidden = not console.is_terminal or (prints and sys.stdout.isatty())
    with Progress(*columns, console=console, transient=True, disable=hidden) as bar:
        yield partial(bar.advance, bar.add_task(printable(what), total=total))


@contextmanager
def watching() -> Iterator[Callable[[Sequence[str], Iterable[Sequence[object]], str], None]]:
    """Yield what shows a table in place of the one before; piped, it prints one after the other."""
    if not sys.stdout.isatty():
        yield print_table
        return
    from rich.live import Live

    with Live(console=_console(), auto_refresh=False) as live:

        def show(heads: Sequence[str], rows: Iterable[Sequence[object]], empty: str) -> None:
            table = table_of(heads, rows)
            live.update(table if table.row_count else empty, refresh=True)

        yield show


def _console(*, stderr: bool = False, least_width: int = 0) -> Console:
    from rich.console import Console

    console = Console(stderr=stderr, highlight=False)
    width = max(console.width, least_width) if console.is_terminal else WIDE
    return Console(stderr=stderr, highlight=False, width=width)


def _plain(value: object) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
