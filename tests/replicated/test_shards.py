"""Groups of queues move between logs and keep the laws of decision 83; careless brokers and clients do not."""

from __future__ import annotations

from typing import Any

import pytest
from shard_broker import Broker
from shard_client import Client, Seat
from shard_letters import GiveUp, IsFrozen
from shard_places import (
    Book,
    Claim,
    Coming,
    Complete,
    Entry,
    Frozen,
    Here,
    Is,
    Item,
    Map,
    Moved,
    Thawed,
    born_at,
    group_of,
)
from shard_world import MOST_TROUBLE, Broken, Trouble, World, worlds

WORLDS = 4
WORLDS_OF_A_BUG = 40
BUSY = Trouble(wish=0.05, cut=0.02, doubled=0.5)  # nothing fails, and the operator has no patience
LOST = "liveness|once|lease|hands|ids"  # what becomes of messages that are in two logs, or in none


@pytest.mark.timeout(300)
def test_nothing_is_lost_doubled_or_out_of_order_while_groups_move() -> None:
    done = worlds(1, WORLDS)
    assert sum(len(world.ids) for world in done) > 1_500
    assert sum(world.moves for world in done) >= WORLDS
    assert sum(world.takeovers for world in done) > 40


def test_groups_go_to_and_fro_where_nothing_fails() -> None:
    (world,) = worlds(1, 1, trouble=BUSY)
    assert world.takeovers == 3
    assert world.moves > 5


def test_a_world_comes_out_of_its_seed() -> None:
    one, other = worlds(3, 1) + worlds(3, 1)
    assert (one.ids, one.moves, one.takeovers) == (other.ids, other.moves, other.takeovers)


def test_every_trouble_is_drawn() -> None:
    drawn = [World(seed).trouble for seed in range(1, 13)]
    for name in MOST_TROUBLE.__dataclass_fields__:
        assert any(getattr(trouble, name) for trouble in drawn), name


# -- what a log says --------------------------------------------------------------------------------


def test_a_queue_is_where_its_dead_letters_are() -> None:
    names = ("orders", "orders.dlq", "orders.new", "orders.new.dlq")
    assert {group_of(name) for name in names} == {"orders"}


def test_groups_are_spread_and_a_shard_more_takes_some_of_each() -> None:
    names = [f"group{number}" for number in range(3_000)]
    before = {name: born_at(name, (1, 2, 3)) for name in names}
    after = {name: born_at(name, (1, 2, 3, 4)) for name in names}
    for shard in (1, 2, 3):
        assert 900 < list(before.values()).count(shard) < 1_100
    changed = [name for name in names if before[name] != after[name]]
    assert {after[name] for name in changed} == {4}
    assert 650 < len(changed) < 850


def test_a_client_believes_what_is_newer() -> None:
    heard = Map((1, 2, 3))
    born = heard.where("orders")
    assert born == (0, born_at("orders", (1, 2, 3)))
    heard.learn("orders", 0, 9)
    assert heard.where("orders") == born
    heard.learn("orders", 3, 2)
    heard.learn("orders", 2, 1)
    assert heard.where("orders") == (3, 2)


def _book(*says: Any) -> Book:
    book = Book(born_at("orders", (1, 2)), (1, 2))
    for each in says:
        book.read(Item(each))
    return book


def test_a_log_says_where_a_group_is() -> None:
    home, other = born_at("orders", (1, 2)), 3 - born_at("orders", (1, 2))
    frozen = Frozen("orders", 1, other, 7)
    assert _book().where("orders") == Entry(Is.HERE, 0, home)
    assert _book(frozen).where("orders") == Entry(Is.FROZEN, 0, other, 7)
    assert _book(frozen, Thawed("orders", 7)).where("orders") == Entry(Is.HERE, 0, home)
    gone = _book(frozen, Moved("orders", 1, other, 7))
    assert gone.where("orders") == Entry(Is.ELSEWHERE, 1, other)
    assert gone.moved == {7}


def test_whoever_opens_a_group_has_a_higher_epoch_than_its_copies_know() -> None:
    book = _book(
        Claim(), Coming("orders", 7, (), is_first=True), Complete("orders", 1, 7, 2, 1_000)
    )
    before = book.epoch
    book.read(Item(Here("orders", 1, 7)))
    assert before < 1_000 < book.epoch
    assert (book.epoch - before) % 64 == 0


# -- careless brokers and clients: what the harness must see ----------------------------------------


class OpensBeforeItWasGivenUp(Broker):
    """All copies are here: what else is there to wait for?"""

    async def _copy(self, group: str, frozen: IsFrozen) -> None:
        await super()._copy(group, frozen)
        arrival = self.book.arrivals.get(group)
        if arrival is not None and arrival.complete is not None:
            await self._open(group, arrival.complete)


class ForgetsThatItIsFrozen(Broker):
    """Whoever takes a log over serves all that is in it, and gives it up when it is asked to."""

    async def _take_over(self) -> None:
        await super()._take_over()
        for group, entry in self.book.entries.items():
            if entry.state is Is.FROZEN:
                self.book.entries[group] = Entry(Is.HERE, entry.version, self.shard, entry.attempt)

    def _is_asked_for(self, entry: Entry, letter: GiveUp) -> bool:
        return entry.attempt == letter.attempt


