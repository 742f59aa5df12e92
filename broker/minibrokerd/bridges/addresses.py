"""The urls of other brokers: which there are, what a url may say, and how one is printed without its password.

    amqp://user:password@host:5672/vhost?queue=orders
    redis://:password@host:6379/0?stream=orders&group=minibroker
    kafka://host:9092,host2:9092?topic=orders
    nats://host:4222?stream=ORDERS             nats://TOKEN@host, too

With an s at its end (amqps, rediss, kafkas, natss) the connection is TLS, with the options of minibrokers://.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Final
from urllib.parse import parse_qsl, quote, unquote

from minibroker.session.address import Secret, masked
from minibrokerd.bridges.seam import Sink, Source

TLS: Final = ("ca", "client_cert", "client_key")
SHAPE: Final = re.compile(r"([a-z]+)://(?:([^@/?#]*)@)?([^@/?#]+)(?:/([^?#]*))?(?:\?([^#]*))?")
PLACE: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]+)(?::([0-9]{1,5}))?")


@dataclass(frozen=True, slots=True)
class Peer:
    """One kind of broker: what its urls may say (options and what they mean), and which package speaks with it."""

    scheme: str
    title: str
    port: int
    module: str  # of this room
    package: str  # that is imported
    extra: str
    source: Mapping[str, str]
    sink: Mapping[str, str]
    has_tokens: bool = False  # a user without a password is one, and as secret

    @property
    def sealed(self) -> str:
        """The scheme over TLS."""
        return f"{self.scheme}s"


PEERS: Final = (
    Peer(
        "amqp", "RabbitMQ", 5672, "rabbitmq", "aio_pika", "bridge-amqp",
        {"queue": "the queue to take from"},
        {
            "queue": "the queue to put to, or",
            "exchange": "the exchange to publish to, and",
            "routing_key": "its routing key; without one that of the header amqp-routing-key",
        },
    ),
    Peer(
        "redis", "Redis Streams", 6379, "redis_streams", "redis", "bridge-redis",
        {
            "stream": "the stream to read",
            "group": "its consumer group; made, at the start of the stream, if it is not there",
            "consumer": "the name in the group",
            "body": "the field that is the body",
            "delete": "yes: entries are deleted when they are handed over",
        },
        {"stream": "the stream to add to", "body": "the field that is the body"},
    ),
    Peer(
        "kafka", "Kafka", 9092, "kafka", "aiokafka", "bridge-kafka",
        {
            "topic": "the topic to read",
            "group": "the consumer group, which has the position",
            "sasl": "PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512, for the user and the password",
        },
        {"topic": "the topic to send to", "sasl": "as above"},
    ),
    Peer(
        "nats", "NATS JetStream", 4222, "jetstream", "nats", "bridge-nats",
        {
            "stream": "the stream to read",
            "durable": "the durable consumer, which has the position; made if it is not there",
            "subject": "only messages of this subject",
        },
        {"subject": "the subject to publish to, which a stream must take"},
        has_tokens=True,
    ),
)  # fmt: skip
DEFAULT_GROUP: Final = "minibroker-bridge"


@dataclass(frozen=True, slots=True)
class Address:
    """A url, read; `ssl` is None where the connection is plain."""

    peer: Peer
    hosts: tuple[tuple[str, int], ...]
    path: str
    options: Mapping[str, str]
    user: str = ""
    password: Secret = field(default_factory=Secret)
    ssl: ssl.SSLContext | None = field(default=None, repr=False)
    files: Mapping[str, str] = field(default_factory=dict)  # of TLS, by the names of their options

    @property
    def place(self) -> str:
        """The hosts and ports, as they are printed."""
        return ",".join(
            f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts
        )

    def clean(self, error: object) -> str:
        """Return the text of an error without the password or token, whatever a library wrote into it."""
        text = str(error) or type(error).__name__
        if not self.password:
            return text
        forms = (quote(self.password, safe=""), quote(self.password), str(self.password))
        return re.sub("|".join(map(re.escape, forms)), "***", text, flags=re.IGNORECASE)


def read(url: str, *, is_source: bool) -> Address:
    """Return what a url of another broker says.

    Raises:
        ValueError: it is none; the text has nothing of a password in it.
        OSError: a file for TLS cannot be read.
    """
    found = SHAPE.fullmatch(url)
    peers = {name: peer for peer in PEERS for name in (peer.scheme, peer.sealed)}
    if found is None or found[1] not in peers:
        raise ValueError(
            f"{masked(url)!r} is no url of another broker: one begins with {', '.join(peers)}://"
        )
    peer, is_sealed = peers[found[1]], found[1] not in {each.scheme for each in PEERS}
    if (
        "@" in f"{found[4]}{found[5]}"
    ):  # the password goes on there, and what stands before it is no host
        raise ValueError(
            f"{masked(url)!r} is a url with an @ behind its host: @ / ? # in a user, password or name "
            "are %40 %2F %3F %23"
        )
    user, _, password = (found[2] or "").partition(":")
    if peer.has_tokens and not password:
        user, password = "", user
    options = dict(parse_qsl(found[5] or "", keep_blank_values=True))
    known = {**(peer.source if is_source else peer.sink), **dict.fromkeys(TLS if is_sealed else ())}
    for name in options:
        if name not in known:
            way = "--from" if is_source else "--to"
            raise ValueError(
                f"{masked(url)!r}: the option {name!r} is not known; {way} has {', '.join(known)}"
            )
    return Address(
        peer,
        tuple(_place(each, peer.port, url) for each in found[3].split(",")),
        unquote(found[4] or ""),
        {name: value for name, value in options.items() if name not in TLS},
        unquote(user),
        Secret(unquote(password)),
        _context(options, url) if is_sealed else None,
        {name: value for name, value in options.items() if name in TLS},
    )


def needed(address: Address, *names: str) -> str:
    """Return the first of these options that is given; ValueError if none is."""
    for name in names:
        if address.options.get(name):
            return address.options[name]
    raise ValueError(
        f"{address.peer.scheme}://{address.place} says no {' or '.join(names)}: add ?{names[0]}=NAME to the url"
    )


def _place(text: str, port: int, url: str) -> tuple[str, int]:
    found = PLACE.fullmatch(text)
    if found is None or int(found[2] or port) > 65_535:
        raise ValueError(f"{masked(url)!r} has no host with a port from 0 to 65535")
    return found[1].strip("[]"), int(found[2] or port)


def _context(options: Mapping[str, str], url: str) -> ssl.SSLContext:
    """Return the settings for TLS: the certificate is verified, always, as is the name of the host."""
    try:
        context = ssl.create_default_context(cafile=options.get("ca") or None)
        if options.get("client_cert"):
            context.load_cert_chain(options["client_cert"], options.get("client_key") or None)
    except (OSError, ssl.SSLError) as error:
        raise ValueError(f"{masked(url)!r}: a file for TLS cannot be used: {error}") from error
    return context


def source_of(address: Address, batch: int) -> Source:
    """Return what takes from there; ModuleNotFoundError if its package is not installed."""
    made = import_module(f"minibrokerd.bridges.{address.peer.module}").source(address, batch)
    assert isinstance(made, Source)
    return made


def sink_of(address: Address) -> Sink:
    """Return what puts there; ModuleNotFoundError if its package is not installed."""
    made = import_module(f"minibrokerd.bridges.{address.peer.module}").sink(address)
    assert isinstance(made, Sink)
    return made
