"""One life of the broker in a world: the real core, engine, log, recovery and connections."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any, cast

from sim_disk import FaultyDisk
from sim_hand import SimulatedHand
from sim_ledger import Ledger, WatchedCore
from sim_loop import Life, SimulatedLoop, drive
from sim_memory import Memory
from sim_network import Link, Transport
from sim_reading import BrokerLoop
from sim_writer import SimulatedWriter

from minibroker.contract import limits
from minibrokerd.access.door import Door
from minibrokerd.core.model.queues import Queue
from minibrokerd.core.model.state import Store
from minibrokerd.engine.engine import Clock, Engine
from minibrokerd.log.failures import LogFailed
from minibrokerd.log.filelog import FileLog
from minibrokerd.log.seam import Log
from minibrokerd.net.connection import ServerConnection
from minibrokerd.net.connections import SWEEP_S, complaint
from minibrokerd.net.seam import Broker
from minibrokerd.net.turns import Turns
from minibrokerd.net.unfinished import Unfinished
from minibrokerd.process import logs
from minibrokerd.process.memory import Gauge
from minibrokerd.schedules.on_demand import calendar_of
from minibrokerd.serving.which_log import bodies_of

if TYPE_CHECKING:
    from sim_logs import Logs

PATH = "/log"


class SimulatedClock(Clock):
    """Log time goes with the loop; the wall clock is the world's, which steps."""

    def __init__(self, loop: SimulatedLoop, unix_ms: Callable[[], int], base_ms: int) -> None:
        self._loop = loop
        self._wall_ms = unix_ms
        super().__init__(base_ms)

    def start(self) -> None:
        """Let log time start (again) at its base."""
        self._offset_ms = self._base_ms - self._loop.now_us // 1_000

    def now_ms(self) -> int:
        """Return the log time."""
        return self._offset_ms + self._loop.now_us // 1_000

    def unix_ms(self) -> int:  # type: ignore[override]
        """Return the wall time."""
        return self._wall_ms()


@contextmanager
def silenced() -> Iterator[None]:
    """Let no broker log anything: what it says of each fault is no finding."""
    level, logs._output.level = logs._output.level, logging.CRITICAL + 1
    try:
        yield
    finally:
        logs._output.level = level


