"""Promises about rates: of a queue, and of each of its keys, over all workers and restarts, in virtual time."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from core_client import Client
from harness import World

from minibrokerd.core.model.kept import RATE
from minibrokerd.core.model.rates import KEPT_MS, Rate

TICK_MS = 8


def rated(**settings: Any) -> tuple[World, list[Client]]:
    """Return a world whose `q` has a rate, and three workers that take all they get."""
    world = World()
    workers = [world.hello(f"w{n}") for n in range(3)]
    workers[0].set("q", **settings)
    for worker in workers:
        worker.consume("q", 1_000)
    return world, workers


def publish(client: Client, count: int, *keys: str) -> None:
    """Publish so many messages of each key."""
    for start in range(0, count, 500):
        some = min(count - start, 500)
        for key in keys or ("",):
            client.publish("q", *[b"x"] * some, keys=[key] * some)


class Times:
    """When messages were handed out, by key."""

    def __init__(self, world: World, workers: list[Client]) -> None:
        self.world, self.workers = world, workers
        self.by_key: dict[str, list[int]] = {}
        self.look()

    def look(self) -> None:
        """Note and ack what came."""
        for worker in self.workers:
            for message in worker.messages():
                self.by_key.setdefault(message.key, []).append(self.world.now_ms)
                worker.settle("ack", message)

    def pass_by(self, duration_ms: int, step_ms: int = TICK_MS) -> None:
        """Let time pass."""
        for _ in range(0, duration_ms, step_ms):
            self.world.advance(step_ms)
            self.look()

    def most_in(self, key: str, window_ms: int) -> int:
        """Return the most that came in any window of so long."""
        times = self.by_key[key]
        return max(sum(t <= each < t + window_ms for each in times) for t in times)


@pytest.mark.parametrize("name", ["key_rate", "rate"])
def test_so_many_in_each_second_over_all_workers(name: str) -> None:
    """20 a second: of 100 messages 20 in the first second, and never more than 21 in any."""
    world, workers = rated(**{name: 20})
    publish(workers[0], 100, "a")
    times = Times(world, workers)
    times.pass_by(1_000 - TICK_MS)
    assert len(times.by_key["a"]) == 20
    times.pass_by(5_000)
    assert len(times.by_key["a"]) == 100
    assert times.most_in("a", 1_000) in (20, 21)


def test_each_key_has_a_rate_of_its_own_and_others_go_on() -> None:
    world, workers = rated(key_rate=10)
    publish(workers[0], 50, "a", "b")
    publish(workers[0], 50)
    times = Times(world, workers)
    assert len(times.by_key[""]) == 50
    times.pass_by(2_000 - TICK_MS)
    assert {key: len(each) for key, each in times.by_key.items()} == {"": 50, "a": 20, "b": 20}


def test_a_queue_has_a_rate_whatever_the_keys() -> None:
    world, workers = rated(rate=100, key_rate=10)
    publish(workers[0], 100, *[f"k{n}" for n in range(20)])
    times = Times(world, workers)
    times.pass_by(2_000)
    counts = Counter({key: len(each) for key, each in times.by_key.items()})
    assert counts.total() in range(199, 203)
    assert max(counts.values()) <= 21


def test_after_a_quiet_time_a_burst() -> None:
    world, workers = rated(key_rate=10, key_rate_burst=5)
    publish(workers[0], 5, "a")
    times = Times(world, workers)
    assert len(times.by_key["a"]) == 5
    times.pass_by(10_000, 1_000)
    publish(workers[0], 20, "a")
    times.look()
    assert len(times.by_key["a"]) == 10
    times.pass_by(1_000 - TICK_MS)
    assert len(times.by_key["a"]) in (19, 20)


@pytest.mark.parametrize("name", ["key_rate", "rate"])
@pytest.mark.parametrize("clean", [False, True])
@pytest.mark.parametrize("count", [1, 20])
def test_a_rate_holds_over_restarts(name: str, clean: bool, count: int) -> None:
    """Tokens that a crash finds taken stay taken; a second's worth may be lost, none is given twice."""
    period_ms = 20_000 if count == 1 else 1_000
    world, workers = rated(**{name: count, f"{name}_period_ms": period_ms})
    publish(workers[0], 500, "a")
    times = Times(world, workers)
    for _ in range(4):
        times.pass_by(1_504)
        world.restart(clean=clean, wall_ms=100)
        times.workers = [world.hello()]
        times.workers[0].consume("q", 1_000)
        times.look()
    passed_ms = world.unix_ms - 1_700_000_000_000
    total = len(times.by_key["a"])
    assert total <= 1 + (passed_ms + TICK_MS) * count / period_ms
    if count == 20:
        assert total >= 20, "the restarts took it all"


