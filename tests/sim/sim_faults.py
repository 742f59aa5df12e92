"""What goes wrong in a world, apart from what its disk does by itself: one method for each name in FAULTS."""

from __future__ import annotations

import errno
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

from sim_disk import MODES
from sim_network import Link

if TYPE_CHECKING:
    from sim_world import World

HOUR_MS = 3_600_000
SECOND_US = 1_000_000
MOST_HANG_S = 60  # one sync takes so long

# Name, and how often in 10 s at most.
FAULTS = {
    "kill": 10, "power": 10, "stop": 4, "kill_soon": 10, "power_soon": 12, "die": 8, "leave": 6,
    "sync": 2, "hang": 1, "slow": 2, "full": 2, "read_only": 0.5, "no_files": 0.5,
    "cut": 12, "silence": 3, "stall": 4, "lag": 4, "jump": 6, "suspend": 2,
    "bad_read": 20, "flip": 25, "rot": 12, "unreadable": 5,
}  # fmt: skip
# What only a broker with its log on a disk of its own has.
OF_THE_DISK = {
    "power", "kill_soon", "power_soon", "sync", "hang", "slow", "full", "read_only", "no_files",
    "bad_read", "flip", "rot", "unreadable",
}  # fmt: skip
ALWAYS = ("jump", "suspend", "rot")  # these happen to a broker that is down, too


