"""One TCP connection to the server: bytes to the driver, bytes from it. Knows no protocol."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import cast


class Link(asyncio.Protocol):
    """The protocol of one socket; `is_ended` says that the connection ended."""

    def __init__(self, received: Callable[[Link, bytes], None]) -> None:
        self._received = received
        self._transport: asyncio.Transport | None = None
        self.is_ended = False
        self.on_end: Callable[[Link, Exception], object] | None = None  # called at once

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

    def fail(self, error: Exception) -> None:
        """End the connection because of `error`, and say so; only the first one counts."""
        if self.is_ended:
            return
        self.abort()
        if self.on_end is not None:
            self.on_end(self, error)

    def abort(self) -> None:
        """End the connection now, without a word."""
        self.is_ended = True
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """End the connection after what was written is sent."""
        if self._transport is not None:
            self._transport.close()