@pytest.mark.parametrize("name", ["key_rate", "rate"])
@pytest.mark.parametrize(("count", "burst", "longest_ms"), [(20, 5, 1_300), (1, 1, 20_000)])
def test_a_clock_that_was_set_back_closes_nothing_for_long(
    name: str, count: int, burst: int, longest_ms: int
) -> None:
    """What a record says is taken is no more than a bucket and a second: one of 2013 closed a key until 2023."""
    period_ms = 20_000 if count == 1 else 1_000
    world, workers = rated(**{name: count, f"{name}_period_ms": period_ms, f"{name}_burst": burst})
    publish(workers[0], 50, "a")
    times = Times(world, workers)
    before = len(times.by_key["a"])
    world.restart(clean=False, wall_ms=-(10**11))
    times.workers = [world.hello()]
    times.workers[0].consume("q", 1_000)
    times.pass_by(longest_ms + 2 * TICK_MS)
    assert len(times.by_key["a"]) > before


def test_what_comes_to_an_empty_key_waits_for_its_token() -> None:
    world, workers = rated(key_rate=1)
    publish(workers[0], 1, "a")
    times = Times(world, workers)
    times.pass_by(500, 100)
    publish(workers[0], 1, "a")
    times.look()
    assert len(times.by_key["a"]) == 1
    times.pass_by(510, 10)
    assert len(times.by_key["a"]) == 2


def test_a_receive_is_told_none_while_there_is_no_token() -> None:
    world = World()
    client = world.hello()
    client.set("q", rate=1, rate_period_ms=60_000)
    client.publish("q", b"a", b"b")
    client.settle("ack", *client.receive_all("q"))
    assert client.receive("q")["messages"] == []
    assert client.receive("q", 1, 120_000) is None
    world.advance(60_100)
    assert len(client.messages()) == 1


def test_another_rate_and_none() -> None:
    world, workers = rated(key_rate=1, key_rate_period_ms=3_600_000)
    publish(workers[0], 10, "a")
    times = Times(world, workers)
    assert len(times.by_key["a"]) == 1
    workers[0].set("q", key_rate_period_ms=1_000)
    times.pass_by(1_100)
    assert len(times.by_key["a"]) == 3
    workers[0].set("q", key_rate=0)
    times.look()
    assert len(times.by_key["a"]) == 10
    assert world.queue("q").group.keys is None


def test_priorities_share_the_rate_of_their_key() -> None:
    world, workers = rated(key_rate=10)
    for priority in (0, 9):
        workers[0].publish("q", *[b"x"] * 30, keys=["a"] * 30, priority=priority)
    times = Times(world, workers)
    times.pass_by(2_000 - TICK_MS)
    assert len(times.by_key["a"]) == 20


def test_a_hundred_thousand_keys_cost_memory_only_while_they_have_work() -> None:
    world, workers = rated(key_rate=1, key_concurrency=1)
    keys = world.queue("q").group.keys
    assert keys is not None
    assert keys.each is not None
    times = Times(world, workers)
    for start in range(0, 3_000, 500):
        names = [f"k{n}" for n in range(start, start + 500)]
        workers[0].publish("q", *[b"x"] * 500, keys=names)
        times.look()
    assert len(times.by_key) == 3_000
    assert len(keys) == 0, "a key that waits for nothing has no object"
    for _ in range(2):
        times.pass_by(KEPT_MS + 100, 4_000)
        publish(workers[0], 1, "other")
        times.look()
    assert len(keys.each) == 1, "buckets that are full again are forgotten"
    assert not [entry for entry in world.store.kept.of(RATE) if entry.key[1] != "other"]


