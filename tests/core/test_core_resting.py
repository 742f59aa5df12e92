"""Promises about queues that have nothing: they cost little, and what they gave back comes again when needed."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from functools import partial

import pytest
from harness import World

from minibrokerd.core.model.endings import Endings
from minibrokerd.core.model.group import NOTHING
from minibrokerd.core.model.no_lanes import NO_LANES
from minibrokerd.core.model.queues import DEFAULTS, Queue
from minibrokerd.core.model.state import REST_MS
from minibrokerd.core.model.timed import MOST_TIMED
from minibrokerd.core.model.times import WINDOW_MS

QUEUES = 300
MOST_BYTES = QUEUES * 1024 * 1024 // 1_000  # a MiB for a thousand of them


def come_to_rest(world: World) -> None:
    """Let queues give back what they do not need."""
    world.advance(REST_MS + 100)
    world.run_jobs()
    world.advance(2 * WINDOW_MS)  # so long it is known how long messages took


def grown_bytes(world: World, work: Callable[[], None]) -> int:
    """Return what is kept more after `work`, when what only the log of the test keeps is gone."""
    gc.collect()
    tracemalloc.start()
    try:
        work()
        come_to_rest(world)
        world.store.endings = Endings()  # a note for all queues, of a MiB at the most
        world.indexer.take(1)  # a side index takes this with it, now and then
        world.log.clear()
        world.records.clear()
        gc.collect()
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


def a_world() -> World:
    """Return a world with one segment."""
    return World(segment_batches=10**9)


def test_a_thousand_idle_queues_cost_less_than_a_mib() -> None:
    world = a_world()
    client = world.hello()

    def declare() -> None:
        for number in range(QUEUES):
            client.set(f"queue-{number}")
            world.records.clear()

    assert grown_bytes(world, declare) < MOST_BYTES


def test_a_thousand_drained_queues_cost_less_than_a_mib() -> None:
    world = a_world()
    client = world.hello()

    def use(first: int, count: int) -> None:
        for number in range(first, first + count):
            client.publish(f"queue-{number}", b"a", b"b")
            client.settle("ack", *client.receive_all(f"queue-{number}"))
            client.answered_below = client.sequence + 1
            client.sent.clear()
            world.records.clear()

    use(QUEUES, MOST_TIMED)  # so many, and no more, keep their times
    come_to_rest(world)
    assert grown_bytes(world, partial(use, 0, QUEUES)) < MOST_BYTES
    assert len(world.store.sums.timed) == MOST_TIMED
    assert client.stats("queue-7")["acked"] == 2
    assert all(at_rest(queue) for queue in world.store.queues.values())


def test_settings_are_shared_while_they_are_the_defaults_and_never_changed_for_others() -> None:
    world = World()
    client = world.hello()
    client.set("a")
    client.set("b", lease_ms=50)
    assert world.queue("a").settings is DEFAULTS
    client.set("a", lease_ms=70)
    client.set("b", lease_ms=30_000)
    assert (world.queue("a").setting("lease_ms"), DEFAULTS["lease_ms"]) == (70, 30_000)
    assert world.queue("b").settings is DEFAULTS
    world.restart()
    assert world.queue("b").settings is DEFAULTS
    assert world.queue("a").setting("lease_ms") == 70


@pytest.mark.parametrize("way_in", ["publish", "delay", "key", "nack", "memory"])
def test_a_queue_that_rests_takes_messages_again(way_in: str) -> None:
    """Whatever way a message comes in, what was given back is made anew, and given back once more."""
    world = World()
    client = world.hello()
    client.set("q", durability="memory" if way_in == "memory" else "sync")
    for _ in range(2):
        key = "k" if way_in == "key" else ""
        client.publish("q", b"a", key=key, delay_ms=50 if way_in == "delay" else 0)
        world.advance(100)
        got = client.receive_all("q")
        if way_in == "nack":
            client.settle("nack", *got, delay_ms=50)
            world.advance(100)
            got = client.receive_all("q")
        assert not at_rest(world.queue("q"))
        client.settle("ack", *got)
        world.advance(REST_MS + 100)
        assert at_rest(world.queue("q"))
        world.check()


def test_a_queue_with_something_does_not_rest() -> None:
    world = World()
    client = world.hello()
    client.publish("q", b"a", b"b")
    (one, two) = client.receive_all("q")
    client.settle("ack", one)
    world.advance(REST_MS + 100)
    assert not at_rest(world.queue("q"))
    client.settle("ack", two)
    client.publish("q", b"c", delay_ms=10 * REST_MS)
    world.advance(REST_MS + 100)
    assert not at_rest(world.queue("q"))
    assert world.queue("q").count() == 1


def test_a_dead_letter_queue_rests_after_a_redrive_and_a_purged_one_at_once() -> None:
    world = World()
    client = world.hello()
    client.publish("q", b"a")
    client.settle("reject", *client.receive_all("q"))
    client.redrive("q.dlq")
    world.run_jobs()
    world.advance(REST_MS + 100)
    assert at_rest(world.queue("q.dlq"))
    assert not at_rest(world.queue("q"))
    client.purge("q")
    assert at_rest(world.queue("q"))


def test_times_are_given_back_when_they_are_over_however_often_a_queue_rested() -> None:
    world = World()
    client = world.hello()
    for pause_ms in (2 * REST_MS, WINDOW_MS, 2 * REST_MS):
        client.publish("q", b"a")
        client.settle("ack", *client.receive_all("q"))
        world.advance(pause_ms)
        assert world.queue("q").group.times is not None
    world.advance(2 * WINDOW_MS)
    assert world.queue("q").group.times is None
    client.publish("q", b"a")
    client.settle("ack", *client.receive_all("q"))
    assert client.request({"op": "times", "queue": "q"})["value"]["runs"]["count"] == 1


def test_the_line_of_consumers_goes_with_the_last_one() -> None:
    world = World()
    one, two = world.hello("one"), world.hello("two")
    for client in (one, two):
        client.consume("q", prefetch=1)
    one.cancel()
    assert len(world.queue("q").group.consumers or ()) == 1
    world.disconnect(two)
    assert world.queue("q").group.consumers is None
    one.publish("q", b"a")
    one.consume("q", prefetch=1)
    assert len(one.messages()) == 1


def test_what_queues_at_rest_share_takes_nothing() -> None:
    """One message in it would be in every queue."""
    world = World()
    world.hello().publish("q", b"a")
    (_, item) = next(world.queue("q").group.items())
    for give in (NO_LANES.enter, NO_LANES.put_back):
        with pytest.raises(AssertionError, match="at rest"):
            give(item)  # type: ignore[arg-type]
    with pytest.raises(AssertionError, match="at rest"):
        NOTHING[1] = item


def at_rest(queue: Queue) -> bool:
    """Whether a queue has given back what only messages need."""
    return (
        queue.group.lanes is NO_LANES
        and queue.group.delayed is NOTHING
        and queue.group.deliveries is NOTHING
    )