class SimulatedBroker:
    """What `Server` is around engine and connections; sockets are links, `failed` is the end of the process."""

    def __init__(
        self,
        loop: SimulatedLoop,
        disk: FaultyDisk,
        random: Random,
        segment_bytes: int,
        unix_ms: Callable[[], int],
        latency_us: Callable[[], int],
        failed: Callable[[BaseException], None],
        memory: Memory,
        ledger: Ledger,
        logs: Logs,
        writer: type[SimulatedWriter] = SimulatedWriter,
    ) -> None:
        self.life = Life()
        self.loop = BrokerLoop(loop, self.life, random, latency_us)
        self.stopping = False
        self.session_key = b""
        self._failed = failed
        self.refusals: list[tuple[str, str]] = []
        make_writer = partial(writer, self.loop, random, latency_us)
        self.log: Any = self.make_log(disk, segment_bytes, memory, make_writer)
        bodies = bodies_of(self.log)
        self.core = WatchedCore(bodies, sizes=self.log.sizes, calendar_of=calendar_of)
        self.core.ledger = ledger
        self.engine = Engine(
            self.core,
            self.log,
            cast(Any, self.loop),
            failed,
            memory.limit_bytes,
            make_clock=partial(SimulatedClock, loop, unix_ms),
            random=random.random,
            retained=logs.shelf(disk, PATH),
            hand=SimulatedHand(self.loop, random, latency_us),
        )
        # The size of this process says nothing of the world's, and no two runs have the same.
        self.engine._pager._gauge = Gauge(self.core.memory_bytes)
        self.connections: dict[int, ServerConnection] = {}
        self.unfinished = Unfinished()
        self.turns = Turns(cast(Any, self.loop))
        self.door = Door()  # open: nobody here has a token

    def make_log(
        self, disk: FaultyDisk, segment_bytes: int, memory: Memory, make_writer: Callable[..., Any]
    ) -> Log:
        """Return its log: files on the disk of the world."""
        return FileLog(
            PATH, segment_bytes=segment_bytes, ops=disk, digests=memory.digests, make_writer=make_writer
        )  # fmt: skip

    def start(self) -> None:
        """Recover and be ready for connections; raises what a start raises."""
        for batch in self.log.recover():
            self.engine.replay(batch)
        self.opened()

    def opened(self) -> None:
        """Go on behind what was replayed."""
        self.session_key = self.log.session_key
        self.engine.start(self.log.now_ms)
        self.engine.clock.start()
        self.loop.call_later(SWEEP_S, self._sweep)

    def connect(self, link: Link) -> None:
        """Accept a connection."""
        connection = ServerConnection(cast(Broker, self), link.number)
        self.connections[link.number] = connection
        link.server, link.transport = connection, Transport(link, self.loop)
        connection.connection_made(cast(Any, link.transport))

    def has_room_for(self, connection: ServerConnection) -> bool:
        """Take every connection."""
        return True

    def entered(self, connection: ServerConnection) -> None:
        """Note nothing: a login needs no place here."""

    def gone(self, connection: ServerConnection) -> None:
        """Forget a connection that has ended."""
        self.connections.pop(connection.number, None)

    def refused(self, connection: ServerConnection, code: str, text: str, speaks: str = "") -> None:
        """Note that a peer broke the protocol, which no client here does."""
        self.refusals.append((code, text))

    def ended(self, connection: ServerConnection, why: str) -> None:
        """Note that a connection was cut off, as happens here all the time."""

    def stop(self, done: Callable[[], None]) -> None:
        """Stop as after a signal: drain, part, close the log."""
        self.stopping = True
        self.core.hold()
        drive(self.engine.drain(), lambda: self._part(done))

    def _part(self, done: Callable[[], None]) -> None:
        for connection in list(self.connections.values()):
            connection.farewell("the server is stopping")
        drive(self.engine.drain(), lambda: self._close(done))

    def _close(self, done: Callable[[], None]) -> None:
        try:
            self.engine.close()
        except LogFailed as error:
            self._failed(error)
        else:
            self.when_closed(done)

    def when_closed(self, done: Callable[[], None]) -> None:
        """Call when the log is closed: it is."""
        done()

    def _sweep(self) -> None:
        """As `Server` does it: silent and stuck peers, signs of life, memory."""
        now_s = self.loop.time()
        heard: dict[int, float] = {}
        for connection in self.connections.values():
            if connection.session:
                received_s = max(heard.get(connection.session, 0.0), connection.received_s)
                heard[connection.session] = received_s
        for connection in list(self.connections.values()):
            why = complaint(connection, heard.get(connection.session, 0.0), now_s)
            if why:
                connection.end(why)
            elif connection.session and now_s - connection.sent_s > limits.HEARTBEAT_MS / 1_000:
                connection.heartbeat()
        self.engine.look_at_memory()
        self.loop.call_later(SWEEP_S, self._sweep)


Runs = list[tuple[int, int, int]]


def contents(store: Store) -> list[tuple[str, Runs]]:
    """Return the ids of all messages, queue by queue, as runs in order: (origin, first, stop)."""
    return sorted((queue.name, _merged(_runs(queue))) for queue in store.queues.values())


def _runs(queue: Queue) -> Runs:
    runs = [(item.block.origin, item.first, item.stop) for _, item in queue.group.items()]
    for run in [run for lanes in queue.group.lanes.levels for run in lanes.default.cold]:
        start = run.bounds(run.at)[0]
        runs += [(run.queue, first, stop) for first, stop in run.live(start, run.stop)]
    return sorted(runs)


def _merged(runs: Runs) -> Runs:
    """Return ascending runs, those that touch as one: how they were published or copied does not count."""
    merged: Runs = []
    for origin, first, stop in runs:
        if merged and merged[-1][0] == origin and merged[-1][2] == first:
            merged[-1] = (origin, merged[-1][1], stop)
        else:
            merged.append((origin, first, stop))
    return merged
