"""`connect`, and the broker that it opens."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import socket
from collections.abc import Generator
from datetime import timedelta
from inspect import iscoroutinefunction
from types import TracebackType
from typing import Any, Final, TypeVar, overload
from urllib.parse import urlsplit

from minibroker.aio.driver import Driver
from minibroker.aio.in_process import Address, InProcess
from minibroker.aio.losses import SettleErrorHook
from minibroker.aio.queue import MAX_TIMEOUT_MS, Queue
from minibroker.aio.reconnecting import Reconnecting
from minibroker.contract import limits
from minibroker.contract.errors import Closed, ConnectionLost
from minibroker.session.address import URL_VARIABLE, default_url, passed_over, url_of
from minibroker.session.error_text import cut
from minibroker.session.spans import Span, milliseconds, of_type

logger = logging.getLogger("minibroker")
Body = TypeVar("Body")
MEMORY: Final = "memory://"
NAME: Final = re.compile(r"[A-Za-z0-9._-]*")
DEFAULT_URL: Final = url_of("", limits.DEFAULT_PORT)


class Broker:
    """An open session with a server; it reconnects by itself. Made by `connect`."""

    def __init__(self, address: Address, driver: Driver, connect_ms: int) -> None:
        self._driver = driver
        self._connect_ms = connect_ms
        self._reconnecting = Reconnecting(address, driver, connect_ms)
        if isinstance(address, InProcess):
            driver.in_process = address
        else:
            driver.address = address

    @property
    def server_version(self) -> str:
        """The version of the server, as it said at the last login."""
        return self._driver.session.server_version

    @overload
    def queue(self, name: str) -> Queue[Any]: ...
    @overload
    def queue(self, name: str, body_type: type[Body]) -> Queue[Body]: ...
    def queue(self, name: str, body_type: type[Any] | None = None) -> Queue[Any]:
        """Return the queue called `name`; asks nothing of the server.

        `body_type` tells type checkers what its bodies are; nothing is converted or checked.
        """
        return Queue(self._driver, name)

    async def stats(self) -> dict[str, Any]:
        """Return the counters of the server and of all queues; of very many they are asked for page by page."""
        value: dict[str, Any] = {"queues": {}}
        after: int | None = 0
        while after is not None:
            fields = {"queue": "", "after": after}
            page = await self._driver.request("stats", fields, self._driver.timeout_ms)
            value["queues"] |= page["queues"]
            value["server"] = page["server"]
            after = page.get("next")
        return value

    async def ping(self) -> None:
        """Return when the server has given a sign of life; Timeout if it does not."""
        await self._driver.request("ping", {}, self._driver.timeout_ms)

    async def close(self) -> None:
        """Leave: within one deadline, that of the connection, whatever there is to wait for.

        Runs take nothing new, their handlers are waited for, and cancelled when the deadline is near (their
        messages are released); what has not begun goes back; what is unconfirmed is waited for. Does nothing in a
        child of a fork: the connection is the parent's.
        """
        driver = self._driver
        if driver.is_closed:
            return
        driver.check_loop()
        try:
            await driver.leave()
        finally:
            self._abandon("the connection was closed by this program")

    # ---- connecting ----

    async def open(self) -> None:
        """Connect for the first time; ConnectionLost or LoginRefused when that fails."""
        opening = self._reconnecting
        opening.start()
        try:
            async with asyncio.timeout(self._connect_ms / 1000):
                await opening.opened
        except TimeoutError as error:
            self._abandon("the connection was never opened")
            text = f"no connection to {opening.where}: {self._driver.trouble}; does `minibroker serve` run there?"
            raise ConnectionLost(text) from error
        except BaseException:
            self._abandon("the connection was never opened")
            raise
        self._driver.beat_later()

    def _abandon(self, why: str) -> None:
        self._driver.close(why)
        self._reconnecting.stop()


class Connecting:
    """What `connect` returns: `async with` it, or `await` it and `close` the broker later."""

    def __init__(self, broker: Any) -> None:
        self._make = broker
        self._broker: Broker | None = None

    def start(self) -> Broker:
        """Return the broker at once; it connects while its first calls wait for that."""
        broker: Broker = self._make()
        broker._reconnecting.start()
        broker._driver.beat_later()
        return broker

    async def _open(self) -> Broker:
        broker: Broker = self._make()
        await broker.open()
        self._broker = broker
        return broker

    def __await__(self) -> Generator[Any, None, Broker]:
        return self._open().__await__()

    async def __aenter__(self) -> Broker:
        return await self._open()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._broker is not None:
            await self._broker.close()


def connect(
    url: str | None = None,
    *,
    name: str | None = None,
    timeout: Span = 30,
    connect_timeout: Span = 10,
    max_run: Span = timedelta(hours=12),
    on_settle_error: SettleErrorHook | None = None,
) -> Connecting:
    """Open a session with the server at `url` (minibroker://host:port), or with a broker in this process.

    `memory://` is a broker of this connection's own, `memory://name` one for all of this process that say so.
    Nothing of it is written to a disk: it is for tests, and for trying things out.

    Args:
        url: minibroker://host:port or memory://name. None: the environment variable MINIBROKER_URL, or where
            `minibroker serve` would listen here (MINIBROKER_HOST, MINIBROKER_PORT; by default port 7272 of
            this machine).
        name: of this client, in the server's logs and in message histories; default: the host's name.
        timeout: deadline of every call that names none, in seconds.
        connect_timeout: how long to try before giving up; later it reconnects for as long as it is open.
        max_run: leases are renewed for this long, so that no hung handler holds a message for ever.
        on_settle_error: called with (message, error) when a settlement is refused or a lease is lost.

    Raises:
        TypeError, BadValue: an argument is of a wrong type, or outside its range.
        ValueError: the url is not of that form, or asks for what this version cannot do; or MINIBROKER_PORT
            is no port.
        ConnectionLost, LoginRefused: when awaited or entered.
    """
    if url is not None:
        of_type("url", url, str, "minibroker://host:port")
    if name is not None:
        of_type("name", name, str, "a str")
    if on_settle_error is not None and (
        not callable(on_settle_error) or iscoroutinefunction(on_settle_error)
    ):
        raise TypeError("on_settle_error must be a plain function of (message, error)")
    if not url:
        url = default_url(os.environ)
        if not os.environ.get(URL_VARIABLE) and (warning := passed_over(os.environ)):
            logger.warning(warning)
    address = address_of(url)
    client = cut(name or socket.gethostname(), limits.MAX_CLIENT_NAME_BYTES).decode()
    timeout_ms = milliseconds("timeout", timeout, MAX_TIMEOUT_MS)
    connect_ms = milliseconds("connect_timeout", connect_timeout, MAX_TIMEOUT_MS)
    max_run_ms = milliseconds("max_run", max_run, MAX_TIMEOUT_MS)

    def make() -> Broker:
        return Broker(address, Driver(client, timeout_ms, max_run_ms, on_settle_error), connect_ms)

    return Connecting(make)


def address_of(url: str) -> Address:
    """Return host and port of a minibroker:// url, or the broker of a memory:// url; ValueError as `parse_url`."""
    if not url.startswith(MEMORY):
        return parse_url(url)
    name = url.removeprefix(MEMORY)
    if not NAME.fullmatch(name):
        text = "a name has letters, digits, and . _ - only; options are arguments of connect()"
        raise ValueError(f"{_shown(url)} is not of the form memory:// or memory://name: {text}")
    return InProcess(name)


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


__all__ = ["Broker", "Closed", "Connecting", "connect"]
