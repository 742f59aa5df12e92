"""Where a client looks for its server if nobody says: in the variables that the server goes by, too.

Kubernetes sets `MINIBROKER_PORT=tcp://10.0.0.1:7272`, and a family of others, in each container of a namespace
that has a Service of that name. That is meant for programs that know this old form of service discovery; here the
name means a number, so such a value is passed over, with a warning.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from minibroker.contract import limits

URL_VARIABLE: Final = "MINIBROKER_URL"
HOST_VARIABLE: Final = "MINIBROKER_HOST"
PORT_VARIABLE: Final = "MINIBROKER_PORT"
CERT_VARIABLE: Final = "MINIBROKER_TLS_CERT"  # of the server: it speaks TLS
MEMORY: Final = "memory://"
Place = tuple[str, int]  # host and port
PLAIN: Final = "minibroker"
SEALED: Final = "minibrokers"
NAME: Final = re.compile(r"[A-Za-z0-9._-]*")
LOOPBACK: Final = "127.0.0.1"
_EVERY_ADDRESS: Final = {"": LOOPBACK, "0.0.0.0": LOOPBACK, "::": "::1"}


def default_url(environment: Mapping[str, str]) -> str:
    """Return MINIBROKER_URL, or the address on this machine that `minibroker serve` would listen on here.

    Raises:
        ValueError: MINIBROKER_PORT is no port.
    """
    url = environment.get(URL_VARIABLE)
    if url:
        return url
    text = "" if is_service_link(environment) else environment.get(PORT_VARIABLE, "")
    if text and not (text.isascii() and text.isdecimal() and int(text) <= 65_535):
        raise ValueError(f"{PORT_VARIABLE} is {text!r}, which is no port")
    # Port 0 is "any free one" for the server, which nobody can know.
    port = int(text or 0) or limits.DEFAULT_PORT
    is_sealed = bool(environment.get(CERT_VARIABLE))
    return url_of(environment.get(HOST_VARIABLE, LOOPBACK), port, is_sealed=is_sealed)


def url_of(host: str, port: int, *, is_sealed: bool = False) -> str:
    """Return the url for clients of a server that listens on `host`; on every address: on this machine's own."""
    host = _EVERY_ADDRESS.get(host, host)
    scheme = SEALED if is_sealed else PLAIN
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def is_service_link(environment: Mapping[str, str]) -> bool:
    """Return whether MINIBROKER_PORT was set by an orchestrator for a service of that name."""
    return "://" in environment.get(PORT_VARIABLE, "")


def passed_over(environment: Mapping[str, str]) -> str:
    """Return the warning about a MINIBROKER_PORT that is not meant for us; empty if there is none."""
    if not is_service_link(environment):
        return ""
    return (
        f"{PORT_VARIABLE}={environment[PORT_VARIABLE]} is passed over: an orchestrator has set it, for a service "
        f"called minibroker; clients of that one need {URL_VARIABLE}, like minibroker://minibroker:7272 "
        "(enableServiceLinks: false ends this warning)"
    )


class Secret(str):
    """A text that no log, traceback or `repr` shows."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'" if self else "''"


class Encryption(NamedTuple):
    """What a client goes by in TLS: paths of PEM files, and the name that the server's certificate must be for.

    Empty: the CAs of the system, no certificate of its own, the key in the file of the certificate, the host
    of the url. There is no way to switch the verification off: a certificate that nobody signed can be its
    own `ca`.
    """

    ca: str = ""
    client_cert: str = ""
    client_key: str = ""
    server_name: str = ""


class Memory(NamedTuple):
    """A broker in this process: of its own, or the one of this name."""

    name: str


class Server(NamedTuple):
    """A server as a url names it; `encryption` is None where the connection is plain.

    With `others` it is one of several, of which one leads at a time.
    """

    host: str
    port: int
    encryption: Encryption | None = None
    token: Secret = Secret()
    others: tuple[Place, ...] = ()

    @property
    def place(self) -> Place:
        """Host and port of the one that is named first."""
        return self.host, self.port

    @property
    def places(self) -> tuple[Place, ...]:
        """All of them, in the order of the url."""
        return self.place, *self.others


Address = Server | Memory


def address_of(url: str) -> Address:
    """Return the server of a url, or the broker of a memory:// url; ValueError as `parse_url`."""
    if not url.startswith(MEMORY):
        return parse_url(url)
    name = url.removeprefix(MEMORY)
    if not NAME.fullmatch(name):
        text = "a name has letters, digits, and . _ - only; options are arguments of connect()"
        raise ValueError(f"{_quoted(url)} is not of the form memory:// or memory://name: {text}")
    return Memory(name)


