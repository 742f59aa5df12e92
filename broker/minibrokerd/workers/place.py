"""The socket between a supervisor and a worker: who the worker is, that it is ready, that it got an answer.

Its end is a message, too: a worker whose supervisor is gone drains and ends.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable
from types import TracebackType
from typing import Final

VARIABLE: Final = "MINIBROKER_WORKER_PLACE"
BEAT: Final = struct.Struct("!cd")  # `r` ready, or `b` a beat with the unix time of the last work


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

    @classmethod
    def taken(cls) -> Place | None:
        """Return the place that a supervisor gave to this process; None if there is none."""
        text = os.environ.pop(VARIABLE, "")  # what this process starts has no such place
        return cls(*map(int, text.split())) if text else None

    def on_end(self, loop: asyncio.AbstractEventLoop, call: Callable[[], object]) -> None:
        """Call `call` when the supervisor is gone; it never says anything else."""

        def gone() -> None:
            loop.remove_reader(self._socket)
            call()

        loop.add_reader(self._socket, gone)

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
            return  # the supervisor is gone, or does not read: `on_end` sees to the former
