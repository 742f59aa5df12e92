"""Brokers on a simulated stream, one seed, and the laws that they keep.

A broker is what uses a fence as the log does: it claims, reads up to its claim, appends and confirms. There are
several in a row, and the one before need not be dead: it may be paused, cut off, or only slow. The laws are looked
at whenever something is confirmed or read, and once more at the end, when all faults are over.
"""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import fields
from random import Random
from typing import Any, Final

from sim_stream import NO_FAULTS, Connection, Faults, SimStream
from sim_turns import turn

from minibrokerd.replicated.leading import Fence, Overtaken
from minibrokerd.replicated.stream import EntriesGone, Entry, Info, Outcome, StreamAway

STEPS: Final = 2_500
CALM_STEPS: Final = 6_000  # after the faults, in which somebody has to confirm something
CALM_CONFIRMS: Final = 10
TICKS_A_SECOND: Final = 20
MOST: Final = Faults(0.1, 0.08, 0.1, 0.1, 0.004, 0.003, 0.02, 0.1, 0.02)


class Broken(AssertionError):
    """A law was broken; the text begins with its name."""


async def pause(seconds: float) -> None:
    """Wait."""
    for _ in range(1 + int(seconds * TICKS_A_SECOND)):
        await turn()


class Broker:
    """One run of a broker; bodies of its entries begin with its number."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.number = number
        self.begun: list[Coroutine[Any, Any, None]] = []  # goes on while it waits for something
        self.connection: Connection = world.stream.connect(turn, self._spawn)
        self.fence = Fence(self.connection, self._is_own, pause)
        self.leads = False
        self.is_over = False
        self.is_paused = False
        self.confirmed = 0
        self._epochs = 0
        self._log_start = 1
        self.run: Coroutine[Any, Any, None] = self._run()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        work.send(None)
        self.begun.append(work)

    def _is_own(self, entry: Entry) -> bool:
        return entry.is_epoch and owner_of(entry) == self.number

    def _epoch_record(self) -> bytes:
        self._epochs += 1
        # One of a broker that leads is there to find out: it may stand behind its own entries alone.
        kind = b"again" if self.leads else b"claim"
        return b"%d:%b %d" % (self.number, kind, self._epochs)

    async def _run(self) -> None:
        try:
            await self._take_over()
            while self.leads:
                await self._append()
        except Overtaken:
            self.is_over = True
            self.world.overtaken(self)

    async def _info(self) -> Info:
        while True:
            try:
                return await self.connection.info()
            except StreamAway:
                await pause(0.1)

    async def _claim(self) -> int:
        info = await self._info()
        return await self.fence.claim(self._epoch_record(), info.last)

    async def _take_over(self) -> None:
        end, first = await self._claim(), 1
        while True:
            found: list[Entry] = []
            try:
                async for some in self.fence.read(first, end):
                    found += some
                break
            except EntriesGone as gone:
                first = gone.first
        self._log_start = self.world.took_over(self, found, end)
        self.leads = self._log_start > 0
        self.is_over = not self.leads

    async def _append(self) -> None:
        random = self.world.random
        self.confirmed += 1
        name = b"%d:%d" % (self.number, self.confirmed)
        parts = [b"%s/%d" % (name, index) for index in range(random.choice((1, 1, 1, 3)))]
        outcome = await self._begin(parts) if random.random() < 0.7 else None
        if outcome is None or not self.fence.was_acked(outcome):
            await self.fence.append(parts, self._epoch_record, outcome)
        self.world.confirmed(self, parts, self.fence.position)
        if random.random() < 0.1:
            await self._trim(random.randrange(self._log_start, self.fence.position + 1))
        if random.random() < 0.3:
            await pause(random.random())

    async def _begin(self, parts: list[bytes]) -> Outcome:
        """Append as a log does at first, without a wait of its own."""
        outcomes: list[Outcome] = []
        self.fence.begin(parts, outcomes.append)
        while not outcomes:
            await turn()
        return outcomes[0]

    async def _trim(self, log_start: int) -> None:
        record = b"%d:start %d, %d" % (self.number, log_start, self.confirmed)
        await self.fence.append([record], self._epoch_record)
        self._log_start = log_start
        await self._purge(log_start)

    async def _purge(self, log_start: int) -> None:
        try:
            await self.connection.purge(log_start)
        except StreamAway:
            return


def owner_of(entry: Entry) -> int:
    """Return which broker wrote an entry."""
    return int(entry.body.partition(b":")[0])


def start_of(entry: Entry) -> int:
    """Return where the log starts, says a checkpoint."""
    return int(entry.body.partition(b":start ")[2].partition(b",")[0])


class World:
    """A stream, its brokers, and what was confirmed."""

    def __init__(self, seed: int, kind: type[Broker] = Broker) -> None:
        """`kind`: of brokers, so that a test may have careless ones."""
        self._kind = kind
        self.random = Random(seed)
        # Which faults there are is drawn as well: where all of them are, the rare ones hide each other.
        share = {one.name: self.random.choice((0, 1)) for one in fields(Faults)}
        faults = Faults(**{name: getattr(MOST, name) * on for name, on in share.items()})
        self.stream = SimStream(self.random, faults)
        self.brokers: list[Broker] = []
        self.told: dict[bytes, int] = {}  # what was confirmed, with its sequence
        self.seen: dict[int, Entry] = {}  # all that was ever committed
        self.overtakes = 0

    def run(self) -> None:
        """Let it happen, then let it be calm, and look whether all is there."""
        self._start()
        for _ in range(STEPS):
            if self.random.random() < 0.004:
                self._disturb()
            self._step()
        self.stream.faults = NO_FAULTS
        for broker in self.brokers:
            broker.is_paused = False
        told = len(self.told)
        for _ in range(CALM_STEPS):
            if all(broker.is_over for broker in self.brokers):
                self._start()
            self._step()
            if len(self.told) > told + CALM_CONFIRMS:
                break
        else:
            raise Broken("liveness: after all faults nothing is confirmed")
        self.look()

    def _start(self) -> None:
        self.brokers.append(self._kind(self, len(self.brokers) + 1))

    def _disturb(self) -> None:
        last = self.brokers[-1]
        fate = self.random.random()
        if fate < 0.4:
            last.is_over = True  # killed
        elif fate < 0.8:
            last.is_paused = True
        self._start()

    def _step(self) -> None:
        self.stream.tick()
        self._note()
        for broker in self.brokers:
            if broker.is_paused and self.random.random() < 0.01:
                broker.is_paused = False
        living = [each for each in self.brokers if not (each.is_over or each.is_paused)]
        for broker in living:
            if self.random.random() < 0.8:
                self._go(broker)

    def _go(self, broker: Broker) -> None:
        try:
            for begun in list(broker.begun):
                try:
                    begun.send(None)
                except StopIteration:
                    broker.begun.remove(begun)
            broker.run.send(None)
        except StopIteration:
            broker.is_over = True
        except Broken:
            raise
        except Exception as error:
            raise Broken(f"raises: broker {broker.number} fails by {error!r}") from error

    def _note(self) -> None:
        """Note what was committed, and look at it once."""
        for entry in self.stream.entries[::-1]:
            if entry.sequence in self.seen:
                break
            self.seen[entry.sequence] = entry

    # -- laws ---------------------------------------------------------------------------------------

    def confirmed(self, broker: Broker, parts: list[bytes], position: int) -> None:
        """Law: what is confirmed stands where its broker says, and no other one led in between."""
        self._note()
        for index, part in enumerate(parts):
            where = [at for at, entry in self.seen.items() if entry.body == part]
            if not where:
                raise Broken(f"durable: {part!r} was confirmed and is not in the stream")
            if len(where) > 1:
                raise Broken(f"once: {part!r} stands at {where}")
            self.told[part] = where[0]
            if where[0] > position or (index and where[0] != self.told[parts[index - 1]] + 1):
                raise Broken(f"whole: {part!r} stands at {where[0]}, its broker is at {position}")
        self.look()

    def took_over(self, broker: Broker, found: list[Entry], end: int) -> int:
        """Law: what was read is all that there is, up to the claim; return where the log starts."""
        self._note()
        log_start = 1
        for entry in found:
            if b":start " in entry.body:
                log_start = start_of(entry)
        if self.stream.first > (log_start if found else end):
            self.overtaken(broker)  # whoever led meanwhile has trimmed what it wanted to read
            return 0
        wanted = [self.seen.get(at) for at in range(log_start, end + 1)]
        if [entry for entry in found if entry.sequence >= log_start] != wanted:
            raise Broken(f"read back: broker {broker.number} does not know what stands up to {end}")
        if not wanted or not broker._is_own(found[-1]):
            raise Broken(f"claimed: entry {end} is no epoch record of broker {broker.number}")
        return log_start

    def overtaken(self, broker: Broker) -> None:
        """Law: nobody ends without another one that claimed the log."""
        self._note()
        self.look()
        self.overtakes += 1
        claims = (
            self.stream.claims
        )  # committed or not: the leader compares with what it has proposed
        others = (entry for entry in claims if owner_of(entry) != broker.number)
        since = broker.fence.position if broker.leads else 0
        if not any(entry.sequence > since for entry in others):
            raise Broken(f"alone: broker {broker.number} ended, and no other one claimed the log")

    def look(self) -> None:
        """Laws on all that was ever committed."""
        leader, start = 0, 1
        told_once: set[bytes] = set()
        if self.stream.jumps:
            raise Broken("numbers: a purge beyond the end moved the numbering")
        for sequence in sorted(self.seen):
            entry = self.seen[sequence]
            if entry.is_epoch and b":claim " in entry.body:
                leader = owner_of(entry)
            elif owner_of(entry) != leader:
                raise Broken(f"fence: {entry.body!r} stands behind the claim of broker {leader}")
            if b":start " in entry.body:
                start = start_of(entry)
            if entry.body in told_once and not entry.is_epoch:  # a claim may come twice
                raise Broken(f"once: {entry.body!r} is there twice")
            told_once.add(entry.body)
        if self.stream.first > start:
            raise Broken(
                f"trim: entries below {self.stream.first} are gone, the log starts at {start}"
            )


def worlds(seed: int, count: int, kind: type[Broker] = Broker) -> list[World]:
    """Run so many worlds; raises `Broken` with the seed of its world."""
    done = []
    for number in range(seed, seed + count):
        world = World(number, kind)
        try:
            world.run()
        except Broken as broken:
            raise Broken(f"seed={number} {broken}") from broken
        finally:
            for broker in world.brokers:
                for work in (broker.run, *broker.begun):
                    work.close()
        done.append(world)
    return done
