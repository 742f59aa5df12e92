"""Promises about a replay that lets messages leave memory: it knows what one that keeps them all knows.

In a stream, and in a segment without a side index, they are read record by record.
"""

from __future__ import annotations

from typing import Any

import pytest
from harness import World
from start_stories import STEPS, Story
from starts import everything, known

from minibrokerd.bodies.shelves import SegmentShelf
from minibrokerd.core.durable import survivors
from minibrokerd.core.durable.survivors import Survivors
from minibrokerd.core.model.cold import ColdRun
from minibrokerd.core.model.inputs import Forward
from minibrokerd.core.replay import Replay


@pytest.fixture(params=[0, 1, 5])
def _behind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survivors, "MANY_COLD", request.param)


@pytest.mark.usefixtures("_behind")
@pytest.mark.parametrize("cools", [1, 4, 9])
@pytest.mark.parametrize("seed", range(12))
def test_a_start_that_cools_knows_what_the_records_say(seed: int, cools: int) -> None:
    """Messages with all that is known of them, and the outcomes of frames; whatever came behind what was cold."""
    story = Story(seed)
    for step in range(STEPS):
        story.step()
        if step % 4 == 0:
            assert known(story.world, cools=cools) == known(story.world), f"at step {step}"


def blocks_made(world: World, monkeypatch: pytest.MonkeyPatch) -> int:
    """Start again, cooling; return how many publishes became blocks in memory."""
    made = []
    add = Survivors.add

    def noted(waiting: Survivors, *args: Any) -> None:
        made.append(args)
        add(waiting, *args)

    monkeypatch.setattr(Survivors, "add", noted)
    world.cools = 1
    world.restart()
    monkeypatch.setattr(Survivors, "add", add)
    return len(made)


def test_no_object_is_made_of_what_comes_behind_many_cold_messages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a million frames of one message each would be an object for a moment: most of what a start took."""
    monkeypatch.setattr(survivors, "MANY_COLD", 10)
    world = World(segment_batches=7)
    client = world.hello()
    for number in range(100):
        client.publish("q", b"%d" % number)
    assert blocks_made(world, monkeypatch) == 10
    client = world.hello()
    order: list[bytes] = []
    while some := client.receive_all("q", 100):
        order += [message.body for message in some]
        client.settle("ack", *some)
    assert order == [b"%d" % number for number in range(100)]


def test_what_comes_behind_few_cold_messages_stays_in_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It may soon be begun, and whoever stands by would read each of them back."""
    monkeypatch.setattr(survivors, "MANY_COLD", 10)
    world = World()
    client = world.hello()
    for number in range(100):
        client.publish("q", b"%d" % number)
        if number >= 5:
            client.settle("ack", *client.receive_all("q", 1))
    # Hands out the five oldest first: five wait at any time.
    assert blocks_made(world, monkeypatch) == 100


def runs(world: World, many_cold: int, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return the runs of q in a replay that cools."""
    monkeypatch.setattr(survivors, "MANY_COLD", many_cold)
    other = World()
    other.records = world.records
    replay = Replay(other.store)
    for batch in world.log:
        replay.batch(batch)
        replay.cool_beyond(0)
    names = ("first", "stop", "left", "batch", "ready_at_ms", "firsts")
    (waiting,) = [each for each in replay._queues.values() if each.queue.name == "q"]
    return [
        [getattr(run, name) for name in names] + [run.shelf.stands(0, len(run.firsts))]
        for run in waiting.lives
        if isinstance(run, ColdRun) and isinstance(run.shelf, SegmentShelf) and run.left
    ]


def test_a_run_is_the_same_whether_its_frames_were_objects_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(segment_batches=9)
    client = world.hello()
    for number in range(60):
        client.publish("q", *[b"x" * number] * (number % 3 + 1))
    through_objects = runs(world, 2**62, monkeypatch)
    assert len(through_objects) > 5
    assert runs(world, 0, monkeypatch) == through_objects


def test_what_a_run_costs_is_about_what_its_frames_cost_as_objects(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(survivors, "MANY_COLD", 1)
    world = World(segment_batches=100)
    client = world.hello()
    for _ in range(30):
        client.publish("q", b"x" * 100, b"y")
    hot = world.queue("q").log_bytes
    world.cools = 1
    world.restart()
    assert hot <= world.queue("q").log_bytes <= hot * 1.1


def test_what_comes_behind_a_copy_does_not_go_to_the_run_in_whose_place_it_came(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(survivors, "MANY_COLD", 1)
    world = World(segment_batches=100)
    client = world.hello()
    client.publish("q", b"copied")
    published = len(world.log)
    world.apply(Forward(world.core.synced, 2**30))
    client.publish("q", b"behind")
    replay = Replay(World().store)
    for batch in world.log[:published]:
        replay.batch(batch)
        replay.cool_beyond(0)
    for batch in world.log[published:]:
        replay.batch(batch)
    (waiting,) = [each for each in replay._queues.values() if each.queue.name == "q"]
    assert sum(live.left for live in waiting.lives) == 2


def test_what_has_ended_is_forgotten_in_a_replay_that_goes_on_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who stands by does so for weeks, and a run has 8 bytes of each frame."""
    monkeypatch.setattr(survivors, "MANY_COLD", 1)
    world = World(segment_batches=5)
    client = world.hello()
    for number in range(50):
        client.publish("q", b"%d" % number)
    for _ in range(49):
        client.settle("ack", *client.receive_all("q", 1))
    other = World()
    other.records = world.records
    replay = Replay(other.store)
    most = 0
    for batch in world.log:
        replay.batch(batch)
        replay.cool_beyond(0)
        most = max(most, sum(len(each.lives) for each in replay._queues.values()))
    assert most >= 10
    replay.tidy(world.unix_ms)
    assert sum(len(each.lives) for each in replay._queues.values()) == 1


@pytest.mark.parametrize("odd", [{"keys": ["k"]}, {"delays": [5_000]}, {"uniques": ["u"]}])
def test_of_what_has_more_than_a_place_an_object_is_made_wherever_it_stands(
    odd: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(survivors, "MANY_COLD", 3)
    world = World(segment_batches=4)
    client = world.hello()
    for number in range(30):
        client.publish("q", b"%d" % number, **(odd if number % 10 == 9 else {}))
    kept = known(world)
    assert known(world, cools=1) == kept
    world.cools = 1
    world.restart()
    world.thaw()
    assert everything(world) == kept[0]
