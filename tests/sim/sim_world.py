"""A world: a broker, its disk, the network, two clocks, clients, and everything that goes wrong, out of one seed.

    world = World(seed)
    world.run()
    world.checker.violations

What may go wrong, and how often, is drawn for each world anew, so that some see nothing but crashes and others
nothing but a slow disk. After the faults end the world heals, and everything that is left must come.
"""

from __future__ import annotations

import errno
import traceback
from collections.abc import Callable
from hashlib import blake2b
from random import Random
from typing import Any

from checker import Checker, sides
from sim_admin import Administrator
from sim_broker import SimulatedBroker
from sim_client import Habits, SimulatedClient
from sim_disk import MODES, FaultyDisk, PowerCut
from sim_loop import Life, SimulatedLoop
from sim_network import Link
from sim_writer import SimulatedWriter

from minibrokerd.core.state import Store
from minibrokerd.log.failures import DamagedLog, LogError
from support.simulated_disk import SimulatedDisk

START_UNIX_MS = 1_700_000_000_000
HOUR_MS = 3_600_000
SECOND_US = 1_000_000
DRAIN_US = 300 * SECOND_US  # leases, delays and sessions end long before
SEGMENTS = (8192, 16 * 1024, 32 * 1024, 64 * 1024)

# What goes wrong: name, and how often in 20 s at most.
FAULTS = {
    "kill": 10, "power": 10, "stop": 4, "kill_soon": 10, "power_soon": 12, "die": 8,
    "sync": 2, "hang": 1, "slow": 2, "full": 2, "read_only": 0.5, "no_files": 0.5,
    "cut": 12, "silence": 3, "stall": 4, "lag": 4, "jump": 6, "suspend": 2,
}  # fmt: skip


