"""What `--log nats://...` says: the servers of NATS, the stream, and who asks.

nats://10.0.0.1,10.0.0.2:4223,10.0.0.3/orders
nats://user:password@10.0.0.1/orders?replicas=1
nats://a.nats,b.nats,c.nats/orders?beside=a
tls://10.0.0.1,10.0.0.2,10.0.0.3/orders?ca=/etc/minibroker/ca.pem&creds=/etc/minibroker/orders.creds

Whoever may list processes reads a command line, so what is secret has a file each; an address with a password
in it belongs into the environment, or into the file of `--config`.
"""

from __future__ import annotations

import random
import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl, unquote

from minibroker.session.address import Secret

SCHEME: Final = "nats"
TLS_SCHEME: Final = "tls"
DEFAULT_PORT: Final = 4222
DEFAULT_REPLICAS: Final = 3
MOST_REPLICAS: Final = 5
SHAPE: Final = re.compile(r"(nats|tls)://(?:([^@/?#]*)@)?([^@/?#]+)/([^/?#]+)(?:\?([^#]*))?")
PLACE: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]+)(?::([0-9]{1,5}))?")
NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,60}")  # in a subject, and in a directory of the server
EXAMPLE: Final = "nats://10.0.0.1,10.0.0.2,10.0.0.3/orders"
# Options that name a file, and what stands in it.
FILES: Final = {
    "ca": "the CAs that may have signed the certificate of a server, as PEM",
    "cert": "the certificate of this broker, as PEM, for servers that verify it",
    "key": "its key, as PEM; left out: it stands in the file of the certificate",
    "creds": "a JWT and its seed, as `nsc` writes them",
    "nkey": "the seed of an nkey",
    "password_file": "the password of the user in the address",
    "token_file": "a token",
}
OPTIONS: Final = ("replicas", "beside", *FILES)


@dataclass(frozen=True, slots=True)
class StreamAddress:
    """Servers as host:port, the name of the stream, and how many servers should have each entry.

    `beside` is the `server_name` of the one that is on the machine of the broker; empty: it is found out.
    `files` are paths by the names of `FILES`. `tls`: nothing is said to a server that does not encrypt.
    """

    servers: tuple[str, ...]
    stream: str
    replicas: int = DEFAULT_REPLICAS
    user: str = ""
    password: Secret = field(default=Secret(""))
    token: Secret = field(default=Secret(""))
    tls: bool = False
    files: Mapping[str, str] = field(default_factory=dict)
    beside: str = ""

    def __str__(self) -> str:
        """Return it without who asks."""
        return f"{self.scheme}://{','.join(self.servers)}/{self.stream}"

    @property
    def scheme(self) -> str:
        """What its servers are called by."""
        return TLS_SCHEME if self.tls else SCHEME

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

    @property
    def inbox(self) -> str:
        """What the inboxes of brokers and of `minibroker cluster` begin with, and nobody else's."""
        return f"_INBOX.minibroker.{self.stream}"

    @property
    def asked_subject(self) -> str:
        """Where operators ask brokers; nothing of it is stored."""
        return f"minibroker.{self.stream}.asked"


def parse(text: str) -> StreamAddress:
    """Return what an address says.

    Raises:
        ValueError: it is none; the text says what is expected, and nothing of a password.
    """
    shape = SHAPE.fullmatch(text)
    if shape is None:
        raise ValueError(f"expected the servers and the stream of the log, as {EXAMPLE}")
    scheme, login, places, stream, query = shape.groups()
    if not NAME.fullmatch(stream):
        raise ValueError(
            f"{stream!r} is no name of a stream: at most 60 letters, digits, - and _ are expected"
        )
    user, colon, password = (login or "").partition(":")
    options = _options(query or "")
    files = {name: path for name, path in options.items() if name in FILES}
    token = "" if colon or "password_file" in files else user  # as NATS has it: TOKEN@host
    _look_at(files, user="" if token else user, password=password, token=token)
    return StreamAddress(
        tuple(_place(place) for place in places.split(",")),
        stream,
        _replicas(options.get("replicas", str(DEFAULT_REPLICAS))),
        "" if token else unquote(user),
        Secret(unquote(password)),
        Secret(unquote(token)),
        scheme == TLS_SCHEME or bool({"ca", "cert", "key"} & files.keys()),
        files,
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


def _options(query: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in OPTIONS:
            raise ValueError(f"unknown option {name!r}: there are {', '.join(OPTIONS)}")
        if name in options:
            raise ValueError(f"{name} is given twice")
        if name in FILES and not value:
            raise ValueError(f"{name} names no file")
        options[name] = value
    return options


def _look_at(files: Mapping[str, str], *, user: str, password: str, token: str) -> None:
    """Raise ValueError if the address says twice who asks, or half of it."""
    ways = {"a user": user, "a token": token}
    ways |= {name: files.get(name, "") for name in ("token_file", "creds", "nkey")}
    given = [way for way, value in ways.items() if value]
    if len(given) > 1:
        raise ValueError(f"{' and '.join(given)}: expected one way to say who asks")
    if "password_file" in files and (password or not user):
        raise ValueError("password_file belongs to a user without a password: user@host")
    if "key" in files and "cert" not in files:
        raise ValueError("key belongs to a certificate: cert")


def _place(text: str) -> str:
    place = PLACE.fullmatch(text)
    if place is None or int(place[2] or DEFAULT_PORT) > 65_535:
        raise ValueError(f"{text!r} is no address of a server: expected host, or host:port")
    return f"{place[1]}:{place[2] or DEFAULT_PORT}"


def _replicas(value: str) -> int:
    if not (value.isascii() and value.isdecimal() and 1 <= int(value) <= MOST_REPLICAS):
        raise ValueError(f"replicas={value}: expected 1 to {MOST_REPLICAS}")
    return int(value)
