"""What `serve` was asked for of the HTTP port, and its sockets. Imports neither uvicorn nor Starlette."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from typing import Final

from minibrokerd.net import listening
from minibrokerd.process.logs import OwnText, events

DEFAULT_HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 7273
MOST_VISITORS: Final = 200  # connections at a time; fewer where few files may be open


@dataclass(frozen=True, slots=True)
class HttpOptions:
    """Where the port listens, and what is needed to change something there.

    `token`: whoever has it may change; empty: nobody may. `is_open`: looking needs no token, as only this machine
    reaches the address, or the network keeps strangers out. `names` are host names that the port may be called by,
    beside addresses.
    """

    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    token: str = field(default="", repr=False)
    is_open: bool = True
    names: tuple[str, ...] = ()
    tls: bool = False  # with the certificate of the port for clients


def bind(options: HttpOptions) -> list[socket.socket]:
    """Return the bound sockets of the port; none, and a warning, where it cannot be had."""
    try:
        return listening.bind(options.host, options.port, listening.HTTP_FLAGS)
    except listening.CannotListen as error:
        unavailable(str(error))
        return []


def unavailable(text: str) -> None:
    """Say that there is no page in this run of the broker."""
    events.warning("http_unavailable", text=OwnText(f"{text}; the broker itself goes on"))
