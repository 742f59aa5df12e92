"""Promises about digests: a start that reads them knows what it would know from the records.

Of each story many digests are made, for segments of different lengths, so that what is said of a message stands in
one of them, or in several.
"""

from __future__ import annotations

import pytest
from core_client import Client
from harness import World
from start_stories import STEPS, Story
from starts import known

from minibrokerd.bodies.store import BodyStore
from minibrokerd.core.core import Core
from minibrokerd.core.durable import digest
from minibrokerd.core.model.inputs import Forward
from minibrokerd.log.seam import Digested
from support.counting import calls_of


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


@pytest.mark.parametrize("bodies", [1, 5])
def test_a_start_takes_no_step_for_a_frame_that_stands_in_a_digest(bodies: int) -> None:
    """Of ten million messages there are as many steps as of segments and queues: they become runs as a whole."""
    calls = {frames: calls_of_a_start(frames, bodies) for frames in (50, 500)}
    assert calls[50] == calls[500]


def calls_of_a_start(frames: int, bodies: int) -> int:
    """Return the calls of functions of a core that starts on three digests of so many frames each."""
    world = World(segment_batches=frames)
    client = world.hello()
    for _ in range(4 * frames):
        client.publish("q", *[b"body"] * bodies)
        client.answered_below = client.sequence  # as one that has its answers
    world.digests = True
    parts = [part for part in world._digested() if isinstance(part, Digested)]
    core = Core(BodyStore())

    def start() -> None:
        for part in parts:
            core.replay(part)
        core.opened(9, world.now_ms + 1, world.unix_ms, clean=False, next_batch=10_000)

    made = calls_of(start)
    assert core.store.queues["q"].count() > 2 * frames
    return made
