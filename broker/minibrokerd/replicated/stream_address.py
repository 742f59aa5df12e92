"""What `--log nats://...` says: the servers of NATS, the stream, and who asks.

nats://10.0.0.1,10.0.0.2:4223,10.0.0.3/orders
nats://user:password@10.0.0.1/orders?replicas=1
nats://a.nats,b.nats,c.nats/orders?beside=a
"""

from __future__ import annotations

import random
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl, unquote

from minibroker.session.address import Secret

SCHEME: Final = "nats"
DEFAULT_PORT: Final = 4222
DEFAULT_REPLICAS: Final = 3
MOST_REPLICAS: Final = 5
OPTIONS: Final = frozenset({"replicas", "beside"})
SHAPE: Final = re.compile(r"nats://(?:([^@/?#]*)@)?([^@/?#]+)/([^/?#]+)(?:\?([^#]*))?")
PLACE: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]+)(?::([0-9]{1,5}))?")
NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,60}")  # in a subject, and in a directory of the server
EXAMPLE: Final = "nats://10.0.0.1,10.0.0.2,10.0.0.3/orders"


@dataclass(frozen=True, slots=True)
class StreamAddress:
    """Servers as host:port, the name of the stream, and how many servers should have each entry.

    `beside` is the `server_name` of the one that is on the machine of the broker; empty: it is found out.
    """

    servers: tuple[str, ...]
    stream: str
    replicas: int = DEFAULT_REPLICAS
    user: str = ""
    password: Secret = field(default=Secret(""))
    beside: str = ""

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
    login, places, stream, said = shape.groups()
    if not NAME.fullmatch(stream):
        raise ValueError(
            f"{stream!r} is no name of a stream: at most 60 letters, digits, - and _ are expected"
        )
    options = _options(said or "")
    user, _, password = (login or "").partition(":")
    return StreamAddress(
        tuple(_place(place) for place in places.split(",")),
        stream,
        _replicas(options.get("replicas", str(DEFAULT_REPLICAS))),
        unquote(user),
        Secret(unquote(password)),
        options.get("beside", ""),
    )


def here_and_elsewhere(servers: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return which of these servers are on this machine, and which are not, in any order; blocks."""
    some = random.sample(servers, len(servers))
    here = [place for place in some if _is_here(place)]
    return here, [place for place in some if place not in here]


def _is_here(place: str) -> bool:
    """Whether the way there would begin at the address at which it ends; nothing is sent."""
    host, _, port = place.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_DGRAM)
        for family, kind, _, _, address in found:
            with socket.socket(family, kind) as sock:
                sock.connect(address)
                if sock.getsockname()[0] == address[0]:
                    return True
    except OSError:
        pass
    return False


def _place(text: str) -> str:
    place = PLACE.fullmatch(text)
    if place is None or int(place[2] or DEFAULT_PORT) > 65_535:
        raise ValueError(f"{text!r} is no address of a server: expected host, or host:port")
    return f"{place[1]}:{place[2] or DEFAULT_PORT}"


def _options(text: str) -> dict[str, str]:
    said = dict(parse_qsl(text, keep_blank_values=True))
    for name in said.keys() - OPTIONS:
        raise ValueError(f"unknown option {name!r}: there are {' and '.join(sorted(OPTIONS))}")
    return said


def _replicas(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= MOST_REPLICAS):
        raise ValueError(f"replicas={text}: expected 1 to {MOST_REPLICAS}")
    return int(text)
