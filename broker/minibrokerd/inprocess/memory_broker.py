"""One broker in this process: what `Server` is around engine and connections, without sockets and files."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any, cast

from minibrokerd.connections import Connections
from minibrokerd.core.core import Core
from minibrokerd.engine import Engine
from minibrokerd.inprocess.movable_clock import MovableClock
from minibrokerd.inprocess.pipe import Pipe
from minibrokerd.inprocess.stepping import SteppedLoop
from minibrokerd.log.memorylog import MemoryLog


class MemoryBroker:
    """The broker; a call of any thread steps it under its lock.

    `keep`: the log is kept, so that a restart finds it; otherwise only what lives takes memory.
    """

    def __init__(self, *, keep: bool = False) -> None:
        self.lock = threading.RLock()
        self.loop = SteppedLoop()
        self.clock = MovableClock()
        self.pipes: set[Pipe] = set()
        # Called before the core looks at what is due: clients renew their leases, and no loop that stands still,
        # or jump of the clock, ends the lease of a message whose handler runs.
        self.renewers: set[Callable[[], object]] = set()
        self.failure: BaseException | None = (
            None  # an error of the broker's own: it does nothing more
        )
        self.log = MemoryLog(call_soon=self.loop.call_soon, keep=keep)
        self._told_s: float | None = None  # what the pipes know of the next timer
        self._start()

    def _start(self) -> None:
        loop = cast(Any, self.loop)
        self.core = Core(read=self.log.read_one, sizes=self.log.sizes)
        self.engine = Engine(
            self.core, self.log, loop, self._failed, make_clock=self.clock.starting_at
        )
        self.engine.before_tick = self._renew
        self.connections = Connections(self.engine, loop, sys.maxsize)
        base_ms = 0
        for batch in self.log.recover():
            self.core.replay(batch)
            base_ms = max(base_ms, batch.now_ms)
        self.connections.session_key = self.log.session_key
        self.engine.start(base_ms)
        self.loop.run()

    def connect(self, readable: Callable[[], object], due: Callable[[], object]) -> Pipe:
        """Return a new connection; see `Pipe`. ConnectionRefusedError: the broker has failed."""
        with self.lock:
            if self.failure is not None:
                raise ConnectionRefusedError(f"the broker in process has failed: {self.failure!r}")
            pipe = Pipe(self, self.connections.make(), readable, due)
            self.pipes.add(pipe)
            return pipe

    def step(self) -> None:
        """Do all that is due; called by whoever handed something over, or waited for the next timer."""
        with self.lock:
            self.loop.run()
            next_s = self.loop.next_s()
            if next_s != self._told_s:
                self._told_s = next_s
                for pipe in self.pipes:
                    pipe.due()

    def wait_s(self) -> float | None:
        """Return in how many seconds `step` is due; None: nothing is."""
        with self.lock:
            next_s = self.loop.next_s()
            return None if next_s is None else max(0.0, next_s - self.loop.time())

    def _renew(self) -> None:
        for renew in list(self.renewers):
            renew()

    def _failed(self, error: BaseException) -> None:
        self.failure = error
        for pipe in list(self.pipes):
            pipe.end()
