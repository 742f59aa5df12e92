"""memory://: a broker in this process instead of a server. The client's end is a transport, as a socket's is.

The broker is part of the server's package, which is loaded when the first such address is dialled; an application
that never says memory:// loads none of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from threading import get_ident
from typing import Any, Protocol, cast

from minibroker.aio.link import Link
from minibroker.contract import limits, wire
from minibroker.session.message import MessageData
from minibroker.session.session import Session
from minibroker.session.settle_frames import frames_naming
from minibroker.session.settlements import ENDED, Run


class InProcess:
    """A broker in this process: the one called `name`, or a new one; made when it is first dialled."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._broker: Any = None

    @property
    def broker(self) -> Any:
        """The broker, a `minibrokerd.inprocess.MemoryBroker`."""
        if self._broker is None:
            # By name: the client imports nothing of the server, and can be carried alone.
            self._broker = import_module("minibrokerd.inprocess").find(self._name)
        return self._broker

    def dial(self, received: Callable[[Link, bytes], None]) -> Link:
        """Return a link to it; ConnectionRefusedError if the broker has failed."""
        link = Link(received)
        link.connection_made(cast(asyncio.Transport, PipeTransport(self.broker, link)))
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


class Holder(Protocol):
    """Whose leases are renewed."""

    session: Session
    max_run_ms: int

    def lost_runs(self, runs: Sequence[Run]) -> None:
        """Take the answer to a renewal: these are lost."""

    def hand_over(self, function: Callable[..., object], *args: Any) -> None:
        """Have a function called where the session lives; RuntimeError if that has ended."""


class Renewal:
    """Keeps the leases of begun messages alive, as `Attached` does, whenever the broker is about to look.

    So it needs no thread, holds however far the clock is moved, and costs one frame for each lease that would end.
    """

    def __init__(self, holder: Holder, broker: Any) -> None:
        self._holder = holder
        self._broker = broker
        self._pipe: Any = None
        self._reader = wire.FrameReader()
        self._session: int | None = None
        self._request = 0
        self._seen: dict[
            MessageData[Any], tuple[int, int]
        ] = {}  # first, and last renewed, by its clock, in ms
        self._leases: dict[MessageData[Any], int] = {}  # that the application asked for, in ms

    def start(self) -> None:
        """Renew from now on."""
        self._broker.renewers.add(self._renew)

    def stop(self) -> None:
        """Renew nothing more."""
        self._broker.renewers.discard(self._renew)
        if self._pipe is not None:
            self._pipe.close()
        self._seen.clear()
        self._leases.clear()

    def delivered(self, lease_ms: int) -> None:
        """Do nothing: the broker asks before a lease ends, however short it is."""

    def extended(self, message: MessageData[Any], lease_ms: int) -> None:
        """Note that the application asked for a lease of its own length: it is renewed as that."""
        self._leases[message] = lease_ms

    def _renew(self) -> None:
        session = self._holder.session
        if not session.is_open:
            return
        if self._pipe is None or self._pipe.is_ended or self._session != session.session_id:
            self._attach()
        due = self._due(self._broker.clock.now_ms())
        if due:
            self._pipe.post(self._frames(due))

    def _due(self, now_ms: int) -> list[MessageData[Any]]:
        seen, self._seen = self._seen, {}
        due = []
        for message in self._holder.session.begun_messages():
            first_ms, renewed_ms = seen.get(message, (now_ms, -1))
            if message.state == ENDED:
                continue
            is_late = now_ms - renewed_ms >= self._lease_of(message) / 3
            if (renewed_ms < 0 or is_late) and now_ms - first_ms <= self._holder.max_run_ms:
                due.append(message)
                renewed_ms = now_ms
            self._seen[message] = first_ms, renewed_ms
        self._leases = {
            message: self._leases[message] for message in self._leases.keys() & self._seen.keys()
        }
        return due

    def _lease_of(self, message: MessageData[Any]) -> int:
        return self._leases.get(message, message.run.delivery.lease_ms)

    def _frames(self, due: Sequence[MessageData[Any]]) -> Iterable[bytes]:
        most = self._holder.session.max_frame_bytes
        for parts in frames_naming("extend", due, self._lease_of, most):
            self._request += 1
            header = {"parts": [part.header() for part in parts], "request": self._request}
            yield wire.pack_frame(header, b"".join([part.columns() for part in parts]))

    def _attach(self) -> None:
        session = self._holder.session
        self._session = session.session_id
        self._reader = wire.FrameReader()
        self._pipe = self._broker.connect(self._readable, lambda: None)
        part = {"op": "attach", "protocol": limits.PROTOCOL_VERSION}
        part |= {"session": self._session, "secret": session.secret}
        self._pipe.post((wire.pack_frame({"parts": [part]}),))

    def _readable(self) -> None:
        try:
            self._holder.hand_over(self._read)
        except RuntimeError:  # the loop is closed: nothing begun is settled any more
            self._broker.renewers.discard(self._renew)

    def _read(self) -> None:
        for frame in self._reader.feed(self._pipe.read()):
            runs: list[Run] = list(wire.RUN.iter_unpack(frame.columns))
            if frame.header.get("op") == "confirm" and runs:
                self._holder.lost_runs(runs)
