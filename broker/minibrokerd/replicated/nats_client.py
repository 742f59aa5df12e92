"""The client of nats-py that a stream is used by, and how it connects."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from minibrokerd.replicated.failures import NoClient
from minibrokerd.replicated.nats_login import PLAIN
from minibrokerd.replicated.stream_address import StreamAddress


@contextmanager
def _without(name: str) -> Iterator[None]:
    """Have a package missed that is optional where it is imported, and not used by us.

    nats-py imports aiohttp, if it is there, for WebSockets: 9 of the 11 MiB of nats-py 2.16, and three fifths of
    the time of a start, which is one that somebody waits for.
    """
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]


def new_client(address: StreamAddress) -> tuple[Any, type[Exception]]:
    """Return a client that is not connected, and what its errors are.

    The message whose subject is `awaited` is handed to `on_awaited(data, headers)` while it is read.

    Raises:
        NoClient: nats-py is not installed.
    """
    try:
        with _without("aiohttp"):
            from nats import errors
            from nats.aio.client import Client
    except ImportError as error:
        raise NoClient from error

    class OfStream(Client):  # type: ignore[misc]  # what it is made of is not typed
        awaited = b""
        on_awaited: Callable[[bytes, bytes | None], object]

        async def _process_info(
            self, info: dict[str, Any], initial_connection: bool = False
        ) -> None:
            """Say nothing of who asks to a server that does not encrypt, if it should."""
            if address.tls and initial_connection and not info.get("tls_required"):
                raise errors.Error(PLAIN)
            await super()._process_info(info, initial_connection)

        _unsent_before = 0

        @property
        def unsent_bytes(self) -> int:
            """What the socket has not taken yet."""
            writer = getattr(self._transport, "_io_writer", None)
            return 0 if writer is None else int(writer.transport.get_write_buffer_size())

        async def _send_ping(self, *of: Any) -> None:
            """Count no ping as unanswered that stands behind what is being sent."""
            before, self._unsent_before = self._unsent_before, self.unsent_bytes
            if self._unsent_before < before:
                self._pings_outstanding = 0
            await super()._send_ping(*of)

        async def _attempt_reconnect(self) -> None:
            """Give up what was not sent: of a server that is gone without a word nobody takes it for minutes."""
            self.drop()
            await super()._attempt_reconnect()

        def drop(self) -> None:
            """End the socket, with what is still to be sent."""
            writer = getattr(self._transport, "_io_writer", None)
            if writer is not None:
                writer.transport.abort()

        async def _process_msg(
            self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None
        ) -> None:
            if subject == self.awaited:
                self.on_awaited(data, headers)
            else:
                await super()._process_msg(sid, subject, reply, data, headers)

    return OfStream(), errors.Error


async def unless(
    connecting: Coroutine[Any, Any, None], refused: asyncio.Event, most_s: float
) -> None:
    """Wait for a connection to be made, but not on after a refusal: nats-py can wait for ever then."""
    tasks = asyncio.ensure_future(connecting), asyncio.ensure_future(refused.wait())
    try:
        await asyncio.wait(tasks, timeout=most_s, return_when=asyncio.FIRST_COMPLETED)
        if not tasks[0].done():
            raise TimeoutError
        await tasks[0]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
