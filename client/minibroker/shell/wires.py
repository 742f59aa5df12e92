"""A blocking connection for a thread of its own: a socket of the interpreter, with TLS where that is asked for."""

from __future__ import annotations

import _socket
from typing import TYPE_CHECKING, Final

from minibroker.shell.real_threads import dial

if TYPE_CHECKING:
    from minibroker.shell.trust import Trust
    from minibroker.shell.tunnel import Tunnel

READ_BYTES: Final = 65_536


class Wire:
    """One connection to the server; OSError out of any method says that it has ended."""

    def __init__(self, sock: _socket.socket) -> None:
        self._socket = sock

    def fileno(self) -> int:
        """Return the descriptor, to be polled."""
        return self._socket.fileno()

    def settimeout(self, seconds: float) -> None:
        """Bound what `send` and `receive` may take."""
        self._socket.settimeout(seconds)

    def send(self, data: bytes) -> None:
        """Send all of it."""
        self._socket.sendall(data)

    def receive(self) -> bytes:
        """Return what comes next: nothing, if it is not for the application."""
        data = self._socket.recv(READ_BYTES)
        if not data:
            raise ConnectionResetError("the server closed the connection")
        return data

    def close(self) -> None:
        """End it."""
        self._socket.close()


class SealedWire(Wire):
    """A connection through a tunnel."""

    def __init__(self, sock: _socket.socket, tunnel: Tunnel) -> None:
        """Shake hands; OSError, LoginRefused if that fails."""
        super().__init__(sock)
        self._tunnel = tunnel
        self._early = b""
        tunnel.shake()
        super().send(tunnel.take())
        while not tunnel.is_open:
            self._early = self._step()

    def send(self, data: bytes) -> None:
        """Send all of it."""
        super().send(self._tunnel.seal(data))

    def receive(self) -> bytes:
        """Return what comes next: nothing, if it is not for the application."""
        early, self._early = self._early, b""
        return early or self._step()

    def _step(self) -> bytes:
        sealed = super().receive()
        try:
            plain = self._tunnel.received(sealed)
        finally:
            super().send(self._tunnel.take())
        if self._tunnel.is_over:
            raise ConnectionResetError("the server closed the connection")
        return plain


def connected(address: tuple[str, int], trust: Trust | None, timeout_s: float) -> Wire:
    """Return a connection to `address`; no step of making it takes longer than `timeout_s`.

    Raises:
        OSError: there is none.
        LoginRefused: the certificate of the server is not trusted.
    """
    sock = dial(address, timeout_s)
    if trust is None:
        return Wire(sock)
    try:
        return SealedWire(sock, trust.tunnel(address[0]))
    except BaseException as error:
        sock.close()
        if isinstance(error, OSError):
            raise trust.readable(error, f"{address[0]}:{address[1]}") from error
        raise
