"""Several logs, brokers of each, clients that know little, and the laws of decision 83; one seed.

Everything of a log is as bad as in stream_world.py. Beside that, brokers are killed and paused, connections end,
letters between shards are lost, late and doubled, and an operator keeps changing his mind about where groups are.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from random import Random
from typing import Final, TypeVar

from core_client import Delivered
from shard_broker import Broker, owner_of
from shard_client import Client, Hand
from shard_letters import Letter
from shard_link import Link
from shard_places import Here, Item, Moved, born_at, group_of
from sim_stream import NO_FAULTS, SimStream
from stream_world import MOST, Broken, pause

SHARDS: Final = (1, 2, 3)
QUEUES: Final = ("orders", "orders.new", "mail")
CLIENTS: Final = 3
STEPS: Final = 800
CALM_STEPS: Final = 12_000
Id = tuple[int, int]
Drawn = TypeVar("Drawn")


@dataclass(frozen=True)
class Trouble:
    """How often each thing happens, in a step."""

    kill: float = 0.0
    pause: float = 0.0
    cut: float = 0.0  # of each connection
    wish: float = 0.0
    thaw: float = 0.0  # of each group that is frozen
    lost: float = 0.0  # of each letter
    doubled: float = 0.0  # and late


MOST_TROUBLE: Final = Trouble(0.004, 0.004, 0.01, 0.02, 0.01, 0.3, 0.5)
NO_TROUBLE: Final = Trouble()


class World:
    """Streams, brokers, clients, and what was promised to whom."""

    def __init__(
        self,
        seed: int,
        kind: type[Broker] = Broker,
        client: type[Client] = Client,
        trouble: Trouble | None = None,
    ) -> None:
        """`kind` and `client`: so that a test may have careless ones. With `trouble` no stream has faults."""
        self.random = Random(seed)
        self.shards = SHARDS
        self.queues = QUEUES
        self.pause = pause
        self._kind = kind
        self.trouble = trouble or self._some(MOST_TROUBLE, "wish", 0.5)
        # With all of its faults a stream mostly waits, and nothing of what is looked for happens.
        faults = self._some(MOST, "", 0.3) if trouble is None else NO_FAULTS
        self.streams = {shard: SimStream(self.random, faults) for shard in SHARDS}
        self.items: dict[bytes, Item] = {}
        self.brokers: list[Broker] = []
        self.clients = [client(self, f"c{number}") for number in range(1, CLIENTS + 1)]
        self.links: list[Link] = []
        self.wishes: dict[str, int] = {}
        self.unix_ms = 1_700_000_000_000
        self._post: list[tuple[int, int, Letter]] = []  # ticks, shard
        self._attempts = 0
        # -- what the laws go by
        self.ids: dict[bytes, Id] = {}
        self._bodies: dict[Id, bytes] = {}
        self.acked: set[bytes] = set()
        self.in_hand: dict[bytes, Hand] = {}
        self._holder: dict[str, int] = {}  # of a group; 0: nobody
        self._first: dict[tuple[str, bytes, bytes], int] = {}
        self._handed_out: set[bytes] = set()
        self._noted = dict.fromkeys(SHARDS, 0)
        self.moves = 0
        self.takeovers = 0

    def _some(self, most: Drawn, always: str, share: float) -> Drawn:
        """Draw which of so many things happen: where all of them do, the rare ones hide each other."""
        drawn = {
            each.name: getattr(most, each.name)
            * (each.name == always or self.random.random() < share)
            for each in fields(most)  # type: ignore[arg-type]  # it is a dataclass
        }
        return type(most)(**drawn)

    # -- what happens -----------------------------------------------------------------------------

    def run(self) -> None:
        """Let it happen, then let it be calm until all is done, and look whether it is."""
        for shard in SHARDS:
            self._start(shard)
        for _ in range(STEPS):
            self._trouble()
            self._step(is_draining=False)
        self.trouble = NO_TROUBLE
        for stream in self.streams.values():
            stream.faults = NO_FAULTS
        for broker in self.brokers:
            broker.is_paused = False
        for _ in range(CALM_STEPS):
            for shard in SHARDS:
                if all(broker.is_over for broker in self.brokers if broker.shard == shard):
                    self._start(shard)
            self._step(is_draining=True)
            if self._is_done():
                break
        else:
            raise Broken(f"liveness: {self._what_is_left()}")
        self._look_at_cores()

    def _start(self, shard: int) -> None:
        self.brokers.append(self._kind(self, shard, len(self.brokers) + 1))
        self.takeovers += 1

    def _trouble(self) -> None:
        random, trouble = self.random, self.trouble
        for shard in SHARDS:
            last = [broker for broker in self.brokers if broker.shard == shard][-1]
            if random.random() < trouble.kill:
                last.end()
                self._start(shard)
            elif random.random() < trouble.pause:
                last.is_paused = True
                self._start(shard)
            elif last.is_over:
                self._start(shard)
        for broker in self.brokers:
            if broker.is_paused and random.random() < 0.01:
                broker.is_paused = False
        for link in self.links:
            share = 0.01 if link.broker.is_paused else trouble.cut
            if random.random() < share:
                link.drop()
        if random.random() < trouble.wish:
            group = group_of(random.choice(self.queues))
            self.wishes[group] = random.choice(SHARDS)

    def _step(self, *, is_draining: bool) -> None:
        self.unix_ms += 1
        for stream in self.streams.values():
            stream.tick()
        self._note()
        self._deliver_letters()
        self.links = [link for link in self.links if link.is_open]
        for link in self.links:
            self._carry(link)
        for broker in self.brokers:
            if not (broker.is_over or broker.is_paused) and self.random.random() < 0.8:
                self._go(broker)
        for client in self.clients:
            client.step(is_draining=is_draining)

    def _carry(self, link: Link) -> None:
        if link.broker.is_over:
            link.drop()
        while link.asked and self.random.random() < 0.5:
            link.broker.inbox.append((link, link.asked.popleft()))
        while link.said and self.random.random() < 0.5:
            link.client.hear(link, link.said.popleft())

    def _go(self, broker: Broker) -> None:
        try:
            broker.run.send(None)
        except StopIteration:
            broker.end()
        except Broken:
            raise
        except Exception as error:
            raise Broken(f"raises: broker {broker.number} fails by {error!r}") from error

    def connect(self, client: Client, shard: int) -> Link | None:
        """Connect a client to some broker of a shard that thinks that it leads; None: there is none."""
        there = [broker for broker in self.brokers if broker.shard == shard and broker.leads]
        if not there:
            return None
        link = Link(client, self.random.choice(there))
        self.links.append(link)
        return link

    def post(self, shard: int, letter: Letter) -> None:
        """Send a letter."""
        copies = 2 if self.random.random() < self.trouble.doubled else 1
        for _ in range(copies):
            if self.random.random() >= self.trouble.lost:
                late = self.random.random() < self.trouble.doubled
                ticks = self.random.randrange(20, 400) if late else self.random.randrange(1, 10)
                self._post.append((ticks, shard, letter))

    def _deliver_letters(self) -> None:
        waiting, self._post = self._post, []
        for ticks, shard, letter in waiting:
            there = [broker for broker in self.brokers if broker.shard == shard and broker.leads]
            if ticks > 0:
                self._post.append((ticks - 1, shard, letter))
            elif there:
                self.random.choice(there).letters.append(letter)

    def next_attempt(self) -> int:
        """Return the name of an attempt."""
        self._attempts += 1
        return self._attempts

    def wished(self, shard: int) -> list[str]:
        """Return the groups that an operator wants to be in a shard."""
        return [group for group, where in self.wishes.items() if where == shard]

    def leads(self, broker: Broker) -> bool:
        """Whether nobody else has claimed the log of a broker."""
        claims = self.streams[broker.shard].claims
        mine = broker.fence.position
        return not any(
            entry.sequence > mine and owner_of(entry) != broker.number for entry in claims
        )

    # -- laws -------------------------------------------------------------------------------------

    def broken(self, text: str) -> None:
        """Say that a law was broken."""
        raise Broken(text)

    def published(self, body: bytes, id: Id) -> None:
        """Law: a message has one id, and an id is of one message."""
        if self.ids.setdefault(body, id) != id:
            raise Broken(f"once: {body!r} was stored as {self.ids[body]} and as {id}")
        if self._bodies.setdefault(id, body) != body:
            raise Broken(f"ids: {id} is {self._bodies[id]!r} and {body!r}")

    def handed(self, client: Client, hand: Hand) -> None:
        """Law: nobody gets what another one has, or what is over."""
        message = hand.message
        if hand.is_void:
            return
        body, id = message.body, message.id
        if body in self.ids and self.ids[body] != id:
            raise Broken(f"once: {body!r} is {self.ids[body]} and {id}")
        if body in self.acked:
            raise Broken(f"hands: {body!r} was acked, and {client.name} gets it")
        other = self.in_hand.get(body)
        if other is not None:
            raise Broken(f"hands: {client.name} gets {body!r}, which is at work under {other}")
        self.in_hand[body] = hand

    def hands_out(self, broker: Broker, messages: list[Delivered]) -> None:
        """Law: messages of a key are handed out in their order, each for the first time."""
        leads = self.leads(broker)
        for message in messages:
            if message.body in self._handed_out:
                continue
            self._handed_out.add(message.body)
            publisher, key, number = message.body.split(b" ")
            line = message.queue, publisher, key
            if leads and key and int(number) < self._first.get(line, 0):
                raise Broken(f"order: {message.body!r} comes after number {self._first[line]}")
            if leads:
                self._first[line] = int(number)

    def given_back(self, client: Client, body: bytes) -> None:
        """A client has said that a message may go to another one."""
        self.in_hand.pop(body, None)

    def settled(self, client: Client, kind: str, hand: Hand, *, is_lost: bool) -> None:
        """Law: what somebody has is settled by his word."""
        body = hand.message.body
        if is_lost and not hand.is_void:
            raise Broken(f"lease: {client.name} could not {kind} {body!r}")
        if kind == "ack" and not is_lost:
            self.acked.add(body)
            if self.in_hand.get(body) is hand:
                del self.in_hand[body]

    def lost_hand(self, client: Client, hand: Hand) -> None:
        """Law: nobody is told that he has lost what he has."""
        if not hand.is_void:
            raise Broken(f"lease: {client.name} is told that {hand.message.body!r} is lost")

    def _note(self) -> None:
        """Law: a group is in one log at most, and comes to another one behind MOVED."""
        for shard, stream in self.streams.items():
            for entry in stream.entries[self._noted[shard] :]:
                says = self.items[entry.body].says
                if isinstance(says, Moved | Here):
                    self._move(shard, says)
            self._noted[shard] = len(stream.entries)

    def _move(self, shard: int, says: Moved | Here) -> None:
        holder = self._holder.get(says.group, born_at(says.group, SHARDS))
        if isinstance(says, Moved):
            if holder != shard:
                raise Broken(f"home: {says} in the log of {shard}, it is in that of {holder}")
            self._holder[says.group] = 0
        else:
            if holder:
                raise Broken(f"home: {says} in the log of {shard}, it is in that of {holder}")
            self._holder[says.group] = shard
            self.moves += 1

    # -- the end ----------------------------------------------------------------------------------

    def _is_done(self) -> bool:
        is_idle = not any(any(client.ops.values()) or client.hands for client in self.clients)
        return is_idle and self.acked >= self.ids.keys()

    def _what_is_left(self) -> str:
        missing = sorted(self.ids.keys() - self.acked)
        waits = {
            client.name: [op for ops in client.ops.values() for op in ops]
            for client in self.clients
        }
        return f"not acked are {missing[:5]} of {len(missing)}, waiting are {waits}"[:600]

    def _look_at_cores(self) -> None:
        """Law: what was acked is nowhere."""
        for broker in self.brokers:
            if broker.leads and broker.shell is not None and self.leads(broker):
                for queue in broker.shell.store.queues.values():
                    if queue.count():
                        raise Broken(f"once: shard {broker.shard} has some of {queue.name}")


def worlds(
    seed: int,
    count: int,
    kind: type[Broker] = Broker,
    client: type[Client] = Client,
    trouble: Trouble | None = None,
) -> list[World]:
    """Run so many worlds; raises `Broken` with the seed of its world."""
    done = []
    for number in range(seed, seed + count):
        world = World(number, kind, client, trouble)
        try:
            world.run()
        except Broken as broken:
            raise Broken(f"seed={number} {broken}") from broken
        finally:
            for broker in world.brokers:
                broker.run.close()
        done.append(world)
    return done


__all__ = ["Broken", "World", "worlds"]
