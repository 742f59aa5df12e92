"""A world: a broker, its disk, the network, two clocks, clients, and everything that goes wrong, out of one seed.

    world = World(seed)
    world.run()
    world.checker.violations

What may go wrong, and how often, is drawn for each world anew, so that some see nothing but crashes and others
nothing but a slow disk. After the faults end the world heals, and everything that is left must come.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Collection
from dataclasses import replace
from hashlib import blake2b
from math import inf
from random import Random
from typing import Any

from checker import Checker
from sim_broker import SimulatedBroker, contents, silenced
from sim_capabilities import Uses, drawn
from sim_client import SimulatedClient
from sim_disk import FaultyDisk, PowerCut
from sim_faults import MOST_HANG_S, Faults
from sim_impatient import ImpatientClient
from sim_laws import Laws
from sim_ledger import Ledger
from sim_logs import Logs
from sim_loop import Life, SimulatedLoop
from sim_memory import Memory
from sim_network import Link
from sim_people import (
    add,
    make_borders,
    make_impatient,
    make_people,
    make_queues,
    make_waiting,
)
from sim_shell import MachineShell
from sim_timekeeper import QUEUE as TICKS
from sim_timekeeper import Timekeeper
from sim_writer import SimulatedWriter

from minibroker.contract import limits
from minibrokerd.log.failures import DamagedLog, LogError
from support.simulated_disk import SimulatedDisk

START_UNIX_MS = 1_700_000_000_000
SECOND_US = 1_000_000
STALLED_US = 300 * SECOND_US  # leases, delays and sessions end long before
NOTICED_US = 2_000 * limits.HEARTBEAT_MS + 5 * SECOND_US  # by then a silent connection is replaced
LENGTHS_US = (500_000, SECOND_US, SECOND_US, 2 * SECOND_US, 4 * SECOND_US)
SEGMENTS = (8192, 16 * 1024, 32 * 1024, 64 * 1024)


class World:
    """One run of everything; `trace` is told of each event, with its time.

    `punctual`: no timer is early. `borders`: in half of such worlds there are clients who change their minds, and
    queues that are full. `capabilities` are names of `CAPABILITIES`; None: what the seed draws.
    """

    def __init__(
        self,
        seed: int,
        *,
        writer: type[SimulatedWriter] = SimulatedWriter,
        trace: Callable[[str], None] | None = None,
        punctual: bool = False,
        borders: bool = False,
        capabilities: Collection[str] | None = (),
    ) -> None:
        self.seed = seed
        self.random = random = Random(seed)
        self._writer = writer
        self._trace = trace
        self._hash = blake2b(digest_size=16)
        early = Random(f"timers of {seed}")  # of its own: older worlds stay what they were
        self.loop = SimulatedLoop(None if punctual or early.random() < 0.5 else early)
        self.life = Life()
        self.checker = Checker()
        self._homes: dict[int, str] = {}  # names of queues by their numbers
        self.checker.home_of = self._home_of
        self.ledger = Ledger(lambda: self.loop.now_us)
        self.laws = Laws(self.checker, self.ledger)
        self.uses = Uses(seed, drawn(seed) if capabilities is None else capabilities)
        self.disk = FaultyDisk(random.getrandbits(32), self.note)
        self.disk.strict = random.random() < 0.5
        self.segment_bytes = random.choice(SEGMENTS)
        self.largest_body = min(self.segment_bytes // 64, 700)
        self.broker: SimulatedBroker | None = None
        self.draining = False
        self.deleted = False
        self.ended = False
        self.crashes = self.starts = self.refusals = self.damaged = self.reads = 0
        self.links: dict[int, Link] = {}
        self._kept: dict[int, str] = {}  # those of the last life, and their clients
        self._link_count = 0
        self.wall_ms = START_UNIX_MS
        self.latency_us = random.choice((100, 100, 1_000, 8_000))
        self.hang_us = 0
        self.lag_us = 300
        self._sliced = random.choice((0.0, 0.3))
        self.disk.short_writes = random.choice((0.0, 0.0, 0.2))
        self._baseline: dict[str, int] = {}
        self.length_us = random.choice(LENGTHS_US)
        self.memory = Memory.drawn(random)
        self.plain = self.memory.backlog > 1 and random.random() < 0.7  # no keys, no delays
        # Who died before a crash is waited for as long; the world is to go on in most cases.
        waits = Random(f"waits of {seed}")  # of its own, as above
        self.resume_wait_ms = waits.choice((300, 1_000, 1_000, limits.RESUME_WAIT_MS))
        self.memory.limits[limits, "RESUME_WAIT_MS"] = self.resume_wait_ms
        self.logs = Logs(self)
        self.faults = Faults(self)
        self.ledger.handed.when_begun = self.faults.strike
        self.queues: list[str]
        self.consumable: list[str]
        self.settings: dict[str, dict[str, Any]]
        self.clients: list[SimulatedClient]
        self.timekeeper: Timekeeper | None = None
        self._populate(borders=borders)

    def _populate(self, *, borders: bool) -> None:
        """Let there be queues, and then those who say what settings they want for them."""
        seed = self.seed
        make_queues(self)
        self.uses.settle(self.settings)
        for name, own in self.settings.items():
            if own.get("on_expired") == "drop":
                self.checker.drops_expired.add(name)
            if own.get("overflow") == "drop-oldest":
                self.laws.drops_oldest.add(name)
            if own.get("circuit_failures_percent"):
                self.checker.spares.add(name)
        edge = Random(f"borders of {seed}")  # of its own, as above
        has_borders = borders and edge.random() < 0.5
        if has_borders:
            make_borders(self, edge)
        make_people(self)
        if has_borders:
            make_impatient(self, edge)
        if "handed" in self.uses.names:
            make_waiting(self, Random(f"waiting in {seed}"))
        clock = Random(f"schedules of {seed}")
        if borders and clock.random() < 0.4:
            misfire = clock.choice(("once", "all"))
            self.timekeeper = Timekeeper(self, misfire, clock.getrandbits(32))
            self.clients.append(self.timekeeper)
        self.logs.make_people()

    def note(self, text: str) -> None:
        """Take an event into the trace, and its hash."""
        line = f"{self.loop.now_us} {text}"
        self._hash.update(line.encode())
        if self._trace is not None:
            self._trace(line)

    @property
    def digest(self) -> str:
        """The hash of everything that happened."""
        return self._hash.hexdigest()

    def unix_ms(self) -> int:
        """Return the wall time."""
        return self.wall_ms + self.loop.now_us // 1_000

    def healthy_links(self) -> set[int]:
        """Return the connections that had no trouble so far."""
        self.links = {number: link for number, link in self.links.items() if link.is_open}
        return {number for number, link in self.links.items() if not link.troubled}

    def kept_links(self) -> set[int]:
        """Return the connections that had no trouble before the last end of the broker, and whose clients live."""
        living = {client.name for client in self.clients}
        return {number for number, name in self._kept.items() if name in living}

    def accept(self, client: MachineShell) -> Link | None:
        """Connect a client; None: there is no broker."""
        broker = self.broker
        if broker is None or broker.stopping:
            return None
        self._link_count += 1
        lives = (client.life, broker.life)
        link = Link(
            self.loop, self.random, self.note, self._link_count, lives,
            lambda data: client.receive(link, data), client.lost, self.checker.returned,
        )  # fmt: skip
        link.sliced, link.mean_latency_us = self._sliced, self.lag_us
        self.links[link.number] = link
        broker.connect(link)
        return link

    # -- the broker's lives ---------------------------------------------------------------------

    def _disk_latency_us(self) -> int:
        hang_us, self.hang_us = self.hang_us, 0
        return hang_us or 30 + round(self.random.expovariate(1 / self.latency_us))

    def _start(self) -> None:
        if self.ended:
            return
        self.starts += 1
        if not self.draining:
            self.faults.trouble_start()
        faults = self.disk.faults
        broker = SimulatedBroker(
            self.loop, self.disk, self.random, self.segment_bytes,
            self.unix_ms, self._disk_latency_us, self._failed, self.memory, self.ledger, self.logs,
            self._writer,
        )  # fmt: skip
        self.disk.flipped = ""
        try:
            broker.start()
        except (LogError, OSError) as error:
            broker.life.over = True
            self.disk.let_go()
            self._refused(error, self.disk.faults > faults)
            return
        except PowerCut:
            broker.life.over = True
            self.crashed(self.random.random() < 0.7)
            return
        self.disk.flips = self.disk.bad_reads = 0
        flipped = "" if self.memory.digests else self.disk.flipped
        if flipped and flipped not in broker.log.report.ignored:
            self._give_up("M1", f"a flipped bit of {flipped} was not seen")
        self._started(broker)

    def _refused(self, error: LogError | OSError, troubled: bool) -> None:
        """A start may refuse damage that is there, and must name it; or what the disk did not do."""
        self.note(f"start refused: {error}")
        self.refusals += 1
        rotten = self.disk.rotten
        if isinstance(error, DamagedLog):
            if os.path.basename(error.path) not in {*rotten, self.disk.flipped}:
                self._give_up("I12", f"the broker does not start, and nothing is damaged: {error}")
        elif not (troubled or rotten):
            self._give_up("I12", f"the broker does not start: {error}")
        self.disk.restore()  # as an operator would, from a copy
        self.loop.at(self.loop.now_us + SECOND_US // 2, self.life, self._start)

    def _started(self, broker: SimulatedBroker) -> None:
        self.note(f"started, epoch {broker.log.epoch}")
        self.disk.dies_in = 0
        self.broker = broker
        self.checker.epoch = broker.log.epoch
        self.checker.started_us = self.loop.now_us
        # One that waits for a connection is still to come.
        waiting = [answer for client in self.clients for answer in client.waiting]
        self.deleted = any(answer.what == "queue_delete" for answer in waiting)
        counters = self._counters(broker)
        self._baseline = {name: self.checker.sides(name, counters) for name in counters}

    def crashed(self, power: bool) -> None:
        """The broker is gone; it starts again after a while."""
        self.note("power cut" if power else "killed")
        self.crashes += 1
        self.checker.crashes += 1
        self.checker.returned()
        self._end_life(silent=power and self.random.random() < 0.5)
        self.disk.restart(power)
        down_us = self.random.choice((10_000, 100_000, SECOND_US))
        self.loop.at(self.loop.now_us + down_us, self.life, self._start)

    def _end_life(self, *, silent: bool) -> None:
        self.checker.crashed_us = self.loop.now_us
        healthy = self.healthy_links()
        owners = {client.link.number: client for client in self.clients if client.link is not None}
        self._kept = {number: owners[number].name for number in healthy if number in owners}
        broker, self.broker = self.broker, None
        if broker is not None and broker.core.store.short:
            self._kept = {}  # then neither leases nor sessions are written
        if broker is not None:
            self._count_damaged(broker)
            self.laws.count_dropped(self._counters(broker))
            self.reads += broker.loop.reads
            broker.life.over = True
        for link in self.links.values():
            link.troubled = True
            if silent:
                link.half_open = True
            elif link.is_open:
                link.down.end(link.client_lost)
        self.links = {}

    def _count_damaged(self, broker: SimulatedBroker) -> None:
        """What was set aside had a bit that turned; see sim_rot.py."""
        queues = broker.core.store.queues.values()
        damaged = sum(queue.group.counters["damaged"] for queue in queues)
        self.damaged += damaged
        if damaged > len(self.disk.rot.suspects):
            text = f"{damaged} messages were set aside, {len(self.disk.rot.suspects)} may be"
            self.checker.violation("M1", text)

    def _failed(self, error: BaseException) -> None:
        """The log failed: the process ends, as `Server` has it."""
        self.note(f"fail-stop: {error}")
        if not self.disk.faults:
            self._give_up("E1", f"the log failed without a fault: {error}")
        self.crashed(power=False)

    def stop(self) -> None:
        """Ask the broker to stop, as a signal does."""
        broker = self.broker
        assert broker is not None
        if not broker.stopping:
            broker.stop(lambda: self._stopped(broker))

    def _stopped(self, broker: SimulatedBroker) -> None:
        if broker is self.broker:
            self.note("stopped")
            self.checker.returned()
            self.checker.crashes += 1  # a wait over it is counted by the wall clock
            self._end_life(silent=False)
            self.disk.restart(power=False)
            self.loop.at(self.loop.now_us + 100_000, self.life, self._start)

    def _give_up(self, invariant: str, text: str) -> None:
        self.checker.violation(invariant, text)
        self.ended = True

    # -- the run --------------------------------------------------------------------------------

    def run(self) -> World:
        """Live, heal, drain, and judge."""
        with self.memory.applied(), silenced():
            self._run()
        return self

    def _run(self) -> None:
        try:
            self._start()
            self.faults.begin()
            self.loop.at(SECOND_US, self.life, self._balance)
            self._live(self.length_us, lambda: self.ended)
            self._heal()
            self._drain()
            self._judge()
        except Exception:  # noqa: BLE001 - whatever the product raises here is a finding
            self.checker.violation("exception", traceback.format_exc())

    def _live(self, end_us: int, stop: Callable[[], bool]) -> None:
        while True:
            try:
                self.loop.run_until(end_us, stop)
                return
            except PowerCut:
                self.crashed(self.random.random() < 0.7)

    def _heal(self) -> None:
        if self.ended:
            return
        self.note("healed")
        self.disk.clear()
        self.disk.dies_in = 0
        self.latency_us, self.hang_us, self.lag_us = 100, 0, 300
        if self.broker is not None and self.random.random() < 0.5:
            self.crashed(power=self.random.random() < 0.7)
        if self.broker is not None and self.random.random() < 0.3 and not self.disk.rotten:
            self._recover_twice()
        self.draining = True
        for client in self.clients:
            client.calm_down()
        self.consumable = [*self.queues, *(f"{queue}.dlq" for queue in self.queues)]
        add(self, "drain", prefetch=32)
        self.clients[-1].calm_down()
        self.logs.heal()

    def _drain(self) -> None:
        """Live until nothing is left, or until what is left has not become less for a long time.

        How long it takes altogether is up to the application: one slow process with keys that go one at a time
        works on some thousand messages for longer than any bound.
        """
        left = inf
        while True:
            self._live(self.loop.now_us + STALLED_US, lambda: self.ended or self._is_empty())
            before, left = left, self._left()
            if self.ended or self._is_empty() or left >= before:
                return

    def _left(self) -> int:
        """Return how many messages are to be drained; without a broker none is known."""
        queues = self.broker.core.store.queues.values() if self.broker is not None else ()
        return sum(queue.count() for queue in queues if queue.name != TICKS)

    def _is_empty(self) -> bool:
        if self.broker is None or self._left() or not self.logs.are_drained(self.broker):
            return False
        sessions = [client.session for client in self.clients]
        return not any(session.outbox.groups or len(session.window) for session in sessions)

    def _is_safe(self) -> bool:
        """Whether nothing waits for the disk: what hung there when the faults ended holds back all behind it."""
        writer = self.broker.log._writer if self.broker is not None else None
        return not isinstance(writer, SimulatedWriter) or writer.is_idle

    def _judge(self) -> None:
        if self.ended:
            return
        if not self._is_empty():
            counters = self._counters(self.broker) if self.broker else {}
            owed = {c.name: len(c.session.window) for c in self.clients if len(c.session.window)}
            self.checker.violation(
                "I9", f"nothing came of what is left for a long time: {counters}, unanswered {owed}"
            )
        if self.broker is not None:
            self.laws.count_dropped(self._counters(self.broker))
        self.laws.end(self.loop.now_us)
        self.checker.finish(self.laws.may_have_ended, self.disk.rot.suspects)
        self.laws.judge_the_end()
        self.logs.judge()
        self._live(self.loop.now_us + MOST_HANG_S * SECOND_US, self._is_safe)
        self._live(self.loop.now_us + 3 * SECOND_US, lambda: False)
        if any(client.is_cut_off() for client in self.clients):
            self._live(self.loop.now_us + NOTICED_US, lambda: False)
        self._check_limits()
        for law, text in self.ledger.handed.left_over(self.healthy_links()):
            self.checker.violation(law, text)
        if self.timekeeper is not None:
            keeper = self.timekeeper
            keeper.look()
            self._live(self.loop.now_us + 30 * SECOND_US, lambda: keeper.has_looked)
            whole = not (self.laws.jumped or self.disk.rot.suspects)  # set back, it repeats no time
            # While its memory is full, the server publishes nothing itself either.
            whole = whole and not (self.broker and self.broker.engine._pager.is_full)
            for text in self.timekeeper.violations(whole=whole):
                self.checker.violation("S1", text)
        for client in self.clients:
            for answer in client.waiting:
                answer.check()
            if self.broker is not None and isinstance(client, ImpatientClient):
                left = client.left_behind(self.broker.core.store)
                if left:
                    self.checker.violation("I11", f"{client.name} has gone, and left {left}")

    def _home_of(self, origin: int) -> str | None:
        if self.broker is not None:
            queues = self.broker.core.store.by_number.items()
            self._homes.update((number, queue.name) for number, queue in queues)
        return self._homes.get(origin)

    def _counters(self, broker: SimulatedBroker | None) -> dict[str, dict[str, int]]:
        assert broker is not None
        return {queue.name: queue.statistics() for queue in list(broker.core.store.queues.values())}

    def _balance(self) -> None:
        self.loop.at(self.loop.now_us + SECOND_US // 2, self.life, self._balance)
        if self.broker is not None and not self.deleted and not self.ended:
            counters = self._counters(self.broker)
            self.checker.balance(self._baseline, counters)
            self.laws.look(counters)

    def _check_limits(self) -> None:
        """I11, when all is quiet."""
        broker = self.broker
        assert broker is not None
        self._count_damaged(broker)
        self.reads += broker.loop.reads
        most_bytes = 2 * broker.core.live_bytes() + 3 * self.segment_bytes
        if broker.log.disk_bytes > most_bytes:
            text = f"the log has {broker.log.disk_bytes} bytes, {most_bytes} are allowed"
            self.checker.violation("I11", text)
        if self.disk.open_count > 5 + self.logs.most_open:
            self.checker.violation("I11", f"{self.disk.open_count} files are open")
        files = sum("/" not in name for name in self.disk.entries)
        torn = sum(name.startswith(("torn-", "damaged-")) for name in self.disk.entries)
        segments = sum(name.startswith("segment-") for name in self.disk.entries)
        if files - torn - segments > 9:
            self.checker.violation("I11", f"files are left over: {sorted(self.disk.entries)}")

    def _recover_twice(self) -> None:
        """I12: what a start makes of the disk is what the next one finds."""
        disk: SimulatedDisk = self.disk.copy()
        found = []
        memories = (self.memory, self.memory, replace(self.memory, digests=False))
        for memory in memories[: 3 if self.memory.digests else 2]:
            broker = SimulatedBroker(
                SimulatedLoop(), disk, Random(1), self.segment_bytes,  # type: ignore[arg-type]
                self.unix_ms, lambda: 100, self._failed, memory, Ledger(lambda: 0), self.logs,
            )  # fmt: skip
            broker.start()
            found.append(contents(broker.core.store))
            disk = disk.copy()
        for other in found[1:]:
            if other != found[0]:
                self.checker.violation("I12", f"found {found[0]}, then {other}")
