"""Many that are begun together are a span with one lease; what comes then is as if each had been begun alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from harness import World
from starts import everything, known

from minibroker.contract.wire import pack_runs
from minibrokerd.core.core import TIMERS_PER_APPLY
from minibrokerd.core.model.inputs import Tick
from minibrokerd.core.model.messages import READY, State
from minibrokerd.core.model.records import BeginMeta, ExtendMeta, decode
from minibrokerd.core.verbs import going_on
from minibrokerd.core.verbs.results import LOOK_MS

COUNT = 40
LEASE_MS = 2_000
ALONE = 2**60  # so many would have to be begun at once


class Scene:
    """A client that has begun messages of several publishes at once."""

    def __init__(self, count: int = COUNT, size: int = 25) -> None:
        self.world = World()
        self.client = self.world.hello("worker")
        self.client.set("q", max_attempts=2, lease_ms=LEASE_MS)
        for at in range(0, count, size):
            self.client.publish("q", *[b"x"] * min(size, count - at))
        self.client.consume("q", prefetch=count)
        first = self.client.messages()[0]
        self.token, self.origin, self.first = first.token, first.origin, first.sequence
        self.tell("begin", (0, count))

    def tell(self, op: str, *runs: tuple[int, int], **fields: Any) -> Any:
        """Say something of runs (first, count), counted from the first message."""
        named = [(self.token, self.origin, self.first + at, count) for at, count in runs]
        return self.client.settle_runs(op, "q", named, **fields)

    def together(self) -> list[tuple[int, int]]:
        """Return what is begun together, as (first, count)."""
        return [
            (item.first - self.first, item.stop - item.first)
            for delivery in self.world.store.deliveries.values()
            for item in delivery.begun.values()
        ]


def acks_in_parts(scene: Scene) -> Any:
    return [scene.tell("ack", (0, 10)), scene.tell("ack", (10, 15), (25, 15))]


def acks_some(scene: Scene) -> Any:
    return scene.tell("ack", (0, 30))


def acks_twice(scene: Scene) -> Any:
    return [scene.tell("ack", (0, 30)), scene.tell("ack", (20, 20))]


def acks_in_the_middle(scene: Scene) -> Any:
    return scene.tell("ack", (7, 20))


def acks_of_a_stranger(scene: Scene) -> Any:
    stranger = scene.world.hello("stranger")
    return stranger.settle_runs("ack", "q", [(scene.token, scene.origin, scene.first, COUNT)])


def nacks_one(scene: Scene) -> Any:
    return scene.tell("nack", (7, 1), delay_ms=0)


def nacks_all(scene: Scene) -> Any:
    return scene.tell("nack", (0, COUNT), delay_ms=1_000)


def rejects_some(scene: Scene) -> Any:
    return scene.tell("reject", (20, 10), error=("E", "e"))


def gives_some_back(scene: Scene) -> Any:
    return scene.tell("release", (0, 30))


def begins_again(scene: Scene) -> Any:
    return scene.tell("begin", (0, COUNT))


def is_renewed(scene: Scene) -> Any:
    scene.world.advance(LEASE_MS - 100)
    said = scene.tell("extend", (0, COUNT))
    scene.world.advance(LEASE_MS - 100)
    return said, scene.tell("ack", (0, COUNT))


def some_is_renewed(scene: Scene) -> Any:
    scene.world.advance(LEASE_MS - 100)
    said = scene.tell("extend", (0, 30), lease_ms=10 * LEASE_MS)
    scene.world.advance(LEASE_MS)
    return said, scene.tell("ack", (0, COUNT))


def is_let_go(scene: Scene) -> Any:
    scene.world.advance(LEASE_MS + 100)
    return scene.client.request({"op": "ping"}), len(scene.client.messages())


def leaves(scene: Scene) -> Any:
    scene.client.cancel()
    return scene.tell("ack", (0, 5))


def is_looked_for_as_its_lease_ends(scene: Scene) -> Any:
    """After a stall, somebody who waits for a result is due in the same tick as the leases, and before them."""
    world, asker = scene.world, scene.world.hello("asker")
    world.advance(LEASE_MS - LOOK_MS - 100)
    asked = {"op": "result", "queue": "q", "runs": 1, "wait_ms": 60_000}
    asker.request(asked, pack_runs([(0, scene.origin, scene.first + 5, 1)]))
    world.now_ms += LEASE_MS
    world.apply(Tick(world.jitter))
    world.advance(100)
    return len(scene.client.messages())


def is_purged(scene: Scene) -> Any:
    answer = scene.client.purge("q")
    scene.world.run_jobs()
    scene.world.advance(LEASE_MS + 100)
    return answer


def is_resumed(scene: Scene) -> Any:
    world, client = scene.world, scene.client
    world.disconnect(client)
    scene.client = world.resume(client, runs=[(scene.token, scene.origin, scene.first, COUNT)])
    return scene.tell("ack", (0, 30))


def restarts(scene: Scene) -> Any:
    scene.tell("ack", (0, 10))
    scene.world.sync()
    return known(scene.world, digests=True), known(scene.world, digests=False)


STORIES = (
    acks_in_parts, acks_some, acks_twice, acks_in_the_middle, acks_of_a_stranger, nacks_one, nacks_all,
    rejects_some, gives_some_back, begins_again, is_renewed, some_is_renewed, is_let_go,
    is_looked_for_as_its_lease_ends, leaves, is_purged, is_resumed, restarts,
)  # fmt: skip


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
def test_what_comes_then_is_as_if_each_were_begun_alone(
    story: Callable[[Scene], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    together = Scene()
    assert together.together() == [(0, 25), (25, 15)]
    monkeypatch.setattr(going_on, "FEW", ALONE)
    alone = Scene()
    assert not alone.together()
    assert story(together) == story(alone)
    assert outcome(together) == outcome(alone)


def outcome(scene: Scene) -> Any:
    """Return what a story comes to; when a lease ended may differ by a tick."""
    world = scene.world
    world.sync()
    group = world.queue("q").group
    found = everything(world)
    for name, entries in found.items():
        found[name] = [without_times(entry) for entry in entries]
    counts = group.lanes.ready, group.delayed_count, group.held, group.begun
    return found, counts, dict(group.counters)


def without_times(entry: Any) -> Any:
    if len(entry) != 3:
        return entry
    (*place, _), (*what, own), lease = entry
    attempts, history, *more, started = own
    told = [(each.token, each.cause, each.error_class) for each in history or ()]
    return place, what, attempts, told, more, bool(started), lease


def test_what_is_begun_together_is_told_once_and_renewed_so() -> None:
    scene = Scene()
    scene.tell("extend", (0, COUNT))
    scene.world.sync()
    says = [decode(record) for batch in scene.world.log for record in batch.records]
    told = [(type(each), each.count) for each in says if isinstance(each, BeginMeta)]
    assert told == [(BeginMeta, COUNT), (ExtendMeta, COUNT)]
    assert scene.together() == [(0, 25), (25, 15)]


def test_an_ack_of_the_first_ones_leaves_the_others_together() -> None:
    scene = Scene()
    scene.tell("ack", (0, 30))
    assert scene.together() == [(30, 10)]
    scene.world.advance(LEASE_MS + 100)
    assert scene.together() == []
    assert scene.world.queue("q").group.counters["expired"] == 10
    scene.world.check()


def test_a_consumer_that_leaves_takes_nothing_apart() -> None:
    scene = Scene()
    scene.client.cancel()
    assert scene.together() == [(0, 25), (25, 15)]


def test_what_is_begun_together_and_held_ends_in_one_run() -> None:
    scene = Scene()
    scene.client.publish("q", *[b"y"] * 50)
    scene.client.consume("q", prefetch=COUNT + 50, consumer=2)
    (first, *_) = scene.client.messages()
    run = first.token, first.origin, first.sequence
    scene.client.settle_runs("begin", "q", [(*run, 20)])
    answer = scene.client.settle_runs("ack", "q", [(*run, 45)])
    assert answer["results"] == [{"lost": 0}]
    states = list(scene.world.states("q").values())
    assert (states.count(State.HELD.name), states.count(State.BEGUN.name)) == (5, COUNT)
    scene.world.check()


def test_very_many_whose_leases_end_at_once_come_back_in_steps() -> None:
    scene = Scene(count=10_000, size=1_000)
    scene.world.now_ms += LEASE_MS + 100
    most = 0
    while scene.world.queue("q").group.begun:
        before = scene.world.queue("q").group.begun
        scene.world.now_ms += 8
        scene.world.apply(Tick(scene.world.jitter))
        most = max(most, before - scene.world.queue("q").group.begun)
    assert most <= TIMERS_PER_APPLY
    scene.world.check()


def test_those_of_which_none_is_left_are_forgotten() -> None:
    scene = Scene()
    scene.tell("ack", (0, COUNT))
    assert not scene.world.store.deliveries
    scene.world.check()
    assert READY.name not in scene.world.states("q").values()
