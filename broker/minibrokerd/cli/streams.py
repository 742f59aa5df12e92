"""The three standard streams as commands use them: always open, never unable to show a character."""

from __future__ import annotations

import os
import sys
from typing import TextIO


def prepare() -> None:
    """Open what is closed of the standard streams, and let them show any text. Before any other file is opened.

    Else a segment of the log might get the number of standard error, and events be written into it; and a body
    that the locale has no letters for would end a command in the middle of a list.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # It takes the lowest free number, which is that of the stream.
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))
    for stream, errors in (
        (sys.stdin, "surrogateescape"),
        (sys.stdout, "backslashreplace"),
        (sys.stderr, "backslashreplace"),
    ):
        if hasattr(stream, "reconfigure"):  # not so where a test has put its own in place
            stream.reconfigure(errors=errors)


def can_steer(stream: TextIO) -> bool:
    """Return whether `stream` is a terminal that understands escape sequences, and nobody asked for none."""
    return (
        stream.isatty()
        and os.environ.get("TERM", "dumb") not in {"dumb", "unknown"}
        and not os.environ.get("NO_COLOR")
    )


def can_show(text: str, stream: TextIO) -> bool:
    """Return whether the encoding of `stream` has all characters of `text`."""
    try:
        text.encode(stream.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def terminal_size(stream: TextIO) -> os.terminal_size | None:
    """Return columns and lines of the terminal that `stream` is, None if it is none, and nobody says how wide.

    `COLUMNS` and `LINES` say it instead where they are set, as for every other program; of a pipe, too.
    """
    if not stream.isatty():
        wanted = _set("COLUMNS")
        return os.terminal_size((wanted, _set("LINES") or 24)) if wanted else None
    try:
        columns, lines = os.get_terminal_size(stream.fileno())
    except OSError:
        columns = lines = 0
    return os.terminal_size((_set("COLUMNS") or columns or 80, _set("LINES") or lines or 24))


def _set(name: str) -> int:
    value = os.environ.get(name, "")
    return int(value) if value.isascii() and value.isdigit() else 0
