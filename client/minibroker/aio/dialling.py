"""Dialling: one attempt at a connection is a task; an open connection does not depend on any.

So a program that cancels all of its tasks (`asyncio.run` does at its end) still gets its answers until it closes
the connection.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from minibroker.aio.link import Link
from minibroker.aio.pipe_transport import link_to
from minibroker.contract.errors import MinibrokerError
from minibroker.shell.in_process import InProcess

if TYPE_CHECKING:
    from minibroker.shell.trust import Trust


class Dialling:
    """The attempt that is under way; what comes of it is told, unless it was stopped."""

    def __init__(
        self,
        trust: Trust | None,
        received: Callable[[Link, bytes], None],
        done: Callable[[Link], None],
        failed: Callable[[Exception], None],
    ) -> None:
        """`trust` is for a connection with TLS."""
        self._trust = trust
        self._received = received
        self._done = done
        self._failed = failed
        self._task: asyncio.Task[None] | None = None

    def start(self, address: tuple[str, int] | InProcess) -> None:
        """Begin an attempt at a connection to `address`."""
        self._task = asyncio.get_running_loop().create_task(self._attempt(address))

    def stop(self) -> None:
        """End the attempt that runs, if there is one; nothing is told of it."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()

    async def _attempt(self, address: tuple[str, int] | InProcess) -> None:
        try:
            link = await self._dial(address)
        except (OSError, MinibrokerError) as error:
            self._failed(error)
        except asyncio.CancelledError:
            if self._task is not None:  # by whoever cancels all tasks
                self._failed(ConnectionError("the attempt was cancelled"))
            raise
        else:
            self._task = None
            self._done(link)

    async def _dial(self, address: tuple[str, int] | InProcess) -> Link:
        if self._trust is None or isinstance(address, InProcess):
            return await dial(address, self._received)
        return await dial_sealed(self._trust, address, self._received)


async def dial(
    address: tuple[str, int] | InProcess, received: Callable[[Link, bytes], None]
) -> Link:
    """Return a link over a new connection to `address`; OSError if there is none."""
    if isinstance(address, InProcess):
        return link_to(address.broker, received)
    transport, link = await asyncio.get_running_loop().create_connection(
        lambda: Link(received), *address
    )
    _no_delay(transport)
    return link


async def dial_sealed(
    trust: Trust, address: tuple[str, int], received: Callable[[Link, bytes], None]
) -> Link:
    """Return a link over a new connection with TLS to `address`.

    Raises:
        OSError: there is none.
        LoginRefused: the certificate of the server is not trusted.
    """
    # What it shakes hands with is imported where somebody asks for TLS.
    from minibroker.aio.sealed_link import SealedLink

    transport, link = await asyncio.get_running_loop().create_connection(
        lambda: SealedLink(received, trust, address), *address
    )
    _no_delay(transport)
    try:
        await link.opened
    except BaseException:
        link.abort()
        raise
    return link


def _no_delay(transport: asyncio.Transport) -> None:
    # asyncio sets it too, uvloop leaves Nagle's algorithm on in some versions.
    transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
