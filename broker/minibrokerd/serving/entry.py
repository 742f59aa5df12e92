"""The way into the broker: what stands between a socket and a connection, and the files that it goes by.

These files may change while the server runs: they are looked at twice a second, and at once after SIGHUP. What
they say then holds: certificates for those who come, tokens for those who are there as well. A file that cannot be
used is told, and what was read before stays; so nobody gets in because a file is gone.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Final

from minibrokerd.access import token_file
from minibrokerd.access.tokens import BadTokens, Row
from minibrokerd.net.connections import Connections
from minibrokerd.net.tls import SealedTransport, Tls, TlsRefused
from minibrokerd.process.logs import OwnText, events

LOOK_S: Final = 0.5
KEY_IS_OPEN: Final = OwnText(
    "everybody on this machine may read the key of --tls-key; chmod 600, if its place allows it"
)
UNENCRYPTED: Final = OwnText(
    "other machines reach this port, and whoever listens between them reads tokens and messages: give --tls-cert, "
    "or see to it that the network itself is private"
)
GONE: Final = "it is gone; what was read before stays until the server is started again"
REVOKED: Final = "the token of this connection was revoked, or has expired"
NEEDED: Final = "from now on this server asks for a token, and this connection came without one"


class Entry:
    """Makes the protocols of new sockets; `start` begins to look at the files."""

    def __init__(
        self,
        connections: Connections,
        loop: asyncio.AbstractEventLoop,
        tls: Tls | None,
        directory: Path,
    ) -> None:
        """`directory` has the file of tokens."""
        self._connections = connections
        self._door = connections.door
        self._loop = loop
        self._tls = tls
        self._directory = directory
        self._signature: token_file.Signature = None
        self._expires_s: float | None = None  # the next token does, in Unix time

    @property
    def asks_for_tokens(self) -> bool:
        """Whether nobody logs in without a token."""
        return not self._door.is_open

    def read_tokens(self) -> None:
        """Read the file of tokens, before anybody can come.

        Raises:
            BadTokens: it cannot be used.
        """
        self._signature = token_file.signature(self._directory)
        self._set(token_file.read(self._directory))

    def look_at_tokens(self) -> None:
        """Read the tokens again if they have changed; where they cannot be used, what was read before stays."""
        if token_file.signature(self._directory) != self._signature:
            self._load_tokens()

    def start(self, *, is_local: bool) -> None:
        """Look at the files from now on; `is_local`: only this machine reaches the port."""
        if self._tls is not None and self._tls.is_key_open:
            events.warning("key_is_open", text=KEY_IS_OPEN)
        if self._tls is None and not is_local:
            events.warning("unencrypted", text=UNENCRYPTED)
        self._loop.call_later(LOOK_S, self._look_again)

    def protocol(self) -> asyncio.Protocol:
        """Return the protocol of a new socket."""
        connection = self._connections.make()
        if self._tls is None:
            return connection
        return SealedTransport(connection, self._tls.context, self._connections.turns)

    def hang_up(self) -> None:
        """Read all files again, whether they look as before or not: SIGHUP."""
        self._load_certificates()
        self._load_tokens()

    def _look_again(self) -> None:
        if self._tls is not None and self._tls.has_changed():
            self._load_certificates()
        self.look_at_tokens()
        if self._expires_s is not None and time.time() >= self._expires_s:
            self._cut_off()
        if self._door.quotas.look(self._connections.engine.core.store.queues.values()):
            self._loop.call_soon(self._step_quotas)
        self._loop.call_later(LOOK_S, self._look_again)

    def _step_quotas(self) -> None:
        if self._door.quotas.step():
            self._loop.call_soon(self._step_quotas)

    def _load_certificates(self) -> None:
        if self._tls is None:
            return
        try:
            self._tls.load()
        except TlsRefused as error:
            events.error("certificates_refused", text=OwnText(error))
        else:
            events.info("certificates_loaded")

    def _load_tokens(self) -> None:
        before, self._signature = self._signature, token_file.signature(self._directory)
        if before is None and self._signature is None:
            return  # there never were any
        try:
            rows = token_file.read(self._directory)
            if rows is None:
                raise BadTokens(GONE)
        except BadTokens as error:
            events.error(
                "tokens_refused", text=OwnText(f"{self._directory / token_file.NAME}: {error}")
            )
            return
        self._set(rows)
        events.info("tokens_loaded", tokens=len(rows))
        self._cut_off()

    def _set(self, rows: list[Row] | None) -> None:
        self._door.set(rows)
        self._expires_s = self._door.next_expiry(time.time())

    def _cut_off(self) -> None:
        """End the connections whose token is not valid any more."""
        now_s = time.time()
        self._expires_s = self._door.next_expiry(now_s)
        for connection in self._connections:
            if not (connection.is_inside or self._door.is_live(connection.grant, now_s)):
                connection.cut(NEEDED if connection.grant is None else REVOKED)
