"""Promises about digests: a start that reads them knows what it would know from the records.

Of each story many digests are made, for segments of different lengths, so that what is said of a message stands in
one of them, or in several.
"""

from __future__ import annotations

from random import Random

import pytest
from core_client import Client, Delivered
from harness import World
from starts import known

from minibrokerd.core.durable import digest
from minibrokerd.core.model.inputs import Forward

STEPS = 40
VERBS = ("ack", "ack", "ack", "nack", "reject", "release", "extend")


class Story:
    """A client that does this and that, as its seed says."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.world = World(segment_batches=self.random.choice((2, 5, 40)))
        self.client: Client = self.world.hello()
        self.client.set("q", max_attempts=2, retry_delay_ms=0)
        self.begun: list[Delivered] = []

    def step(self) -> None:
        """Do one thing."""
        some = (self.publish, self.publish, self.receive, self.settle, self.settle, self.settle)
        self.random.choice((*some, self.forward, self.purge, self.time_passes))()

    def publish(self) -> None:
        """Publish some, mostly plain ones."""
        bodies = [b"body"] * self.random.randint(1, 4)
        fields = {"keys": ["k"] * len(bodies)} if self.random.random() < 0.2 else {}
        self.client.publish("q", *bodies, **fields)

    def receive(self) -> None:
        """Begin some, out of the queue or its dead letters."""
        queues = [name for name in ("q", "q.dlq") if name in self.world.store.queues]
        queue = self.random.choice(queues)
        self.begun += self.client.receive_all(queue, self.random.randint(1, 4), lease_ms=60_000)

    def settle(self) -> None:
        """Settle some of what was begun."""
        if not self.begun:
            return
        queue = self.random.choice(self.begun).queue
        some = [message for message in self.begun if message.queue == queue]
        some = some[: self.random.randint(1, 3)]
        verb = self.random.choice(VERBS)
        self.client.settle(verb, *some, **({"lease_ms": 60_000} if verb == "extend" else {}))
        if verb != "extend":
            self.begun = [message for message in self.begun if message not in some]

    def forward(self) -> None:
        """Write again what stands in the oldest segments; now and then they are freed."""
        upto = self.world.segment_end(self.world.core.synced)
        self.world.apply(Forward(upto, 2**30))
        if self.random.random() < 0.3:
            self.world.free(upto)

    def purge(self) -> None:
        """End everything, now and then."""
        if self.random.random() < 0.3:
            self.client.purge("q")
            self.begun = [message for message in self.begun if message.queue != "q"]

    def time_passes(self) -> None:
        """Let what was released twice be ready again."""
        self.world.advance(1_500)


@pytest.mark.parametrize("seed", range(24))
def test_a_start_on_digests_knows_what_the_records_say(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Messages with all that is known of them, and the outcomes of frames."""
    if seed % 2:
        monkeypatch.setattr(digest, "_FEW", 1)  # two are many
    story = Story(seed)
    for step in range(STEPS):
        story.step()
        if step % 4 == 0:
            world = story.world
            assert known(world, digests=True) == known(world, digests=False), f"at step {step}"


def test_a_copy_that_was_acked_in_its_own_segment_does_not_come_back() -> None:
    """The ack is about the copy, which stands before it, though both are in one digest."""
    world = World(segment_batches=100)
    client = world.hello()
    client.publish("q", b"a", b"b")
    (message, other) = client.receive_all("q", 2, lease_ms=60_000)
    world.apply(Forward(world.core.synced, 2**30))
    client.settle("ack", message)
    fill(world, client, segments=2)
    assert sorted(begun_after_start(world)) == [other.id]


def test_what_was_published_after_a_purge_lives_and_nothing_from_before() -> None:
    """A purge is a barrier: it is about all that came before it, and nothing that came after."""
    world = World(segment_batches=100)
    client = world.hello()
    client.publish("q", b"a", b"b")
    client.purge("q")
    client.publish("q", b"c")
    last = max(world.states("q"))
    fill(world, client, segments=2)
    assert [id for id in states_after_start(world) if id <= last] == [last]


def fill(world: World, client: Client, *, segments: int) -> None:
    """Write until the first segments are sealed, so that a start reads digests of them."""
    while len({batch.place.segment for batch in world.log if batch.place}) <= segments:
        client.publish("q", b"filler")


def states_after_start(world: World) -> dict[tuple[int, int], str]:
    """Return what a start on digests finds in q."""
    world.digests = True
    world.restart(clean=False)
    world.thaw()
    world.check()
    return world.states("q")


def begun_after_start(world: World) -> list[tuple[int, int]]:
    """Return the messages of q that are begun after a start on digests."""
    return [id for id, state in states_after_start(world).items() if state == "BEGUN"]