def where(address: Address) -> str:
    """Return an address as the log names it."""
    if isinstance(address, Memory):
        return f"{MEMORY}{address.name}"
    return ",".join(map(show, address.places))


def show(place: Place) -> str:
    """Return host and port as the log names them."""
    return f"{place[0]}:{place[1]}"


def place_of(text: str) -> Place | None:
    """Return what a server said of another one's address, as host:port; None if it is none."""
    try:
        return _place(text)
    except ValueError:
        return None


def parse_url(url: str) -> Server:
    """Return what a minibroker:// or minibrokers:// url says; ValueError says what is wrong with it."""
    form = f"is not of the form minibroker://host:{limits.DEFAULT_PORT}"
    one, others = _apart(url)
    try:
        parts = urlsplit(one)
        host, port = parts.hostname, parts.port
        places = tuple(_place(text) for text in others)
    except ValueError as error:  # the port is no number up to 65535, or a bracket is missing
        raise ValueError(f"{_quoted(url)} {form}: {error}") from error
    if parts.scheme == "memory":
        trouble = (
            "a broker in memory is in the process that says memory://, and this needs a server"
        )
        raise ValueError(f"{_quoted(url)} {form}: {trouble}")
    if parts.scheme not in (PLAIN, SEALED) or not host or port == 0 or url.split() != [url]:
        raise ValueError(f"{_quoted(url)} {form}")
    options, trouble = _options(parts.query, parts.scheme)
    if parts.path.strip("/"):
        trouble = f"{parts.path!r} names nothing: a server has no databases or virtual hosts"
    elif "?" in url and not parts.query:
        trouble = "there is no option behind the ?"
    elif "#" in url:
        trouble = f"the fragment {parts.fragment!r} means nothing"
    elif parts.username and parts.password is None:
        trouble = "a token stands behind a colon, as a password: minibrokers://:TOKEN@host"
    if trouble:
        raise ValueError(f"{_quoted(url)} {form}: {trouble}")
    encryption = Encryption(**options) if parts.scheme == SEALED else None
    token = Secret(unquote(parts.password or ""))
    first = host, port or limits.DEFAULT_PORT
    return Server(
        *first, encryption, token, tuple(place for place in dict.fromkeys(places) if place != first)
    )


def _apart(url: str) -> tuple[str, list[str]]:
    """Return the url as if it named its first server alone, and the others as they stand there."""
    scheme, colon, rest = url.partition("://")
    ends = [at for mark in "/?#" if (at := rest.find(mark)) >= 0]
    end = min(ends, default=len(rest))
    login, sign, hosts = rest[:end].rpartition("@")
    first, *others = hosts.split(",")
    return f"{scheme}{colon}{login}{sign}{first}{rest[end:]}", others


def _place(text: str) -> Place:
    """Return host and port; the port may be left out. ValueError if it is no address."""
    parts = urlsplit(f"//{text}")
    if not parts.hostname or parts.netloc != text or {*"@,"} & {*text} or parts.port == 0:
        raise ValueError(
            f"{text!r} is no host:port, between the commas" if text else "a comma too much"
        )
    return parts.hostname, parts.port or limits.DEFAULT_PORT


def _options(query: str, scheme: str) -> tuple[dict[str, str], str]:
    """Return the options in a url, and what is wrong with one of them."""
    options = dict(parse_qsl(query, keep_blank_values=True))
    for name in options:
        if name not in Encryption._fields:
            known = ", ".join(Encryption._fields)
            return (
                {},
                f"the option {name!r} is not known; minibrokers:// has {known}, others are of connect()",
            )
        if scheme != SEALED:
            return {}, f"the option {name!r} is for TLS, so for minibrokers://"
    return options, ""


def masked(url: str) -> str:
    """Return a url as it may be printed and logged: without the token."""
    before, mark, rest = url.rpartition("@")
    scheme, colon, _ = before.partition("://")  # without one nobody knows what is secret
    return f"{scheme + colon if colon else ''}***@{rest}" if mark else url


def _quoted(url: str) -> str:
    return repr(masked(url))
