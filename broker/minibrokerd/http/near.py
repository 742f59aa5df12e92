"""Clients of the broker inside its own process: changes, and looks that take many steps, go the way of any client.

So a redrive or a walk over a long queue is done by what does it for everybody, in steps between which the loop
turns, and answers rest on what is synced. There is no socket: the bytes go from one end of a pipe to the other.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from minibroker.aio.broker import Broker, Connecting
from minibroker.session.address import Memory
from minibroker.session.arguments import Options
from minibrokerd import inprocess
from minibrokerd.http.subject import Subject
from minibrokerd.inprocess.pipe import Pipe

TIMEOUT_MS: Final = 30_000


class Clients:
    """One client for each name that something is done under; made when it is first needed."""

    def __init__(self, subject: Subject) -> None:
        self._name = f"http {id(subject)}"  # no URL can have a name with a space
        inprocess.offer(self._name, _Near(subject))
        self._brokers: dict[str, Broker] = {}

    def of(self, name: str) -> Broker:
        """Return the client with this name, which the log of the server and histories show."""
        broker = self._brokers.get(name)
        if broker is None:
            options = Options(
                Memory(self._name), name, TIMEOUT_MS, TIMEOUT_MS, TIMEOUT_MS, None, True, ""
            )
            broker = self._brokers[name] = Connecting(options).start()
        return broker

    def close(self) -> None:
        """End all of them; what was asked for and not answered fails."""
        for broker in self._brokers.values():
            broker._driver.close("the broker is stopping")
        self._brokers.clear()
        inprocess.forget(self._name)


class _Near:
    """A running broker with the names of one that its clients step: its own loop does that."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self.lock = threading.RLock()  # nobody else ever wants it
        self.loop = subject.loop
        self.pipes: set[Pipe] = set()
        self.renewers: set[Callable[[], object]] = set()  # these clients hold no leases

    def connect(self, readable: Callable[[], object], due: Callable[[], object]) -> Pipe:
        """Return a new connection."""
        connection = self._subject.connections.make()
        connection.is_inside = True  # the gate has asked for what there is to be asked for
        pipe = Pipe(self, connection, readable, due)  # type: ignore[arg-type]
        self.pipes.add(pipe)
        return pipe

    def step(self) -> None:
        """Do nothing: the loop does."""

    def wait_s(self) -> None:
        """Return no time: nobody needs to step it."""

    @contextmanager
    def failing(self) -> Iterator[None]:
        """Let the engine end the process, as for any client."""
        yield
