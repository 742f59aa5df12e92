"""A connection with TLS without a loop: as `link.Link`, and open when the handshake is done, too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from minibroker.sync.link import READABLE, WRITABLE, Link

if TYPE_CHECKING:
    from minibroker.shell.trust import Trust


class SealedLink(Link):
    """A connection through a tunnel; OSError, LoginRefused out of any method say that it has ended."""

    def __init__(
        self, places: Sequence[tuple[Any, ...]], trust: Trust, address: tuple[str, int]
    ) -> None:
        """Begin to dial the first of these places of `address`."""
        self._trust = trust
        self._where = f"{address[0]}:{address[1]}"
        self._tunnel = trust.tunnel(address[0])
        self._shakes = False  # there is a connection, and no tunnel yet
        self._early = b""  # came behind the handshake, and was not asked for yet
        super().__init__(places)

    def awaits(self) -> int:
        """Return what to poll for."""
        if self._shakes:
            return READABLE | WRITABLE if self._unsent else READABLE
        return super().awaits()

    def proceed(self) -> bool:
        """The socket can be written, or read while the handshake goes on: return whether it was just opened."""
        if self.is_open:
            return super().proceed()
        if not self._shakes:
            if not super().proceed():
                return False
            self.is_open, self._shakes = False, True
        self._send_rest()
        self._early += self._step(self._receive())
        if self._tunnel.is_open:
            self.is_open, self._shakes = True, False
        return self.is_open

    def write(self, data: bytes) -> None:
        """Send, as much as there is room for now; the rest when `proceed` is called."""
        if data:
            self._send(self._tunnel.seal(data))

    def read(self) -> bytes:
        """Return what has come; nothing if nothing has."""
        plain, self._early = self._early, b""
        while not plain and (sealed := self._receive()):
            plain = self._step(sealed)
        if not plain and self._tunnel.is_over:
            raise ConnectionResetError("the server closed the connection")
        return plain

    def _step(self, sealed: bytes) -> bytes:
        """Give the tunnel what came, and the peer what it answers."""
        try:
            return self._tunnel.received(sealed)
        except OSError as error:
            raise self._trust.readable(error, self._where) from error
        finally:
            self._send(self._tunnel.take())
