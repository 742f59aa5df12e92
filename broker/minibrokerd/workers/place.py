"""The socket between a supervisor and a worker: who the worker is, that it is ready, that it got an answer.

The other way goes one word: that a stop was asked for again. Signals cannot say it: a worker gets some that were
meant for the supervisor, or for their group, as well as those that he hands on.
Its end is a message, too: a worker whose supervisor is gone drains and ends.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Final

VARIABLE: Final = "MINIBROKER_WORKER_PLACE"
BEAT: Final = struct.Struct("!cd")  # `r` ready, or `b` a beat with the unix time of the last work
HURRY: Final = b"h"


class Seat:
    """The supervisor's end, for one worker; a context manager."""

    def __init__(self, number: int, count: int, is_first: bool) -> None:
        self._said = f"{number} {count} {int(is_first)}"
        self._ours, self._theirs = socket.socketpair()
        self._ours.setblocking(False)

    def environment(self) -> tuple[dict[str, str], int]:
        """Return the variables for the worker, and the descriptor to hand down."""
        descriptor = self._theirs.fileno()
        return {VARIABLE: f"{self._said} {descriptor}"}, descriptor

    def started(self) -> None:
        """Close the end that the worker has now."""
        self._theirs.close()

    async def listen(self, ready: Callable[[], object], beat: Callable[[float], object]) -> None:
        """Call `ready` and `beat` as the worker says so, until it is gone."""
        loop = asyncio.get_running_loop()
        while len(data := await loop.sock_recv(self._ours, BEAT.size)) == BEAT.size:
            kind, work_unix = BEAT.unpack(data)
            if kind == b"r":
                ready()
            beat(work_unix)

    def hurry(self) -> None:
        """Say that a stop was asked for again; a signal that follows is that asking."""
        with suppress(OSError):  # the worker is gone
            self._ours.send(HURRY)

    def __enter__(self) -> Seat:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ours.close()
        self._theirs.close()


class Place:
    """The worker's end. `number` of `count` workers, from 1; `is_first`: it replaces no other one."""

    def __init__(self, number: int, count: int, is_first: int, descriptor: int) -> None:
        self.number = number
        self.count = count
        self.is_first = bool(is_first)
        self._socket = socket.socket(fileno=descriptor)
        self._socket.setblocking(False)
        self._socket.set_inheritable(False)
        self._hurried = False

    @classmethod
    def taken(cls) -> Place | None:
        """Return the place that a supervisor gave to this process; None if there is none."""
        text = os.environ.pop(VARIABLE, "")  # what this process starts has no such place
        return cls(*map(int, text.split())) if text else None

    def listen(
        self,
        loop: asyncio.AbstractEventLoop,
        hurry: Callable[[], object],
        gone: Callable[[], object],
    ) -> None:
        """Call `hurry` when the supervisor says that a stop was asked for again, and `gone` when he is gone."""

        def heard() -> None:
            if not self._hear():
                loop.remove_reader(self._socket)
                gone()
            elif self._hurried:
                hurry()

        loop.add_reader(self._socket, heard)

    def is_hurried(self) -> bool:
        """Return whether the supervisor has said that a stop was asked for again; for the handler of a signal.

        So he has, as it were, when he is gone: whoever signals then means this worker.
        """
        return not self._hear() or self._hurried

    def _hear(self) -> bool:
        """Take what he said; False if he is gone. A handler may interrupt this, and do the same."""
        try:
            said = self._socket.recv(16)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if said:
            self._hurried = True
        return bool(said)

    def ready(self) -> None:
        """Say that this worker takes messages."""
        self._send(b"r", 0.0)

    def beat(self, work_unix: float) -> None:
        """Say that the broker answered, and when a handler last ended (0.0: none has)."""
        self._send(b"b", work_unix)

    def _send(self, kind: bytes, work_unix: float) -> None:
        try:
            self._socket.send(BEAT.pack(kind, work_unix))
        except OSError:
            return  # the supervisor is gone, or does not read: `listen` sees to the former
