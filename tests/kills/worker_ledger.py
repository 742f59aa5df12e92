"""Ledgers: what a process did, one line at a time, in a file that its own death cannot take back.

A line is a verb, the monotonic time in ns (one clock for all processes of a machine), and numbers.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from time import monotonic_ns
from typing import Final, NamedTuple

CONNECTION: Final = (
    "away",
    "back",
)  # lines about the connection of a client, see `mark_connection`


class Entry(NamedTuple):
    """One line of a ledger."""

    verb: str
    time_ns: int
    numbers: tuple[int, ...]


class Ledger:
    """The writing end."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(self, verb: str, *numbers: int) -> None:
        """Append one line; it is with the kernel when this returns."""
        os.write(self._file, f"{verb} {monotonic_ns()} {' '.join(map(str, numbers))}\n".encode())


def mark_connection(ledger: Ledger) -> None:
    """Have a line written when the client of this process loses its connection, and when it has one again."""

    class Marks(logging.Handler):
        """Hears what the client tells."""

        def emit(self, record: logging.LogRecord) -> None:
            """Write what is about the connection."""
            told = getattr(record, "told", None)
            if told in CONNECTION:
                ledger.write(told)

    logger = logging.getLogger("minibroker")
    logger.setLevel(logging.INFO)
    logger.addHandler(Marks())


def read_ledger(path: Path) -> Iterator[Entry]:
    """Yield the entries of a ledger, oldest first; none if it was never opened."""
    return (entry for entry in _read(path) if entry.verb not in CONNECTION)


def read_connection(path: Path) -> Iterator[Entry]:
    """Yield what a ledger has of the connection of its client, oldest first."""
    return (entry for entry in _read(path) if entry.verb in CONNECTION)


def _read(path: Path) -> Iterator[Entry]:
    if not path.exists():
        return
    for line in path.read_text().splitlines():
        verb, time_ns, *numbers = line.split()
        yield Entry(verb, int(time_ns), tuple(map(int, numbers)))