class World:
    """One run of everything; `trace` is told of each event, with its time."""

    def __init__(
        self,
        seed: int,
        *,
        writer: type[SimulatedWriter] = SimulatedWriter,
        trace: Callable[[str], None] | None = None,
    ) -> None:
        self.seed = seed
        self.random = random = Random(seed)
        self._writer = writer
        self._trace = trace
        self._hash = blake2b(digest_size=16)
        self.loop = SimulatedLoop()
        self.life = Life()
        self.checker = Checker()
        self.disk = FaultyDisk(random.getrandbits(32), self.note)
        self.disk.strict = random.random() < 0.5
        self.segment_bytes = random.choice(SEGMENTS)
        self.largest_body = min(self.segment_bytes // 64, 700)
        self.broker: SimulatedBroker | None = None
        self.draining = False
        self.deleted = False
        self.ended = False
        self.crashes = self.faults = self.starts = 0
        self.links: dict[int, Link] = {}
        self._link_count = 0
        self._wall_ms = START_UNIX_MS
        self._latency_us = random.choice((100, 100, 1_000, 8_000))
        self._hang_us = 0
        self._lag_us = 300
        self._sliced = random.choice((0.0, 0.3))
        self.disk.short_writes = random.choice((0.0, 0.0, 0.2))
        self._baseline: dict[str, int] = {}
        self.length_us = random.choice((1, 2, 3, 5, 10)) * SECOND_US
        some = [name for name in FAULTS if random.random() < 0.4]
        self._rates = {name: random.uniform(0.1, 1) * FAULTS[name] for name in some}
        self._make_people()

    # -- what there is --------------------------------------------------------------------------

    def _make_people(self) -> None:
        random = self.random
        self.queues = [f"q{number}" for number in range(random.choice((1, 1, 2, 3)))]
        self.consumable = list(self.queues)
        self.settings: dict[str, dict[str, Any]] = {
            queue: {
                "max_attempts": random.choice((1, 2, 3, 5)),
                "lease_ms": random.choice((100, 1_000, 5_000, 20_000)),
                "retry_delay_ms": random.choice((0, 10, 500)),
                "retry_cap_ms": 2_000,
            }
            for queue in self.queues
        }
        verbs = ["peek", "stats", "set"]
        verbs += [verb for verb in ("purge", "redrive", "delete") if random.random() < 0.15]
        self.clients: list[SimulatedClient] = [
            Administrator(self, random.getrandbits(32), random.uniform(0.1, 2), verbs)
        ]
        for number in range(random.randint(1, 3)):
            self._add(f"p{number}", publishes=random.choice((1, 3, 8)))
        for number in range(random.randint(0, 3)):
            prefetch = random.choice((1, 2, 8, 32))
            self._add(f"c{number}", publishes=random.choice((0, 0, 2)), prefetch=prefetch)

    def _add(self, name: str, *, publishes: float = 0, prefetch: int = 0) -> None:
        random = self.random
        habits = Habits(
            publishes,
            random.choice((1, 3, 10)),
            random.choice((0, 0, 0.3)),
            random.choice((0, 0, 0.5)),
            prefetch,
            random.choice((500, 5_000, 50_000, 400_000)),
            random.choice((0, 0.1, 0.4)),
            random.choice((0, 0, 0.1)),
            random.choice((0, 0, 0.2)),
            random.choice((0, 0, 0.3)),
            random.choice((0, 0.5)),
            random.choice((0, 0.5)),
        )
        self.clients.append(SimulatedClient(self, name, habits, random.getrandbits(32)))

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
        return self._wall_ms + self.loop.now_us // 1_000

    def healthy_links(self) -> set[int]:
        """Return the connections that had no trouble so far."""
        self.links = {number: link for number, link in self.links.items() if link.is_open}
        return {number for number, link in self.links.items() if not link.troubled}

    def accept(self, client: SimulatedClient) -> Link | None:
        """Connect a client; None: there is no broker."""
        broker = self.broker
        if broker is None or broker.stopping:
            return None
        self._link_count += 1
        lives = (client.life, broker.life)
        link = Link(
            self.loop, self.random, self.note, self._link_count, lives,
            lambda data: client.receive(link, data), client.lost,
        )  # fmt: skip
        link.sliced, link.mean_latency_us = self._sliced, self._lag_us
        self.links[link.number] = link
        broker.connect(link)
        return link

    # -- the broker's lives ---------------------------------------------------------------------

    def _disk_latency_us(self) -> int:
        hang_us, self._hang_us = self._hang_us, 0
        return hang_us or 30 + round(self.random.expovariate(1 / self._latency_us))

    def _start(self) -> None:
        if self.ended:
            return
        self.starts += 1
        if not self.draining:
            self._trouble_start()
        faults = self.disk.faults
        broker = SimulatedBroker(
            self.loop, self.disk, self.random, self.segment_bytes,
            self.unix_ms, self._disk_latency_us, self._failed, self._writer,
        )  # fmt: skip
        self.disk.flipped = ""
        try:
            broker.start()
        except (LogError, OSError) as error:
            self.note(f"start refused: {error}")
            broker.life.over = True
            self.disk.let_go()
            damage = isinstance(error, DamagedLog) and not self.disk.flipped
            if damage or self.disk.faults == faults:
                self._give_up("I12", f"the broker does not start: {error}")
            self.loop.at(self.loop.now_us + SECOND_US // 2, self.life, self._start)
            return
        except PowerCut:
            broker.life.over = True
            self._crashed(self.random.random() < 0.7)
            return
        self.disk.flips = self.disk.bad_reads = 0
        if self.disk.flipped and self.disk.flipped not in broker.log.report.ignored:
            self._give_up("M1", f"a flipped bit of {self.disk.flipped} was not seen")
        self._started(broker)

    def _trouble_start(self) -> None:
        random = self.random
        if random.random() < 0.2:
            self.disk.dies_in = random.randint(1, 40)
        if random.random() < 0.05:
            self.disk.bad_reads = 1
        if random.random() < 0.05:
            self.disk.flips = 1

    def _started(self, broker: SimulatedBroker) -> None:
        self.note(f"started, epoch {broker.log.epoch}")
        self.disk.dies_in = 0
        self.broker = broker
        self.checker.epoch = broker.log.epoch
        self.deleted = False
        counters = self._counters(broker)
        self._baseline = {name: sides(name, counters[name], counters) for name in counters}

    def _crashed(self, power: bool) -> None:
        self.note("power cut" if power else "killed")
        self.crashes += 1
        self.checker.crashes += 1
        self.checker.calm = False
        self._end_life(silent=power and self.random.random() < 0.5)
        self.disk.restart(power)
        down_us = self.random.choice((20_000, 300_000, 3 * SECOND_US))
        self.loop.at(self.loop.now_us + down_us, self.life, self._start)

    def _end_life(self, *, silent: bool) -> None:
        broker, self.broker = self.broker, None
        if broker is not None:
            broker.life.over = True
        for link in self.links.values():
            link.troubled = True
            if silent:
                link.half_open = True
            elif link.is_open:
                link.down.end(link.client_lost)
        self.links = {}

    def _failed(self, error: BaseException) -> None:
        """The log failed: the process ends, as `Server` has it."""
        self.note(f"fail-stop: {error}")
        if not self.disk.faults:
            self._give_up("E1", f"the log failed without a fault: {error}")
        self._crashed(power=False)

    def _give_up(self, invariant: str, text: str) -> None:
        self.checker.violation(invariant, text)
        self.ended = True

    # -- what goes wrong ------------------------------------------------------------------------

    def _schedule(self, name: str) -> None:
        wait_us = round(self.random.expovariate(self._rates[name] / 20) * SECOND_US)
        self.loop.at(self.loop.now_us + wait_us, self.life, self._happen, name)

    def _happen(self, name: str) -> None:
        if self.draining:
            return
        self._schedule(name)
        if self.broker is not None or name in ("jump", "suspend"):
            self.note(f"fault {name}")
            self.faults += 1
            getattr(self, f"_{name}")()

    def _kill(self) -> None:
        self._crashed(power=False)

    def _power(self) -> None:
        self._crashed(power=True)

    def _kill_soon(self) -> None:
        self.disk.dies_in = self.random.randint(1, 30)

    _power_soon = _kill_soon

    def _stop(self) -> None:
        assert self.broker is not None
        if not self.broker.stopping:
            broker = self.broker
            broker.stop(lambda: self._stopped(broker))

    def _stopped(self, broker: SimulatedBroker) -> None:
        if broker is self.broker:
            self.note("stopped")
            self.checker.calm = False
            self.checker.crashes += 1  # a wait over it is counted by the wall clock
            self._end_life(silent=False)
            self.disk.restart(power=False)
            self.loop.at(self.loop.now_us + 100_000, self.life, self._start)

    def _die(self) -> None:
        self.random.choice(self.clients[1:]).die()

    def _sync(self) -> None:
        self.disk.sync_fault = self.random.choice(MODES)

    def _hang(self) -> None:
        self._hang_us = self.random.randint(1, 60) * SECOND_US

    def _slow(self) -> None:
        self._latency_us = self.random.choice((100, 1_000, 20_000, 200_000))

    def _for_a_while(self, clear: Callable[[], None]) -> None:
        until_us = self.loop.now_us + self.random.randint(100_000, 4 * SECOND_US)
        self.loop.at(until_us, self.life, clear)

    def _full(self) -> None:
        self.disk.full = self.random.choice((errno.ENOSPC, errno.EDQUOT))
        self._for_a_while(lambda: setattr(self.disk, "full", 0))

    def _read_only(self) -> None:
        self.disk.read_only = True
        self._for_a_while(lambda: setattr(self.disk, "read_only", False))

    def _no_files(self) -> None:
        self.disk.no_files = True
        self._for_a_while(lambda: setattr(self.disk, "no_files", False))

    def _some_link(self) -> Link | None:
        links = [link for link in self.links.values() if link.is_open and not link.half_open]
        return self.random.choice(links) if links else None

    def _cut(self) -> None:
        if (link := self._some_link()) is not None:
            link.cut()

    def _silence(self) -> None:
        if (link := self._some_link()) is not None:
            link.half_open = link.troubled = True

    def _stall(self) -> None:
        if (link := self._some_link()) is not None:
            link.troubled = True
            link.slow_until_us = self.loop.now_us + self.random.randint(1, 15) * SECOND_US

    def _lag(self) -> None:
        self._lag_us = self.random.choice((50, 300, 5_000, 100_000, 1_000_000))

    def _jump(self) -> None:
        hours = self.random.choice((-87_600, -1, 1, 87_600))
        self._wall_ms = max(0, self._wall_ms + hours * HOUR_MS)

    def _suspend(self) -> None:
        self._wall_ms += self.random.randint(1, 60) * 60_000  # the monotonic clock stands still

    # -- the run --------------------------------------------------------------------------------

    def run(self) -> World:
        """Live, heal, drain, and judge."""
        try:
            self._start()
            for name in self._rates:
                self._schedule(name)
            self.loop.at(SECOND_US, self.life, self._balance)
            self._live(self.length_us, lambda: self.ended)
            self._heal()
            self._live(self.loop.now_us + DRAIN_US, lambda: self.ended or self._is_empty())
            self._judge()
        except Exception:  # noqa: BLE001 - whatever the product raises here is a finding
            self.checker.violation("exception", traceback.format_exc())
        return self

    def _live(self, end_us: int, stop: Callable[[], bool]) -> None:
        while True:
            try:
                self.loop.run_until(end_us, stop)
                return
            except PowerCut:
                self._crashed(self.random.random() < 0.7)

    def _heal(self) -> None:
        if self.ended:
            return
        self.note("healed")
        self.disk.clear()
        self.disk.dies_in = 0
        self._latency_us, self._hang_us, self._lag_us = 100, 0, 300
        if self.broker is not None and self.random.random() < 0.5:
            self._crashed(power=self.random.random() < 0.7)
        if self.broker is not None and self.random.random() < 0.3:
            self._recover_twice()
        self.draining = True
        for client in self.clients:
            client.quiet = True
        self.consumable = [*self.queues, *(f"{queue}.dlq" for queue in self.queues)]
        self._add("drain", prefetch=32)
        self.clients[-1].quiet = True

    def _is_empty(self) -> bool:
        broker = self.broker
        if broker is None:
            return False
        if any(queue.count() for queue in broker.core.store.queues.values()):
            return False
        sessions = [client.session for client in self.clients]
        return not any(session.outbox.groups or len(session.window) for session in sessions)

    def _judge(self) -> None:
        if self.ended:
            return
        if not self._is_empty():
            counters = self._counters(self.broker) if self.broker else {}
            owed = {c.name: len(c.session.window) for c in self.clients if len(c.session.window)}
            self.checker.violation(
                "I9", f"not drained after {DRAIN_US // SECOND_US} s: {counters}, unanswered {owed}"
            )
        self.checker.finish()
        self._live(self.loop.now_us + 3 * SECOND_US, lambda: False)
        self._check_limits()

    def _counters(self, broker: SimulatedBroker | None) -> dict[str, dict[str, int]]:
        assert broker is not None
        return {queue.name: queue.statistics() for queue in list(broker.core.store.queues.values())}

    def _balance(self) -> None:
        self.loop.at(self.loop.now_us + SECOND_US // 2, self.life, self._balance)
        if self.broker is not None and not self.deleted and not self.ended:
            self.checker.balance(self._baseline, self._counters(self.broker))

    def _check_limits(self) -> None:
        """I11, when all is quiet."""
        broker = self.broker
        assert broker is not None
        most_bytes = 2 * broker.core.live_bytes() + 3 * self.segment_bytes
        if broker.log.disk_bytes > most_bytes:
            text = f"the log has {broker.log.disk_bytes} bytes, {most_bytes} are allowed"
            self.checker.violation("I11", text)
        if self.disk.open_count > 5:
            self.checker.violation("I11", f"{self.disk.open_count} files are open")
        files = len(self.disk.entries)
        torn = sum(name.startswith("torn-") for name in self.disk.entries)
        segments = sum(name.startswith("segment-") for name in self.disk.entries)
        if files - torn - segments > 9:
            self.checker.violation("I11", f"files are left over: {sorted(self.disk.entries)}")

    def _recover_twice(self) -> None:
        """I12: what a start makes of the disk is what the next one finds."""
        disk: SimulatedDisk = self.disk.copy()
        found = []
        for _ in range(2):
            loop = SimulatedLoop()
            broker = SimulatedBroker(
                loop, disk, Random(1), self.segment_bytes,  # type: ignore[arg-type]
                self.unix_ms, lambda: 100, self._failed,
            )  # fmt: skip
            broker.start()
            found.append(contents(broker.core.store))
            disk = disk.copy()
        if found[0] != found[1]:
            self.checker.violation("I12", f"found {found[0]}, then {found[1]}")


def contents(store: Store) -> list[tuple[str, list[tuple[int, int, int]]]]:
    """Return the ids of all messages, queue by queue, as runs in order."""
    return sorted(
        (
            queue.name,
            sorted((item.block.origin, item.first, item.stop) for _, item in queue.items()),
        )
        for queue in store.queues.values()
    )
