"""One TCP connection without a loop: a socket that never blocks, dialled from one address to the next."""

from __future__ import annotations

import _socket
import os
from collections.abc import Sequence
from errno import EINPROGRESS
from typing import Any, Final

READABLE: Final = 1  # POLLIN
WRITABLE: Final = 4  # POLLOUT
READ_BYTES: Final = 65_536


class Link:
    """A connection, or the attempt at one; OSError out of any method says that it has ended."""

    def __init__(self, places: Sequence[tuple[Any, ...]]) -> None:
        """Begin to dial the first of these places, as `getaddrinfo` returns them."""
        self.is_open = False
        self._places = list(places)
        self._error = OSError("the host has no address")
        self._unsent = b""
        self._socket = self._dial()

    def fileno(self) -> int:
        """Return the descriptor of the socket that is in use now."""
        return self._socket.fileno()

    def awaits(self) -> int:
        """Return what to poll for."""
        return READABLE if self.is_open and not self._unsent else READABLE | WRITABLE

    def proceed(self) -> bool:
        """The socket can be written: return whether it has just been opened."""
        if self.is_open:
            self._send_rest()
            return False
        error = self._socket.getsockopt(_socket.SOL_SOCKET, _socket.SO_ERROR)
        if error:
            self._error = OSError(error, os.strerror(error))
            self._socket.close()
            self._socket = self._dial()
            return False
        self.is_open = True
        return True

    def write(self, data: bytes) -> None:
        """Send, as much as there is room for now; the rest when `proceed` is called."""
        self._send(data)

    def read(self) -> bytes:
        """Return what has come; nothing if nothing has."""
        return self._receive()

    def close(self) -> None:
        """End it; in a forked child: this process's copy."""
        self._socket.close()

    def _send_rest(self) -> None:
        unsent, self._unsent = self._unsent, b""
        self._send(unsent)

    def _send(self, data: bytes) -> None:
        if self._unsent or not data:
            self._unsent += data
            return
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            self._unsent = data[sent:]

    def _receive(self) -> bytes:
        try:
            data = self._socket.recv(READ_BYTES)
        except BlockingIOError:
            return b""
        if not data:
            raise ConnectionResetError("the server closed the connection")
        return data

    def _dial(self) -> _socket.socket:
        while self._places:
            family, kind, protocol, _, place = self._places.pop(0)
            sock = _socket.socket(family, kind, protocol)
            sock.setblocking(False)
            sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
            error = sock.connect_ex(place)
            if error in (0, EINPROGRESS):
                return sock
            sock.close()
            self._error = OSError(error, os.strerror(error))
        raise self._error
