"""Promises about `max_wait_ms`: how long what is ready waits behind higher priorities (protocol.md, 5.1)."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from core_client import Client, Delivered
from harness import World

from minibrokerd.core.durable import paging
from minibrokerd.core.model import ages
from minibrokerd.core.model.lane import Lane
from minibrokerd.core.model.sums import Sums
from minibrokerd.core.model.wheel import Wheel

WAIT_MS = 60_000


def aging(max_wait_ms: int = WAIT_MS, **settings: Any) -> tuple[World, Client]:
    """Return a world in which nothing of `q` waits for longer than that behind what came later."""
    world = World(segment_batches=3)
    client = world.hello()
    settings = {"retry_jitter_percent": 0, "lease_ms": 10**7} | settings
    client.set("q", max_wait_ms=max_wait_ms, **settings)
    return world, client


def publish(client: Client, *bodies: str, **fields: Any) -> None:
    """Publish messages one by one, whose priority is the first digit of their body."""
    for body in bodies:
        client.publish("q", body.encode(), priority=int(body[0]), **fields)


def taken(client: Client, count: int = 100, queue: str = "q") -> list[Delivered]:
    """Receive up to so many, one by one."""
    got: list[Delivered] = []
    for _ in range(count):
        got += client.receive_all(queue, 1)
    return got


def order(client: Client, count: int = 100, queue: str = "q") -> str:
    """Receive up to so many, one by one; return their bodies."""
    return " ".join(message.body.decode() for message in taken(client, count, queue))


def test_what_waited_for_so_long_goes_next_to_the_millisecond() -> None:
    world, client = aging()
    publish(client, "0")
    for _ in range(59):
        world.advance(1_000)
        publish(client, "9", "9")
        assert order(client, 1) == "9"
    world.advance(999)
    assert order(client, 1) == "9"
    world.advance(1)
    assert order(client, 2) == "0 9"
    world.check()


def test_unset_it_waits_for_ever() -> None:
    world, client = aging(0)
    publish(client, "0")
    for _ in range(50):
        world.advance(10 * WAIT_MS)
        publish(client, "9")
        assert order(client, 1) == "9"


def test_of_several_the_oldest_goes_first_and_of_equal_ones_the_highest() -> None:
    world, client = aging()
    for body in ("3", "0 a", "9 a", "5"):
        publish(client, body)
        world.advance(1_000)
    publish(client, "0 b", "9 b")
    world.advance(WAIT_MS)
    publish(client, "9 new", "0 new")
    assert order(client) == "3 0 a 9 a 5 9 b 0 b 9 new 0 new"


def test_one_delivery_has_first_what_waited_too_long_then_the_highest_down() -> None:
    world, client = aging()
    client.publish("q", b"0 a", b"0 b")
    world.advance(WAIT_MS)
    publish(client, "0 c", "5", "9")
    assert [m.body for m in client.receive_all("q", 4)] == [b"0 a", b"0 b", b"9", b"5"]
    world.check()


def test_others_with_a_lease_of_their_own_make_a_delivery_of_their_own() -> None:
    world, client = aging()
    publish(client, "0", lease_ms=5_000)
    world.advance(WAIT_MS)
    publish(client, "9")
    assert [m.body for m in client.receive_all("q", 4)] == [b"0"]
    assert [m.body for m in client.receive_all("q", 4)] == [b"9"]
    world.check()


def test_a_priority_that_waited_too_long_goes_on_in_its_own_order() -> None:
    """Keys take turns in it: the old ones of one tenant do not go before the others."""
    world, client = aging()
    publish(client, *["0 a"] * 3, key="a")
    world.advance(WAIT_MS)
    publish(client, *["0 b"] * 3, key="b")
    publish(client, *["9"] * 2)
    assert order(client) == "0 a 0 b 0 a 0 b 0 a 9 9 0 b"
    world.check()


def test_with_many_keys_the_oldest_counts_wherever_its_turn_is() -> None:
    world, client = aging()
    publish(client, "0 old", "0 old", key="old")
    world.advance(WAIT_MS // 2)
    publish(client, *["0 new"] * 5, key="new")  # each a lane before the second of the old one
    assert order(client, 1) == "0 old"
    world.advance(WAIT_MS // 2)
    publish(client, "9", "9")
    assert order(client) == "0 new 0 old 9 9 0 new 0 new 0 new 0 new"
    world.check()


def test_a_closed_key_lets_its_priority_not_go_first() -> None:
    world, client = aging(key_concurrency=1)
    publish(client, "0 a", "0 b", key="k")
    (first,) = taken(client, 1)
    world.advance(WAIT_MS - 1_000)
    publish(client, "0 other", key="l")
    world.advance(1_000)
    publish(client, "9", "9", "9")
    assert order(client, 1) == "9"
    client.settle("ack", first)
    assert order(client) == "0 other 0 b 9 9"  # now it has the turn, and its keys take theirs
    world.check()


@pytest.mark.parametrize("key", ["", "k"])
def test_a_pause_and_a_rate_stop_no_time(key: str) -> None:
    world, client = aging(rate=1, rate_period_ms=1_000)
    publish(client, "0", key=key)
    client.request({"op": "pause", "queue": "q", "for_ms": WAIT_MS})
    world.advance(WAIT_MS + 10)
    publish(client, "9")
    assert order(client, 1) == "0"
    assert order(client, 1) == ""
    world.advance(1_010)
    assert order(client, 1) == "9"


@pytest.mark.parametrize("key", ["", "k"])
def test_it_counts_from_the_end_of_a_delay_and_of_a_retrys(key: str) -> None:
    world, client = aging(retry_delay_ms=10_000)
    publish(client, "0", key=key, delay_ms=30_000)
    for wait_ms in (30_000, 10_000):
        world.advance(wait_ms)
        world.advance(WAIT_MS - 10)
        publish(client, "9", key=key)
        assert order(client, 1) == "9"
        publish(client, "9", key=key)
        world.advance(30)
        (got,) = taken(client, 1)
        assert got.body == b"0"
        client.settle("nack", got)
        assert order(client, 1) == "9"
    world.check()


@pytest.mark.parametrize("key", ["", "k"])
def test_what_is_given_back_at_once_keeps_the_time_that_it_waited(key: str) -> None:
    world, client = aging()
    publish(client, "0", key=key)
    world.advance(WAIT_MS - 1_000)
    other = world.hello()
    other.consume("q", prefetch=1)
    world.disconnect(other)
    client.settle("release", *client.receive_all("q"))
    world.advance(1_000)
    publish(client, "9", key=key)
    assert order(client, 1) == "0"


def test_a_redrive_begins_anew_and_a_dlq_may_have_a_bound() -> None:
    world, client = aging()
    client.set("q.dlq", max_wait_ms=1_000)
    publish(client, "0", "9")
    world.advance(WAIT_MS)
    for message in reversed(taken(client, 2)):
        client.settle("reject", message)
        world.advance(1_000)
    (dead,) = client.receive_all("q.dlq", 1)
    first = dead.body
    client.settle("release", dead)
    client.redrive("q.dlq")
    world.advance(WAIT_MS - 10)
    publish(client, "9 new")
    assert (first, order(client)) == (b"0", "9 9 new 0")


def test_a_time_to_live_ends_it_all_the_same() -> None:
    world, client = aging()
    publish(client, "0", ttl_ms=WAIT_MS)
    publish(client, "1", ttl_ms=2 * WAIT_MS)
    world.advance(WAIT_MS + 10)
    publish(client, "9")
    assert order(client) == "1 9"


@pytest.mark.parametrize("digests", [False, True])
@pytest.mark.parametrize("key", ["", "k"])
@pytest.mark.parametrize("clean", [False, True])
def test_a_restart_keeps_the_time_that_the_log_knows(digests: bool, key: str, clean: bool) -> None:
    """The instant stands in the record; the time in which no server ran does not count."""
    world, client = aging()
    publish(client, "0", key=key)
    world.advance(WAIT_MS - 2_000)
    publish(client, "1", key=key)
    world.free(world.segment_end(world.core.synced))
    world.digests = digests
    world.restart(clean=clean, wall_ms=10 * WAIT_MS)
    world.advance(1_900)
    client = world.hello()
    publish(client, "9", "9", key=key)
    assert order(client, 1) == "9"
    world.advance(110)
    assert order(client) == "0 9 1"
    world.check()


def test_set_and_unset_while_keys_wait() -> None:
    world, client = aging(0)
    publish(client, "0", key="k")
    publish(client, "9")
    world.advance(WAIT_MS)
    client.set("q", max_wait_ms=WAIT_MS)
    world.run_jobs()
    client.set("q", max_wait_ms=0)
    assert order(client, 1) == "9"
    client.set("q", max_wait_ms=2 * WAIT_MS)
    world.run_jobs()
    publish(client, "9")
    assert order(client, 1) == "9"
    world.advance(WAIT_MS)
    publish(client, "9")
    assert order(client, 1) == "0"


def test_what_waited_too_long_and_left_memory_is_read_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing goes before it meanwhile."""
    monkeypatch.setattr(Sums, "large_bytes", 0)
    monkeypatch.setattr(paging, "AHEAD_MESSAGES", 1)
    world, client = aging()
    publish(client, *["3"] * 5)
    world.freeze()
    assert any(lanes.default.cold for lanes in world.queue("q").group.lanes.levels)
    world.advance(WAIT_MS)
    publish(client, "9", "9")
    client.consume("q", prefetch=10)
    assert [m.body for m in client.messages()] == [*[b"3"] * 5, b"9", b"9"]
    world.check()


