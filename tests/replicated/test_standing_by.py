"""A broker that stands by, on the simulated stream: what it follows, when it claims, and to whom it gives way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from random import Random

import pytest
from sim_stream import NO_FAULTS, Connection, Faults, SimStream

from minibrokerd.log.format import Kind
from minibrokerd.log.log_versions import FORMAT_VERSION
from minibrokerd.log.seam import Record
from minibrokerd.replicated.entries import Owner, Statement, encoded, new_owner, run_of
from minibrokerd.replicated.history import History
from minibrokerd.replicated.leading import Fence
from minibrokerd.replicated.standing_by import MOST_ENDS, SILENT_S, Standing
from minibrokerd.replicated.stream import Entry, Stream
from minibrokerd.replicated.taking_over import TakeOver
from minibrokerd.replicated.words import Word

STRETCH_BYTES = 4_096


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses are for servers that take time; these take ticks."""
    for name in ("leading.PAUSE_S", "leading.SLOW_PAUSE_S", "leading.MOST_PAUSE_S"):
        monkeypatch.setattr(f"minibrokerd.replicated.{name}", 0.0)
    for name in ("FOLLOW_S", "SLICE_S", "LOOK_AGAIN_S", "BEAT_S"):
        monkeypatch.setattr(f"minibrokerd.replicated.taking_over.{name}", 0.001)


class World:
    """A stream, its time, and a broker that leads it by hand."""

    def __init__(self, faults: Faults = NO_FAULTS) -> None:
        self.stream = SimStream(Random(1), faults)
        self.now_s = 100.0
        self.owner = new_owner("the leader")
        self.number = 0
        self.put(self.claim_of(self.owner), is_epoch=True)

    def claim_of(self, owner: Owner) -> bytes:
        """Return an epoch record."""
        says = Statement(FORMAT_VERSION, 1, bytes(32), owner.name)
        return self.encoded([says.record()], Kind.SEGMENT, owner)[0]

    def encoded(self, records: list[Record], kind: Kind, owner: Owner) -> list[bytes]:
        """Return the parts of an append."""
        return encoded(
            records, kind, store_id=bytes(16), owner=owner, number=self.number, epoch=1, now_ms=1, unix_ms=1
        )  # fmt: skip

    def put(self, part: bytes, *, is_epoch: bool = False) -> int:
        """Store an entry; return its sequence."""
        self.stream.send([part], self.stream.proposed, 1, is_epoch=is_epoch)
        for _ in range(20):
            self.stream.tick()
        return self.stream.last

    def append(self, tail: bytes) -> int:
        """Append a batch of the leader."""
        self.number += 1
        (part,) = self.encoded([Record(2, tail)], Kind.DATA, self.owner)
        return self.put(part)

    def trim(self, below: int) -> None:
        """Say that the log starts there, and purge what is before."""
        says = Statement(FORMAT_VERSION, below, bytes(32), "the leader")
        self.put(self.encoded([says.record()], Kind.MARKER, self.owner)[0])
        self.stream.purge(below)

    async def turn(self) -> None:
        """Let a moment pass."""
        self.stream.tick()
        await asyncio.sleep(0)

    async def connect(self) -> Connection:
        """Return a connection of one more broker."""
        return self.stream.connect(self.turn)


class Follower:
    """A broker that stands by; `tails` are those of the batches that it knows."""

    def __init__(self, world: World, name: str = "a follower") -> None:
        self.world = world
        self.owner = new_owner(name)
        self.standing = Standing(clock_s=lambda: world.now_s)
        self.history = History("a stream", STRETCH_BYTES)
        self.starts: list[int] = []  # of the log, each told when all before it was taken
        self.taking = TakeOver(
            self.history,
            world.connect,
            self._make_fence,
            lambda: world.claim_of(self.owner),
            0.2,
            standing=self.standing,
            word=Word("", name, "there:1").encode(),
            on_start=lambda log_start: self.starts.append(log_start),
        )
        self.tails: list[bytes] = []
        self.again = 0
        self.claimed = False
        self.work = asyncio.create_task(self.taking.work())
        self.taker = asyncio.create_task(self._take())

    def _make_fence(self, stream: Stream) -> Fence:
        return Fence(stream, lambda entry: False, lambda seconds: self.world.turn())

    async def _take(self) -> None:
        await asyncio.sleep(0)
        async for found in self.taking.following():
            if found is None:
                self.again += 1
                self.tails.clear()
            self.tails += [bytes(each.records[0].meta) for each in found or ()]
        self.claimed = True
        await self.work
        self.tails += [bytes(each.records[0].meta) for each in self.taking.batches() if each]

    async def end(self) -> None:
        """Let go."""
        for task in (self.work, self.taker):
            task.cancel()
        await asyncio.gather(self.work, self.taker, return_exceptions=True)


