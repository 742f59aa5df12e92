"""The broker in memory under the hand of a test that blocks, for applications that use `minibroker.sync`."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from itertools import count
from time import monotonic
from types import TracebackType
from typing import Any, Self

from minibroker.contract.errors import ConnectionLost
from minibroker.session.arguments import MAX_RUN, options_of
from minibroker.session.spans import Span, milliseconds
from minibroker.sync.broker import Broker
from minibroker.sync.driver import Driver
from minibroker.testing.hand import Hand
from minibroker.testing.in_memory import BACK_S, MOST_MS, OTHERS_BACK_S, PATIENCE_S

_numbers = count(1)


class SyncMemoryBroker(Hand, Broker):
    """As `MemoryBroker`, blocking: a broker in this process and a client of it, for the length of a `with` block.

    Others reach it by its `url`, those of asyncio as well. It connects at its first call.

    Args:
        name: of the broker, as in memory://name; default: one that no other has.
        stopped: let its time stand still from the start: then nothing is due before `advance`.
    """

    def __init__(self, name: str = "", *, stopped: bool = False) -> None:
        self._name = name or f"blocking-{next(_numbers)}"
        self._inprocess = import_module("minibrokerd.inprocess")
        self._inside: Any = self._inprocess.make(self._name)
        timeouts: tuple[Span, Span, Span] = (30, 10, MAX_RUN)
        options = options_of(
            self.url, "test", timeouts, None, True, os.environ, socket.gethostname()
        )
        super().__init__(Driver(options))
        if stopped:
            self._inside.stop_clock()

    @property
    def url(self) -> str:
        """What other clients in this process connect to."""
        return f"memory://{self._name}"

    def advance(self, by: Span, *, patience: Span = PATIENCE_S) -> None:
        """Let this much time pass for the broker: retries, leases, delays and waits end in their order.

        Whatever becomes due is done at its time, and other threads that get it are waited for before time goes on,
        for `patience` in all. What this thread has begun itself is not waited for, and its lease is renewed.

        Args:
            by: in seconds, or a timedelta; rounded up to steps of 8 ms, which is how exact a broker's time is.
            patience: how long to wait for other threads, in real time.
        """
        inside = self._inside
        until_ms = inside.after(milliseconds("by", by, MOST_MS))
        deadline_s = monotonic() + milliseconds("patience", patience, MOST_MS) / 1000
        at_hand = inside.at_hand
        more = True
        while more:
            self._until(lambda: inside.at_hand <= at_hand, deadline_s)
            more = inside.advance(until_ms)
        self._until(lambda: inside.at_hand <= at_hand, deadline_s)

    def drop_connections(self) -> None:
        """Break all connections to it, as a network does; returns when this client is back."""
        self._gone(self._inside.drop)

    def restart(self) -> None:
        """Stop it in good order and start it again, from its log; returns when this client is back."""
        self._gone(lambda: self._inside.restart(crash=False))

    def crash(self) -> None:
        """End it as a power cut would, and start it again; see `MemoryBroker.crash`."""
        self._gone(lambda: self._inside.restart(crash=True))
        self._inside.hold_syncs(False)
        self.advance(1)

    def end(self) -> None:
        """End this client, and the broker with all that is in it, at once; nothing is waited for."""
        self._inside.drop()
        self._driver.close("it was ended by the test")
        self._inprocess.forget(self._name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.end()

    def _gone(self, end: Callable[[], object]) -> None:
        self.ping()
        inside = self._inside
        before = inside.sessions()
        end()
        began_s = monotonic()
        while self._driver.session.session_id not in inside.sessions():
            if monotonic() > began_s + BACK_S:
                raise TimeoutError(f"the client is not back after {BACK_S:g} s")
            with suppress(ConnectionLost):  # the one that was ended
                self.ping()
        self._until(lambda: before <= inside.sessions(), began_s + OTHERS_BACK_S)

    def _until(self, is_so: Callable[[], bool], deadline_s: float) -> None:
        """Return when something is so of the broker, looked at after each of its steps; or at the deadline."""
        stepped = threading.Event()
        self._inside.watchers.add(stepped.set)
        try:
            while not is_so() and stepped.wait(max(0.0, deadline_s - monotonic())):
                stepped.clear()
        finally:
            self._inside.watchers.discard(stepped.set)
