"""The port of a broker that stands by: whoever logs in is told that it does not lead, and who does.

There is no engine behind it, and nothing is read of a login but its length: one answer, and the connection ends.
When the broker takes over it lets go of the sockets, which stay open: who comes between then and the first turn of
the broker waits in the kernel, and has its welcome first.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final, cast

from minibroker.contract import limits
from minibroker.contract.wire import LENGTH
from minibrokerd.core.core import error_header
from minibrokerd.net import listening
from minibrokerd.net.connection import ONLY_TLS
from minibrokerd.net.frames import ARRAY_OF_4
from minibrokerd.net.outgoing import frame_of
from minibrokerd.net.strangers import FIRST_BYTES, recognise
from minibrokerd.net.tls import SealedTransport, Tls
from minibrokerd.net.turns import Turns

MOST: Final = 256  # callers at once; the oldest goes for one more
LINGER_S: Final = 0.5  # for a caller to take its answer


class Referrer:
    """Listens from `open` to `close`; `active()` is the host:port of the broker that leads, "" if nobody knows."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, tls: Tls | None, active: Callable[[], str]
    ) -> None:
        self.loop = loop
        self.turns = Turns(loop)
        self._tls = tls
        self._active = active
        self._servers: list[asyncio.Server] = []
        self._callers: dict[Caller, None] = {}  # the oldest first

    async def open(self, sockets: list[socket.socket]) -> None:
        """Let clients come to bound sockets, which stay those of whoever gave them; OSError."""
        copies = [sock.dup() for sock in sockets]
        self._servers = await listening.listen(copies, self._protocol, self.loop)

    def close(self) -> None:
        """Answer nobody any more."""
        for server in self._servers:
            server.close()
        for caller in list(self._callers):
            caller.leave()

    def answer(self) -> bytes:
        """Return the frame with which a connection ends."""
        active = self._active()
        where = f"the one at {active} does" if active else "it does not know who does"
        text = f"this broker stands by and does not lead; {where}"
        header = error_header("not_leading", text, None, None)
        header |= {"retryable": True, **({"leader": active} if active else {})}
        return b"".join(frame_of(header, b"", ()))

    def came(self, caller: Caller) -> None:
        """Note one more caller."""
        self._callers[caller] = None
        if len(self._callers) > MOST:
            next(iter(self._callers)).leave()

    def gone(self, caller: Caller) -> None:
        """Forget one."""
        self._callers.pop(caller, None)

    def _protocol(self) -> asyncio.Protocol:
        caller = Caller(self)
        if self._tls is None:
            return caller
        return SealedTransport(caller, self._tls.context, self.turns)


@asynccontextmanager
async def referring(
    sockets: list[socket.socket],
    loop: asyncio.AbstractEventLoop,
    tls: Tls | None,
    active: Callable[[], str],
) -> AsyncIterator[None]:
    """Answer whoever comes to bound sockets while the block runs; CannotListen if another program was faster."""
    referrer = Referrer(loop, tls, active)
    try:
        await referrer.open(sockets)
    except OSError as error:
        host, port = sockets[0].getsockname()[:2]
        raise listening.cannot_listen(host, port, error) from error
    try:
        yield
    finally:
        referrer.close()


class Caller(asyncio.Protocol):
    """One connection; tls.Connection."""

    def __init__(self, referrer: Referrer) -> None:
        self._referrer = referrer
        self._transport: asyncio.Transport | None = None
        self._first = b""
        self._is_heard = False
        self._late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for what it says; asyncio.Protocol."""
        self._transport = cast(asyncio.Transport, transport)
        self._referrer.came(self)
        self._late = self._referrer.loop.call_later(limits.LOGIN_DEADLINE_MS / 1_000, self.leave)

    def data_received(self, data: bytes) -> None:
        """Answer when one frame is there; asyncio.Protocol."""
        if self._is_heard:
            return
        self._first += data
        if _is_whole(self._first):
            self._hear(self._first)

    def eof_received(self) -> bool:
        """Nothing more comes: close; asyncio.Protocol."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Be forgotten; asyncio.Protocol."""
        self._referrer.gone(self)
        if self._late is not None:
            self._late.cancel()

    def refuse_plain(self, transport: asyncio.Transport, first: bytes) -> None:
        """Answer a peer that does not speak TLS, in the clear; tls.Connection."""
        self._transport = transport
        header = error_header("login_refused", ONLY_TLS, None, None)
        self._hear(first, b"".join(frame_of(header, b"", ())))

    def tls_failed(self, text: str) -> None:
        """Say nothing of it: the broker that leads says it of the same client; tls.Connection."""

    def leave(self) -> None:
        """End the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def _hear(self, first: bytes, answer: bytes | None = None) -> None:
        self._is_heard = True
        self._referrer.turns.take(lambda: self._answer(first[:FIRST_BYTES], answer))

    def _answer(self, first: bytes, answer: bytes | None) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        stranger = None if _is_ours(first) else recognise(first)
        if stranger is not None and stranger.answer is not None:
            answer = stranger.answer
        transport.write(self._referrer.answer() if answer is None else answer)
        if not _is_ours(first) and transport.can_write_eof():
            # Closing at once would discard the answer, if some of what was sent is not read yet.
            transport.write_eof()
            self._referrer.loop.call_later(LINGER_S, transport.close)
        else:
            transport.close()


def _is_ours(first: bytes) -> bool:
    return len(first) > LENGTH.size and first[LENGTH.size] == ARRAY_OF_4


def _is_whole(first: bytes) -> bool:
    """Return whether nothing more is to be waited for: a frame is there, or something that is none."""
    if len(first) <= LENGTH.size:
        return False
    length = int.from_bytes(first[: LENGTH.size], "big")
    if not _is_ours(first) or length > limits.MAX_LOGIN_FRAME_BYTES:
        return True
    return len(first) >= LENGTH.size + length
