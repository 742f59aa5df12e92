"""TLS of the server: its files, and the layer between a socket and its connection.

A connection takes and writes plain frames; the layer seals them. It is the protocol of the socket's transport, and
the transport of the connection. All that is written is sealed and given to the socket at once, so what waits there
is what was given: every limit of a connection counts it (measured with the TLS of uvloop 0.23: 9 MB went to a peer
that did not read before its buffer showed anything).

Handshakes take turns (turns.py): a crowd that connects at once must not hold up those who are there.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol, cast

from minibroker.shell.tunnel import Tunnel
from minibrokerd.net.turns import HANDSHAKE, Turns

FIRST_BYTE: Final = 0x16  # how every TLS connection starts
# Of what a peer may send before it is done; certificates are small.
MAX_HANDSHAKE_BYTES: Final = 128 * 1024

_Signature = tuple[tuple[int, int, int], ...]


class TlsFiles(NamedTuple):
    """PEM files of a server; the key may stand in that of the certificate, `client_ca` signs those of clients."""

    cert: Path
    key: Path | None = None
    client_ca: Path | None = None


class TlsRefused(Exception):
    """The files cannot be used; the text says which, and why."""


class Tls:
    """The context for new connections, and one that asks no certificate of them; open ones keep theirs.

    Raises:
        TlsRefused: from the constructor and `load`.
    """

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._seen: _Signature = ()
        self.context, self.context_for_anybody = self._make()

    @property
    def asks_clients(self) -> bool:
        """Whether clients must have a certificate."""
        return self._files.client_ca is not None

    @property
    def is_key_open(self) -> bool:
        """Whether everybody on this machine may read the key."""
        return bool((self._files.key or self._files.cert).stat().st_mode & 0o004)

    def load(self) -> None:
        """Read the files again; if that fails, what was read before stays."""
        self.context, self.context_for_anybody = self._make()

    def has_changed(self) -> bool:
        """Whether the files are others than those that were read, or tried, last."""
        return self._look() != self._seen

    def _make(self) -> tuple[ssl.SSLContext, ssl.SSLContext]:
        self._seen = self._look()
        context = for_anybody = self._make_for_anybody()
        client_ca = self._files.client_ca
        if client_ca is not None:
            context = self._make_for_anybody()
            context.verify_mode = ssl.CERT_REQUIRED
            try:
                context.load_verify_locations(cafile=client_ca)
            except (OSError, ssl.SSLError) as error:
                raise TlsRefused(f"--tls-client-ca {client_ca}: {_reason(error)}") from error
        return context, for_anybody

    def _make_for_anybody(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # No resumption: each login shows a certificate that is trusted now, and handshakes send nothing later.
        context.num_tickets = 0
        context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
        files = self._files
        try:
            context.load_cert_chain(files.cert, files.key, password=_no_password)
        except (OSError, ssl.SSLError, ValueError) as error:
            named = f"--tls-cert {files.cert}" + (f", --tls-key {files.key}" if files.key else "")
            raise TlsRefused(f"{named}: {_reason(error)}") from error
        return context

    def _look(self) -> _Signature:
        return tuple(_signature(path) for path in self._files if path is not None)


def _signature(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError:
        return 0, 0, 0
    return found.st_ino, found.st_mtime_ns, found.st_size


def _no_password() -> str:
    raise ValueError("the key is encrypted, and there is nobody to ask for its password")


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        known = {"KEY_VALUES_MISMATCH": "the key is not that of the certificate"}
        return known.get(error.reason or "", f"no PEM file of that kind ({error.reason or error})")
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


class Connection(Protocol):
    """The connection above the layer; its part of asyncio.Protocol, and what only TLS has to say."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""

    def data_received(self, data: bytes) -> None:
        """Take plain bytes."""

    def eof_received(self) -> bool | None:
        """Note that the peer has ended its side; true: the connection closes by itself, later."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Note the end."""

    def pause_writing(self) -> None:
        """Note that the peer does not read."""

    def resume_writing(self) -> None:
        """Note that it reads again."""

    def refuse_plain(self, transport: asyncio.Transport, first: bytes) -> None:
        """Answer a peer that does not speak TLS, in the clear."""

    def tls_failed(self, text: str) -> None:
        """Note why the connection ends."""


