"""No apply looks at more than its budget, or emits more bytes than it may, whatever the state holds."""

from __future__ import annotations

from typing import Any

import pytest
from core_client import Client
from harness import World
from looks import MOST, counted, many, small_budget

from minibrokerd.core.model.inputs import Forward, Freeze, Space
from minibrokerd.core.model.lane import KeyLane
from minibrokerd.core.model.records import decode
from minibrokerd.core.model.sums import Sums

__all__ = ["small_budget"]
pytestmark = pytest.mark.usefixtures("small_budget")

MANY = 600
STATES: dict[str, dict[str, int]] = {
    "queues": {"queues": MANY},
    "fresh": {"fresh": MANY},
    "keys": {"keys": MANY},
    "delayed": {"delayed": MANY},
    "dead": {"dead": MANY},
    "begun": {"begun": MANY},
    "held": {"held": MANY},
    "sessions": {"sessions": 150, "outcomes": 4},
}
STEP_BYTES = 20_000
# An apply may exceed its bytes by one thing: the outcome of a frame that lost many runs is the largest.
MOST_BYTES = STEP_BYTES + 2_000


def forwarded(world: World) -> tuple[int, Any]:
    """Copy all that lives forward; return the steps and what was counted."""
    upto, steps = world.core.synced, 0
    with counted(world) as looks:
        while world.core.clear_below <= upto:
            world.apply(Forward(upto, STEP_BYTES))
            steps += 1
    return steps, looks


@pytest.mark.parametrize("state", STATES)
def test_a_step_of_copying_forward_has_a_budget(state: str) -> None:
    world, _ = many(**STATES[state])
    steps, looks = forwarded(world)
    assert steps > 2, "one step is no test"
    assert looks.most <= MOST, looks.applies
    assert looks.most_bytes <= MOST_BYTES


@pytest.mark.parametrize("state", STATES)
def test_a_pass_looks_at_each_thing_a_few_times(state: str) -> None:
    """It goes on where the last step ended."""
    world, _ = many(**STATES[state])
    _, looks = forwarded(world)
    assert sum(count for name, count, _ in looks.applies if name == "Forward") <= 6 * MANY


def test_what_is_new_costs_a_pass_nothing_unless_it_waits_in_line() -> None:
    """300,000 delayed messages beside a busy queue are not looked at for each segment of that."""
    world, client = many(fresh=1)
    upto = world.core.synced
    for number in range(MANY):
        client.answered_below = client.sequence + 1
        client.publish("q", b"x", delay_ms=10**6 + number)
    # Old and new may share a bucket.
    for _ in range(64):
        client.publish("pad", b"x")
    with counted(world) as looks:
        while world.core.clear_below <= upto:
            world.apply(Forward(upto, STEP_BYTES))
    assert sum(count for _, count, _ in looks.applies) <= 200


def test_spans_of_one_publish_are_copied_as_one_record_with_columns() -> None:
    world = World()
    client = world.hello()
    client.publish("q", *[b"%d" % n for n in range(50)], delays=[10**6 + n for n in range(50)])
    client.publish("k", *[b"%d" % n for n in range(50)], keys=[f"key-{n}" for n in range(50)])
    upto = world.core.synced
    before = world.states("q"), world.states("k")
    world.free(upto)
    kinds = [type(decode(record)).__name__ for batch in world.log for record in batch.records]
    assert kinds.count("CopyPartMeta") >= 2
    assert kinds.count("CopyPartMeta") + kinds.count("CopyRunMeta") <= 4, "a step may end between"
    for digests in (False, True):
        world.digests = digests
        world.restart(clean=True)
        assert (world.states("q"), world.states("k")) == before
    client = world.hello()
    keys = [(message.body, message.key) for message in client.receive_all("k", 50)]
    assert sorted(keys) == sorted((b"%d" % n, f"key-{n}") for n in range(50))
    world.advance(10**6 + 25)
    assert {message.body for message in client.receive_all("q", 50)} >= {b"0", b"20"}


def _sync(world: World, client: Client) -> None:
    client.publish("other", b"x")


def _wait_for_space(world: World, client: Client) -> None:
    world.apply(Space(short=True, pause=True))
    world.apply(Space(short=False, pause=False))


def _tick(world: World, client: Client) -> None:
    world.advance(5_000)


def _freeze(world: World, client: Client) -> None:
    world.apply(Freeze(2**40))


@pytest.mark.parametrize("act", [_sync, _wait_for_space, _tick, _freeze])
@pytest.mark.parametrize("state", STATES)
def test_what_the_shell_asks_for_has_a_budget(state: str, act: Any) -> None:
    world, client = many(**STATES[state])
    with counted(world) as looks:
        act(world, client)
        world.core.live_bytes()
        world.core.hot_bytes()
    assert looks.most <= MOST, looks.applies


def test_a_lane_that_is_emptied_by_an_id_leaves_the_turn_without_a_walk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """To take out 300,000 messages of a key each walked 300,000 lanes for each of them."""
    world, _ = many(keys=MANY)
    compared = []

    def equals(lane: KeyLane, other: object) -> bool:
        compared.append(lane)
        return lane is other

    monkeypatch.setattr(KeyLane, "__eq__", equals)
    queue = world.queue("keys")
    ids = [(item.block.origin, item.first) for item in queue.group.lanes.items()]
    for origin, sequence in reversed(ids):
        assert queue.group.lanes.take_one(origin, sequence) is not None
    assert (queue.group.lanes.ready, queue.group.lanes.turns) == (0, 0)
    assert len(compared) <= 2 * MANY


def test_the_sums_are_what_a_walk_comes_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sums, "large_bytes", 0)
    world, client = many(
        queues=20, fresh=50, keys=20, delayed=20, dead=20, begun=20, sessions=5, outcomes=3
    )
    client.set("m", durability="memory")
    client.publish("m", b"x")
    world.freeze()
    for _ in range(2):
        queues = world.store.queues.values()
        sums = world.store.sums
        assert sums.live_bytes == sum(queue.live_bytes for queue in queues)
        assert sums.cold_bytes == sum(queue.cold_bytes for queue in queues)
        assert sums.memory_bytes == sum(queue.memory_bytes for queue in queues)
        windows = sum(len(session.window) for session in world.store.sessions.values())
        assert sums.outcomes == windows
        client.purge("dead.dlq")
        world.restart(clean=True)
        client = world.hello()
