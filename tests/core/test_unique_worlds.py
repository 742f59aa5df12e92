"""Unique keys, dedupe ids and limits in worlds out of a seed: what holds after each step, whatever came before."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from core_client import Id
from harness import World

KEYS = ("a", "b", "c", "")
MODES = ("drop", "replace", "keep-latest")
MOST = 12


class Worlds:
    """One world, and what was confirmed in it."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.world = World(segment_batches=self.random.choice((1, 3)))
        self.world.digests = self.random.random() < 0.5
        self.client = self.world.hello()
        self.overflow = self.random.choice(("block", "drop-oldest", "dead-letter"))
        self.client.set(
            "q", max_messages=MOST, overflow=self.overflow, retry_delay_ms=200, lease_ms=5_000
        )
        self.hands: list[Any] = []
        self.ids: dict[str, tuple[Id, int]] = {}  # dedupe ids: message and end of the window
        self.brought = False  # a redrive brings messages beside others

    def step(self) -> None:
        """Do one thing, and look."""
        getattr(self, self.random.choice(STEPS))()
        self.world.check()
        states = self.world.states("q")
        assert len(states) <= MOST or self.brought

    def publish(self) -> None:
        random, world = self.random, self.world
        count = random.choice((1, 1, 2, 4))
        uniques = [random.choice(KEYS) for _ in range(count)]
        dedupes = [random.choice(("", "", "1", "2")) for _ in range(count)]
        mode, before = random.choice(MODES), world.states("q")
        answer = self.client.publish(
            "q", *[b"x"] * count, uniques=uniques, dedupes=dedupes, unique_mode=mode,
            delay_ms=random.choice((0, 0, 300)),
        )  # fmt: skip
        if answer["op"] == "error":
            assert answer["code"] == "busy"
            assert world.states("q") == before
            return
        known = {word: (origin, sequence) for word, origin, sequence, _ in answer["lost_runs"]}
        self._look(answer, uniques, dedupes, mode, known, before)

    def _look(
        self,
        answer: Any,
        uniques: list[str],
        dedupes: list[str],
        mode: str,
        known: Any,
        before: Any,
    ) -> None:
        """Each that is known names what stands; of a key at most one waits that was published last."""
        states, first = self.world.states("q"), answer["results"][0]["first"]
        now_ms, origin = self.world.unix_ms, answer["results"][0]["origin"]
        for index, (unique, dedupe) in enumerate(zip(uniques, dedupes, strict=True)):
            stands = known.get(index)
            own = origin, first + index
            remembered = self.ids.get(dedupe) if dedupe else None
            if remembered is not None and remembered[1] > now_ms:
                assert stands == remembered[0], "an id names what was stored under it first"
                continue
            if dedupe:
                self.ids[dedupe] = stands or own, now_ms + 3_600_000
            if stands is None:
                continue
            assert mode == "drop"
            assert unique
            assert stands in states or stands in before or stands[1] >= first
        keys = self.world.queue("q").unique
        stored = {unique for index, unique in enumerate(uniques) if unique and index not in known}
        for key in stored if not self.brought else ():
            assert keys is not None
            waiting = [id for id in keys.holders(key) if states[id] in ("READY", "DELAYED")]
            assert len(waiting) == 1, (key, mode, waiting)

    def take(self) -> None:
        self.hands += self.client.receive_all("q", self.random.randint(1, 3))

    def settle(self) -> None:
        if self.hands:
            message = self.hands.pop(self.random.randrange(len(self.hands)))
            verb = self.random.choice(("ack", "ack", "nack", "release", "reject"))
            self.client.settle(verb, message)

    def wait(self) -> None:
        self.world.advance(self.random.choice((50, 400, 6_000)))

    def cancel(self) -> None:
        states = list(self.world.states("q"))
        if states:
            self.client.cancel_messages("q", self.random.choice(states))

    def purge(self) -> None:
        if self.random.random() < 0.3:
            self.client.purge("q")

    def redrive(self) -> None:
        if "q.dlq" in self.world.store.queues and self.world.states("q.dlq"):
            self.client.redrive("q.dlq")
            self.brought = True

    def free(self) -> None:
        self.world.free(self.world.segment_end(self.world.core.synced))

    def restart(self) -> None:
        self.world.freeze()
        self.world.restart(clean=self.random.random() < 0.5, lose_unsynced=False)
        self.world.advance(1_100)
        self.hands = []
        self.client = self.world.hello()


STEPS = (
    *["publish"] * 8, *["take"] * 3, *["settle"] * 4, "wait", "wait",
    "cancel", "purge", "redrive", "free", "restart",
)  # fmt: skip


@pytest.mark.parametrize("seed", range(12))
def test_what_holds_after_each_step(seed: int) -> None:
    worlds = Worlds(seed)
    for _ in range(80):
        worlds.step()
