"""Brokers that take over from each other on a simulated stream, with every fault that was measured.

What is judged: an append that was confirmed is there once, in its order, and known to every later leader; nothing
stands behind an epoch record that a broker appended which led before it. And nobody who led is deposed by one that
had been deposed itself. The seed is the bug report.
"""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest
from sim_stream import NO_FAULTS, Faults, SimStream
from sim_turns import run, turn

from minibrokerd.replicated.leading import Fence, Overtaken
from minibrokerd.replicated.stream import Entry, StreamAway

EVERYTHING = Faults(
    lost=0.02, late=0.03, unanswered=0.03, slow=0.05, dies=0.004, cut=0.003, stale=0.03, away=0.03
)
KINDS = {
    "none": NO_FAULTS,
    "answers": Faults(lost=0.1, late=0.15, unanswered=0.15, slow=0.2),
    "servers": Faults(dies=0.01, cut=0.01, stale=0.1, away=0.05),
    "everything": EVERYTHING,
}


@dataclass
class Life:
    """One run of a broker: what it found, and what was confirmed by it."""

    name: str
    found: list[bytes] = field(default_factory=list)
    confirmed: list[bytes] = field(default_factory=list)
    claimed: int = 0
    overtaken: bool = False


class World:
    """One stream, and brokers that append to it until they are overtaken or killed."""

    def __init__(self, seed: int, faults: Faults) -> None:
        self.random = Random(seed)
        self.stream = SimStream(self.random, faults)
        self.lives: list[Life] = []
        self.running: list[tuple[Life, Coroutine[Any, Any, None]]] = []
        self.confirmed: list[bytes] = []  # by all, in the order of the confirms

    def start(self) -> None:
        """Start one more broker."""
        life = Life(f"b{len(self.lives)}")
        self.lives.append(life)
        self.running.append((life, self._live(life)))

    async def _live(self, life: Life) -> None:
        record = f"epoch {life.name}".encode()
        connection = self.stream.connect(turn)

        async def pause(seconds: float) -> None:
            for _ in range(1 + round(seconds * 10)):
                await turn()

        def is_own(entry: Entry) -> bool:
            return entry.is_epoch and entry.body == record

        fence = Fence(connection, is_own, pause)
        try:
            expected = (await connection.info()).last
        except StreamAway:
            expected = 0
        claimed = await fence.claim(record, expected)
        known = list(
            self.confirmed
        )  # by whoever led before, when nobody else could append any more
        async for entries in fence.read(1, claimed):
            life.found += [entry.body for entry in entries if not entry.is_epoch]
        life.claimed = claimed
        assert [body for body in known if body not in life.found] == [], "a leader lacks it"
        try:
            for number in range(30):
                parts = [
                    f"{life.name} {number}.{part}".encode()
                    for part in range(self.random.choice((1, 1, 1, 3)))
                ]
                await fence.append(parts, lambda: record)
                life.confirmed += parts
                self.confirmed += parts
                unknown = set(self.confirmed) - set(life.found) - set(life.confirmed)
                assert not unknown, f"{life.name} confirms, and does not know {unknown}"
        except Overtaken:
            life.overtaken = True

    def step(self) -> None:
        """Step one broker; maybe the stream goes on."""
        if self.random.random() < 0.5:
            self.stream.tick()
        if not self.running or (len(self.running) < 3 and self.random.random() < 0.005):
            self.start()
        life, work = self.random.choice(self.running)
        try:
            work.send(None)
        except StopIteration:
            self.running.remove((life, work))
        else:
            if self.random.random() < 0.001:  # kill -9
                work.close()
                self.running.remove((life, work))

    def judge(self) -> None:
        """Look at what is stored."""
        self.stream.faults = NO_FAULTS
        for _ in range(500):
            self.stream.tick()
        last = Life("judge")
        run(self.stream, self._judged(last), 100_000)
        stored = [entry.body for entry in self.stream.entries if not entry.is_epoch]
        assert len(stored) == len(set(stored)), "something is there twice"
        places = {body: place for place, body in enumerate(stored)}
        assert [body for body in self.confirmed if body not in places] == [], "it was lost"
        for life in self.lives:
            order = [places[body] for body in life.confirmed]
            assert order == sorted(order)
        leader = ""
        led = {life.name: life.claimed for life in self.lives if life.claimed}
        for entry in self.stream.entries:
            name = entry.body.decode().split()[1 if entry.is_epoch else 0]
            if entry.is_epoch:
                again = name != leader and entry.sequence > led.get(name, entry.sequence)
                assert not again, f"{name} deposed {leader} when it had led already"
                leader = name
            assert name == leader, f"{name} appended entry {entry.sequence}, and {leader} led"

    async def _judged(self, life: Life) -> None:
        """A claim behind everything: what is late can come no more."""
        connection = self.stream.connect(turn)
        fence = Fence(connection, lambda entry: False, lambda seconds: turn())
        await fence.claim(b"epoch judge", 0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(12))
def test_what_was_confirmed_stays_and_one_leads(seed: int, kind: str) -> None:
    world = World(seed, KINDS[kind])
    for _ in range(6_000):
        world.step()
    for _, work in world.running:
        work.close()
    world.judge()
    assert world.confirmed, "nothing was tried"


@pytest.mark.parametrize("seed", range(6))
def test_a_broker_alone_is_never_overtaken(seed: int) -> None:
    """An append that was stored without an answer looks, at a second try, as if somebody else had led."""
    world = World(seed, KINDS["answers"])
    world.start()
    while world.running:
        world.stream.tick()
        life, work = world.running[0]
        try:
            work.send(None)
        except StopIteration:
            world.running.clear()
    assert not life.overtaken
    assert len({body.split(b".")[0] for body in life.confirmed}) == 30
    world.judge()


def test_the_worlds_have_what_is_hard() -> None:
    """Brokers are overtaken, servers elected, and appends without an answer found to be there."""
    overtaken = elections = claims = 0
    for seed in range(12):
        world = World(seed, EVERYTHING)
        for _ in range(6_000):
            world.step()
        for _, work in world.running:
            work.close()
        overtaken += sum(life.overtaken for life in world.lives)
        elections += world.stream.elections
        claims += len(world.stream.claims) - len(world.lives)
    assert min(overtaken, elections, claims) > 10, (overtaken, elections, claims)
