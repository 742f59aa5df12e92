"""Dialling: one attempt at a connection is a task; an open connection does not depend on any.

So a program that cancels all of its tasks (`asyncio.run` does at its end) still gets its answers until it closes
the connection.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from minibroker.aio.link import Link
from minibroker.aio.pipe_transport import link_to
from minibroker.shell.in_process import InProcess


class Dialling:
    """The attempt that is under way; what comes of it is told, unless it was stopped."""

    def __init__(
        self,
        address: tuple[str, int] | InProcess,
        received: Callable[[Link, bytes], None],
        done: Callable[[Link], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self._address = address
        self._received = received
        self._done = done
        self._failed = failed
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin an attempt."""
        self._task = asyncio.get_running_loop().create_task(self._attempt())

    def stop(self) -> None:
        """End the attempt that runs, if there is one; nothing is told of it."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()

    async def _attempt(self) -> None:
        try:
            link = await dial(self._address, self._received)
        except OSError as error:
            self._failed(error)
        except asyncio.CancelledError:
            if self._task is not None:  # by whoever cancels all tasks
                self._failed(ConnectionError("the attempt was cancelled"))
            raise
        else:
            self._task = None
            self._done(link)


async def dial(
    address: tuple[str, int] | InProcess, received: Callable[[Link, bytes], None]
) -> Link:
    """Return a link over a new connection to `address`; OSError if there is none."""
    if isinstance(address, InProcess):
        return link_to(address.broker, received)
    loop = asyncio.get_running_loop()
    transport, link = await loop.create_connection(lambda: Link(received), *address)
    # asyncio sets it too, uvloop leaves Nagle's algorithm on in some versions.
    transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return link