def test_tokens_of_a_bucket() -> None:
    rate = Rate(10, 1_000, 3)
    assert rate.room("a", 1_000) == 3
    assert rate.take("a", 3, 1_000) == 1_292
    assert (rate.room("a", 1_000), rate.due_ms("a", 1_000)) == (0, 1_092)
    assert [rate.room("a", 1_000 + ms) for ms in (91, 92, 192, 292)] == [0, 1, 2, 3]
    rate.take("a", -1, 1_000)
    assert rate.room("a", 1_000) == 1
    assert rate.room("b", 1_000) == 3


def test_a_key_whose_tokens_are_gone_is_not_remembered_beside_them() -> None:
    """Of a key with one message nothing stays but its bucket."""
    world, workers = rated(key_rate=1, key_rate_period_ms=60_000)
    names = [f"k{number}" for number in range(50)]
    workers[0].publish("q", *[b"x"] * 50, keys=names)
    times = Times(world, workers)
    assert set(times.by_key) == set(names)
    keys = world.queue("q").group.keys
    assert keys is not None
    assert len(keys) == 0
    workers[0].publish("q", *[b"x"] * 50, keys=names)
    times.pass_by(59_000, 1_000)
    assert [len(each) for each in times.by_key.values()] == [1] * 50
    times.pass_by(2_000)
    assert [len(each) for each in times.by_key.values()] == [2] * 50


@pytest.mark.parametrize("concurrency", [0, 1])
def test_what_was_looked_at_and_not_handed_out_costs_no_token(concurrency: int) -> None:
    """Its lease is another than that of what goes before it: it goes in the next delivery, at once."""
    world, workers = rated(key_rate=1, key_rate_period_ms=20_000, key_concurrency=concurrency)
    for worker in workers:
        worker.cancel()
    workers[0].publish("q", b"first", priority=9, lease_ms=5_000)
    workers[0].publish("q", b"x", b"x", keys=["a", "a"])
    workers[0].consume("q", 1_000)
    times = Times(world, workers[:1])
    assert len(times.by_key["a"]) == 1
    times.pass_by(20_000)
    assert len(times.by_key["a"]) == 2


@pytest.mark.parametrize("concurrency", [0, 1])
def test_what_expires_before_it_is_handed_out_costs_no_token(concurrency: int) -> None:
    """No timer has fired since its time was over, and somebody asks."""
    world = World()
    client = world.hello()
    client.set("q", key_rate=1, key_rate_period_ms=20_000, key_concurrency=concurrency)
    client.publish("q", b"old", key="a", ttl_ms=100)
    client.publish("q", b"new", key="a")
    world.now_ms += 100
    world.unix_ms += 100
    client.consume("q", 1_000)
    assert [message.body for message in client.messages()] == [b"new"]
    world.check()


@pytest.mark.parametrize("name", ["key_rate", "rate"])
def test_what_a_record_ahead_covers_waits_for_it(name: str) -> None:
    """The second of two messages under one record left at once: after a crash a start gave its token again."""
    world = World(auto_sync=False)
    workers = [world.hello(f"w{n}") for n in range(2)]
    workers[0].set("q", **{name: 100, f"{name}_burst": 2})
    world.sync()
    for worker in workers:
        worker.consume("q", 1)
        world.sync()
    publish(workers[0], 2, "a")
    world.close_batch()
    world.sync_one()  # they are ready, and handed out
    assert [worker.messages() for worker in workers] == [[], []]
    world.sync()
    assert [len(worker.messages()) for worker in workers] == [1, 1]
