"""Promises about a time to live: what has not begun when it ends is dropped, or dies, and is counted."""

from __future__ import annotations

from typing import Any

import pytest
from core_client import Client
from harness import World

from minibrokerd.core.durable import paging
from minibrokerd.core.model.effects import Effects
from minibrokerd.core.model.inputs import Tick
from minibrokerd.core.model.sums import Sums
from minibrokerd.core.model.wheel import TICK_MS

TTL_MS = 5_000
TICKS = 2 * TICK_MS


def world_with(on_expired: str = "drop", **settings: Any) -> tuple[World, Client]:
    """Return a world and a client, with a queue of these settings."""
    world = World()
    client = world.hello()
    client.set("q", on_expired=on_expired, **settings)
    return world, client


def there(world: World) -> dict[str, list[str]]:
    """Return the states of what is in the queue and in its DLQ."""
    world.check()
    return {name: sorted(world.states(name).values()) for name in ("q", "q.dlq")}


def expired(client: Client) -> int:
    """Return how many expired."""
    count: int = client.stats("q")["ttl_expired"]
    return count


@pytest.mark.parametrize("on_expired", ["drop", "dead-letter"])
@pytest.mark.parametrize(
    "fields",
    [{}, {"key": "k"}, {"keys": ["a", "b", "a"]}, {"delay_ms": 90_000}, {"priority": 3}],
    ids=str,
)
def test_it_ends_within_a_tick_and_not_before(on_expired: str, fields: dict[str, Any]) -> None:
    world, client = world_with(on_expired)
    client.publish("q", b"a", b"b", b"c", ttl_ms=TTL_MS, **fields)
    world.advance(TTL_MS - 1)
    assert len(there(world)["q"]) == 3
    world.advance(TICKS)
    dead = ["READY"] * 3 if on_expired == "dead-letter" else []
    assert there(world) == {"q": [], "q.dlq": dead}
    assert expired(client) == 3
    assert client.stats("q")["dead_lettered"] == len(dead)


def test_behind_messages_that_do_not_expire_it_ends_as_exactly() -> None:
    world, client = world_with()
    ids = []
    for at in range(30):
        fields = {"ttl_ms": 1_000 * (at % 5)} if at % 5 else {}
        ids.append(client.publish("q", b"x", **fields)["results"][0]["first"])
    world.advance(TICKS)
    for second in range(1, 5):
        world.advance(1_000 - 2 * TICKS)
        left = [at for at in ids if not at % 5 or at % 5 >= second]
        assert [id[1] for id in world.states("q")] == left
        world.advance(2 * TICKS)
        left = [at for at in ids if not at % 5 or at % 5 > second]
        assert [id[1] for id in world.states("q")] == left
        world.check()


def test_one_frame_has_one_timer_however_many_messages() -> None:
    world, client = world_with()
    client.publish("q", *[b"x"] * 1_000, ttl_ms=TTL_MS)
    assert len(world.store.sums.lifetimes) == 1
    client.receive_all("q", 1)
    world.advance(TTL_MS + TICKS)
    assert there(world)["q"] == ["BEGUN"]
    assert expired(client) == 999


def test_nothing_is_remembered_of_what_was_acked() -> None:
    world, client = world_with()
    client.publish("q", b"a", b"b", ttl_ms=TTL_MS)
    client.publish("q", b"c", ttl_ms=TTL_MS)
    client.settle("ack", *client.receive_all("q"))
    client.purge("q")
    assert not world.store.sums.lifetimes
    world.advance(TTL_MS + TICKS)
    assert expired(client) == 0


def test_the_queue_has_one_for_messages_without_their_own() -> None:
    world, client = world_with(message_ttl_ms=1_000)
    client.publish("q", b"of the queue")
    client.publish("q", b"its own", ttl_ms=TTL_MS)
    client.set("q", message_ttl_ms=0)  # is for those that come
    client.publish("q", b"none")
    world.advance(1_000 + TICKS)
    assert len(world.states("q")) == 2
    world.advance(TTL_MS)
    assert len(world.states("q")) == 1
    assert expired(client) == 2


