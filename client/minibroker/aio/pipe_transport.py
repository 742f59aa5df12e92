"""A link to a broker in this process: its transport has the names of asyncio's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from threading import get_ident
from typing import Any, cast

from minibroker.aio.link import Link


def link_to(broker: Any, received: Callable[[Link, bytes], None]) -> Link:
    """Return a link to a broker in process; ConnectionRefusedError if it has failed."""
    link = Link(received)
    link.connection_made(cast(asyncio.Transport, PipeTransport(broker, link)))
    return link


class PipeTransport:
    """The transport of a link in process, with the names of asyncio's; steps the broker when its time has come."""

    def __init__(self, broker: Any, link: Link) -> None:
        self._broker = broker
        self._link = link
        self._loop = asyncio.get_running_loop()
        self._thread = get_ident()
        self._timer: asyncio.Handle | None = None  # for the broker's next timer
        self._due_s = 0.0  # when it is due; uvloop does not say
        self._reads = self._arms = False  # a read is on its way; a look at the broker's next timer
        self._closing = False
        self._pipe = broker.connect(self._readable, self._due)
        self._arm()

    def write(self, data: bytes) -> None:
        """Hand over a frame."""
        self._pipe.write((data,))

    def writelines(self, frames: Sequence[bytes]) -> None:
        """Hand over several."""
        self._pipe.write(frames)

    def is_closing(self) -> bool:
        """Whether it was closed."""
        return self._closing

    def close(self) -> None:
        """End the connection: what was written has been taken."""
        self._closing = True
        self._pipe.close()

    def abort(self) -> None:
        """End the connection."""
        self.close()

    # What the broker calls, in the thread of whoever steps it.

    def _readable(self) -> None:
        if not self._reads:
            self._reads = True
            self._in_loop(self._read)

    def _due(self) -> None:
        if not self._arms:
            self._arms = True
            self._in_loop(self._arm)

    def _in_loop(self, call: Callable[[], object]) -> None:
        try:
            if get_ident() == self._thread:
                self._loop.call_soon(call)
            else:
                self._loop.call_soon_threadsafe(call)
        except RuntimeError:  # the loop was closed, and this connection with it
            self._closing = True
            self._pipe.end()

    def _read(self) -> None:
        self._reads = False
        data = self._pipe.read()
        if data:
            self._link.data_received(data)
        if self._pipe.is_ended and self._timer is not None:
            self._timer.cancel()
        if self._pipe.is_ended and not self._reads:
            self._closing = True
            self._link.connection_lost(None)

    def _arm(self) -> None:
        self._arms = False
        wait_s = None if self._pipe.is_ended else self._broker.wait_s()
        if wait_s is None:
            return
        due_s = self._loop.time() + wait_s
        if self._timer is not None:
            if self._due_s <= due_s:
                return
            self._timer.cancel()
        self._due_s = due_s
        self._timer = self._loop.call_at(due_s, self._step)

    def _step(self) -> None:
        self._timer = None
        self._broker.step()
        self._arm()
