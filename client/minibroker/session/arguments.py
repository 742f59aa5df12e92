"""The arguments of `connect`, checked: whoever dials needs them, whatever he waits with."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from inspect import iscoroutinefunction
from typing import Any, Final, NamedTuple

from minibroker.contract import limits
from minibroker.session.address import (
    URL_VARIABLE,
    Address,
    address_of,
    default_url,
    passed_over,
    where,
)
from minibroker.session.error_text import cut
from minibroker.session.spans import Span, milliseconds, of_type

MAX_TIMEOUT_MS: Final = 2**40
MAX_RUN: Final = timedelta(hours=12)


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
    return Options(
        address_of(url),
        cut(name or host, limits.MAX_CLIENT_NAME_BYTES).decode(),
        milliseconds("timeout", timeout, MAX_TIMEOUT_MS),
        milliseconds("connect_timeout", connect_timeout, MAX_TIMEOUT_MS),
        milliseconds("max_run", max_run, MAX_TIMEOUT_MS),
        on_settle_error,
        lazy,
        warning,
    )


def never_opened(where: str, trouble: str) -> str:
    """Return what is said when no connection could be opened."""
    return f"no connection to {where}: {trouble}; does `minibroker serve` run there?"
