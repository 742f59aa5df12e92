"""One connection with TLS: bytes to the driver, bytes from it, through a tunnel. Knows no protocol.

asyncio has TLS of its own; its transports go on after a close until the peer has said goodbye, too, so a program
that leaves and ends its loop is warned of each connection (measured with Python 3.11).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from minibroker.aio.link import Link

if TYPE_CHECKING:
    from minibroker.shell.trust import Trust


class SealedLink(Link):
    """A link that is usable when `opened` is done; what that fails with is for the caller to read."""

    def __init__(
        self, received: Callable[[Link, bytes], None], trust: Trust, address: tuple[str, int]
    ) -> None:
        super().__init__(received)
        self._trust = trust
        self._where = f"{address[0]}:{address[1]}"
        self._tunnel = trust.tunnel(address[0])
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the handshake; asyncio.Protocol."""
        super().connection_made(transport)
        self._step(b"")

    def data_received(self, data: bytes) -> None:
        """Open what came, and pass it on; asyncio.Protocol."""
        if not self.is_ended:
            self._step(data)

    def write(self, frames: Sequence[bytes]) -> None:
        """Seal and write frames."""
        super().write([self._tunnel.seal(frames[0] if len(frames) == 1 else b"".join(frames))])

    def fail(self, error: Exception) -> None:
        """End the connection because of `error`, and say so; only the first one counts."""
        if not self.opened.done():
            self.opened.set_exception(error)
        super().fail(error)

    def close(self) -> None:
        """End the connection after what was written is sent."""
        super().write([self._tunnel.goodbye()])
        super().close()

    def _step(self, sealed: bytes) -> None:
        try:
            plain = self._tunnel.received(sealed)
        except OSError as error:
            super().write([self._tunnel.take()])  # an alert: the server may log why
            self.fail(self._trust.readable(error, self._where))
            return
        super().write([self._tunnel.take()])
        if self._tunnel.is_open and not self.opened.done():
            self.opened.set_result(None)
        if plain:
            super().data_received(plain)
        if self._tunnel.is_over:
            self.fail(ConnectionResetError("the server closed the connection"))
