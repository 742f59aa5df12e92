"""Connections of the HTTP port: whoever asks for nothing gives way to whoever does.

uvicorn waits without end for a head or a body that does not come, and for whoever reads no answer, and counts
those in its limit: 200 silent connections would have everybody answered with 503, health included.

With TLS, too, a visitor is one from the start, not from the end of a handshake that may never come: the layer is
that of the port for clients (`net.tls`). The loop's own says nothing of those who have not shaken hands.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import Any, Final, cast

from uvicorn.protocols.http.h11_impl import H11Protocol

from minibrokerd.net.tls import SealedTransport, Tls
from minibrokerd.net.turns import Turns

HANDSHAKE_S: Final = 5.0  # as long as a login may take
ONLY_TLS: Final = b"this port speaks HTTPS: ask it with https://\n"
_REFUSAL: Final = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(ONLY_TLS), ONLY_TLS)
)


class Visitor(H11Protocol):
    """One connection. If there are too many, the oldest that is not being answered goes for a new one."""

    _waits_since_s = 0.0
    _handshake: asyncio.TimerHandle | None = None  # when it has to be done

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a connection, and make room for it; asyncio.Protocol."""
        super().connection_made(cast(asyncio.Transport, transport))
        self._waits_since_s = self.loop.time()
        if isinstance(transport, SealedTransport):
            address = transport.get_extra_info("peername")
            if address:  # without a socket uvicorn knows only those of IPv4
                self.client = address[0], address[1]
            self._handshake = self.loop.call_later(HANDSHAKE_S, self._end_handshake, transport)
        if self.limit_concurrency is None or len(self.connections) < self.limit_concurrency:
            return
        others: list[Any] = [each for each in self.connections if each is not self]
        waiting = [each for each in others if each.is_waiting]
        if waiting:
            oldest = min(waiting, key=lambda each: each._waits_since_s)
            self.connections.discard(oldest)
            oldest.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Note the end; asyncio.Protocol."""
        if self._handshake is not None:
            self._handshake.cancel()
        super().connection_lost(exc)

    def refuse_plain(self, transport: asyncio.Transport, first: bytes) -> None:
        """Answer who does not speak TLS, in the clear; tls.Connection."""
        transport.write(_REFUSAL)
        transport.close()

    def tls_failed(self, text: str) -> None:
        """Note why a handshake fails; tls.Connection."""
        self.logger.warning("TLS failed: %s", text)

    def on_response_complete(self) -> None:
        """Note that a request was answered; uvicorn."""
        self._waits_since_s = self.loop.time()
        super().on_response_complete()

    @property
    def is_waiting(self) -> bool:
        """Whether it has no whole request that is to be answered."""
        cycle = self.cycle
        return cycle is None or cycle.response_complete or cycle.more_body

    def _end_handshake(self, transport: SealedTransport) -> None:
        if not transport.is_open:
            transport.abort()


def sealed(tls: Tls, loop: asyncio.AbstractEventLoop) -> Any:
    """Return what makes a visitor with TLS, in the place of `Visitor`."""
    turns = Turns(loop)

    def make(**how: Any) -> asyncio.Protocol:
        return SealedTransport(Visitor(**how), tls.context_for_anybody, turns)

    return make


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
