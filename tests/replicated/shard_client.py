"""A client of several shards: one session, a window in each, and what it has heard of groups. Decision 83."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from core_client import Client as CoreClient
from core_client import Delivered, Run
from shard_link import Ask, Link, NotHere, Said
from shard_places import Map, group_of

if TYPE_CHECKING:
    from shard_world import World

IN_FLIGHT: Final = 4  # frames of one group
LEASE_MS: Final = 3_600_000


class Packer(CoreClient):
    """Frames of one window, which somebody else sends."""

    def __init__(self, name: str) -> None:
        super().__init__(None, 0, name)  # type: ignore[arg-type]  # it has no world
        self.last = b""

    def send(self, payload: bytes) -> None:
        """Keep it."""
        self.last = payload


@dataclass(eq=False)
class Op:
    """One thing to be done with a frame, and where that is under way: shard and sequence."""

    queue: str
    kind: str  # publish, ack, nack
    body: bytes
    key: str = ""
    dedupe: str = ""
    hand: Hand | None = None
    at: tuple[int, int] | None = None
    version: int = 0


@dataclass(eq=False)
class Hand:
    """A message that is worked on here."""

    message: Delivered
    is_void: bool
    is_settled: bool = False  # a frame of that is made

    @property
    def group(self) -> str:
        """The group of its queue."""
        return group_of(self.message.queue)


@dataclass(eq=False)
class Asking:
    """A receive without an answer yet."""

    queue: str
    number: int
    payload: bytes
    shard: int
    version: int


@dataclass(eq=False)
class Seat:
    """One shard, as a client sees it."""

    shard: int
    packer: Packer
    link: Link | None = None
    is_open: bool = False
    epoch: int = 0  # the highest that it was welcomed with
    unanswered: dict[int, Op] = field(default_factory=dict)


class Client:
    """One process that publishes and consumes; it outlives every broker."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.map = Map(world.shards)
        self.session = 0
        self.ops: dict[str, deque[Op]] = {}
        self.hands: dict[Run, Hand] = {}
        self._seats: dict[int, Seat] = {}
        self._asking: dict[str, Asking] = {}  # by group
        self._requests = 0
        self._published = 0
        self._again: list[tuple[str, bytes, str, str]] = []  # what has a dedupe id

    # -- what it does of itself -------------------------------------------------------------------

    def step(self, *, is_draining: bool) -> None:
        """Do something, or nothing."""
        random = self.world.random
        if not is_draining and random.random() < 0.25:
            self._publish()
        if random.random() < 0.2:
            self._receive(random.choice(self.world.queues))
        for hand in list(self.hands.values()):
            if not hand.is_settled and random.random() < 0.05:
                kind = "nack" if random.random() < 0.1 and not is_draining else "ack"
                self._settle(hand, kind)
        for seat in self._seats.values():
            if seat.link is None and random.random() < 0.2:
                self._connect(seat)
        for group in list(self.ops):
            self._pump(group)

    def _publish(self) -> None:
        random = self.world.random
        if self._again and random.random() < 0.2:
            queue, body, key, dedupe = random.choice(self._again)
        else:
            self._published += 1
            queue = random.choice(self.world.queues)
            key = random.choice(("", "a", "a"))
            body = b"%s %s %d" % (self.name.encode(), key.encode(), self._published)
            dedupe = body.decode() if random.random() < 0.3 else ""
            if dedupe:
                self._again.append((queue, body, key, dedupe))
        self._put(Op(queue, "publish", body, key, dedupe))

    def _settle(self, hand: Hand, kind: str) -> None:
        hand.is_settled = True
        self._put(Op(hand.message.queue, kind, hand.message.body, hand=hand))

    def _put(self, op: Op) -> None:
        self.ops.setdefault(group_of(op.queue), deque()).append(op)

    # -- frames -----------------------------------------------------------------------------------

    def _seat(self, shard: int) -> Seat:
        if shard not in self._seats:
            self._seats[shard] = Seat(shard, Packer(self.name))
        return self._seats[shard]

    def _pump(self, group: str) -> None:
        """Send what may be sent: nothing, while something of the group is under way elsewhere."""
        version, shard = self.map.where(group)
        seat = self._seat(shard)
        ops = self.ops[group]
        under_way = sum(op.at is not None for op in ops)
        if not seat.is_open or self._must_wait(ops, shard, version):
            return
        for op in ops:
            if op.at is None and under_way < IN_FLIGHT:
                under_way += 1
                self._send(seat, op, version)

    def _must_wait(self, ops: deque[Op], shard: int, version: int) -> bool:
        under_way = [op for op in ops if op.at is not None]
        return any((op.at or (0,))[0] != shard or op.version != version for op in under_way)

    def _send(self, seat: Seat, op: Op, version: int) -> None:
        packer = seat.packer
        packer.answered_below = min(seat.unanswered, default=packer.sequence + 1)
        if op.kind == "publish":
            packer.publish(op.queue, op.body, keys=[op.key], dedupes=[op.dedupe])
        else:
            assert op.hand is not None
            if op.kind == "nack":
                self.world.given_back(self, op.body)
            packer.settle_runs(op.kind, op.queue, [op.hand.message.run])
        op.at = seat.shard, packer.sequence
        op.version = version
        seat.unanswered[packer.sequence] = op
        self._ask(seat, op)

    def _ask(self, seat: Seat, op: Op) -> None:
        assert seat.link is not None
        assert op.at is not None
        payload = seat.packer.sent[op.at[1]]
        seat.link.ask(Ask(payload, group_of(op.queue), op.version, ("sequence", op.at[1])))

    def _receive(self, queue: str) -> None:
        group = group_of(queue)
        version, shard = self.map.where(group)
        seat = self._seat(shard)
        if group in self._asking or not seat.is_open or len(self.hands) > 5:
            return
        number = self._next_request(seat)
        seat.packer.requests = number - 1
        seat.packer.receive(queue, self.world.random.choice((1, 2)), lease_ms=LEASE_MS)
        asking = Asking(queue, number, seat.packer.last, shard, version)
        self._asking[group] = asking
        self._ask_for(seat, asking)

    def _next_request(self, seat: Seat) -> int:
        self._requests += 1  # of the session, not of the shard: what it names moves with the group
        return self._requests

    def _ask_for(self, seat: Seat, asking: Asking) -> None:
        asking.version, asking.shard = self.map.where(group_of(asking.queue))[0], seat.shard
        if seat.is_open:
            assert seat.link is not None
            name = "request", asking.number
            seat.link.ask(Ask(asking.payload, group_of(asking.queue), asking.version, name))

    # -- connections ------------------------------------------------------------------------------

    def _connect(self, seat: Seat) -> None:
        if not self.session and any(other.link is not None for other in self._seats.values()):
            return  # the first one makes the session
        seat.link = self.world.connect(self, seat.shard)
        if seat.link is not None:
            runs = list(self._runs(seat.shard))
            seat.link.ask(Ask(session=self._session_at(seat), runs=runs))

    def _session_at(self, seat: Seat) -> int:
        return self.session

    def _runs(self, shard: int) -> Iterator[tuple[str, Run]]:
        for hand in self.hands.values():
            if self.map.where(hand.group)[1] == shard:
                yield hand.group, hand.message.run

    def lost(self, link: Link) -> None:
        """A connection ended."""
        for seat in self._seats.values():
            if seat.link is link:
                seat.link, seat.is_open = None, False

    # -- what it is told --------------------------------------------------------------------------

    def hear(self, link: Link, said: Said | NotHere) -> None:
        """Take one frame."""
        seat = next(seat for seat in self._seats.values() if seat.link is link)
        if isinstance(said, NotHere):
            self._not_here(seat, said)
            return
        header = said.header
        if header["op"] == "welcome":
            self._welcome(seat, said)
        elif header["op"] == "confirm":
            self._confirmed(seat, header)
        elif header["op"] == "deliver":
            self._delivered(header, is_void=said.is_void)
        elif header["op"] == "error":
            self.world.broken(f"refused: {self.name} is told {header}")

    def _welcome(self, seat: Seat, said: Said) -> None:
        if said.header["epoch"] < seat.epoch:  # it was deposed, and would say that all is lost
            assert seat.link is not None
            seat.link.drop()
            return
        seat.epoch = said.header["epoch"]
        self.session = self.session or said.header["session"]
        for group, (version, shard) in said.elsewhere.items():
            self.map.learn(group, version, shard)
        lost = {run[:3] for run in said.header["lost_runs"]}
        for hand in list(self.hands.values()):
            if hand.message.run[:3] in lost and not hand.is_settled:
                self._lose(hand)
        seat.is_open = True
        for sequence in sorted(seat.unanswered):
            self._ask(seat, seat.unanswered[sequence])
        for asking in self._asking.values():
            if asking.shard == seat.shard:
                self._ask_for(seat, asking)

    def _lose(self, hand: Hand) -> None:
        self.hands.pop(hand.message.run, None)
        self.world.lost_hand(self, hand)

    def _not_here(self, seat: Seat, said: NotHere) -> None:
        self.map.learn(said.group, said.version, said.shard)
        kind, number = said.name
        if kind == "sequence":
            op = seat.unanswered.pop(number, None)
            if op is not None:
                op.at = None
            return
        asking = self._asking.get(said.group)
        if asking is not None and asking.number == number and asking.shard == seat.shard:
            shard = self.map.where(said.group)[1]
            self._ask_for(self._seat(shard), asking)

    def _confirmed(self, seat: Seat, header: dict[str, Any]) -> None:
        op = seat.unanswered.pop(header["sequence"], None)
        if op is None:
            return  # told twice
        self.ops[group_of(op.queue)].remove(op)
        if op.kind == "publish":
            result = header["results"][0]
            id = result["origin"], result["first"]
            if result.get("known"):
                id = tuple(header["lost_runs"][0][1:3])
            self.world.published(op.body, id)
            return
        assert op.hand is not None
        self.hands.pop(op.hand.message.run, None)
        is_lost = bool(header["results"][0].get("lost"))
        self.world.settled(self, op.kind, op.hand, is_lost=is_lost)

    def _delivered(self, header: dict[str, Any], *, is_void: bool) -> None:
        group = group_of(header["queue"])
        asking = self._asking.get(group)
        if asking is not None and asking.number == header.get("request"):
            if header["queue"] != asking.queue:
                self.world.broken(f"answer: of {header['queue']}, asked was {asking.queue}")
            del self._asking[group]
        elif not any(message.run in self.hands for message in header["messages"]):
            other = [each for each in self._asking.values() if each.number == header["request"]]
            if other:
                self.world.broken(f"answer: of {header['queue']}, asked was {other[0].queue}")
            return  # an answer to what was asked twice
        for message in header["messages"]:
            if message.run not in self.hands:
                hand = self.hands[message.run] = Hand(message, is_void)
                self.world.handed(self, hand)
