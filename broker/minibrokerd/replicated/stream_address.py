"""What `--log nats://...` says: the servers of NATS, the stream, and who asks.

nats://10.0.0.1,10.0.0.2:4223,10.0.0.3/orders
nats://user:password@10.0.0.1/orders?replicas=1
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl, unquote

from minibroker.session.address import Secret

SCHEME: Final = "nats"
DEFAULT_PORT: Final = 4222
DEFAULT_REPLICAS: Final = 3
MOST_REPLICAS: Final = 5
SHAPE: Final = re.compile(r"nats://(?:([^@/?#]*)@)?([^@/?#]+)/([^/?#]+)(?:\?([^#]*))?")
PLACE: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]+)(?::([0-9]{1,5}))?")
NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,60}")  # in a subject, and in a directory of the server
EXAMPLE: Final = "nats://10.0.0.1,10.0.0.2,10.0.0.3/orders"


@dataclass(frozen=True, slots=True)
class StreamAddress:
    """Servers as host:port, the name of the stream, and how many servers should have each entry."""

    servers: tuple[str, ...]
    stream: str
    replicas: int = DEFAULT_REPLICAS
    user: str = ""
    password: Secret = field(default=Secret(""))

    def __str__(self) -> str:
        """Return it without who asks."""
        return f"{SCHEME}://{','.join(self.servers)}/{self.stream}"

    @property
    def record_subject(self) -> str:
        """Where batches are published."""
        return f"minibroker.{self.stream}.records"

    @property
    def epoch_subject(self) -> str:
        """Where epoch records are published."""
        return f"minibroker.{self.stream}.epochs"

    @property
    def alive_subject(self) -> str:
        """Where whoever leads says so; nothing of it is stored."""
        return f"minibroker.{self.stream}.alive"


def parse(text: str) -> StreamAddress:
    """Return what an address says.

    Raises:
        ValueError: it is none; the text says what is expected, and nothing of a password.
    """
    shape = SHAPE.fullmatch(text)
    if shape is None:
        raise ValueError(f"expected the servers and the stream of the log, as {EXAMPLE}")
    login, places, stream, options = shape.groups()
    if not NAME.fullmatch(stream):
        raise ValueError(
            f"{stream!r} is no name of a stream: at most 60 letters, digits, - and _ are expected"
        )
    user, _, password = (login or "").partition(":")
    return StreamAddress(
        tuple(_place(place) for place in places.split(",")),
        stream,
        _replicas(options or ""),
        unquote(user),
        Secret(unquote(password)),
    )


def _place(text: str) -> str:
    place = PLACE.fullmatch(text)
    if place is None or int(place[2] or DEFAULT_PORT) > 65_535:
        raise ValueError(f"{text!r} is no address of a server: expected host, or host:port")
    return f"{place[1]}:{place[2] or DEFAULT_PORT}"


def _replicas(options: str) -> int:
    replicas = DEFAULT_REPLICAS
    for name, value in parse_qsl(options, keep_blank_values=True):
        if name != "replicas":
            raise ValueError(f"unknown option {name!r}: there is replicas")
        if not (value.isascii() and value.isdecimal() and 1 <= int(value) <= MOST_REPLICAS):
            raise ValueError(f"replicas={value}: expected 1 to {MOST_REPLICAS}")
        replicas = int(value)
    return replicas
