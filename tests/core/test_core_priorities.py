"""Promises about priorities: 0 to 9, the highest goes first, whatever happened to a message meanwhile."""

from __future__ import annotations

from typing import Any

import pytest
from core_client import Client, Delivered
from harness import World

from minibroker.contract import limits
from minibrokerd.core.durable import paging
from minibrokerd.core.model.effects import ReadBack
from minibrokerd.core.model.lanes import Lanes
from minibrokerd.core.model.sums import Sums


class SlowReads(World):
    """What is asked of the log comes when the test says so."""

    def __init__(self) -> None:
        self.asked: list[ReadBack] = []
        super().__init__()

    def _load(self, asked: ReadBack) -> None:
        self.asked.append(asked)

    def load_all(self) -> None:
        """Let all come that was asked for."""
        while self.asked:
            super()._load(self.asked.pop(0))


def publish(client: Client, *priorities: int, queue: str = "q", **fields: Any) -> None:
    """Publish a message for each of these priorities, whose body is its priority."""
    for priority in priorities:
        client.publish(queue, b"%d" % priority, priority=priority, **fields)


def order(client: Client, queue: str = "q") -> str:
    """Receive one by one what there is; return the bodies."""
    return "".join(m.body.decode() for m in taken(client, queue))


def taken(client: Client, queue: str = "q") -> list[Delivered]:
    """Receive one by one what there is."""
    got: list[Delivered] = []
    while some := client.receive_all(queue, 1):
        got += some
    return got


def test_the_highest_goes_first_and_equal_ones_in_their_order() -> None:
    client = World().hello()
    publish(client, *range(10))
    assert order(client) == "9876543210"
    for body, priority in ((b"a", 3), (b"b", 3), (b"c", 0), (b"d", 5), (b"e", 3)):
        client.publish("q", body, priority=priority)
    assert order(client) == "dabec"


def test_one_delivery_has_as_many_as_fit_from_the_highest_down() -> None:
    world = World()
    client = world.hello()
    publish(client, 1, 5, 5, 0, 9)
    assert [m.body for m in client.receive_all("q", 4)] == [b"9", b"5", b"5", b"1"]
    world.check()


def test_a_delivery_goes_down_only_behind_all_of_the_higher_ones() -> None:
    """One that is too long for what is left of a delivery, or has another lease, ends it: nothing overtakes it."""
    world = World()
    client = world.hello()
    large = b"x" * (limits.DELIVERY_BYTES * 2 // 3)
    client.publish("q", large, large, priority=5)
    client.publish("q", b"other", priority=3, lease_ms=5_000)
    client.publish("q", b"small", priority=1)
    for body in (large, large, b"other", b"small"):
        world.run_jobs()  # a connection has a burst of so many bytes at a time
        assert [m.body for m in client.receive_all("q", 4)] == [body]
    world.check()


def test_keys_take_turns_within_a_priority() -> None:
    client = World().hello()
    for priority in (0, 4):
        client.publish("q", b"a", b"a", b"a", b"b", b"c", keys=list("aaabc"), priority=priority)
    assert order(client) == "abcaa" * 2


def test_what_comes_back_goes_before_the_lower_ones() -> None:
    """After a nack, a release, the end of a lease, and of a connection."""
    world = World()
    world.hello().set("q", retry_delay_ms=0, retry_jitter_percent=0, lease_ms=1_000)
    client, other = world.hello(), world.hello()
    publish(client, 2, 2, 2, 2)
    publish(client, 1, 1)
    got = client.receive_all("q", 3)
    client.settle("nack", got[0])
    client.settle("release", got[1])
    assert [m.body for m in other.receive_all("q", 2)] == [b"2", b"2"]
    world.advance(1_100)  # the leases of all three end
    client.receive_all("q", 1)
    world.disconnect(client)
    world.advance(70_000)
    assert order(world.hello()) == "222211"
    world.check()


def test_a_delay_keeps_it() -> None:
    world = World()
    client = world.hello()
    publish(client, 7, delay_ms=500)
    publish(client, 3)
    publish(client, 1, 5, delay_ms=600)
    world.advance(700)
    assert order(client) == "7531"


@pytest.mark.parametrize("digests", [False, True])
@pytest.mark.parametrize("key", ["", "k"])
def test_it_outlives_copies_restarts_the_dlq_redrives_and_moves(
    digests: bool, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Sums, "large_bytes", 0)
    monkeypatch.setattr(paging, "AHEAD_MESSAGES", 1)
    world = World(segment_batches=3)
    client = world.hello()
    publish(client, 0, 3, 9, 3, 0, 9, key=key)
    world.digests = digests
    world.free(world.segment_end(world.core.synced))
    world.freeze()
    world.restart(clean=False)
    world.advance(2_000)
    client = world.hello()
    assert order(client) == "993300"
    world.restart()
    world.advance(70_000)
    client = world.hello()
    for message in taken(client):
        client.settle("reject", message)
    world.free(world.core.synced)
    world.restart()
    world.advance(2_000)
    client = world.hello()
    client.redrive("q.dlq")
    client.request({"op": "move", "queue": "q", "target": "other", "runs": 0, "count": 0})
    assert order(client, "other") == "993300"
    world.check()


def test_each_priority_leaves_memory_and_the_lowest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sums, "large_bytes", 0)
    monkeypatch.setattr(paging, "AHEAD_MESSAGES", 1)
    world = World()
    client = world.hello()
    publish(client, *[4, 8] * 10)
    world.freeze()
    lanes = world.queue("q").group.lanes
    assert [sum(run.left for run in each.default.cold) for each in lanes.levels] == [9, 9, 0]
    world.check()
    assert order(client) == "8" * 10 + "4" * 10
    world.check()


def test_while_what_comes_next_is_read_back_nothing_lower_goes_before_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Sums, "large_bytes", 0)
    monkeypatch.setattr(paging, "AHEAD_MESSAGES", 1)
    world = SlowReads()
    client = world.hello()
    publish(client, *[8] * 4, *[4] * 4)
    world.freeze()
    assert [m.body for m in client.receive_all("q", 8)] == [b"8"]
    client.consume("q", prefetch=8)
    assert not client.messages()
    world.load_all()
    assert [m.body for m in client.messages()] == [b"8"] * 3 + [b"4"] * 4
    world.check()


def test_a_queue_without_priorities_has_plain_lanes() -> None:
    world = World()
    client = world.hello()
    client.publish("q", b"own terms", max_attempts=2)
    assert type(world.queue("q").group.lanes) is Lanes
    publish(client, 1)
    assert type(world.queue("q").group.lanes) is not Lanes
    for message in taken(client):
        client.settle("ack", message)
    world.advance(5_000)
    client.publish("q", b"plain again")
    assert type(world.queue("q").group.lanes) is Lanes


def test_a_purge_frees_all_of_them() -> None:
    world = World()
    client = world.hello()
    publish(client, 0, 1, 2, 3)
    client.publish("q", *[b"x"] * 5, keys=list("abcde"), priority=3)
    client.purge("q")
    world.run_jobs()
    publish(client, 1, 2)
    assert order(client) == "21"
    world.check()


def test_a_listing_has_all_in_the_order_of_ids() -> None:
    world = World()
    client = world.hello()
    publish(client, 3, 0, 9, 1)
    shown = client.peek("q")
    assert [info["sequence"] for info in shown] == [0, 1, 2, 3]
    assert [info.get("priority", 0) for info in shown] == [3, 0, 9, 1]
