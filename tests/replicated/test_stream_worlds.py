"""Brokers on simulated streams keep the laws, and careless ones do not."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from sim_stream import NO_FAULTS, Faults, Message, SimStream
from sim_turns import run, turn
from stream_world import MOST, Broken, Broker, World, pause, worlds

from minibrokerd.replicated.leading import Fence

WORLDS = 12
WORLDS_OF_A_BUG = 30


def test_nothing_is_lost_doubled_or_confirmed_by_two() -> None:
    done = worlds(1, WORLDS)
    assert sum(len(world.told) for world in done) > 500
    assert sum(world.overtakes for world in done) > 10, "nobody was ever overtaken"
    assert sum(world.stream.elections for world in done) > 10


def test_a_world_comes_out_of_its_seed() -> None:
    one, other = worlds(7, 1) + worlds(7, 1)
    assert (one.told, one.seen) == (other.told, other.seen)


def test_without_faults_everything_is_confirmed() -> None:
    world = World(3)
    world.stream.faults = NO_FAULTS
    world.run()
    assert world.stream.elections == 0
    assert len(world.told) > 100


def test_every_fault_is_drawn() -> None:
    drawn = [World(seed).stream.faults for seed in range(1, WORLDS + 1)]
    for name in MOST.__dataclass_fields__:
        assert {bool(getattr(faults, name)) for faults in drawn} == {False, True}, name


class Late(SimStream):
    """The second claim is late; by then nobody has what the leader had proposed before it."""

    sent = 0

    def send(self, *args: Any, **options: Any) -> Message:
        """Put an append on its way."""
        message = super().send(*args, **options)
        self.sent += 1
        if self.sent == 2:
            message.ticks = 30
        if self.sent == 3:
            self.proposals.clear()
        return message


def test_a_claim_that_comes_late_deposes_nobody() -> None:
    """Its number was taken out of a refusal, and fits behind the claim that was answered."""
    stream = Late(Random(1), Faults(slow=1))
    SimStream.send(stream, [b"dropped"], 0, 99, is_epoch=False)
    for _ in range(4):
        stream.tick()
    stream.faults = NO_FAULTS
    fence = Fence(stream.connect(turn), lambda entry: entry.body == b"claim", pause)
    assert run(stream, fence.claim(b"claim", 0)) == fence.position
    for _ in range(40):
        stream.tick()
    run(stream, fence.append([b"some"], lambda: b"claim"))
    assert [entry.body for entry in stream.entries[-2:]] == [b"claim", b"some"]


# -- careless brokers: what the harness must see ----------------------------------------------------


class PurgesBeyondTheEnd(Broker):
    """Trims more than there is."""

    async def _purge(self, log_start: int) -> None:
        await super()._purge(self.fence.position + 10)


class TrimsAboveTheCheckpoint(Broker):
    """Trims what the log says it needs."""

    async def _purge(self, log_start: int) -> None:
        await super()._purge(min(log_start + 2, self.fence.position))


class TrimsBeforeTheCheckpoint(Broker):
    """Trims, and says so afterwards."""

    async def _trim(self, log_start: int) -> None:
        await self._purge(log_start)
        await super()._trim(log_start)


class BelievesInfo(Broker):
    """Leads from where some server says that the log ends."""

    async def _claim(self) -> int:
        info = await self._info()
        self.fence.position = info.last
        return info.last


class GoesOn(Broker):
    """Confirms what it has sent, whatever came of it."""

    async def _append(self) -> None:
        parts = [b"%d:careless %d" % (self.number, self.confirmed)]
        self.confirmed += 1
        await self.connection.append(parts, self.fence.position)
        self.fence.position += 1
        self.world.confirmed(self, parts, self.fence.position)


CARELESS = {
    PurgesBeyondTheEnd: "numbers",
    TrimsAboveTheCheckpoint: "trim",
    TrimsBeforeTheCheckpoint: "trim",
    BelievesInfo: "claimed|fence|read back|alone",
    GoesOn: "durable|whole",
}


@pytest.mark.parametrize("kind", CARELESS, ids=lambda kind: kind.__name__)
def test_a_careless_broker_is_found(kind: type[Broker]) -> None:
    with pytest.raises(Broken, match=rf"seed=\d+ ({CARELESS[kind]})"):
        worlds(1, WORLDS_OF_A_BUG, kind)
