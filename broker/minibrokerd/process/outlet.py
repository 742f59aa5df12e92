"""Writes to a descriptor that somebody else reads, or does not: a pipe, a terminal, a file on a full disk.

Such a write can last for ever. Neither asking before changes that (another process may fill the pipe
between the question and the write) nor O_NONBLOCK (it would hold for every process that shares the terminal).
So a thread writes, and whoever has something to say puts it down and goes on. What waits is bounded; what does not
fit, or is refused, is lost and counted, and the count is said as soon as somebody reads again.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Final

STDOUT: Final = 1
STDERR: Final = 2
MAX_WAITING_BYTES: Final = 1024 * 1024
PIECE_BYTES: Final = 64 * 1024  # of one write; a slow reader frees room with each


class Outlet:
    """Takes lines for `descriptor` without ever waiting; may be used by any thread, and by signal handlers.

    `say_lost` makes the line that tells how many lines were lost; without it nothing is said.
    """

    def __init__(
        self,
        descriptor: int,
        say_lost: Callable[[int], bytes] | None = None,
        max_waiting_bytes: int = MAX_WAITING_BYTES,
    ) -> None:
        self._descriptor = descriptor
        self._say_lost = say_lost
        self._max_waiting_bytes = max_waiting_bytes
        # Its `put` may be interrupted by a signal handler that puts, too.
        self._lines: SimpleQueue[bytes | threading.Event] = SimpleQueue()
        self._given_bytes = 0
        self._done_bytes = 0  # written by the thread alone
        self._lost = 0
        self._told = 0  # of those
        # For the same reason it is one that its owner may take again: at worst one of two additions is lost.
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None

    @property
    def waiting_bytes(self) -> int:
        """How much was given and is not written."""
        return self._given_bytes - self._done_bytes

    @property
    def done_bytes(self) -> int:
        """How much of what was given is written, or lost; that it does not grow means that nobody reads."""
        return self._done_bytes

    @property
    def lost(self) -> int:
        """How many lines were lost since the start."""
        return self._lost

    def write(self, line: bytes, lines: int = 1) -> None:
        """Have `line`, which may be several `lines`, written, or lose it."""
        with self._lock:
            if self.waiting_bytes + len(line) > self._max_waiting_bytes:
                self._lost += lines
                return
            self._given_bytes += len(line)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="minibroker-log", daemon=True
                )
                self._thread.start()
        self._lines.put(line)

    def flush(self, seconds: float) -> bool:
        """Wait until what was given is written, but not for longer than `seconds`; return whether it is."""
        if self._thread is None:
            return True
        done = threading.Event()
        self._lines.put(done)
        return done.wait(seconds)

    def _run(self) -> None:
        while True:
            line = self._lines.get()
            if isinstance(line, threading.Event):
                line.set()
                continue
            if not self._written(line):
                with self._lock:
                    self._lost += 1
            self._done_bytes += len(line)
            self._tell()

    def _tell(self) -> None:
        """Say how many lines were lost, once most of what waited is gone: so about where they would stand."""
        lost = self._lost - self._told
        if (
            lost
            and self._say_lost is not None
            and self.waiting_bytes <= self._max_waiting_bytes // 2
        ) and self._written(self._say_lost(lost)):
            self._told += lost

    def _written(self, line: bytes) -> bool:
        at = 0
        while at < len(line):
            try:
                at += os.write(self._descriptor, line[at : at + PIECE_BYTES])
            except BlockingIOError:  # another process made it so; it is ours to wait
                select.select([], [self._descriptor], [])
            except OSError:
                if at:  # half a line stands there: the next one begins a line of its own
                    with suppress(OSError):
                        os.write(self._descriptor, b"\n")
                return False
        return True


def write_once(descriptor: int, text: bytes) -> threading.Thread:
    """Start a thread that writes `text` and ends; whoever wants to wait for it can `join` it, for a while."""
    thread = threading.Thread(target=_write_all, args=(descriptor, text), daemon=True)
    thread.start()
    return thread


def _write_all(descriptor: int, text: bytes) -> None:
    with suppress(OSError):  # somebody who closed it does not want it
        while text:
            text = text[os.write(descriptor, text) :]