@pytest.mark.parametrize("end", ["ack", "nack", "release", "lease"])
def test_one_that_is_begun_runs_to_its_end_and_comes_back_to_nothing(end: str) -> None:
    """Its outcome counts; if it would wait again, its time is over."""
    world, client = world_with(lease_ms=10_000, retry_delay_ms=100)
    client.publish("q", b"a", ttl_ms=TTL_MS)
    (message,) = client.receive_all("q")
    world.advance(TTL_MS + TICKS)
    assert there(world)["q"] == ["BEGUN"]
    if end == "lease":
        world.advance(5_000)
    else:
        client.settle(end, message)
        world.advance(TICKS)
    assert there(world)["q"] == []
    assert expired(client) == (end != "ack")
    assert client.stats("q")["acked"] == (end == "ack")


def test_a_retry_before_its_end_waits_no_longer_than_that() -> None:
    world, client = world_with(retry_delay_ms=60_000, retry_cap_ms=60_000)
    client.publish("q", b"a", ttl_ms=TTL_MS)
    client.settle("nack", *client.receive_all("q"))
    world.advance(TTL_MS - TICKS)
    assert there(world)["q"] == ["DELAYED"]
    world.advance(2 * TICKS)
    assert there(world)["q"] == []


def test_a_nack_as_the_last_attempt_goes_to_the_dlq_whatever_the_time() -> None:
    world, client = world_with(max_attempts=1)
    client.publish("q", b"a", ttl_ms=TTL_MS)
    (message,) = client.receive_all("q")
    world.advance(TTL_MS + TICKS)
    client.settle("nack", message)
    world.advance(TTL_MS)
    assert there(world) == {"q": [], "q.dlq": ["READY"]}
    assert expired(client) == 0


def test_what_is_held_and_not_begun_is_taken_back_and_its_client_is_told() -> None:
    world, client = world_with("dead-letter")
    client.publish("q", b"a", b"b", b"c", ttl_ms=TTL_MS)
    client.publish("q", b"later")
    client.consume("q", prefetch=3)
    got = client.messages()
    client.begin(got[1])
    world.advance(TTL_MS + TICKS)
    assert there(world) == {"q": ["BEGUN", "HELD"], "q.dlq": ["READY", "READY"]}
    told = [frame for frame in client.inbox if frame["op"] == "cancelled"]
    assert [run[2:] for frame in told for run in frame["lost_runs"]] == [(0, 1), (2, 1)]
    assert [m.body for m in client.messages()] == [b"later"], "it had credit for more"


def test_a_delivery_has_none_whose_time_is_over_though_no_timer_has_fired() -> None:
    world, client = world_with()
    client.publish("q", b"old", ttl_ms=100)
    client.publish("q", b"new")
    world.now_ms += 100  # and nobody calls Tick
    world.unix_ms += 100
    assert [m.body for m in client.receive_all("q", 5)] == [b"new"]
    assert expired(client) == 1
    world.check()


