"""The arguments of `connect`, checked: whoever dials needs them, whatever he waits with."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from inspect import iscoroutinefunction
from typing import Any, Final, NamedTuple

from minibroker.contract import limits
from minibroker.contract.errors import BadValue
from minibroker.contract.versions import APP_VERSION
from minibroker.session.address import (
    URL_VARIABLE,
    Address,
    Encryption,
    Secret,
    Server,
    address_of,
    default_url,
    passed_over,
    where,
)
from minibroker.session.error_text import cut
from minibroker.session.spans import Span, milliseconds, of_type, shown

MAX_TIMEOUT_MS: Final = 2**40
MAX_RUN: Final = timedelta(hours=12)
TRACING_VARIABLE: Final = "MINIBROKER_TRACING"
TRACING: Final = ("auto", "link", "parent", "off")
VERSION_VARIABLE: Final = "MINIBROKER_APP_VERSION"
TOKEN_VARIABLE: Final = "MINIBROKER_TOKEN"
TOKEN_FILE_VARIABLE: Final = "MINIBROKER_TOKEN_FILE"
MAX_TOKEN_CHARS: Final = 128
# What a client goes by if nobody says; the files of the server are --tls-cert and others.
ENCRYPTION_VARIABLES: Final = {
    "ca": "MINIBROKER_CA",
    "client_cert": "MINIBROKER_CLIENT_CERT",
    "client_key": "MINIBROKER_CLIENT_KEY",
    "server_name": "MINIBROKER_SERVER_NAME",
}


class Access(NamedTuple):
    """The arguments of `connect` that say who the client is, and whom it trusts; None: not given."""

    token: str | None = None
    ca: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    server_name: str | None = None


NO_ACCESS: Final = Access()


class Options(NamedTuple):
    """Where to connect to, as whom, and for how long to wait; times in ms."""

    address: Address
    name: str
    timeout_ms: int
    connect_ms: int
    max_run_ms: int
    on_settle_error: Any
    lazy: bool
    warning: str  # to be logged; mostly empty
    encryption: Encryption | None = None  # None: plain
    token: Secret = Secret()
    token_file: str = ""  # which has the token, and is read at each login
    tracing: str = "auto"  # one of TRACING
    version: str = ""  # of the application, if it says one

    @property
    def where(self) -> str:
        """Host and port, or memory://."""
        return where(self.address)


def options_of(
    url: str | None,
    name: str | None,
    timeouts: tuple[Span, Span, Span],
    on_settle_error: Any,
    lazy: bool,
    environment: Mapping[str, str],
    host: str,
    access: Access = NO_ACCESS,
    tracing: str | None = None,
    version: str | None = None,
) -> Options:
    """Return the options that these arguments mean; `timeouts` of a call, of connecting, of a handler.

    Raises:
        TypeError, BadValue: an argument is of a wrong type, or outside its range.
        ValueError: the url is not of its form, or MINIBROKER_PORT is no port.
    """
    if url is not None:
        of_type("url", url, str, "minibroker://host:port")
    if name is not None:
        of_type("name", name, str, "a str")
    of_type("lazy", lazy, bool, "True or False")
    if on_settle_error is not None and (
        not callable(on_settle_error) or iscoroutinefunction(on_settle_error)
    ):
        raise TypeError("on_settle_error must be a plain function of (message, error)")
    warning = ""
    if not url:
        url = default_url(environment)
        warning = "" if environment.get(URL_VARIABLE) else passed_over(environment)
    timeout, connect_timeout, max_run = timeouts
    address = address_of(url)
    encryption = token = None
    if isinstance(address, Server):
        encryption = _encryption(address.encryption, access, environment)
        token = access.token or address.token or environment.get(TOKEN_VARIABLE)
    return Options(
        address,
        cut(name or host, limits.MAX_CLIENT_NAME_BYTES).decode(),
        milliseconds("timeout", timeout, MAX_TIMEOUT_MS, 1),
        milliseconds("connect_timeout", connect_timeout, MAX_TIMEOUT_MS, 1),
        milliseconds("max_run", max_run, MAX_TIMEOUT_MS),
        on_settle_error,
        lazy,
        warning,
        encryption,
        Secret(_token(token or "")),
        "" if token else environment.get(TOKEN_FILE_VARIABLE, ""),
        _tracing(tracing, environment),
        _version(environment.get(VERSION_VARIABLE) or "" if version is None else version),
    )


def _token(text: str) -> str:
    """Return what may be a token; BadValue if it cannot be one. It is not shown."""
    if not text.isascii() or len(text) > MAX_TOKEN_CHARS:
        raise BadValue(f"token is none: those have up to {MAX_TOKEN_CHARS} characters of ASCII")
    return text


def _version(text: str) -> str:
    """Return the version of an application; BadValue if it is none."""
    of_type("version", text, str, "numbers with dots, a str")
    if text and not APP_VERSION.fullmatch(text):
        raise BadValue(f"version is {shown(text)}; it must be numbers with dots, like 1.4.2")
    return text


def _tracing(asked: str | None, environment: Mapping[str, str]) -> str:
    """Return how a connection is traced, by argument and environment."""
    said, whose = asked, "tracing"
    if asked is None:
        said, whose = environment.get(TRACING_VARIABLE) or TRACING[0], TRACING_VARIABLE
    if said not in TRACING:
        raise BadValue(f"{whose} is {shown(said)}; it must be one of {', '.join(TRACING)}")
    return said


def _encryption(
    asked: Encryption | None, access: Access, environment: Mapping[str, str]
) -> Encryption | None:
    """Return what argument, url and environment say, in this order."""
    for name, value in access._asdict().items():
        if value is not None and not isinstance(value, str):
            raise TypeError(f"{name} must be a str")  # and is not shown: it may be a token
    given = {name: getattr(access, name) for name in Encryption._fields}
    if asked is None:
        for name, value in given.items():
            if value:
                raise ValueError(f"{name} is for TLS, so for an url with minibrokers://")
        return None
    return Encryption(
        *(
            given[name] or getattr(asked, name) or environment.get(ENCRYPTION_VARIABLES[name], "")
            for name in Encryption._fields
        )
    )


def never_opened(where: str, trouble: str) -> str:
    """Return what is said when no connection could be opened."""
    return f"no connection to {where}: {trouble}; does `minibroker serve` run there?"
