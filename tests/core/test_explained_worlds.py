"""In states that come about at random, `explain` agrees with what the broker then does.

A walk does anything that clients, the disk and time may do. After every step each message is asked for, and what
the answer says is tried: what is `next` is handed out by the next steps; what waits for somebody does not move
while nobody comes, and moves when what releases it is done; what waits for a time moves then, and not before.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from core_client import Client, Id
from harness import World

from minibroker.contract.reasons import REASONS
from minibrokerd.core.durable import paging
from minibrokerd.core.model.inputs import Space
from minibrokerd.core.model.sums import Sums
from support.hypothesis_budget import seeds

STEPS = 40
TICK_MS = 8
RARE = {
    "deleted",
    "damaged",
    "waits_for",
    "not_synced",
    "stopping",
    "dlq_full",
    "reading_back",
    "in_line",
    "next",
    "purged",
    "ttl_expired",
    "unknown",
    "worker_away",
    "not_active",
    "key_waits",
    "key_rate",
    "key_paused",
    "rate",
    "dropped",
    "duplicate",
    "replaced",
    "worker_paused",
    "circuit_open",
    "circuit_probing",
    "key_circuit_open",
    "key_circuit_probing",
}
STAYS = (
    "no_consumer",
    "no_credit",
    "not_reading",
    "no_space",
    "starting",
    "queue_paused",
    "worker_paused",
)


class Walked:
    """One world, its clients, and what `explain` said so far."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.world = World(segment_batches=4)
        self.boss = self.world.hello("boss")
        self.boss.set(
            "q",
            max_attempts=2,
            lease_ms=2_000,
            retry_delay_ms=300,
            key_concurrency=seed % 2,
            max_wait_ms=3_000 * (seed // 2 % 2),
        )
        self.workers: list[Client] = []
        self.keyed = 0.3 + 0.6 * (seed % 2)
        self.ids: list[Id] = []
        self.said: Counter[str] = Counter()

    # -- steps ----------------------------------------------------------------------------------

    def step(self) -> None:
        """Do one thing that may happen."""
        steps = (
            self.publish,
            self.publish,
            self.worker_comes,
            self.worker_goes,
            self.worker_stops_reading,
            self.settle,
            self.settle,
            self.time_passes,
            self.disk,
            self.freeze,
            self.restart,
            self.retime,
            self.cancel,
            self.pause,
        )
        self.random.choice(steps)()

    def publish(self) -> None:
        fields: dict[str, Any] = {"delay_ms": self.random.choice([0, 0, 500])}
        if self.random.random() < self.keyed:
            fields["key"] = self.random.choice("ab")
        if self.random.random() < 0.3:
            fields["priority"] = self.random.choice([3, 9])
        count = self.random.randint(1, 3)
        result = self.boss.publish("q", *[b"x"] * count, **fields)["results"][0]
        self.ids += [(result["origin"], result["first"] + n) for n in range(count)]

    def retime(self) -> None:
        if self.ids:
            self.boss.retime("q", self.random.choice(self.ids), self.random.choice([0, 700]))

    def cancel(self) -> None:
        if self.ids and self.random.random() < 0.3:
            self.boss.cancel_messages("q", self.random.choice(self.ids))

    def pause(self) -> None:
        """A queue or a worker is paused, for a time or for good, or resumed."""
        what = {"queue": "q"} if self.random.random() < 0.5 else {"client": "w0"}
        if self.random.random() < 0.5 and self.world.store.queues:
            for_ms = self.random.choice([0, 1_500])
            self.boss.request({"op": "pause", **what, "for_ms": for_ms})
        elif self.world.store.queues:
            self.boss.request({"op": "unpause", **what})

    def worker_comes(self) -> None:
        if len(self.workers) < 3:
            worker = self.world.hello(f"w{len(self.workers)}")
            worker.consume(self.random.choice(["q", "q", "q.dlq"]), self.random.randint(1, 3))
            self.workers.append(worker)

    def worker_goes(self) -> None:
        if self.workers:
            worker = self.workers.pop(self.random.randrange(len(self.workers)))
            self.world.disconnect(worker)

    def worker_stops_reading(self) -> None:
        for worker in self.workers:
            if not worker.closed:
                self.world.flow(worker, paused=self.random.random() < 0.3)

    def settle(self) -> None:
        for worker in self.workers:
            if not (worker.closed or self.random.random() < 0.4):
                for message in worker.messages():
                    if self.random.random() < 0.5:
                        worker.begin(message)
                        if self.random.random() < 0.5:
                            continue  # it works for longer than its lease
                    op = self.random.choice(["ack", "nack", "reject", "release"])
                    worker.settle(op, message)

    def time_passes(self) -> None:
        self.world.advance(self.random.choice([10, 290, 1_000, 2_500]))

    def disk(self) -> None:
        pause = self.random.random() < 0.4
        self.world.apply(Space(short=pause, pause=pause))

    def freeze(self) -> None:
        self.world.freeze()

    def restart(self) -> None:
        if self.random.random() < 0.3:
            self.world.restart(clean=self.random.random() < 0.5, waits=True)
            self.workers.clear()
            self.boss = self.world.hello("boss")

    # -- what is said, and what is so -----------------------------------------------------------

    def check(self) -> None:
        """Every message is in the state that its answer says."""
        states = self.world.states("q") | self.world.states("q.dlq")
        for id in self.ids:
            answer = self.boss.explain(id)
            self.said[answer["reason"]] += 1
            assert answer["state"] == states.get(id, "ENDED"), (id, answer)
            in_dlq = id in self.world.states("q.dlq")
            if id in states:
                assert answer["queue"] == ("q.dlq" if in_dlq else "q")
            assert (answer["reason"] == "dead") <= in_dlq
            assert answer["state"] in (REASONS[answer["reason"]].states, states.get(id))

    def try_one(self) -> None:
        """Do what the answer for one of the messages says that it waits for."""
        waiting = [id for id in self.ids if id in self.world.states("q")]
        if waiting:
            id = self.random.choice(waiting)
            answer = self.boss.explain(id, "q")
            reason = answer["reason"]
            if reason in STAYS:
                self.world.run_job()
                assert self.boss.explain(id, "q")["reason"] == reason
            getattr(self, f"_{reason}", lambda *_: None)(id, answer)

    def _state(self, id: Id) -> str | None:
        return self.world.states("q").get(id)

    def _next(self, id: Id, answer: dict[str, Any]) -> None:
        self.world.run_jobs()
        assert self._state(id) == "HELD" or self._is_behind(id)

    _reading_back = _next

    def _someone_comes(self, id: Id) -> None:
        """Somebody who can take all that waits gets this one, too."""
        helper = self.world.hello("helper")
        helper.consume("q", prefetch=1_000)
        self.world.run_jobs()
        assert id in {message.id for message in helper.messages()} or self._is_behind(id)
        self.world.disconnect(helper)
        self.world.run_jobs()

    def _is_behind(self, id: Id) -> bool:
        """Whether somebody got another one of its key, which goes first."""
        return self.boss.explain(id, "q")["reason"] == "key_busy"

    def _key_busy(self, id: Id, answer: dict[str, Any]) -> None:
        """Somebody who can take all that waits does not get it."""
        helper = self.world.hello("helper")
        helper.consume("q", prefetch=1_000)
        self.world.run_jobs()
        assert id not in {message.id for message in helper.messages()}
        self.world.disconnect(helper)
        self.world.run_jobs()

    def _no_consumer(self, id: Id, answer: dict[str, Any]) -> None:
        assert not any(
            consumer.queue_number == self.world.queue("q").number
            for connection in self.world.store.connections.values()
            for consumer in connection.consumers.values()
        )
        if self.world.store.hands_out(self.world.queue("q").group):
            self._someone_comes(id)

    def _no_credit(self, id: Id, answer: dict[str, Any]) -> None:
        self._someone_comes(id)

    _outranked = _outranked_until = _no_credit

    def _not_reading(self, id: Id, answer: dict[str, Any]) -> None:
        self._someone_comes(id)

    def _worker_paused(self, id: Id, answer: dict[str, Any]) -> None:
        self._someone_comes(id)

    def _queue_paused(self, id: Id, answer: dict[str, Any]) -> None:
        """It is over at its time, or when somebody says so."""
        if answer["until_unix_ms"]:
            self._in_time(id, answer)
        else:
            self.boss.request({"op": "unpause", "queue": "q"})
        assert self.boss.explain(id, "q")["reason"] != "queue_paused"

    def _no_space(self, id: Id, answer: dict[str, Any]) -> None:
        self.world.apply(Space(short=False, pause=False))
        self.world.run_jobs()
        assert self.boss.explain(id, "q")["reason"] not in ("no_space", "next")

    def _in_time(self, id: Id, answer: dict[str, Any]) -> None:
        """It stays as it is until the time that was said, and not for longer than a tick after it."""
        left_ms = answer["until_unix_ms"] - self.world.unix_ms
        self.world.advance(max(left_ms - TICK_MS, 0))
        assert self.boss.explain(id, "q")["reason"] == answer["reason"]
        self.world.advance(2 * TICK_MS)
        self.world.run_jobs()
        after = self.boss.explain(id, "q")
        assert (after["reason"], after["until_unix_ms"]) != (
            answer["reason"],
            answer["until_unix_ms"],
        )

    _delayed = _retry_delay = _key_waits = _running = _worker_away = _starting = _in_time


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a few messages leave memory."""
    monkeypatch.setattr(paging, "AHEAD_MESSAGES", 2)
    monkeypatch.setattr(Sums, "large_bytes", 0)


def walk(seed: int) -> Counter[str]:
    """Walk through a world; return how often each reason was said."""
    walked = Walked(seed)
    for _ in range(STEPS):
        walked.step()
        walked.check()
        walked.try_one()
        walked.check()
    return walked.said


@pytest.mark.parametrize("seed", seeds(10))
def test_what_is_said_is_what_happens(seed: int) -> None:
    """A world of each seed; `python -m pytest -k "[SEED]"` is the bug report."""
    walk(seed)


def test_the_walk_meets_most_reasons() -> None:
    """Those that it cannot reach, or hardly, have tests of their own (test_core_explaining.py)."""
    said = sum((walk(seed) for seed in range(100, 124)), Counter[str]())
    assert set(REASONS) - set(said) <= RARE
