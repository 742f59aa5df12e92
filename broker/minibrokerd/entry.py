"""The way into the broker: what stands between a socket and a connection, and the files that it goes by.

These files may change while the server runs: they are looked at twice a second, and at once after SIGHUP. What
they say then holds for those who come; a file that cannot be used is told, and what was read before stays.
"""

from __future__ import annotations

import asyncio
from typing import Final

from minibrokerd.connections import Connections
from minibrokerd.logs import OwnText, events
from minibrokerd.tls import SealedTransport, Tls, TlsRefused, Turns

LOOK_S: Final = 0.5


class Entry:
    """Makes the protocols of new sockets; `start` begins to look at the files."""

    def __init__(
        self, connections: Connections, loop: asyncio.AbstractEventLoop, tls: Tls | None
    ) -> None:
        self._connections = connections
        self._loop = loop
        self._tls = tls
        self._turns = Turns(loop)

    def start(self) -> None:
        """Look at the files from now on."""
        if self._tls is None:
            return
        if self._tls.is_key_open:
            events.warning("key_is_open", text=KEY_IS_OPEN)
        self._loop.call_later(LOOK_S, self._look_again)

    def protocol(self) -> asyncio.Protocol:
        """Return the protocol of a new socket."""
        connection = self._connections.make()
        if self._tls is None:
            return connection
        return SealedTransport(connection, self._tls, self._turns)

    def hang_up(self) -> None:
        """Read all files again, whether they look as before or not: SIGHUP."""
        if self._tls is not None:
            self._load()

    def _look_again(self) -> None:
        if self._tls is not None and self._tls.has_changed():
            self._load()
        self._loop.call_later(LOOK_S, self._look_again)

    def _load(self) -> None:
        assert self._tls is not None, "there is something to load"
        try:
            self._tls.load()
        except TlsRefused as error:
            events.error("certificates_refused", text=OwnText(error))
        else:
            events.info("certificates_loaded")


KEY_IS_OPEN: Final = OwnText(
    "everybody on this machine may read the key of --tls-key; chmod 600, if its place allows it"
)
