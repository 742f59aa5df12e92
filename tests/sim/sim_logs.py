"""The retained logs of a world: which there are, how small their files, and who publishes, works and reads.

With the limits of the product no log of a world has more than one segment, and no group is ever full; so these are
of the size of the world. Drawn from a source of its own: worlds without logs stay what they were.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any

from sim_client import Habits
from sim_disk import FaultyDisk
from sim_log_books import Books
from sim_log_bounds import Bounds
from sim_log_groups import Group
from sim_log_keeper import OWN, LogKeeper
from sim_log_people import LogWorker

from minibrokerd.core.verbs import archiving, feeding
from minibrokerd.retained import files, shelf
from minibrokerd.retained.shelf import Retained
from support.simulated_disk import RETAINED

if TYPE_CHECKING:
    from sim_broker import SimulatedBroker
    from sim_memory import Limit
    from sim_world import World


class Logs:
    """What a world has of them; without the capability nothing."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.books = Books(world.checker, world.ledger)
        self.keeper: LogKeeper | None = None
        self._random = random = Random(f"logs of {world.seed}")
        self._segment_bytes = random.choice((500, 2_000, 8_000))
        self._compress = random.random() < 0.5
        self._cache_bytes = random.choice((0, 2_000, 100_000))
        if "log" not in world.uses.names:
            return
        limits: dict[Limit, int] = {
            (feeding, "WINDOW_MESSAGES"): random.choice((3, 20, 10_000)),
            (feeding, "FETCH_BYTES"): random.choice((300, 3_000)),
            (archiving, "MOST_ITEMS"): random.choice((2, 1_000)),
            (shelf, "READ_BYTES"): random.choice((300, 3_000)),
            (files, "SEALED_BYTES"): random.choice((100, 1_000)),
        }
        world.memory.limits.update(limits)
        # What logs and groups themselves take is no more than half of it: a broker that is full feeds nobody.
        least_bytes = max(world.memory.limit_bytes, 200_000)
        world.memory = replace(world.memory, limit_bytes=least_bytes)
        for number in range(random.choice((1, 1, 2))):
            self._add_log(f"l{number}", _settings(random), random.choice((1, 1, 2)))
        if random.random() < 0.3:
            self._add_log(OWN, {}, 1)
            self.books.bounds[OWN].begins_anew = True

    def _add_log(self, log: str, settings: dict[str, Any], groups: int) -> None:
        self.books.bounds[log] = Bounds({"kind": "log"} | settings)
        for name in ("g0", "g1")[:groups]:
            group = Group(log, name)
            self.books.groups[group.queue] = group

    def shelf(self, disk: FaultyDisk, path: str) -> Retained:
        """Return the files, for one life of the broker."""
        return Retained(
            disk, f"{path}/{RETAINED}", segment_bytes=self._segment_bytes,
            compress=self._compress, cache_bytes=self._cache_bytes,
        )  # fmt: skip

    # -- people ---------------------------------------------------------------------------------

    def make_people(self) -> None:
        """Let there be those who publish, work, and read."""
        if not self.books.bounds:
            return
        random, clients = self._random, self.world.clients
        self.world.faults.begin_with_logs(random)
        verbs = ["read", "read", "read_since", "show"]
        verbs += ["seek"] * 2 if random.random() < 0.5 else []
        verbs += [verb for verb in ("purge", "end_group") if random.random() < 0.2]
        rate = random.uniform(0.5, 5)
        self.keeper = LogKeeper(self.world, random.getrandbits(32), rate, verbs)
        clients.append(self.keeper)
        for number in range(random.choice((1, 2))):
            self._add(f"w{number}", publishes=random.choice((2, 8, 20)))
        for number in range(random.choice((1, 1, 2))):
            self._add(f"g{number}", prefetch=random.choice((1, 4, 32)))

    def _add(self, name: str, *, publishes: float = 0, prefetch: int = 0) -> None:
        random = self._random
        habits = Habits(
            most_in_batch=random.choice((1, 3, 10)),
            keyed=random.choice((0, 0.5, 0.9)),
            prefetch=prefetch,
            work_us=random.choice((500, 5_000, 50_000)),
            nacks=random.choice((0, 0.1, 0.3)),
            rejects=random.choice((0, 0, 0.1)),
            releases=random.choice((0, 0, 0.2)),
            extends=random.choice((0, 0, 0.3)),
            repeats=random.choice((0, 0.5)),
            stale=random.choice((0, 0.5)),
            goes=random.choice((0, 0, 0.1)),
            blind=random.choice((0, 0, 0.5)),
            timeout_ms=random.choice((300, 3_000, 30_000, 30_000)),
        )
        worker = LogWorker(self.world, name, habits, random.getrandbits(32), publishes)
        self.world.clients.append(worker)

    def heal(self) -> None:
        """Have somebody work on all that is left in groups, dead or not."""
        if self.books.bounds:
            habits = Habits(prefetch=32, work_us=1_000)
            seed = self._random.getrandbits(32)
            worker = LogWorker(self.world, "logdrain", habits, seed)
            worker.calm_down()
            self.world.clients.append(worker)

    # -- the end --------------------------------------------------------------------------------

    def are_drained(self, broker: SimulatedBroker) -> bool:
        """Whether every group has got what there is, and nobody is about to move one."""
        if self.keeper is not None and self.keeper.waiting:
            return False
        if broker.engine._pager.is_full:
            return True  # then nobody is fed: see `judge`
        store = broker.core.store
        feeders = [each for log in store.retained.logs.values() for each in log.feeders.values()]
        return all(each.is_at_end and not each.is_fetching for each in feeders)

    def judge(self) -> None:
        """Have the keeper read all there is, and lay it beside the books."""
        world, keeper = self.world, self.keeper
        broker = world.broker
        if keeper is None or broker is None:
            return
        for log in sorted(self.books.standing | ({OWN} if keeper.has_own else set())):
            found: list[tuple[int, bytes]] = []
            keeper.read_all(log, found)
            world._live(world.loop.now_us + 60_000_000, lambda: not keeper.is_reading)
            if keeper.is_reading:
                world.checker.violation("I9", f"{log} cannot be read to its end")
                continue
            queues, places = broker.core.store.queues, {}
            for queue, group in self.books.groups.items():
                # While its memory is full, the server publishes nothing itself, to groups either.
                if group.log == log and queue in queues and not broker.engine._pager.is_full:
                    feeder: Any = queues[queue].group.retained
                    places[queue] = queues[queue].number, feeder.generation
            suspects, jumped = world.disk.rot.suspects, world.laws.jumped
            is_spoilt = partial(world.disk.rot.is_spoilt, queues[log].number)
            self.books.judge(
                log, found, places, suspects, is_spoilt, world.loop.now_us, jumped=jumped
            )
        self._look_at_files(broker)

    def _look_at_files(self, broker: SimulatedBroker) -> None:
        """I11: nothing is left of logs that have ended, nor of what was being written."""
        numbers = {str(number) for number in broker.core.store.retained.logs}
        for name in sorted(self.world.disk.entries):
            if name.startswith(RETAINED):
                _, number, file = name.split("/")
                if number not in numbers or file.endswith(".tmp"):
                    self.world.checker.violation("I11", f"{name} is left over")

    @property
    def most_open(self) -> int:
        """How many files of logs may be open when all is quiet."""
        return 2 * len(self.books.bounds)


def _settings(random: Random) -> dict[str, Any]:
    """Draw what a log keeps."""
    return random.choice(
        (
            {},
            {"retention_messages": random.choice((1, 10, 40))},
            {"retention_bytes": random.choice((500, 5_000))},
            {"retention_ms": random.choice((200, 2_000))},
            {"compaction_ms": 1_000, "tombstone_ms": random.choice((0, 500, 600_000))},
            {"compaction_ms": 1_000, "tombstone_ms": random.choice((0, 500, 600_000))},
        )
    )
