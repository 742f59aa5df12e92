"""Exchanges and policies as dicts; random steps are done to them and to the core alike (test_routing_model.py).

The core is one `World`, whose batches are safe when a step says so: a crash leaves what was closed, or what was
synced, and the model has a copy of itself for both. Matching is done here by trying each binding.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from copy import copy
from dataclasses import asdict, dataclass, field
from typing import Any

from core_client import Client
from harness import World
from routing_rules import LEAST, Police, fits_headers, said, some_policy, topic, words_of

from minibrokerd.core.model.exchanges import Binding, _score

TYPES = ("direct", "topic", "fanout", "headers", "hash")
NAMES = ("e", "f", "g", "h")
QUEUES = ("a", "b", "c", "d", "memory", "few", "new")
WORDS = ("x", "y", "*", "#")
HEADERS = ("p", "q")
FEW = 6  # messages that the queue `few` takes, as its overflow says


@dataclass
class Exchange:
    """One exchange; a binding is (queue, exchange, pattern), one of the first two empty."""

    type: str
    unroutable: str = "refuse"
    alternate: str = ""
    bindings: set[tuple[str, str, str]] = field(default_factory=set)
    counts: list[int] = field(default_factory=lambda: [0, 0, 0])  # routed, dropped, refused


@dataclass
class Routes:
    """All that there is: exchanges, and the bodies in each queue in their order."""

    exchanges: dict[str, Exchange] = field(default_factory=dict)
    queues: dict[str, list[bytes]] = field(default_factory=dict)
    overflow: dict[str, str] = field(default_factory=dict)  # of the queues that have a limit
    numbers: dict[str, int] = field(default_factory=dict)  # of exchanges and queues, for hashes
    policies: dict[tuple[int, str], Police] = field(default_factory=dict)  # (1: a limit, name)

    def copy(self) -> Routes:
        """Return one that later steps leave as it is."""
        exchanges = {name: copy(each) for name, each in self.exchanges.items()}
        for each in exchanges.values():
            each.bindings, each.counts = set(each.bindings), list(each.counts)
        queues = {name: list(bodies) for name, bodies in self.queues.items()}
        return Routes(
            exchanges, queues, dict(self.overflow), dict(self.numbers), dict(self.policies)
        )

    def reach(self, name: str, key: str, headers: dict[str, str]) -> set[str]:
        """Return the queues that a message comes to."""
        found, asked, line = set(), {name}, [name]
        while line:
            exchange = self.exchanges[line.pop()]
            taken = self.takes(exchange, key, headers)
            found |= {queue for queue, _, _ in taken if queue}
            next_ones = [target for _, target, _ in taken if target]
            if not taken and exchange.alternate in self.exchanges:
                next_ones = [exchange.alternate]
            for target in next_ones:
                if target not in asked:
                    asked.add(target)
                    line.append(target)
        return found

    def takes(
        self, exchange: Exchange, key: str, headers: dict[str, str]
    ) -> set[tuple[str, str, str]]:
        """Return the bindings of one exchange that take a message."""
        if exchange.type == "hash":
            score: Callable[[tuple[str, str, str]], float] = lambda one: _score(  # noqa: E731
                Binding(0, self.number(one[0]), self.number(one[1], "exchange "), one[2]), key
            )
            return {max(exchange.bindings, key=score)} if exchange.bindings else set()
        fits = {
            "direct": lambda pattern: pattern == key,
            "topic": lambda pattern: topic(words_of(pattern), words_of(key)),
            "fanout": lambda pattern: True,
            "headers": lambda pattern: fits_headers(pattern, headers),
        }[exchange.type]
        return {one for one in exchange.bindings if fits(one[2])}

    def number(self, name: str, kind: str = "") -> int:
        """Return the number of a queue or an exchange; 0: no name."""
        return self.numbers[kind + name] if name else 0

    def publish(self, queues: set[str], bodies: list[bytes]) -> str:
        """Store messages in all of them, or in none; return the code of the refusal."""
        full = {
            name
            for name in queues & self.overflow.keys()
            if len(self.queues[name]) + len(bodies) > FEW
        }
        if any(self.overflow[name] == "reject" for name in full):
            return "queue_full"
        for name in queues:
            self.queues[name] += bodies
            if name in full:
                del self.queues[name][:-FEW]
        return ""

    def forget(self, name: str, kind: int) -> None:
        """Take out the bindings that lead to a queue (0) or an exchange (1)."""
        for exchange in self.exchanges.values():
            exchange.bindings = {one for one in exchange.bindings if one[kind] != name}


class Steps:
    """A world, its model, and the random steps of one seed; `trace` has what was done."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.world = World(auto_sync=False, segment_batches=self.rng.choice([1, 2, 5]))
        self.world.digests = self.rng.random() < 0.5
        self.client: Client = self.world.hello()
        self.model = Routes()
        self.closed = self.synced = self.model.copy()
        self.unanswered: list[tuple[int, Callable[[Any], None]]] = []
        self.trace: list[str] = []
        self.bodies = 0
        self.met: dict[str, int] = {}

    def step(self) -> None:
        """Do one of them."""
        names = ("declare", "bind", "bind", "unbind", "route", "route", "route", "route", "both",
            "take", "take", "sync", "sync", "close", "settle_queue", "delete", "delete_queue", "restart",
            "crash", "freeze", "free", "again", "police", "police_no_more")  # fmt: skip
        weights = [3, 6, 6, 2, 9, 9, 9, 9, 4, 4, 4, 8, 8, 4, 2, 0.6, 0.8, 0.2, 0.7, 1, 0.6, 2, 2, 1]
        (name,) = self.rng.choices(names, weights)
        self.met[name] = self.met.get(name, 0) + 1
        self.trace.append(name)
        getattr(self, "_" + name)()

    def check(self) -> None:
        """Compare all that there is; it makes everything safe."""
        self._sync()
        self.world.check()
        store, model = self.world.store, self.model
        assert set(store.exchanges.by_name) == set(model.exchanges)
        for name, exchange in model.exchanges.items():
            known = store.exchanges.by_name[name]
            assert (known.type, known.unroutable, known.alternate) == (
                exchange.type,
                exchange.unroutable,
                exchange.alternate,
            )
            assert list(known.counts()) == exchange.counts, name
            value = self._now({"op": "bindings", "exchange": name})["value"]
            shown = {(one["queue"], one["target"], one["pattern"]) for one in value["bindings"]}
            assert shown == exchange.bindings, name
        assert store.exchanges.bindings == sum(
            len(each.bindings) for each in model.exchanges.values()
        )
        queues = {name for name in store.queues if not name.endswith(".dlq")}
        assert queues == set(model.queues)
        for name, bodies in model.queues.items():
            assert [each["body"] for each in self.client.peek(name)] == bodies, name
            settings = store.queues[name].settings
            for setting in LEAST:
                assert (settings[setting] or 2**53) == said(model.policies, name, setting)
        assert store.policies.by_key.keys() == model.policies.keys()

    # -- requests -------------------------------------------------------------------------------

    def _declare(self) -> None:
        name, type = self.rng.choice(NAMES), self.rng.choice(TYPES)
        part: dict[str, Any] = {"op": "exchange_set", "name": name, "type": type}
        known = self.model.exchanges.get(name)
        if known is not None and self.rng.random() < 0.8:
            part["type"] = type = known.type
        if self.rng.random() < 0.4:
            part["unroutable"] = self.rng.choice(["refuse", "drop"])
        if self.rng.random() < 0.4:
            part["alternate"] = self.rng.choice([*NAMES, ""])
        answer = self._now(part)
        if part.get("alternate") and part["alternate"] not in self.model.exchanges:
            assert answer["code"] == "unknown_exchange"
        elif known is not None and known.type != type:
            assert answer["code"] == "bad_value"
        else:
            assert answer["value"]["created"] == (known is None)
            exchange = self.model.exchanges.setdefault(name, Exchange(type))
            exchange.unroutable = part.get("unroutable", exchange.unroutable)
            exchange.alternate = part.get("alternate", exchange.alternate)
            self._number(name, "exchange ")

    def _pattern(self, type: str) -> str:
        if type == "topic":
            return ".".join(self.rng.choices(WORDS, k=self.rng.randrange(4)))
        if type == "headers":
            pairs = [f"{name}={self.rng.choice('12')}" for name in HEADERS] + list(HEADERS)
            some = self.rng.sample(pairs, self.rng.randrange(3))
            return " ".join([self.rng.choice(["all", "any"]), *some])
        return {"direct": self._key(), "hash": self.rng.choice(["", "1", "5"])}.get(type, "")

    def _key(self) -> str:
        return ".".join(self.rng.choices("xyz", k=self.rng.randrange(4)))

    def _bind(self) -> None:
        known = list(self.model.exchanges)
        if not known:
            return
        name = self.rng.choice(known)
        exchange = self.model.exchanges[name]
        pattern = self._pattern(exchange.type)
        queue, target = self.rng.choice(QUEUES), ""
        if self.rng.random() < 0.3:
            queue, target = "", self.rng.choice(known)
        if queue == "memory" and queue not in self.model.queues:
            self._now({"op": "queue_declare", "queue": queue, "settings": {"durability": "memory"}})
        part = {
            "op": "bind",
            "exchange": name,
            "queue": queue,
            "target": target,
            "pattern": pattern,
        }
        answer = self._now(part)
        assert answer["value"]["created"] == ((queue, target, pattern) not in exchange.bindings)
        exchange.bindings.add((queue, target, pattern))
        if queue:
            self._has_queue(queue)

    def _unbind(self) -> None:
        some = [
            (name, one)
            for name, exchange in self.model.exchanges.items()
            for one in sorted(exchange.bindings)
        ]
        if not some:
            return
        name, one = self.rng.choice(some)
        queue, target, pattern = one
        part = {"op": "unbind", "exchange": name, "queue": queue, "target": target}
        for expected in (1, 0):
            assert self._now({**part, "pattern": pattern})["value"]["deleted"] == expected
        self.model.exchanges[name].bindings.discard(one)

    def _delete(self) -> None:
        name = self.rng.choice(NAMES)
        was_there = self.model.exchanges.pop(name, None) is not None
        assert self._now({"op": "exchange_delete", "name": name})["value"]["deleted"] == was_there
        self.model.forget(name, 1)

    def _delete_queue(self) -> None:
        name = self.rng.choice(QUEUES)
        self._sync()
        answer = self._now({"op": "queue_delete", "queue": name, "force": 1})
        assert (answer["op"] == "reply") == (name in self.model.queues)
        self.model.queues.pop(name, None)
        self.model.overflow.pop(name, None)
        self.model.forget(name, 0)

    def _settle_queue(self) -> None:
        """Settings of the queues that have some."""
        overflow = self.rng.choice(["reject", "drop-oldest"])
        self._sync()
        if len(self.model.queues.get("few", ())) > FEW:
            return  # it was bound before: what is over its limit stays
        settings = {"max_messages": FEW, "overflow": overflow}
        self._now({"op": "queue_set", "queue": "few", "settings": settings})
        self._has_queue("few")
        self.model.overflow["few"] = overflow

    def _police(self) -> None:
        """Make a policy or a limit, or say another one under its name."""
        (operator, name), said = some_policy(self.rng)
        fields = {"name": name, "operator": operator, **asdict(said)}
        answer = self._now({"op": "policy_set"} | fields)
        assert answer["value"]["created"] == ((operator, name) not in self.model.policies)
        self.model.policies[operator, name] = said

    def _police_no_more(self) -> None:
        key = self.rng.randrange(2), self.rng.choice("pq")
        answer = self._now({"op": "policy_delete", "operator": key[0], "name": key[1]})
        assert answer["value"]["deleted"] == (self.model.policies.pop(key, None) is not None)

    # -- messages -------------------------------------------------------------------------------

    def _wanted(self) -> tuple[dict[str, Any], list[bytes]]:
        headers = {name: self.rng.choice("12") for name in HEADERS if self.rng.random() < 0.6}
        bodies = [b"%d" % (self.bodies + n) for n in range(self.rng.randint(1, 3))]
        self.bodies += len(bodies)
        name = self.rng.choice([*self.model.exchanges, self.rng.choice(NAMES)])
        part = {"op": "route", "exchange": name, "routing_key": self._key(), "count": len(bodies)}
        return {**part, "match": headers}, bodies

    def _route(self) -> None:
        self._publish([self._wanted()])

    def _both(self) -> None:
        """Two parts in one frame: both, or nothing."""
        self._publish([self._wanted(), self._wanted()])

    def _publish(self, parts: list[tuple[dict[str, Any], list[bytes]]]) -> None:
        reached = [
            self.model.reach(part["exchange"], part["routing_key"], part["match"])
            for part, _ in parts
            if part["exchange"] in self.model.exchanges
        ]
        is_limited = any(found & self.model.overflow.keys() for found in reached)
        if is_limited and len(parts) > 1 and "drop-oldest" in self.model.overflow.values():
            return  # what leaves for a part of a frame is a matter of test_core_overflow.py
        before = self.model.copy()
        if is_limited:
            self._sync()  # what is not safe yet does not wait, and cannot leave
        code = self._stored(parts, reached)
        if code:
            refused = self.model
            self.model = before
            for (
                name,
                exchange,
            ) in refused.exchanges.items():  # what is refused is counted all the same
                self.model.exchanges[name].counts[2] = exchange.counts[2]
        blob = b"".join(body for _, bodies in parts for body in bodies)
        sizes = [len(body).to_bytes(4, "little") for _, bodies in parts for body in bodies]
        lengths = b"".join(b"\0\0\0\0" + size for size in sizes)
        answer = self.client.sequenced([part for part, _ in parts], b"", lengths, blob)

        def judge(answer: Any) -> None:
            if code:
                assert answer.get("code") == code, (answer, code)
                return
            assert answer["op"] == "confirm", answer
            assert [set(result["queues"].split()) for result in answer["results"]] == reached

        if answer is None:
            self.unanswered.append((self.client.sequence, judge))
        else:
            judge(answer)
            is_safe = not any(reached) or self._in_memory(reached)
            assert code or is_safe, "it was answered before it was safe"

    def _stored(
        self, parts: list[tuple[dict[str, Any], list[bytes]]], reached: list[set[str]]
    ) -> str:
        """Let the model have what is published; return the code of the refusal, behind which it is spoilt."""
        for at, (part, bodies) in enumerate(parts):
            exchange = self.model.exchanges.get(part["exchange"])
            if exchange is None:
                return "unknown_exchange"
            if not reached[at] and exchange.unroutable == "refuse":
                exchange.counts[2] += len(bodies)
                return "unroutable"
            code = self.model.publish(reached[at], bodies)
            if code:
                return code
            exchange.counts[0 if reached[at] else 1] += len(bodies)
        return ""

    def _in_memory(self, reached: list[set[str]]) -> bool:
        queues = set().union(*reached)
        return all(self.world.queue(name).settings["durability"] == "memory" for name in queues)

    def _take(self) -> None:
        """Receive and ack some of a queue: the oldest."""
        name = self.rng.choice([*self.model.queues, "a"])
        if name not in self.model.queues:
            return
        self._sync()
        answer = self.client.receive(name, self.rng.randint(1, 15))
        if answer is None:  # it rests on a reservation, or what left memory is read back
            self._sync()
            answer = self.client.answer(request=self.client.requests)
        got = answer["messages"]
        bodies = self.model.queues[name]
        assert [each.body for each in got] == bodies[: len(got)]
        assert bool(got) == bool(bodies)
        if got:
            self.client.settle("ack", *got)
            del bodies[: len(got)]
            self._sync()  # else a crash leaves them begun: that is a matter of test_model.py

    def _again(self) -> None:
        """Send the newest frame once more: it has its answer, and nothing is stored twice."""
        self._sync()
        sequence = self.client.sequence
        if sequence >= self.client.answered_below and sequence in self.client.sent:
            outcome = self.world.store.sessions[self.client.session].window.get(sequence)
            if outcome is not None:
                assert self.client.resend(sequence)["op"] == "confirm"
        self.client.answered_below = sequence + 1

    # -- the disk -------------------------------------------------------------------------------

    def _close(self) -> None:
        self.world.close_batch()
        self.closed = self.model.copy()

    def _sync(self) -> None:
        """All is safe that was applied so far."""
        self.world.sync()
        self.world.run_jobs()
        self.world.sync()
        self.closed = self.synced = self.model.copy()
        for sequence, judge in self.unanswered:
            answer = self.client.answer(sequence=sequence)
            assert answer is not None
            judge(answer)
        self.unanswered.clear()

    def _freeze(self) -> None:
        self._sync()
        self.world.freeze()

    def _free(self) -> None:
        """The log forgets its old segments."""
        self._sync()
        self.world.free(self.world.segment_end(self.world.core.synced))

    def _restart(self) -> None:
        self._sync()
        self.world.restart()
        self._started(self.model)

    def _crash(self) -> None:
        loses = self.rng.random() < 0.5
        self.world.restart(clean=False, lose_unsynced=loses)
        self._started(self.synced if loses else self.closed)

    def _started(self, model: Routes) -> None:
        self.model = model.copy()
        for exchange in self.model.exchanges.values():
            exchange.counts = [0, 0, 0]
        for name, bodies in self.model.queues.items():
            if self.world.queue(name).settings["durability"] == "memory":
                bodies.clear()
        self.unanswered.clear()
        self.client = self.world.hello()
        self.world.sync()
        self.closed = self.synced = self.model.copy()

    # -- helpers --------------------------------------------------------------------------------

    def _now(self, part: dict[str, Any]) -> Any:
        """Return the answer to a request, whatever it rests on; it need not be safe."""
        answer = self.client.request(part)
        if answer is None:
            held = [
                each
                for each in self.world.held
                if each.header.get("request") == self.client.requests
            ]
            (answer,) = [each.header for each in held]
        return answer

    def _has_queue(self, name: str) -> None:
        self.model.queues.setdefault(name, [])
        self._number(name)

    def _number(self, name: str, kind: str = "") -> None:
        known = self.world.store.exchanges.by_name if kind else self.world.store.queues
        self.model.numbers[kind + name] = known[name].number


def run(seed: int, steps: int, every: int = 20) -> dict[str, int]:
    """Do steps, and compare all after each `every` of them; an error says which were done last."""
    made = Steps(seed)
    try:
        for number in range(steps):
            made.step()
            if number % every == every - 1:
                made.check()
    except Exception as error:
        last = ", ".join(made.trace[-30:])
        error.add_note(f"seed {seed}, step {len(made.trace)}; the last steps: {last}")
        raise
    return made.met