class SealedTransport(asyncio.Protocol):
    """The layer of one connection."""

    def __init__(self, connection: Connection, context: ssl.SSLContext, turns: Turns) -> None:
        self._connection = connection
        self._context = context
        self._turns = turns
        self._tunnel: Tunnel | None = None  # from the first bytes of a handshake on
        self._arrived = b""  # of the handshake, until its turn
        self._arrived_bytes = 0  # in all, before it was done
        self._transport: Any = None  # of the socket
        self._waits = self._is_plain = self._is_ended = False

    @property
    def is_open(self) -> bool:
        """Whether the handshake is done."""
        return self._tunnel is not None and self._tunnel.is_open

    @property
    def peer_name(self) -> str:
        """The common name in the certificate of the client; empty: it has none."""
        return self._tunnel.peer_name() if self._tunnel is not None else ""

    # -- the protocol of the socket ---------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._connection.connection_made(cast(asyncio.Transport, self))

    def data_received(self, data: bytes) -> None:
        if self._is_plain:
            self._connection.data_received(data)
        elif self._is_ended:
            return
        elif self._tunnel is not None and self._tunnel.is_open:
            self._step(data)
        else:
            self._greeted(data)

    def eof_received(self) -> bool | None:
        return self._connection.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_ended = True
        self._connection.connection_lost(exc)

    def pause_writing(self) -> None:
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        self._connection.resume_writing()

    # -- the handshake ------------------------------------------------------------------------------

    def _greeted(self, data: bytes) -> None:
        if not self._arrived_bytes and data[0] != FIRST_BYTE:
            self._is_plain = True
            self._connection.refuse_plain(self._transport, data)
            return
        self._arrived += data
        self._arrived_bytes += len(data)
        if self._arrived_bytes > MAX_HANDSHAKE_BYTES:
            self._fail(f"a handshake of more than {MAX_HANDSHAKE_BYTES} bytes")
        elif not self._waits:
            self._waits = True
            self._turns.take(self._shake, HANDSHAKE)

    def _shake(self) -> None:
        self._waits = False
        if self._is_ended or self._transport.is_closing():
            return
        if self._tunnel is None:
            self._tunnel = Tunnel(self._context, server_side=True)
        arrived, self._arrived = self._arrived, b""
        self._step(arrived)

    def _step(self, sealed: bytes) -> None:
        tunnel = self._tunnel
        assert tunnel is not None, "made by the first bytes"
        try:
            plain = tunnel.received(sealed)
        except ssl.SSLError as error:
            self._send(tunnel.take())
            self._fail(str(error.reason or error))
            return
        self._send(tunnel.take())
        if plain:
            self._connection.data_received(plain)
        if tunnel.is_over:
            self.close()

    def _fail(self, text: str) -> None:
        self._connection.tls_failed(text)
        self._is_ended = True
        self._transport.close()

    def _send(self, sealed: bytes) -> None:
        if sealed and not self._transport.is_closing():
            self._transport.write(sealed)

    # -- the transport of the connection ------------------------------------------------------------

    def set_write_buffer_limits(self, high: int) -> None:
        """Say from which size on the connection is told to pause; asyncio.Transport."""
        self._transport.set_write_buffer_limits(high=high)

    def get_write_buffer_size(self) -> int:
        """Return what the socket has not taken, in sealed bytes; asyncio.Transport."""
        return int(self._transport.get_write_buffer_size())

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what there is to know, but never the socket: what is written there must be sealed."""
        if name == "sslcontext":
            return self._context
        return default if name == "socket" else self._transport.get_extra_info(name, default)

    def pause_reading(self) -> None:
        """Take no more from the socket; asyncio.Transport."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Go on with that; asyncio.Transport."""
        self._transport.resume_reading()

    def is_closing(self) -> bool:
        """Whether it is closed; asyncio.Transport."""
        return bool(self._transport.is_closing())

    def can_write_eof(self) -> bool:
        """TLS has no half close; asyncio.Transport."""
        return False

    def write(self, data: bytes) -> None:
        """Seal and send; nothing can be said before the handshake is done."""
        if self._tunnel is not None and self._tunnel.is_open and not self._is_ended:
            self._send(self._tunnel.seal(data))

    def writelines(self, pieces: Iterable[bytes | memoryview]) -> None:
        """Seal and send, as one."""
        self.write(b"".join(pieces))

    def write_now(self, data: bytes) -> None:
        """Seal and send what the socket takes at once, if nothing waits before it; the connection ends with it."""
        if self._tunnel is None or not self._tunnel.is_open or self.get_write_buffer_size():
            return
        with suppress(OSError):
            os.write(self._transport.get_extra_info("socket").fileno(), self._tunnel.seal(data))

    def close(self) -> None:
        """End the stream in good order, behind what was written; asyncio.Transport."""
        if not self._is_ended:
            self._is_ended = True
            if self._tunnel is not None:
                self._send(self._tunnel.goodbye())
        self._transport.close()

    def abort(self) -> None:
        """End at once; asyncio.Transport."""
        self._is_ended = True
        self._transport.abort()
