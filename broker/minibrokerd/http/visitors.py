"""Connections of the HTTP port: whoever asks for nothing gives way to whoever does.

uvicorn waits without end for a head or a body that does not come, and for whoever reads no answer, and counts
those in its limit: 200 silent connections would have everybody answered with 503, health included.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import Any, Final

from uvicorn.protocols.http.h11_impl import H11Protocol

MOST_CONNECTIONS: Final = 200  # at a time


class Visitor(H11Protocol):
    """One connection. If there are too many, the oldest that is not being answered goes for a new one."""

    _waits_since_s = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, and make room for it; asyncio.Protocol."""
        super().connection_made(transport)
        self._waits_since_s = self.loop.time()
        if len(self.connections) < MOST_CONNECTIONS:
            return
        others: list[Any] = [each for each in self.connections if each is not self]
        waiting = [each for each in others if each.is_waiting]
        if waiting:
            oldest = min(waiting, key=lambda each: each._waits_since_s)
            self.connections.discard(oldest)
            oldest.transport.abort()

    def on_response_complete(self) -> None:
        """Note that a request was answered; uvicorn."""
        self._waits_since_s = self.loop.time()
        super().on_response_complete()

    @property
    def is_waiting(self) -> bool:
        """Whether it has no whole request that is to be answered."""
        cycle = self.cycle
        return cycle is None or cycle.response_complete or cycle.more_body


class Fewer(logging.Filter):
    """Of each warning, which whoever reaches the port can cause, lets the 1st, 2nd, 4th, ... through."""

    def __init__(self) -> None:
        super().__init__()
        self._counts: Counter[str] = Counter()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether this one is logged; logging.Filter."""
        if record.levelno >= logging.ERROR:
            return True
        self._counts[str(record.msg)] += 1
        count = self._counts[str(record.msg)]
        return not count & (count - 1)


FEWER: Final = Fewer()  # one, as the logger is: a process may open more than one port
