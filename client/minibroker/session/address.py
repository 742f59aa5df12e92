"""Where a client looks for its server if nobody says: in the variables that the server goes by, too.

Kubernetes sets `MINIBROKER_PORT=tcp://10.0.0.1:7272`, and a family of others, in each container of a namespace
that has a Service of that name. That is meant for programs that know this old form of service discovery; here the
name means a number, so such a value is passed over, with a warning.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from minibroker.contract import limits

URL_VARIABLE: Final = "MINIBROKER_URL"
HOST_VARIABLE: Final = "MINIBROKER_HOST"
PORT_VARIABLE: Final = "MINIBROKER_PORT"
MEMORY: Final = "memory://"
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
    return url_of(environment.get(HOST_VARIABLE, LOOPBACK), int(text or 0) or limits.DEFAULT_PORT)


def url_of(host: str, port: int) -> str:
    """Return the url for clients of a server that listens on `host`; on every address: on this machine's own."""
    host = _EVERY_ADDRESS.get(host, host)
    return f"minibroker://[{host}]:{port}" if ":" in host else f"minibroker://{host}:{port}"


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


class Memory(NamedTuple):
    """A broker in this process: of its own, or the one of this name."""

    name: str


Address = tuple[str, int] | Memory


def address_of(url: str) -> Address:
    """Return host and port of a minibroker:// url, or the broker of a memory:// url; ValueError as `parse_url`."""
    if not url.startswith(MEMORY):
        return parse_url(url)
    name = url.removeprefix(MEMORY)
    if not NAME.fullmatch(name):
        text = "a name has letters, digits, and . _ - only; options are arguments of connect()"
        raise ValueError(f"{_shown(url)} is not of the form memory:// or memory://name: {text}")
    return Memory(name)


def where(address: Address) -> str:
    """Return an address as the log names it."""
    if isinstance(address, Memory):
        return f"{MEMORY}{address.name}"
    return f"{address[0]}:{address[1]}"


def parse_url(url: str) -> tuple[str, int]:
    """Return host and port of a minibroker:// url; ValueError says what is wrong with it."""
    form = f"is not of the form minibroker://host:{limits.DEFAULT_PORT}"
    trouble = ""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:  # the port is no number up to 65535, or a bracket is missing
        raise ValueError(f"{_shown(url)} {form}: {error}") from error
    if parts.scheme == "memory":
        trouble = (
            "a broker in memory is in the process that says memory://, and this needs a server"
        )
    elif parts.scheme == "minibrokers":
        trouble = "TLS is not spoken yet, so minibrokers:// cannot be granted"
    elif parts.scheme != "minibroker" or not host or port == 0 or url.split() != [url]:
        raise ValueError(f"{_shown(url)} {form}")
    elif parts.username is not None or parts.password is not None:
        trouble = "there is no login yet, so user and password cannot be granted"
    elif parts.path.strip("/"):
        trouble = f"{parts.path!r} names nothing: a server has no databases or virtual hosts"
    elif "?" in url:
        trouble = f"the option {parts.query!r} is not known; options are arguments of connect()"
    elif "#" in url:
        trouble = f"the fragment {parts.fragment!r} means nothing"
    if trouble or host is None:
        raise ValueError(f"{_shown(url)} {form}: {trouble}")
    return host, port or limits.DEFAULT_PORT


def _shown(url: str) -> str:
    """Return the url without what stands before an @: there may be a password."""
    scheme, mark, rest = url.rpartition("@")
    return repr(f"{scheme.partition('://')[0]}://...@{rest}" if mark else url)
