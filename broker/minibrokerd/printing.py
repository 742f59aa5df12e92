"""What commands print: aligned tables for people, one JSON value a line for programs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import click


def print_json(value: object) -> None:
    """Print one line; what JSON does not know is printed as text."""
    click.echo(json.dumps(value, default=_plain, ensure_ascii=False))


def print_table(heads: Sequence[str], rows: Iterable[Sequence[object]], empty: str) -> None:
    """Print rows under their heads, numbers to the right; `empty` if there are none."""
    cells = [[_cell(value) for value in row] for row in rows]
    if not cells:
        click.echo(empty)
        return
    lines = [list(heads), *cells]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    to_right = [all(_is_number(row[at]) for row in cells) for at in range(len(heads))]
    for line in lines:
        padded = zip(line, widths, to_right, strict=True)
        text = "  ".join(
            cell.rjust(width) if right else cell.ljust(width) for cell, width, right in padded
        )
        click.echo(text.rstrip())


def text_of(body: object) -> str:
    """Return a body on one line as far as it goes: text as it is, everything else as JSON."""
    if isinstance(body, bytes):
        return body.decode("utf-8", "backslashreplace")
    return body if isinstance(body, str) else json.dumps(body, default=_plain, ensure_ascii=False)


def _plain(value: object) -> Any:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def _cell(value: object) -> str:
    text = f"{value:,}" if isinstance(value, int) else str(value)
    # Bodies and error texts come from clients: a control character must not reach the terminal.
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def _is_number(cell: str) -> bool:
    return cell.replace(",", "").isdigit()
