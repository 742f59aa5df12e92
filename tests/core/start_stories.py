"""Stories that leave a log in which there is something of everything that a start has to know."""

from __future__ import annotations

from random import Random

from core_client import Client, Delivered
from harness import World

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
