"""Exclusive queues in worlds out of a seed: they end with their sessions, not before, and nothing else ends."""

from __future__ import annotations

from random import Random

import pytest
from core_client import Client
from harness import World

from minibroker.contract.limits import SESSION_KEPT_MS
from support.hypothesis_budget import seeds

SHARED = ("orders", "mails")


class Session:
    """A session, its connection if it has one, and the queues that it owns with the bodies that are in them."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.owns: dict[str, list[bytes]] = {}
        self.away_since_ms: int | None = None


class Worlds:
    """One world; what nobody may lose is kept beside it."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.world = World(segment_batches=self.random.choice((1, 3)))
        self.world.digests = self.random.random() < 0.5
        self.shared: dict[str, list[bytes]] = {name: [] for name in SHARED}
        self.sessions: list[Session] = []
        self.ended: set[str] = set()
        self.bodies = 0
        self._operator()

    def _operator(self) -> None:
        """Open the connection of one who looks, publishes and binds, and owns nothing."""
        self.operator = self.world.hello("operator")
        fields = {"name": "e", "type": "fanout", "unroutable": "drop"}
        self.operator.request({"op": "exchange_set", **fields})
        for name in SHARED:
            self.operator.request({"op": "bind", "exchange": "e", "queue": name})

    def step(self) -> None:
        """Do one thing, and look."""
        getattr(self, self.random.choice(STEPS))()
        self.world.run_jobs()
        for session in self.sessions:
            session.client.inbox.clear()
        self.operator.inbox.clear()
        self.world.check()
        self._look()

    def _look(self) -> None:
        """What is there is what is owned by those who may still come, and what nobody owns."""
        now_ms = self.world.now_ms
        there = set(self.operator.queue_names())
        must = {*SHARED}
        may = {*SHARED, *(f"{name}.dlq" for name in SHARED)}
        for session in self.sessions:
            away = 0 if session.away_since_ms is None else now_ms - session.away_since_ms
            names = set(session.owns)
            if away < SESSION_KEPT_MS:
                must |= names
            if away <= SESSION_KEPT_MS + 100:
                may |= names | {f"{name}.dlq" for name in names}
        assert must <= there
        assert there <= may
        assert not there & self.ended, "a name is never given twice"
        owned = {number for session in self.sessions for number in self._numbers(session)}
        assert set(self.world.store.owners.session_of) <= owned
        bindings = self.operator.request({"op": "bindings", "exchange": "e"})["value"]["bindings"]
        assert {each["queue"] for each in bindings} <= there
        for name in SHARED:
            assert len(self.world.states(name)) == len(self.shared[name])

    def _numbers(self, session: Session) -> set[int]:
        queues = self.world.store.queues
        return {queues[name].number for name in session.owns if name in queues}

    def _one(self, *, connected: bool) -> Session | None:
        found = [each for each in self.sessions if (each.away_since_ms is None) == connected]
        return self.random.choice(found) if found else None

    def hello(self) -> None:
        """Open a session."""
        if len(self.sessions) < 6:
            client = self.world.hello(f"client-{self.random.randrange(100)}")
            self.sessions.append(Session(client))

    def declare(self) -> None:
        """Own one queue more, and mostly bind it."""
        session = self._one(connected=True)
        if session is None:
            return
        settings = {"durability": self.random.choice(("sync", "lazy"))}
        part = {"op": "queue_declare", "queue": "", "exclusive": 1, "settings": settings}
        name = session.client.request(part)["value"]["queue"]
        session.owns[name] = []
        if self.random.random() < 0.7:
            session.client.request({"op": "bind", "exchange": "e", "queue": name})

    def publish(self) -> None:
        """Publish to any queue that is there, or was; by anybody."""
        names = [*SHARED, *self.ended, *(name for each in self.sessions for name in each.owns)]
        name = self.random.choice(names)
        self.bodies += 1
        body = b"%d" % self.bodies
        answer = self.operator.publish(name, body)
        if name in self.ended:
            assert answer["code"] == "unknown_queue"
            return
        for owned in (self.shared, *(each.owns for each in self.sessions)):
            if name in owned:
                owned[name].append(body)

    def take(self) -> None:
        """Take from an own queue, and let go what was got in one of three ways; others are refused."""
        session = self._one(connected=True)
        if session is None or not session.owns:
            return
        name = self.random.choice(list(session.owns))
        assert self.operator.receive(name)["code"] == "exclusive_queue"
        got = session.client.receive_all(name, self.random.randint(1, 3))
        assert {message.body for message in got} <= set(session.owns[name])
        for message in got:
            verb = self.random.choice(("ack", "release", "reject", "keep"))
            if verb != "keep":
                session.client.settle(verb, message)

    def consume(self) -> None:
        """Have messages of an own queue come by themselves."""
        session = self._one(connected=True)
        if session is not None and session.owns:
            name = self.random.choice(list(session.owns))
            session.client.consume(name, prefetch=2, consumer=self.random.randrange(1, 5))

    def delete(self) -> None:
        """End an own queue, where nobody consumes it."""
        session = self._one(connected=True)
        if session is None or not session.owns:
            return
        name = self.random.choice(list(session.owns))
        if session.client.delete(name, force=True)["op"] == "reply":
            del session.owns[name]
            self.ended.add(name)

    def lose(self) -> None:
        """A connection is lost."""
        session = self._one(connected=True)
        if session is not None:
            self.world.disconnect(session.client)
            session.away_since_ms = self.world.now_ms

    def resume(self) -> None:
        """A session comes back; what it owns is there if it is in time."""
        session = self._one(connected=False)
        if session is None:
            return
        session.client = self.world.resume(session.client)
        session.away_since_ms = None

    def goodbye(self) -> None:
        """A session ends."""
        session = self._one(connected=True)
        if session is not None:
            session.client.send(session.client.frame([{"op": "goodbye"}]))
            self._over(session)

    def _over(self, session: Session) -> None:
        self.sessions.remove(session)
        self.ended |= session.owns.keys()

    def wait(self) -> None:
        """Time passes: some sessions are over."""
        self.world.advance(self.random.choice((1_000, 20_000, SESSION_KEPT_MS + 1_000)))
        for session in list(self.sessions):
            since_ms = session.away_since_ms
            if since_ms is not None and self.world.now_ms - since_ms > SESSION_KEPT_MS + 100:
                self._over(session)

    def free(self) -> None:
        """Let old segments go."""
        self.world.free(self.world.segment_end(self.world.core.synced))

    def restart(self) -> None:
        """Stop, or crash; all have as long to come back as if they had gone just now."""
        self.world.sync()
        self.world.restart(clean=self.random.random() < 0.5)
        for session in self.sessions:
            session.away_since_ms = self.world.now_ms
        self._operator()


STEPS = [
    *["hello", "declare", "declare", "publish", "publish", "publish", "take", "take", "consume"],
    *["delete", "lose", "lose", "resume", "resume", "goodbye", "wait", "free", "restart"],
]


@pytest.mark.parametrize("seed", seeds(15))
def test_what_belongs_to_a_session_ends_with_it_and_nothing_else_does(seed: int) -> None:
    """Whatever comes before."""
    worlds = Worlds(seed)
    for _ in range(120):
        worlds.step()
    worlds.world.advance(3 * SESSION_KEPT_MS)
    for session in worlds.sessions:
        if session.away_since_ms is None:
            worlds.world.disconnect(session.client)
    worlds.world.advance(20 * SESSION_KEPT_MS)
    left = set(worlds.operator.queue_names())
    assert {name for name in left if not name.endswith(".dlq")} == set(SHARED)
    assert not worlds.world.store.owners.session_of


def test_the_worlds_do_all_of_it() -> None:
    """Names are given and end, by each way."""
    worlds = Worlds(7)
    for _ in range(400):
        worlds.step()
    assert len(worlds.ended) > 10
