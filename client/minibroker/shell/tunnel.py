"""TLS as a value that is stepped: sealed bytes in, plain bytes out, and the other way round. Knows no socket.

OpenSSL does the work, on buffers in memory. So whoever has the socket knows how many bytes he gave to it, may
answer what is not TLS at all, and needs no event loop: server, blocking clients, the thread that renews leases.
"""

from __future__ import annotations

import ssl
from typing import Final

RECORD_BYTES: Final = 16 * 1024  # of plain text, at most; one read returns no more


class Tunnel:
    """One end of a connection. What is to be sent because of a step is returned by `take`.

    All steps raise `ssl.SSLError` when the stream cannot go on; an alert for the peer may still be in `take`.
    """

    def __init__(
        self, context: ssl.SSLContext, *, server_side: bool = False, server_name: str | None = None
    ) -> None:
        """`server_name` is what the certificate of the server must be for; it is for clients."""
        self._sealed_in, self._sealed_out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._sealed_in, self._sealed_out, server_side=server_side, server_hostname=server_name
        )
        self.is_open = False  # the handshake is done: plain bytes may be sealed
        self.is_over = False  # the peer has said that nothing more comes

    def shake(self) -> None:
        """Go on with the handshake, as far as what came allows."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return
        self.is_open = True

    def received(self, sealed: bytes) -> bytes:
        """Take sealed bytes; return the plain ones, none while the handshake goes on."""
        self._sealed_in.write(sealed)
        if not self.is_open:
            self.shake()
            if not self.is_open:
                return b""
        return self._opened()

    def seal(self, plain: bytes) -> bytes:
        """Return plain bytes as they are to be sent, behind what was to be sent before."""
        sent = self._tls.write(plain)
        while sent < len(plain):
            sent += self._tls.write(plain[sent:])
        return self._sealed_out.read()

    def take(self) -> bytes:
        """Return what is to be sent."""
        return self._sealed_out.read() if self._sealed_out.pending else b""

    def goodbye(self) -> bytes:
        """Return what ends the stream in good order; nothing is sealed after it."""
        if self.is_open:
            try:
                self._tls.unwrap()
            except ssl.SSLError:  # the peer has not ended its side yet, or the stream is broken
                return self.take()
        return self.take()

    def peer_name(self) -> str:
        """Return the common name in the certificate of the peer; empty if it has none."""
        subject = (self._tls.getpeercert() or {}).get("subject", ())
        names = [pair[1] for part in subject for pair in part if pair[0] == "commonName"]
        return str(names[-1]) if names else ""

    def _opened(self) -> bytes:
        tls, sealed_in, pieces = self._tls, self._sealed_in, []
        try:
            # Asking first saves an exception in most cases: a read ends with a whole record.
            while sealed_in.pending or tls.pending():
                piece = tls.read(RECORD_BYTES)
                if not piece:
                    self.is_over = True
                    break
                pieces.append(piece)
        except ssl.SSLWantReadError:
            return b"".join(pieces)
        except ssl.SSLZeroReturnError:
            self.is_over = True
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)