class Faults:
    """Lets faults happen to a world, each at a rate of its own."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.count = 0
        self._more: dict[str, Callable[[], object]] = {}
        random = world.random
        some = [name for name in FAULTS if random.random() < 0.4]
        self._rates = {name: random.uniform(0.1, 1) * FAULTS[name] for name in some}
        self._handed = Random(f"handed of {world.seed}")  # of its own: the others stay as they are
        self._strikes = self._handed.choice((0.1, 0.5)) if "handed" in world.uses.names else 0.0

    def begin(self) -> None:
        """Let the first of each kind come."""
        for name in self._rates:
            self._schedule(name)

    def begin_on_a_stream(self, random: Random) -> None:
        """Leave out what happens to disks."""
        self._rates = {name: rate for name, rate in self._rates.items() if name not in OF_THE_DISK}

    def add(self, random: Random, **more: Callable[[], object]) -> None:
        """Let more happen, which the world itself does."""
        self._more |= more
        self._rates |= {name: random.uniform(0.5, 8) for name in more}

    def trouble_start(self) -> None:
        """Decide what goes wrong in the next start."""
        random, disk = self.world.random, self.world.disk
        if random.random() < 0.2:
            disk.dies_in = random.randint(1, 40)
        if random.random() < 0.05:
            disk.bad_reads = 1
        if random.random() < 0.05:
            disk.flips = 1

    def _schedule(self, name: str) -> None:
        world = self.world
        wait_us = round(world.random.expovariate(self._rates[name] / 10) * SECOND_US)
        world.loop.at(world.loop.now_us + wait_us, world.life, self._happen, name)

    def _happen(self, name: str) -> None:
        world = self.world
        if world.draining:
            return
        self._schedule(name)
        if world.broker is not None or name in ALWAYS:
            world.note(f"fault {name}")
            self.count += 1
            self._more.get(name, getattr(self, f"_{name}", _unknown))()

    # -- between a hand-out and its handler -------------------------------------------------------

    def strike(self, number: int) -> None:
        """A message was begun as it was handed out: now and then somebody is gone before its handler has it."""
        if self._handed.random() < self._strikes:
            world = self.world
            after_us = round(self._handed.expovariate(1 / world.lag_us))
            who = self._handed.choice(("link", "link", "client", "client", "broker"))
            world.loop.at(world.loop.now_us + after_us, world.life, self._strike, number, who)

    def _strike(self, number: int, who: str) -> None:
        world = self.world
        link = world.links.get(number)
        if world.draining or world.broker is None or link is None or not link.is_open:
            return
        world.note(f"fault at the {who} of {number}")
        self.count += 1
        if who == "broker":
            world.crashed(power=False)
        elif who == "link":
            link.cut()
        for client in world.clients if who == "client" else ():
            if client.link is link:
                client.die()

    # -- the process ----------------------------------------------------------------------------

    def _kill(self) -> None:
        self.world.crashed(power=False)

    def _power(self) -> None:
        self.world.crashed(power=True)

    def _kill_soon(self) -> None:
        self.world.disk.dies_in = self.world.random.randint(1, 30)

    _power_soon = _kill_soon

    def _stop(self) -> None:
        self.world.stop()

    def _die(self) -> None:
        self.world.random.choice(self.world.clients[1:]).die()

    def _leave(self) -> None:
        self.world.random.choice(self.world.clients[1:]).leave()

    # -- the disk -------------------------------------------------------------------------------

    def _sync(self) -> None:
        self.world.disk.sync_fault = self.world.random.choice(MODES)

    def _hang(self) -> None:
        self.world.hang_us = self.world.random.randint(1, MOST_HANG_S) * SECOND_US

    def _slow(self) -> None:
        self.world.latency_us = self.world.random.choice((100, 1_000, 20_000, 200_000))

    def _for_a_while(self, clear: Callable[[], None]) -> None:
        world = self.world
        until_us = world.loop.now_us + world.random.randint(100_000, 4 * SECOND_US)
        world.loop.at(until_us, world.life, clear)

    def _full(self) -> None:
        disk = self.world.disk
        disk.full = self.world.random.choice((errno.ENOSPC, errno.EDQUOT))
        self._for_a_while(lambda: setattr(disk, "full", 0))

    def _read_only(self) -> None:
        disk = self.world.disk
        disk.read_only = True
        self._for_a_while(lambda: setattr(disk, "read_only", False))

    def _no_files(self) -> None:
        disk = self.world.disk
        disk.no_files = True
        self._for_a_while(lambda: setattr(disk, "no_files", False))

    def _bad_read(self) -> None:
        self.world.disk.bad_reads += self.world.random.choice((1, 1, 2, 3, 5))

    def _flip(self) -> None:
        self.world.disk.flips += 1

    def _rot(self) -> None:
        self.world.disk.rot_somewhere(unreadable=False)

    def begin_with_logs(self, random: Random) -> None:
        """Let bits of retained logs turn, too, in some of the worlds that have any."""
        if random.random() < 0.3:
            self._rates["rot_retained"] = random.uniform(0.5, 5)

    def _rot_retained(self) -> None:
        self.world.disk.rot_retained()

    def _unreadable(self) -> None:
        self.world.disk.rot_somewhere(unreadable=True)

    # -- network and clocks ---------------------------------------------------------------------

    def _some_link(self) -> Link | None:
        links = [link for link in self.world.links.values() if link.is_open and not link.half_open]
        return self.world.random.choice(links) if links else None

    def _cut(self) -> None:
        if (link := self._some_link()) is not None:
            link.cut()

    def _silence(self) -> None:
        if (link := self._some_link()) is not None:
            link.half_open = link.troubled = True
            self.world.checker.troubles += 1

    def _stall(self) -> None:
        if (link := self._some_link()) is not None:
            link.troubled = True
            self.world.checker.troubles += 1
            stalled_us = self.world.random.randint(1, 15) * SECOND_US
            link.slow_until_us = self.world.loop.now_us + stalled_us

    def _lag(self) -> None:
        self.world.checker.troubles += 1
        self.world.lag_us = self.world.random.choice((50, 300, 5_000, 100_000, 1_000_000))

    def _jump(self) -> None:
        hours = self.world.random.choice((-87_600, -1, 1, 87_600))
        self.world.laws.jumped = True
        self.world.wall_ms = max(0, self.world.wall_ms + hours * HOUR_MS)

    def _suspend(self) -> None:
        # The monotonic clock stands still.
        self.world.laws.jumped = True
        self.world.wall_ms += self.world.random.randint(1, 60) * 60_000


def _unknown() -> None:
    raise AssertionError("no fault has this name")
