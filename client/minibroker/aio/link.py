"""One TCP connection to the server: bytes to the driver, bytes from it. Knows no protocol."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import cast


class Link(asyncio.Protocol):
    """The protocol of one socket. `welcomed` is done after login, `is_ended` says that the connection ended."""

    def __init__(self, received: Callable[[Link, bytes], None]) -> None:
        loop = asyncio.get_running_loop()
        self._received = received
        self._transport: asyncio.Transport | None = None
        self.welcomed: asyncio.Future[None] = loop.create_future()
        self.is_ended = False
        self.error: BaseException | None = None
        self.on_end: Callable[[Link, str], object] | None = None  # called at once, with the reason

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport; asyncio.Protocol."""
        # A cast, as uvloop's transports do not inherit from asyncio's.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Pass the bytes on; asyncio.Protocol."""
        if not self.is_ended:
            self._received(self, data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Note the end; asyncio.Protocol."""
        self.fail(exc or ConnectionResetError("the server closed the connection"))

    def write(self, frames: Sequence[bytes]) -> None:
        """Write frames; the window bounds what may pile up here."""
        if self._transport is None or self._transport.is_closing():
            return
        if len(frames) == 1:
            self._transport.write(frames[0])
        else:
            self._transport.writelines(frames)

    def fail(self, error: BaseException) -> None:
        """End the connection because of `error`; only the first one counts."""
        if self.is_ended:
            return
        self.error = error
        self.is_ended = True
        if self.on_end is not None:
            self.on_end(self, str(error) or type(error).__name__)
        if not self.welcomed.done():
            self.welcomed.set_exception(error)
            self.welcomed.exception()  # it may be that nobody awaits it any more
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """End the connection after what was written is sent."""
        if self._transport is not None:
            self._transport.close()
