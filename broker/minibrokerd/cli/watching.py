"""A table that is shown again and again in the same place, until somebody has seen enough."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from minibrokerd.cli.layout import Table, fit
from minibrokerd.cli.printing import cell_of, print_table, table_for
from minibrokerd.cli.streams import can_steer, terminal_size
from minibrokerd.text.counts import count_text

# The screen beside the one with the shell's history; the cursor away; and both as they were.
ENTER: Final = "\x1b[?1049h\x1b[?25l"
LEAVE: Final = "\x1b[?25h\x1b[?1049l"
HOME: Final = "\x1b[H"
REST_OF_LINE: Final = "\x1b[K"  # is cleared
REST_OF_SCREEN: Final = "\x1b[J"

Rows = Sequence[Sequence[object]]
Show = Callable[[Sequence[str], Rows, str, Sequence[str]], None]


@contextmanager
def watching() -> Iterator[Show]:
    """Yield what shows a table in place of the one before; in the end the last one stays.

    On anything but a terminal that can be steered it prints one after the other.
    """
    if not can_steer(sys.stdout):
        yield print_table
        return
    last: list[tuple[Sequence[str], Rows, str, Sequence[str]]] = []
    widths: list[int] = []

    def show(heads: Sequence[str], rows: Rows, empty: str, elastic: Sequence[str]) -> None:
        last[:] = [(heads, rows, empty, elastic)]
        table = table_for(sys.stdout, heads, elastic)
        table.widen(widths)  # columns do not jump as numbers grow and shrink
        lines = _screen(table, rows, empty)
        widths[:] = table.widths
        # In one piece, each line over the one before, and nothing cleared first: it does not flicker.
        _draw(HOME + "\n".join(line + REST_OF_LINE for line in lines) + REST_OF_SCREEN)

    _draw(ENTER)
    try:
        yield show
    finally:
        _draw(LEAVE)
        for each in last:
            print_table(*each)


def _screen(table: Table, rows: Rows, empty: str) -> list[str]:
    """Return the lines for the terminal as it is now: it may have been resized since."""
    size = terminal_size(sys.stdout)
    assert size is not None
    lines = table.lines([[cell_of(value) for value in row] for row in rows]) or [
        fit(empty, size.columns, "...")
    ]
    if len(lines) > size.lines:
        last = f"... {count_text(len(lines) - size.lines + 1, 'more line')}"
        lines[size.lines - 1 :] = [fit(last, size.columns, "...")]
    return lines


def _draw(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
