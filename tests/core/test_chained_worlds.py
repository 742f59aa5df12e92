"""Random worlds of messages that come after others, against a dict: they go on once, with the right counts.

Steps are small, so that what very many wait for is told, purged and looked for in several, with crashes between.
"""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from core_client import Client, Delivered, Id
from harness import World

from minibroker.contract import wire
from minibrokerd.core.model import chains
from minibrokerd.core.model.kept import AFTER
from minibrokerd.core.verbs import chaining, moving
from support.hypothesis_budget import seeds

STEPS = 60
PLACES = "jobs", "other"


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name, most in (
        (chains, "MOST_TOLD", 2),
        (chains, "CHUNK", 2),
        (chains, "FEW", 2),
        (chaining, "GO_ON", 1),
        (chaining, "STEP_LOST", 1),
        (moving, "STEP_MESSAGES", 3),
    ):
        monkeypatch.setattr(module, name, most)


class Chained:
    """One world: jobs, messages after them (`run` with counts), and what each must be told at the end."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.world = World()
        self.world.digests = bool(seed % 2)
        self.client: Client = self.world.hello()
        for name in PLACES:
            self.client.set(name, max_attempts=2, retry_delay_ms=0)
        self.places: dict[Id, str] = {}  # where those are that were moved
        self.ended: dict[Id, bool] = {}  # whether as done
        self.living: set[Id] = set()
        self.after: dict[Id, list[Id]] = {}
        self.told: dict[Id, tuple[int, int]] = {}

    def step(self) -> None:
        """Do one thing."""
        does = [self.publish, self.comes_after, self.batch, self.work, self.work]
        does += [self.cancel, self.move, self.purge, self.start, self.copy]
        self.random.choices(does, [6, 6, 3, 8, 8, 2, 2, 0.3, 1, 1])[0]()
        for _ in range(self.random.choice([0, 1, 3, 1_000])):
            if self.world.store.jobs:
                self.world.run_job()
        self.world.check()

    def publish(self) -> None:
        count = self.random.randint(1, 4)
        first = self.client.publish("jobs", *[b"x"] * count)["results"][0]["first"]
        self.living |= {(1, first + at) for at in range(count)}

    def comes_after(self) -> None:
        if not self.living:
            return
        ids = self.random.sample(sorted(self.living), self.random.randint(1, len(self.living)))
        if self.random.random() < 0.3:
            ids = ids[:1]
        runs = wire.pack_runs((0, *id, 1) for id in ids)
        answer = self.client.publish("next", b"n", after=runs, if_dead="run")
        result = answer["results"][0]
        self.after[result["origin"], result["first"]] = ids

    def batch(self) -> None:
        parts: list[dict[str, Any]] = [
            {"op": "publish", "queue": "jobs", "count": 2},
            {"op": "publish", "queue": "next", "count": 1, "after_step": 1, "if_dead": "run"},
        ]
        answer = self.client.sequenced(parts, b"", b"\0\0\0\0\1\0\0\0" * 3, b"xxx")
        jobs, after = answer["results"]
        ids = [(1, jobs["first"]), (1, jobs["first"] + 1)]
        self.living |= set(ids)
        self.after[after["origin"], after["first"]] = ids

    def work(self) -> None:
        place = self.random.choice(PLACES)
        for job in self.client.receive_all(place, self.random.randint(1, 3)):
            op = self.random.choice(["ack", "ack", "nack", "reject", "release"])
            self.client.settle(op, job)
            if op == "ack":
                self._end(job.id, done=True)
            elif op == "reject" or (op == "nack" and job.attempt == 2):
                self._end(job.id, done=False)
        if self.random.random() < 0.3:
            self.start()
        else:
            self._look()

    def cancel(self) -> None:
        if self.living:
            id = self.random.choice(sorted(self.living))
            answer = self.client.cancel_messages(self._place(id), id)
            assert answer["value"]["cancelled"] == 1
            self._end(id, done=False)

    def move(self) -> None:
        if self.living:
            id = self.random.choice(sorted(self.living))
            source = self._place(id)
            (target,) = {*PLACES} - {source}
            part = {"op": "move", "queue": source, "target": target, "runs": 1}
            answer = self.client.request(part, wire.pack_runs([(0, *id, 1)]))
            if answer is None:  # others had the looks of this step
                self.world.run_jobs()
                answer = self.client.answer(request=self.client.requests)
            assert answer["value"]["moved"] == 1
            self.places[id] = target

    def _place(self, id: Id) -> str:
        return self.places.get(id, "jobs")

    def purge(self) -> None:
        place = self.random.choice(PLACES)
        self.client.purge(place)
        for id in sorted(self.living):
            if self._place(id) == place:
                self._end(id, done=False)

    def start(self) -> None:
        self.world.restart(clean=self.random.random() < 0.5, lose_unsynced=False)
        for _ in range(self.random.choice([0, 2])):
            self.world.run_job()
        self.client = self.world.hello()
        self.world.advance(30_000)

    def copy(self) -> None:
        self.world.free(self.world.core.synced)

    def _end(self, id: Id, *, done: bool) -> None:
        self.living.discard(id)
        self.ended[id] = done

    def _look(self) -> None:
        """Receive what went on: all of its predecessors have ended, as it is told, and it comes once."""
        self.world.run_jobs()
        answer = self.client.receive("next", 3)
        if answer is None:
            return
        counts = {(row[0], row[1]): (row[2], row[3]) for row in answer.get("after", [])}
        messages: list[Delivered] = answer["messages"]
        for message in messages:
            ids = self.after[message.id]
            done = sum(self.ended[id] for id in ids)
            assert counts[message.id] == (done, len(ids) - done)
            assert message.id not in self.told
            self.told[message.id] = counts[message.id]
            self.client.settle("ack", message)

    def drain(self) -> None:
        """End all that lives; nothing that waited is left, in the queue or beside it."""
        while self.living:
            self.work()
            self.world.advance(2_000)
        for _ in self.after:
            self._look()
        assert set(self.told) == set(self.after)
        assert not list(self.world.store.kept.of(AFTER))
        assert (self.world.store.chains.ids, self.world.store.chains.awaited) == ({}, 0)


@pytest.mark.parametrize("seed", seeds(20))
def test_each_goes_on_once_with_its_counts(seed: int) -> None:
    """A world of each seed; `python -m pytest -k "[SEED]"` is the bug report."""
    chained = Chained(seed)
    for _ in range(STEPS):
        chained.step()
    chained.drain()
