"""memory://: a broker in this process instead of a server, and the renewal of leases that it asks for.

The broker is part of the server's package, which is loaded when the first such address is dialled; an application
that never says memory:// loads none of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from typing import Any, Protocol

from minibroker.contract import limits, wire
from minibroker.session.message import MessageData
from minibroker.session.session import Session
from minibroker.session.settle_frames import frames_naming
from minibroker.session.settlements import ENDED, Run


class InProcess:
    """A broker in this process: the one called `name`, or a new one; made when it is first asked for.

    In a forked child it is another one: what the parent had at the moment of the fork is nothing to work on twice.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._broker: Any = None
        self._pid = 0

    @property
    def broker(self) -> Any:
        """The broker, a `minibrokerd.inprocess.MemoryBroker`."""
        if self._broker is None or self._pid != os.getpid():
            # By name: the client imports nothing of the server, and can be carried alone.
            self._broker = import_module("minibrokerd.inprocess").find(self._name)
            self._pid = os.getpid()
        return self._broker


class Holder(Protocol):
    """Whose leases are renewed."""

    max_run_ms: int

    @property
    def session(self) -> Session:
        """The present session."""
        ...

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

    def close_copy(self) -> None:
        """In a forked child: there is no thread and no descriptor."""

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
