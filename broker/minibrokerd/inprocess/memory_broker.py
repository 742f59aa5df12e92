"""One broker in this process: what `Server` is around engine and connections, without sockets and files."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from secrets import token_bytes
from typing import Any, Final, cast

from minibroker.contract.commands import Phase
from minibrokerd.bodies.store import BodyStore
from minibrokerd.core.core import Core
from minibrokerd.core.model.wheel import TICK_MS
from minibrokerd.engine.archivist import InMemory
from minibrokerd.engine.engine import Engine
from minibrokerd.inprocess.movable_clock import MovableClock
from minibrokerd.inprocess.pipe import Pipe
from minibrokerd.inprocess.stepping import SteppedLoop
from minibrokerd.log.memorylog import MemoryLog
from minibrokerd.log.seam import Room
from minibrokerd.net.connections import Connections
from minibrokerd.process import logs
from minibrokerd.process.logs import events
from minibrokerd.schedules.on_demand import calendar_of

# How long a start waits for sessions of before: who lives in this process is back at once.
BACK_MS: Final = 1_000


class MemoryBroker:
    """The broker; a call of any thread steps it under its lock.

    `keep`: the log is kept, so that a restart finds it; otherwise only what lives takes memory.
    """

    def __init__(self, *, keep: bool = False) -> None:
        logs.hand_to_logging(
            "minibroker.broker"
        )  # the standard error of the process is not its own
        self.lock = threading.RLock()
        self.loop = SteppedLoop()
        self.clock = MovableClock()
        self.pipes: set[Pipe] = set()
        # Called before the core looks at what is due: clients renew their leases, and no loop that stands still,
        # or jump of the clock, ends the lease of a message whose handler runs.
        self.renewers: set[Callable[[], object]] = set()
        # An error of the broker's own: it does nothing more.
        self.failure: BaseException | None = None
        # Called, in any thread, when it was stepped: somebody may wait for what has become of it.
        self.watchers: set[Callable[[], object]] = set()
        self._keep = keep
        self.log = MemoryLog(call_soon=self.loop.call_soon, keep=keep)
        self._retained = InMemory()
        self._told_s: float | None = None  # what the pipes know of the next timer
        self._start()

    def _start(self) -> None:
        loop = cast(Any, self.loop)
        self.core = Core(
            BodyStore(),
            sizes=self.log.sizes,
            calendar_of=calendar_of,
            secret=token_bytes(32),
        )
        self.engine = Engine(
            self.core,
            self.log,
            loop,
            self._failed,
            make_clock=self.clock.starting_at,
            retained=self._retained,
        )
        self.engine.before_tick = self._renew
        self.connections = Connections(self.engine, loop, sys.maxsize)
        base_ms = 0
        for batch in self.log.recover():
            self.engine.replay(batch)
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
            with self.failing():
                self.loop.run()
            next_s = self.loop.next_s()
            if next_s != self._told_s:
                self._told_s = next_s
                for pipe in list(self.pipes):
                    pipe.due()
            for watcher in list(self.watchers):
                watcher()

    @contextmanager
    def failing(self) -> Iterator[None]:
        """Have an error of the broker's own end the broker, as it ends a process, and not whoever stepped it."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - it is told, and every connection ends of it
            if self.failure is None:
                self.engine.stop_at(error)

    def wait_s(self) -> float | None:
        """Return in how many seconds `step` is due; None: nothing is."""
        with self.lock:
            next_s = self.loop.next_s()
            return None if next_s is None else max(0.0, next_s - self.loop.time())

    @property
    def begun(self) -> int:
        """How many messages are begun, over all queues."""
        with self.lock:
            return sum(queue.group.begun for queue in self.core.store.queues.values())

    @property
    def at_hand(self) -> int:
        """How many messages are held or begun by clients, over all queues."""
        with self.lock:
            return sum(
                queue.group.held + queue.group.begun for queue in self.core.store.queues.values()
            )

    def sessions(self) -> set[int]:
        """Return the sessions that have a connection on which they get messages."""
        with self.lock:
            return {one.session for one in self.connections if one.phase is Phase.OPEN}

    # -- what a test does to it ------------------------------------------------------------------

    def stop_clock(self) -> None:
        """Let time stand still: from now on only `advance` lets something become due."""
        with self.lock:
            self.clock.stop()

    def after(self, ms: int) -> int:
        """Return the log time after this many ms, for `advance`.

        In whole ticks of the core, so that what was set for then is due then, also a moment after it was set.
        """
        with self.lock:
            at_ms = self.clock.now_ms() + ms
            return at_ms + -at_ms % TICK_MS

    def advance(self, until_ms: int) -> bool:
        """Go on to the next thing that is due by `until_ms` (log time), and do it; False: to then, nothing was.

        Time never goes back: if it is later already, what is due by now is done.
        """
        with self.lock:
            self.loop.run()  # what was asked for before is older
            now_ms, due_ms = self.clock.now_ms(), self.core.next_deadline_ms()
            more = due_ms is not None and due_ms <= until_ms
            at_ms = due_ms if due_ms is not None and more else until_ms
            self.clock.move(max(0, at_ms - now_ms))
            with self.failing():
                self.engine.time_moved()
            self.step()
            return more

    def drop(self, session: int | None = None) -> None:
        """End the connections of a session, or all, as a network that breaks; clients come back by themselves."""
        with self.lock:
            for pipe in list(self.pipes):
                if session is None or pipe.session == session:
                    pipe.end()
            self.step()

    def restart(self, *, crash: bool) -> None:
        """Stop in good order and start from the log; or, as after a power cut, from what of it was synced."""
        if not self._keep:
            raise RuntimeError(
                "this broker keeps no log to start from: make it with minibroker.testing, before others connect"
            )
        with self.lock:
            if not crash:
                self.hold_syncs(False)
                self.core.hold()
                self.loop.finish(self.engine.drain())
            self.drop()
            self.loop.clear()  # timers of the life that is over
            old = self.log
            self.log = MemoryLog(old.batches, epoch=old.epoch, call_soon=self.loop.call_soon)
            self.log.store_id, self.log.session_key = old.store_id, old.session_key
            self.log.hold, self.log.room, self.log.clean = old.hold, old.room, not crash
            self._start()
            store = self.core.store
            store.hold_until_ms = min(store.hold_until_ms, store.now_ms + BACK_MS)
            self.step()

    def hold_syncs(self, hold: bool) -> None:
        """Let nothing become safe any more: its confirms wait; or, without `hold`, all that waits, and go on."""
        with self.lock:
            self.log.hold = hold
            if not hold and self.log.pending is not None:
                self.log.sync_one()
            self.step()

    def fill_disk(self, full: bool) -> None:
        """Refuse what would be written to a full disk: publishes; or have room again."""
        with self.lock:
            self.log.set_room(Room.REFUSED if full else Room.GRANTED)
            self.step()

    def _renew(self) -> None:
        for renew in list(self.renewers):
            renew()

    def _failed(self, error: BaseException) -> None:
        if self.failure is not None:
            return  # what it is still told, as that its connections end, fails as well
        self.failure = error
        events.error("fault", text="the broker in process has failed, and is gone", exc_info=error)
        for pipe in list(self.pipes):
            pipe.end()
