"""`connect`, and the broker that it opens."""

from __future__ import annotations

import asyncio
import os
import random
import socket
from collections.abc import Callable, Generator
from datetime import timedelta
from types import TracebackType
from typing import Any, Final, TypeVar, overload
from urllib.parse import urlsplit

from minibroker import limits
from minibroker.driver import Driver
from minibroker.errors import Closed, ConnectionLost, LeaseLost, LoginRefused, MinibrokerError
from minibroker.link import Link
from minibroker.losses import SettleErrorHook
from minibroker.message import cut
from minibroker.queue import MAX_TIMEOUT_MS, Queue
from minibroker.settlements import ENDED
from minibroker.spans import milliseconds
from minibroker.timer import now_ms

Span = float | timedelta
Body = TypeVar("Body")
DEFAULT_URL: Final = f"minibroker://127.0.0.1:{limits.DEFAULT_PORT}"
FIRST_DELAY_S: Final = 0.05
# With its variation below the time for which a server that crashed holds back what was begun: a longer one
# lost begun messages to other consumers, however quickly the server was back.
LONGEST_DELAY_S: Final = limits.RESUME_WAIT_MS / 1000 / 2


class Broker:
    """An open session with a server; it reconnects by itself. Made by `connect`."""

    def __init__(self, address: tuple[str, int], driver: Driver, connect_ms: int) -> None:
        self._driver = driver
        self._address = address
        self._connect_ms = connect_ms
        self._supervisor: asyncio.Task[None] | None = None
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
        """Give back what has not begun, wait within the deadline for what is unconfirmed, and leave."""
        if self._supervisor is None:
            return
        driver = self._driver
        try:
            for consumer in list(driver.consumers.values()):
                try:
                    await consumer.stop()
                except MinibrokerError:
                    continue
            await driver.drained(driver.timeout_ms, publishes=True)
        finally:
            supervisor, self._supervisor = self._supervisor, None
            driver.close("the connection was closed by this program")
            supervisor.cancel()
            await asyncio.wait([supervisor])

    # ---- connecting ----

    async def open(self) -> None:
        """Connect for the first time; ConnectionLost or LoginRefused when that fails."""
        loop = asyncio.get_running_loop()
        opened: asyncio.Future[None] = loop.create_future()
        self._supervisor = loop.create_task(self._supervise(opened))
        try:
            async with asyncio.timeout(self._connect_ms / 1000):
                await opened
        except TimeoutError as error:
            where = f"{self._address[0]}:{self._address[1]}"
            text = f"no connection to {where}: {self._driver.trouble}; does `minibroker serve` run there?"
            raise ConnectionLost(text) from error
        finally:
            if not opened.done() or opened.cancelled() or opened.exception():
                self._supervisor.cancel()
                await asyncio.wait([self._supervisor])
                self._supervisor = None
                self._driver.close("the connection was never opened")
        self._driver.beat_later()

    async def _supervise(self, opened: asyncio.Future[None]) -> None:
        """Connect, wait for the end, connect again: after a delay that doubles, by chance a bit off."""
        delay_s = FIRST_DELAY_S
        while True:
            try:
                link = await self._connect()
            except LoginRefused as error:
                if not self._forget_session() and not opened.done():
                    opened.set_exception(error)
                    return
                self._driver.disconnected(str(error))
            except (OSError, MinibrokerError, TimeoutError) as error:
                self._driver.disconnected(str(error) or type(error).__name__)
            else:
                delay_s = FIRST_DELAY_S
                if not opened.done():
                    opened.set_result(None)
                await link.ended
            await asyncio.sleep(delay_s * random.uniform(0.5, 1.5))
            delay_s = min(2 * delay_s, LONGEST_DELAY_S)

    def _forget_session(self) -> bool:
        """Drop a session that the server refuses to resume; False if there was none."""
        driver, session = self._driver, self._driver.session
        if session.session_id is None:
            return False
        begun = [message for message in session.begun_messages() if message.state != ENDED]
        driver.act(session.forget())
        driver.lose(begun, LeaseLost("the server does not know this session any more"))
        return True

    async def _connect(self) -> Link:
        async with asyncio.timeout(self._connect_ms / 1000):
            link = await dial(self._address, self._driver.received)
            link.on_end = self._driver.ended
            self._driver.link = link
            self._driver.received_ms = now_ms()
            try:
                link.write([self._driver.session.login()])
                await link.welcomed
            except BaseException:
                link.close()
                raise
        return link


async def dial(address: tuple[str, int], received: Callable[[Link, bytes], None]) -> Link:
    """Return a link over a new TCP connection to `address`; OSError if there is none."""
    loop = asyncio.get_running_loop()
    transport, link = await loop.create_connection(lambda: Link(received), *address)
    # asyncio sets it too, uvloop leaves Nagle's algorithm on in some versions.
    transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return link


class Connecting:
    """What `connect` returns: `async with` it, or `await` it and `close` the broker later."""

    def __init__(self, broker: Any) -> None:
        self._make = broker
        self._broker: Broker | None = None

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
    """Open a session with the server at `url` (minibroker://host:port).

    Args:
        url: None: the environment variable MINIBROKER_URL, or the default port of this machine.
        name: of this client, in the server's logs and in message histories; default: the host's name.
        timeout: deadline of every call that names none, in seconds.
        connect_timeout: how long to try before giving up; later it reconnects for as long as it is open.
        max_run: leases are renewed for this long, so that no hung handler holds a message for ever.
        on_settle_error: called with (message, error) when a settlement is refused or a lease is lost.

    Raises:
        ValueError: the url is not of that form.
        ConnectionLost, LoginRefused: when awaited or entered.
    """
    address = parse_url(url or os.environ.get("MINIBROKER_URL") or DEFAULT_URL)
    client = cut(name or socket.gethostname(), limits.MAX_CLIENT_NAME_BYTES).decode()
    timeout_ms = milliseconds(timeout, MAX_TIMEOUT_MS)
    connect_ms = milliseconds(connect_timeout, MAX_TIMEOUT_MS)
    max_run_ms = milliseconds(max_run, MAX_TIMEOUT_MS)

    def make() -> Broker:
        return Broker(address, Driver(client, timeout_ms, max_run_ms, on_settle_error), connect_ms)

    return Connecting(make)


def parse_url(url: str) -> tuple[str, int]:
    """Return host and port of a minibroker:// url; ValueError says what is wrong with it."""
    parts = urlsplit(url)
    try:
        host, port = parts.hostname, parts.port or limits.DEFAULT_PORT
    except ValueError:  # the port is no number
        host = None
    if parts.scheme != "minibroker" or not host or parts.path.strip("/"):
        raise ValueError(f"{url!r} is not of the form minibroker://host:{limits.DEFAULT_PORT}")
    return host, port


__all__ = ["Broker", "Closed", "Connecting", "connect"]