class ServesWhileItIsFrozen(Broker):
    """What comes between the copies and the end of a move is in no copy."""

    def _frame(self, link: Any, ask: Any) -> None:
        entry = self.book.where(ask.group)
        if entry.state is Is.FROZEN and ask.version == entry.version and link.is_open:
            self._apply(link, ask)
        else:
            super()._frame(link, ask)


class GivesUpWhateverTheAttempt(Broker):
    """It is frozen, and somebody has copies: of before it was thawed."""

    def _is_over(self, entry: Entry, letter: GiveUp) -> bool:
        return entry.state is not Is.FROZEN and super()._is_over(entry, letter)

    def _is_asked_for(self, entry: Entry, letter: GiveUp) -> bool:
        return entry.state is Is.FROZEN


class CopiesWhatAReplicaHas(Broker):
    """Reads as far as some server has got, and takes that for all."""

    async def _state_at(self, frozen: IsFrozen) -> Book | None:
        book = Book(frozen.sender, self.world.shards)
        stream = self.world.streams[frozen.sender]
        has = stream.has[self.world.random.choice(list(stream.has))]
        for entry in stream.entries[: min(has, frozen.upto)]:
            book.read(self.world.items[entry.body])
        return book


class BelievesALateLetter(Broker):
    """The group is frozen, said its source a while ago; since then it was here, and went."""

    def _is_new(self, entry: Entry, frozen: IsFrozen) -> bool:
        return True


class KeepsWhatIsGone(Broker):
    """MOVED without the end of its queues: they are back when the group is."""

    def _end_queues(self, group: str) -> None:
        return None


class RefusesWhatItHasDone(Broker):
    """A frame comes again, its group is gone: `not_here`, and what became of it before is not looked for."""

    def _is_known(self, link: Any, ask: Any) -> bool:
        return False


class GivesNoNewEpoch(Broker):
    """Tokens of the target are below those of the source: what is newer looks older."""

    def _open_core(self) -> None:
        self.book.epoch = self.shard + 64 * sum(
            broker.shard == self.shard and broker.number <= self.number
            for broker in self.world.brokers
        )
        super()._open_core()


class NumbersQueuesFromOne(Broker):
    """Each log gives the numbers that it has left, whatever others give."""

    def _open_core(self) -> None:
        super()._open_core()
        assert self.shell is not None
        store = self.shell.store
        store.next_queue_number = max(store.by_number, default=0) + 1


class SendsAgainElsewhere(Client):
    """A group is there now: what has no answer yet is sent there."""

    def _not_here(self, seat: Seat, said: Any) -> None:
        super()._not_here(seat, said)
        for op in self.ops.get(said.group, ()):
            if op.at is not None and op.at[0] == seat.shard:
                seat.unanswered.pop(op.at[1], None)
                op.at = None

    def lost(self, link: Any) -> None:
        """A connection ended, and with it what was on its way."""
        for seat in self._seats.values():
            if seat.link is link and self.world.random.random() < 0.3:
                for op in seat.unanswered.values():
                    op.at = None
                seat.unanswered.clear()
        super().lost(link)


class OpensASessionInEachShard(Client):
    """What was begun in the session of one shard is not its own in another."""

    def _session_at(self, seat: Seat) -> int:
        return self._sessions.get(seat.shard, 0)

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world, name)
        self._sessions: dict[int, int] = {}

    def _welcome(self, seat: Seat, said: Any) -> None:
        self._sessions[seat.shard] = said.header["session"]
        super()._welcome(seat, said)


CARELESS: dict[type[Broker] | type[Client], str] = {
    OpensBeforeItWasGivenUp: "home",
    ForgetsThatItIsFrozen: LOST,
    ServesWhileItIsFrozen: LOST,
    GivesUpWhateverTheAttempt: LOST,
    CopiesWhatAReplicaHas: LOST,
    KeepsWhatIsGone: LOST,
    RefusesWhatItHasDone: "once|lease",
    GivesNoNewEpoch: "lease|hands|ids|raises",
    NumbersQueuesFromOne: "ids|raises|once",
    SendsAgainElsewhere: "once|lease",
    OpensASessionInEachShard: "lease|liveness|hands",
}


@pytest.mark.timeout(300)  # a world takes a second of one core; other processes may have most of it
@pytest.mark.parametrize("kind", CARELESS, ids=lambda kind: kind.__name__)
def test_a_careless_one_is_found(kind: Any) -> None:
    kinds = {"client" if issubclass(kind, Client) else "kind": kind}
    with pytest.raises(Broken, match=rf"seed=\d+ ({CARELESS[kind]})"):
        worlds(1, WORLDS_OF_A_BUG, **kinds)


def test_a_late_letter_that_is_believed_is_found() -> None:
    """A group that was here and went is copied as it was then, and opened."""
    with pytest.raises(Broken, match=r"seed=\d+ home"):
        worlds(1, 3, BelievesALateLetter, trouble=BUSY)