def test_a_delivery_looks_once_at_each_priority_and_arms_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ten priorities and 1,000 messages: two looks at each, however many keys there are; none if it is unset."""
    looks: Counter[str] = Counter()
    oldest_ms = Lane.__dict__["oldest_ms"].fget
    schedule = Wheel.schedule

    def look(lane: Lane) -> int | None:
        looks["looks"] += 1
        since_ms: int | None = oldest_ms(lane)
        return since_ms

    def arm(self: Wheel, timer: Any, at_ms: int) -> None:
        looks["timers"] += 1
        schedule(self, timer, at_ms)

    _world, client = aging()
    for priority in range(10):
        client.publish("q", *[b"x"] * 50, priority=priority)
        client.publish("q", *[b"x"] * 50, keys=[str(n) for n in range(50)], priority=priority)
    monkeypatch.setattr(Lane, "oldest_ms", property(look))
    monkeypatch.setattr(Wheel, "schedule", arm)
    publish(client, "0", key="k")
    assert looks == {"looks": 1}
    looks.clear()
    client.consume("q", prefetch=10)
    assert len(client.messages()) == 10
    assert looks == {
        "looks": 20
    }  # two for a priority: of those without a key, and of the oldest key
    client.set("q", max_wait_ms=0)
    looks.clear()
    client.consume("q", prefetch=20)
    assert len(client.messages()) == 10
    assert not looks


def test_keys_that_came_and_went_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while one priority alone is in use, and nobody looks for the oldest."""
    monkeypatch.setattr(ages, "SPARE", 10)
    world, client = aging()
    publish(client, "0", key="stays")
    for number in range(500):
        publish(client, "0", key=str(number))
        for message in client.receive_all("q", 1):
            client.settle("ack", message)
    (lanes,) = world.queue("q").group.lanes.levels
    assert lanes.ages is not None
    assert len(lanes.ages) <= 2 * lanes.turns + 11
    world.advance(WAIT_MS)
    assert lanes.oldest_in_turn_ms is not None


def test_what_is_too_old_and_has_ended_keeps_nothing_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its place is first by its age, also where all that left memory has ended: it is passed over at once."""
    monkeypatch.setattr(Sums, "large_bytes", 0)
    monkeypatch.setattr(paging, "AHEAD_MESSAGES", 1)
    world = World()
    client = world.hello()
    client.set("q", max_wait_ms=50)
    client.publish("q", b"urgent", priority=9)
    for number in range(4):
        client.publish("q", b"%d" % number)
    world.freeze()
    client.publish("q", b"late")
    assert world.queue("q").group.lanes.levels[-1].default.cold
    for sequence in range(1, 5):
        client.cancel_messages("q", (1, sequence))
    world.advance(100)
    client.publish("q", b"urgent", priority=9)
    client.cancel_messages("q", (1, 0))  # the one before it
    client.consume("q", prefetch=9)
    assert sorted(message.body for message in client.messages()) == [b"late", b"urgent"]
    world.check()
