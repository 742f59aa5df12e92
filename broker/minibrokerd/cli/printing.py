"""What commands print: tables for people, one JSON value a line for programs, progress on long work.

Results go to standard output and everything about them (progress, notes, errors) to standard error, so that a
pipe carries results alone. Text that came from clients is escaped: it must not steer a terminal.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import Final, NoReturn, TextIO

import click

from minibrokerd.cli.layout import GAP, LEAST, Table, wrap
from minibrokerd.cli.streams import can_show, can_steer, terminal_size
from minibrokerd.process import exits
from minibrokerd.text import values

Advance = Callable[[int], None]
PAGE: Final = 1_000  # rows of a table that are laid out together
BOLD: Final = "\x1b[1m{}\x1b[m"


def fail(text: str, code: int, error: str = "") -> NoReturn:
    """End the command with a message and an exit code; with --json the message is an object.

    `error` is the code of the error table, if it is one of those.
    """
    if wants_json():
        said = {"text": text, "code": error or None, "exit_code": code}
        _write(sys.stderr, values.json_line({"error": said}, ascii_only=not _is_utf8(sys.stderr)))
    else:
        note(f"minibroker: {text}")
    sys.exit(code)


def wants_json() -> bool:
    """Return whether the command that runs was asked for JSON; also while its flags are still read."""
    context = click.get_current_context(silent=True)
    if context is not None and "as_json" in context.params:
        return bool(context.params["as_json"])
    return "--json" in sys.argv or os.environ.get("MINIBROKER_JSON", "").lower() in {
        "1", "true", "yes", "on", "t", "y",
    }  # fmt: skip


def leave_closed_pipe() -> NoReturn:
    """End the command because nobody reads its output any more, as after `| head`."""
    # What is still buffered would fail again when the interpreter flushes it.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(exits.PIPE)


def note(text: str) -> None:
    """Say something beside the results, in as many lines as it takes."""
    _write_wrapped(sys.stderr, text)


def say(text: str = "") -> None:
    """Print a sentence, in as many lines as it takes where somebody says how wide they may be."""
    _write_wrapped(sys.stdout, text)


def say_line(text: str) -> None:
    """Print what is one line for programs, too, however long it is; what could steer a terminal is escaped."""
    _write(sys.stdout, shown(text))


def say_fields(rows: Iterable[tuple[str, object]]) -> None:
    """Print names with their values, those that have one; what is too long goes on below its start."""
    some = [(name, str(value)) for name, value in rows if value]
    indent = max((len(name) for name, _ in some), default=0) + GAP
    size = terminal_size(sys.stdout)
    for name, value in some:
        text = shown(value)
        first, *more = wrap(text, max(size.columns - indent, LEAST)) if size else [text]
        _write(sys.stdout, f"{name:<{indent}}{first}".rstrip())
        for line in more:
            _write(sys.stdout, " " * indent + line)


def _write_wrapped(stream: TextIO, text: str) -> None:
    size = terminal_size(stream)
    text = shown(text, stream)
    for line in wrap(text, size.columns) if size else [text]:
        _write(stream, line)


def print_json(value: object) -> None:
    """Print one line of JSON, as `values.json_line` says."""
    _write(sys.stdout, values.json_line(value, ascii_only=not _is_utf8(sys.stdout)))


def print_text(text: str) -> None:
    """Print text as it stands; for a terminal what could steer it is escaped, lines and tabs stay."""
    if sys.stdout.isatty():
        text = "".join(c if c in "\n\t" else shown(c) for c in text)
    _write(sys.stdout, text)


def print_table(
    heads: Sequence[str],
    rows: Iterable[Sequence[object]],
    empty: str,
    elastic: Sequence[str] = (),
    *,
    prose: bool = False,
    fold: bool = False,
) -> None:
    """Print rows under their heads, numbers to the right; `empty` if there are none.

    Columns named in `elastic` (else the last one) are cut, or wrapped if they are `prose`, where a terminal is too
    narrow; where that does not help, the fields of a row stand one under the other, or, to `fold` it, some columns
    below the others. A pipe gets everything, wrapped to COLUMNS where that is set. Rows are taken as they come,
    a page at a time.
    """
    listing = Listing(heads, empty, elastic, prose=prose, fold=fold)
    cells = iter(rows)
    while page := list(islice(cells, PAGE)):
        listing.add(page)
    listing.end()


class Listing:
    """A table whose rows come in pages, each printed as it comes; `print_table` says how."""

    def __init__(
        self,
        heads: Sequence[str],
        empty: str,
        elastic: Sequence[str] = (),
        *,
        prose: bool = False,
        fold: bool = False,
    ) -> None:
        self._table = table_for(sys.stdout, heads, elastic, prose=prose, fold=fold)
        self._empty = empty

    def add(self, rows: Iterable[Sequence[object]]) -> None:
        """Print the next rows."""
        lines = self._table.lines([[cell_of(value) for value in row] for row in rows])
        if lines:
            _write(sys.stdout, "\n".join(lines))

    def end(self) -> None:
        """Say so if there were none."""
        if self._table.empty:
            say(self._empty)


def table_for(
    stream: TextIO,
    heads: Sequence[str],
    elastic: Sequence[str] = (),
    *,
    prose: bool = False,
    fold: bool = False,
) -> Table:
    """Return an empty table that fits `stream` as it is now."""
    size = terminal_size(stream)
    return Table(
        heads,
        elastic=elastic,
        prose=prose or not stream.isatty(),  # whoever reads it there gets everything
        fold=fold,
        width=size.columns if size else None,
        ellipsis="…" if can_show("…", stream) else "...",
        styled=BOLD.format if can_steer(stream) else str,
    )


def cell_of(value: object) -> str:
    """Return a value as the text of a cell, control characters escaped."""
    return f"{value:,}" if isinstance(value, int | float) else shown(str(value))


def shown(text: str, stream: TextIO | None = None) -> str:
    """Return text that cannot steer a terminal, and that `stream` (standard output) can show.

    Control characters, and letters that its encoding has not, are escaped.
    """
    if text.isascii() and text.isprintable():
        return text
    text = printable(text)
    encoding = (stream or sys.stdout).encoding or "ascii"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def printable(text: str) -> str:
    """Return text that cannot steer a terminal: control characters as their escapes."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


@contextmanager
def progress(
    what: str, total: int | None, *, prints: bool, unit: str = "messages"
) -> Iterator[Advance]:
    """Yield what counts progress, shown on standard error while the block runs, if that is a terminal.

    `prints`: the block prints results as it goes, so the bar stays away when those go to a terminal, too.
    """
    if not can_steer(sys.stderr) or (prints and sys.stdout.isatty()):
        yield lambda _: None
        return
    # rich takes 60 ms to import, and most calls print one line.
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
    )
    console = Console(stderr=True, highlight=False)
    with Progress(*columns, console=console, transient=True) as bar:
        yield partial(bar.advance, bar.add_task(shown(what, sys.stderr), total=total))


def _write(stream: TextIO, text: str) -> None:
    stream.write(text + "\n")
    stream.flush()


def _is_utf8(stream: TextIO) -> bool:
    return (stream.encoding or "").lower().replace("-", "").replace("_", "") == "utf8"