Follow = Callable[..., Follower]


@pytest.fixture
async def follow() -> AsyncIterator[Follow]:
    """Return what makes a broker that stands by."""
    made: list[Follower] = []

    def make(world: World, name: str = "a follower") -> Follower:
        made.append(Follower(world, name))
        return made[-1]

    yield make
    for each in made:
        await each.end()


async def until(condition: Callable[[], object]) -> None:
    """Return when it holds; the rest of the world goes on."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - most of what is looked at tells nobody
            await asyncio.sleep(0)


async def test_it_follows_and_claims_when_nothing_is_heard_any_more(follow: Follow) -> None:
    world = World()
    world.append(b"a")
    follower = follow(world)
    await until(lambda: follower.tails == [b"a"])
    world.append(b"b")
    await until(lambda: follower.tails == [b"a", b"b"])
    assert not follower.claimed
    claims = len(world.stream.claims)
    world.now_s += SILENT_S
    await until(follower.taker.done)
    assert len(world.stream.claims) == claims + 1
    assert follower.taking.position == world.stream.last
    assert follower.tails == [b"a", b"b"]


async def test_it_does_not_claim_while_somebody_says_that_he_leads(follow: Follow) -> None:
    world = World()
    follower = follow(world)
    leader = await world.connect()
    await until(lambda: world.stream.ears)
    for count in range(20):
        world.now_s += SILENT_S * 0.9
        await leader.say(Word("1", "the leader", "here:1").encode())
        world.append(b"%d" % count)
        await until(lambda: len(follower.tails) == world.number)
    assert not follower.claimed
    assert len(world.stream.claims) == 1


async def test_a_last_word_is_not_waited_behind(follow: Follow) -> None:
    world = World()
    follower = follow(world)
    leader = await world.connect()
    await until(lambda: world.stream.ears)
    world.append(b"a")
    run = run_of(world.owner.bits)
    await leader.say(Word("0" * 16, "one before", "there:1", is_last=True).encode())
    await until(lambda: follower.tails == [b"a"])
    for count in range(2, 6):  # it has looked at the end by then, and would claim
        assert world.append(b"b") == world.stream.last
        await until(lambda count=count: len(follower.tails) == count)  # type: ignore[misc]
    assert not follower.claimed
    assert len(world.stream.claims) == 1
    await leader.say(Word(run, "the leader", "here:1", is_last=True).encode())
    await until(follower.taker.done)
    assert follower.tails == [b"a"] + [b"b"] * 4


async def test_silence_does_not_count_where_nothing_can_be_heard(follow: Follow) -> None:
    """Who cannot read could not hear either; a server that answers again is listened to for as long as ever."""
    world = World()
    follower = follow(world)
    await until(lambda: world.stream.ears)
    world.stream.faults = Faults(away=1.0)
    for _ in range(20):
        world.now_s += SILENT_S
        await until(lambda: not follower.standing.may_lead)
    assert not follower.claimed
    world.stream.faults = NO_FAULTS
    world.append(b"a")
    await until(lambda: follower.tails == [b"a"])
    assert len(world.stream.claims) == 1


async def test_what_is_trimmed_behind_it_does_not_disturb_it(follow: Follow) -> None:
    world = World()
    follower = follow(world)
    lasts = [world.append(b"%d" % count + bytes(900)) for count in range(40)]
    await until(lambda: len(follower.tails) == 40)
    before = follower.history.stretches.sealed_bytes
    world.trim(lasts[30])
    world.append(b"later")
    await until(lambda: len(follower.tails) == 41)
    assert follower.again == 0
    stretches = follower.history.stretches
    assert stretches.sealed_bytes < before / 2, "it counts what is gone"
    assert stretches.sealed[0].first == lasts[30]
    assert follower.starts[-1] == lasts[30], "what is replayed up to there needs nothing older"
    world.now_s += SILENT_S
    await until(follower.taker.done)


async def test_what_is_trimmed_before_it_was_read_makes_it_begin_again(follow: Follow) -> None:
    """What ended in between is known to nobody: all that was read before counts no more."""
    world = World()
    follower = follow(world)
    world.append(b"a")
    await until(lambda: follower.tails == [b"a"])
    world.stream.faults = Faults(away=1.0)
    lasts = [world.append(b"%d" % count) for count in range(6)]
    world.trim(lasts[3])
    world.stream.faults = NO_FAULTS
    await until(lambda: follower.tails == [b"3", b"4", b"5"])
    assert follower.again == 1
    world.now_s += SILENT_S
    await until(follower.taker.done)
    assert follower.tails == [b"3", b"4", b"5"]


async def test_of_two_that_claim_at_once_one_leads_and_the_other_goes_on_following(
    follow: Follow,
) -> None:
    world = World()
    first, second = follow(world, "first"), follow(world, "second")
    await until(lambda: len(world.stream.ears) == 2)
    world.append(b"a")
    await until(lambda: first.tails == second.tails == [b"a"])
    world.now_s += SILENT_S
    await until(lambda: first.claimed or second.claimed)
    winner, other = (first, second) if first.claimed else (second, first)
    await until(winner.taker.done)
    await until(lambda: other.history.owner_bits == winner.owner.bits)
    assert other.standing.word is not None
    assert other.standing.word.address == "there:1", "nobody heard that it leads"
    assert not other.claimed
    assert len(world.stream.claims) == 2


async def test_a_claim_that_comes_second_leaves_the_log_to_the_first(follow: Follow) -> None:
    """It had not read of the other one when it claimed."""
    world = World()
    follower = follow(world)
    await until(lambda: follower.history.read_to == world.stream.last)
    world.stream.behind = dict.fromkeys(world.stream.behind, 10)
    another = new_owner("another")
    world.put(world.claim_of(another), is_epoch=True)
    world.now_s += SILENT_S
    await until(lambda: follower.history.owner_bits == another.bits)
    world.owner = another
    world.append(b"of the other one")
    await until(lambda: follower.tails == [b"of the other one"])
    assert not follower.claimed
    assert len(world.stream.claims) == 2


async def test_what_the_old_leader_appends_at_the_last_moment_is_read(follow: Follow) -> None:
    """A refusal by what the leader appended meanwhile is no reason to give way."""
    world = World()
    follower = follow(world)
    await until(lambda: follower.history.read_to == world.stream.last)
    world.stream.behind = dict.fromkeys(
        world.stream.behind, 10
    )  # of the append; it is refused by the leader
    world.append(b"late")
    world.now_s += SILENT_S
    await until(follower.taker.done)
    assert follower.tails == [b"late"]


async def test_it_knows_how_far_it_is_behind(follow: Follow) -> None:
    """By what whoever leads says of the end, and for how long that is there, whatever is said afterwards."""
    world = World()
    follower = follow(world)
    world.append(b"a")
    await until(lambda: follower.taking.replayed_to == world.stream.last)
    end = world.stream.last
    world.now_s += 0.5
    follower.standing.hear(Word("1", "one of before", "here:1").encode())
    assert follower.taking.lag == (0, 0.5), "nobody has said yet how long the log is"
    follower.standing.hear(Word("1", "the leader", "here:1", end=end).encode())
    assert follower.taking.lag == (0, 0.0)
    world.stream.faults = Faults(away=1.0)
    for number in range(1, 4):
        world.append(b"%d" % number)
        follower.standing.hear(Word("1", "the leader", "here:1", end=end + number).encode())
        world.now_s += 0.25
    assert follower.taking.lag == (3, 0.75)
    world.stream.faults = NO_FAULTS
    await until(lambda: follower.taking.lag == (0, 0.0))
    assert follower.tails == [b"a", b"1", b"2", b"3"]


async def test_it_does_not_ask_for_what_is_said_not_to_be_there(
    follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten questions a second were most of what an idle broker cost, and its server of NATS."""
    world, asked, read = World(), [], Connection.read

    async def counted(self: Connection, first: int, most_bytes: int) -> list[Entry]:
        asked.append(first)
        return await read(self, first, most_bytes)

    monkeypatch.setattr(Connection, "read", counted)
    monkeypatch.setattr("minibrokerd.replicated.taking_over.FOLLOW_S", 0.0)
    follower = follow(world)
    world.append(b"a")
    await until(lambda: follower.tails == [b"a"])
    follower.standing.hear(Word("1", "the leader", "here:1", end=world.stream.last).encode())
    asked.clear()
    for _ in range(2_000):
        await asyncio.sleep(0)
    assert len(asked) <= 1, "the one that was under way"
    world.now_s += SILENT_S / 2
    await until(lambda: len(asked) > 2)  # who hears nothing looks whether he could
    follower.standing.hear(Word("1", "the leader", "here:1", end=world.append(b"b")).encode())
    await until(lambda: follower.tails == [b"a", b"b"])


def test_ends_that_are_never_reached_are_bounded() -> None:
    now_s = 0.0
    standing = Standing(clock_s=lambda: now_s)
    for number in range(1, 2 * MOST_ENDS):
        standing.hear(Word("1", "the leader", "here:1", end=number).encode())
        now_s += 0.25
    assert len(standing._ends) == MOST_ENDS
    assert standing.lag(0)[1] == now_s
