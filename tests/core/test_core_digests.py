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

from minibrokerd.core.durable import digest
from minibrokerd.core.model.inputs import Forward


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