@pytest.mark.parametrize("digests", [False, True])
@pytest.mark.parametrize("fields", [{}, {"key": "k"}, {"delay_ms": 90_000}], ids=str)
def test_it_goes_on_over_a_restart_by_the_wall_clock(
    digests: bool, fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As published, copied, and with a history; what ended while the server was down ends at the start."""
    monkeypatch.setattr(Sums, "large_bytes", 0)
    monkeypatch.setattr(paging, "AHEAD_MESSAGES", 1)
    world = World(segment_batches=3)
    client = world.hello()
    client.set("q", on_expired="dead-letter")
    client.publish("q", b"a", b"b", ttl_ms=10_000, **fields)
    client.publish("q", b"c", ttl_ms=2_000, **fields)
    client.publish("q", b"other")
    world.digests = digests
    world.advance(1_000)
    world.free(world.segment_end(world.core.synced))
    world.freeze()
    world.restart(wall_ms=4_000)
    world.advance(TICKS)
    assert len(there(world)["q.dlq"]) == 1
    world.advance(5_000 - 3 * TICKS)
    world.free(world.core.synced)
    world.restart()
    assert len(there(world)["q.dlq"]) == 1
    world.advance(3 * TICKS)
    assert len(there(world)["q.dlq"]) == 3
    world.restart()
    world.advance(60_000)
    assert there(world) == {"q": ["READY"], "q.dlq": ["READY"] * 3}


def test_what_was_dropped_stays_so_after_a_crash_once_that_is_safe() -> None:
    world, client = world_with()
    client.publish("q", b"a", b"b", ttl_ms=TTL_MS)
    world.advance(TTL_MS + TICKS)
    world.sync()
    world.restart(clean=False, wall_ms=-60_000)  # by its clock they would live again
    assert there(world)["q"] == []


def test_dead_and_redriven_messages_have_no_end() -> None:
    """A person sent it back: it is done however late. Its history says why it died."""
    world, client = world_with("dead-letter")
    client.publish("q", b"a", ttl_ms=TTL_MS)
    world.advance(20 * TTL_MS)
    (shown,) = client.peek("q.dlq")
    assert [entry["cause"] for entry in shown["history"]] == ["ttl_expired"]
    client.redrive("q.dlq")
    world.advance(20 * TTL_MS)
    world.restart()
    world.advance(20 * TTL_MS)
    client = world.hello()
    assert [m.body for m in client.receive_all("q")] == [b"a"]


def test_it_goes_along_with_a_move() -> None:
    world, client = world_with()
    client.publish("q", b"a", b"b", ttl_ms=TTL_MS)
    client.request({"op": "move", "queue": "q", "target": "other", "runs": 0, "count": 1})
    world.advance(TTL_MS + TICKS)
    assert not world.states("q")
    assert not world.states("other")
    assert client.stats("other")["ttl_expired"] == 1
    world.check()


def test_a_full_dlq_keeps_the_outcome() -> None:
    world, client = world_with("dead-letter")
    client.publish("q", b"a", b"b", ttl_ms=TTL_MS)
    client.settle("reject", *client.receive_all("q", 1))
    client.set("q.dlq", max_messages=1)
    world.advance(TTL_MS + TICKS)
    assert there(world) == {"q": ["DELAYED"], "q.dlq": ["READY"]}
    world.restart(wall_ms=60_000)
    client = world.hello()
    client.purge("q.dlq")
    world.advance(2_000)
    assert there(world) == {"q": [], "q.dlq": ["READY"]}


def test_peek_shows_it() -> None:
    _, client = world_with()
    client.publish("q", b"a", ttl_ms=TTL_MS)
    (shown,) = client.peek("q")
    assert shown["ttl_ms"] == TTL_MS
    assert shown["expires_unix_ms"] - shown["published_unix_ms"] == TTL_MS


def test_very_many_end_in_steps_and_the_operator_hears_of_it_once() -> None:
    world, client = world_with()
    for _ in range(300):
        client.publish("q", *[b"x"] * 20, ttl_ms=TTL_MS)
    world.advance(TTL_MS - TICKS)
    notes: list[int | str] = []
    most = 0
    while expired(client) < 6_000 or not notes:
        world.now_ms += TICK_MS
        before = expired(client)
        effects = world.core.apply(Tick(), world.now_ms, world.unix_ms)
        notes += [n.fields["messages"] for n in effects.notes if n.event == "messages_expired"]
        most = max(most, expired(client) - before)
    assert (notes, most <= 1_020) == ([6_000], True)
    assert there(world)["q"] == []


def test_what_the_operator_hears_of_each_queue_is_not_copied_for_the_next() -> None:
    """Notes of 32,000 queues held the loop for three seconds."""
    effects = Effects()
    effects.note("messages_expired", queue="a")
    notes = effects.notes
    effects.warn("messages_expired", queue="b")
    assert effects.notes is notes
    assert [note.fields["queue"] for note in notes] == ["a", "b"]
