"""Counting jobs where they run, whatever runs them: a file in shared memory, with a cell for each thread.

A job may run in any process, thread or greenlet of a framework. `done` adds one to the cell of the thread it is
called in: nothing is sent, no lock is taken, and no count is lost to another thread. Who measures looks at the sum
from outside.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from _thread import get_native_id  # the one of `threading` is another one under gevent
from pathlib import Path
from time import monotonic

CELLS = 65_536  # a framework that forks for each job takes one for each
CELL_BYTES = 8
PATH_VARIABLE = "BENCH_TALLY"


class Tally:
    """The file of one repetition. Cell 0 says how many cells are taken."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.ftruncate(self._file, CELLS * CELL_BYTES)
        self._cells = memoryview(mmap.mmap(self._file, CELLS * CELL_BYTES)).cast("Q")
        self._mine: dict[int, int] = {}
        os.register_at_fork(after_in_child=self._mine.clear)

    def done(self) -> None:
        """Count one job of this thread."""
        thread = get_native_id()
        try:
            cell = self._mine[thread]
        except KeyError:
            cell = self._mine[thread] = self._take()
        self._cells[cell] += 1

    def _take(self) -> int:
        fcntl.flock(self._file, fcntl.LOCK_EX)
        self._cells[0] += 1
        cell = self._cells[0]
        fcntl.flock(self._file, fcntl.LOCK_UN)
        return cell

    def count(self) -> int:
        """Return how many jobs all threads of all processes have done."""
        return sum(self._cells[1 : self._cells[0] + 1])


def tally() -> Tally:
    """Return the tally that the environment of a worker names."""
    return Tally(Path(os.environ[PATH_VARIABLE]))


def note_latency(sent: float) -> None:
    """Write down how many seconds ago something was sent, by the clock of all processes."""
    with open(f"{os.environ[PATH_VARIABLE]}.latencies", "a") as file:
        file.write(f"{monotonic() - sent}\n")
