"""What a connection needs of the broker that it belongs to: a server, a broker in process, one of a simulation."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from minibrokerd.access.door import Door
from minibrokerd.engine.engine import Engine
from minibrokerd.net.turns import Turns
from minibrokerd.net.unfinished import Unfinished

if TYPE_CHECKING:
    from minibrokerd.net.connection import ServerConnection


class Broker(Protocol):
    """All that connections of one broker share."""

    engine: Engine
    loop: asyncio.AbstractEventLoop
    session_key: bytes
    unfinished: Unfinished
    turns: Turns
    door: Door
    stopping: bool  # nothing is taken any more

    def has_room_for(self, connection: ServerConnection) -> bool:
        """Whether a new connection may stay; another one may have to go for it."""
        ...

    def entered(self, connection: ServerConnection) -> None:
        """Note that a connection has logged in."""
        ...

    def gone(self, connection: ServerConnection) -> None:
        """Forget a connection that has ended."""
        ...

    def refused(self, connection: ServerConnection, code: str, text: str, speaks: str = "") -> None:
        """Note that a peer was told that it may not go on."""
        ...

    def ended(self, connection: ServerConnection, why: str) -> None:
        """Note that a connection was cut off."""
        ...
