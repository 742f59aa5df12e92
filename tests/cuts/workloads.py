"""What is done to a recorded broker: publishes, acks, moves, rotations, freeing, stops and kills, by a seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

from core_client import Client, Delivered
from disk_world import PATH, DiskWorld, Recording, SyncFailed

from minibrokerd.core.durable import paging
from minibrokerd.core.model.sums import Sums

QUEUE = "work"
LEASE_MS = 30_000
SMALL: dict[tuple[Any, str], int] = {(paging, "AHEAD_MESSAGES"): 2, (Sums, "large_bytes"): 0}


class Shift:
    """One client at work in a world; it keeps what it was told in the recording."""

    def __init__(self, world: DiskWorld) -> None:
        self.world = world
        self.client: Client = world.hello()
        self.begun: list[Delivered] = []
        self.count = 0

    def _now(self, answer: Any) -> Any:
        """Return an answer that may have to wait for the disk."""
        if answer is None:
            self.world.sync()
            sequence, request = self.client.sequence, self.client.requests
            answer = self.client.answer(sequence=sequence) or self.client.answer(request=request)
        return answer

    def publish(self, count: int, size_bytes: int, **fields: Any) -> None:
        """Publish some messages, each with a body of its own."""
        world = self.world
        since = len(world.recording.appended)
        bodies = [world.random.randbytes(size_bytes) for _ in range(count)]
        (queue,) = (fields.pop("queue", QUEUE),)
        waiting = self.client.publish(queue, *bodies, **fields)
        # What may be there after a crash, though nobody was told.
        number = world.queue(queue).number
        first = world.queue(queue).next_sequence - count
        for index, body in enumerate(bodies):
            world.recording.sent[number, first + index] = body
        (result,) = self._now(waiting)["results"]
        assert (result["origin"], result["first"]) == (number, first)
        for index, body in enumerate(bodies):
            world.tell(since, (number, first + index), body)

    def receive(self, count: int, queue: str = QUEUE) -> None:
        """Receive and begin messages."""
        answer = self._now(self.client.receive(queue, count, lease_ms=LEASE_MS))
        self.world.sync()
        self.begun += answer["messages"]

    def settle(self, op: str, count: int, **fields: Any) -> None:
        """Settle the oldest that are begun."""
        some, self.begun = self.begun[:count], self.begun[count:]
        if not some:
            return
        since = len(self.world.recording.appended)
        answer = self._now(self.client.settle(op, *some, **fields))
        assert not answer["lost_runs"], answer
        if op == "ack":
            for message in some:
                self.world.tell(since, message.id, None)

    def restart(self, *, clean: bool) -> None:
        """Stop or kill the broker, and come back as a new session."""
        if clean:
            self.world.stop()
        else:
            self.world.die()
        self.begun = []
        self.client = self.world.hello()
        self.world.wait_no_longer()
        self.world.advance(2_000)


def turn(shift: Shift) -> None:
    """Do a few things of every kind, as the seed has it."""
    random = shift.world.random
    shift.publish(random.randrange(1, 4), random.randrange(0, 220))
    if random.random() < 0.7:
        shift.receive(random.randrange(1, 4))
    if random.random() < 0.7:
        shift.settle("ack", random.randrange(1, 3))
    if random.random() < 0.2:
        shift.settle("nack", 1, error=("Err", "no luck"))
    if random.random() < 0.2:
        shift.settle("reject", 1, error=("Err", "bad"))
    if random.random() < 0.1:
        shift.publish(1, 40, delays=[random.randrange(1, 9_000)])
    shift.world.advance(random.randrange(0, 400))
    shift.world.sync()
    if random.random() < 0.4:
        shift.world.freeze()


def first_start(world: DiskWorld) -> None:
    """An empty directory becomes a log (this world's own start), and takes one publish."""
    Shift(world).publish(1, 10)


def mixed(world: DiskWorld) -> None:
    """Turns of work over some segments, with markers in between."""
    shift = Shift(world)
    for _ in range(8):
        turn(shift)
        if world.random.random() < 0.3:
            world.mark()


def freeing(world: DiskWorld) -> None:
    """Segments fill and are freed: copies, the marker with the new start, recycling, unlinking."""
    shift = Shift(world)
    while len(world.recording.freed) < 4:
        turn(shift)
        if len(world.disk_log._tail.sealed) > 1:
            shift.settle("ack", len(shift.begun) // 2)
            world.free_oldest()


def _with_restarts(world: DiskWorld, *, clean: bool) -> None:
    shift = Shift(world)
    for _ in range(3):
        turn(shift)
        turn(shift)
        shift.restart(clean=clean)
    turn(shift)


def killed(world: DiskWorld) -> None:
    """Kills between work: each start rewrites the last segment and zeroes the old one."""
    _with_restarts(world, clean=False)


def closed(world: DiskWorld) -> None:
    """Clean stops between work: footers, and the next epoch in the same segment."""
    _with_restarts(world, clean=True)


def resized(world: DiskWorld) -> None:
    """Each start has segments of another size, smaller and larger."""
    shift = Shift(world)
    size_bytes = world.recording.segment_bytes
    for segment_bytes in (2 * size_bytes, size_bytes, 4 * size_bytes):
        turn(shift)
        turn(shift)
        world.recording.segment_bytes = segment_bytes
        shift.restart(clean=world.random.random() < 0.5)
    for _ in range(4):
        turn(shift)


def failing(world: DiskWorld) -> None:
    """Syncs that fail: the note of the last safe batch, the end of the process, and the next start."""
    shift = Shift(world)
    for _ in range(3):
        turn(shift)
        world.fail_next()
        with suppress(SyncFailed):
            shift.publish(1, 100)
        shift.restart(clean=False)
    turn(shift)


def everything(world: DiskWorld) -> None:
    """All of it in an order that the seed gives."""
    shift = Shift(world)
    for _ in range(16):
        turn(shift)
        fate = world.random.random()
        if fate < 0.15:
            shift.restart(clean=False)
        elif fate < 0.3:
            shift.restart(clean=True)
        elif fate < 0.6 and world.disk_log._tail.sealed:
            world.free_oldest()
        elif fate < 0.7:
            world.mark()


WORKLOADS: Final[dict[str, Callable[[DiskWorld], None]]] = {
    work.__name__: work
    for work in (first_start, mixed, freeing, killed, closed, resized, failing, everything)
}


def record(
    name: str, seed: int, segment_bytes: int = 4096, inner: Any = None, path: str = PATH
) -> Recording:
    """Run a workload and return what it did; the same seed gives the same recording."""
    with small_memory():
        world = DiskWorld(seed, segment_bytes, inner, path)
        WORKLOADS[name](world)
    return world.recording


@contextmanager
def small_memory() -> Iterator[None]:
    """Let a handful of messages be enough for some of them to leave memory."""
    before = {(owner, name): getattr(owner, name) for owner, name in SMALL}
    try:
        for (owner, name), value in SMALL.items():
            setattr(owner, name, value)
        yield
    finally:
        for (owner, name), value in before.items():
            setattr(owner, name, value)
