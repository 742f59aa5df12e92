"""Promises about single keys: a weight, a pause, and the back-off of a nack, over restarts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from core_client import Client
from harness import World

from minibrokerd.core.model.kept import KEY, Entry, Kept, Kind

FOR_EVER = 2**53


def key_set(client: Client, key: str, **fields: int) -> dict[str, Any]:
    """Set something for a key of `q`; return what is set then."""
    answer = client.request({"op": "key_set", "queue": "q", "key": key, **fields})
    value: dict[str, Any] = answer["value"]
    return value


def keys(client: Client) -> dict[str, dict[str, Any]]:
    """Return the keys of `q` for which something is set."""
    found = client.request({"op": "keys", "queue": "q"})["value"]["keys"]
    return {each["key"]: each for each in found}


def world_of(**counts: int) -> tuple[World, Client]:
    """Return a world whose `q` has so many messages of each key, in this order."""
    world = World()
    client = world.hello("w")
    client.publish("q", b"first")
    client.settle("ack", *client.receive_all("q"))
    for key, count in counts.items():
        for start in range(0, count, 1_000):
            some = min(count - start, 1_000)
            client.publish("q", *[b"x"] * some, key=key)
    return world, client


def work_off(client: Client, count: int, prefetch: int = 1) -> list[str]:
    """Work off so many messages as a worker with this prefetch does; return their keys, in order."""
    client.consume("q", prefetch)
    done: list[str] = []
    while len(done) < count:
        messages = client.messages()
        assert messages
        done += [message.key for message in messages]
        client.settle("ack", *messages)
        client.answered_below = client.sequence + 1
    return done[:count]


# -- weights ----------------------------------------------------------------------------------------


def test_ten_of_one_tenant_start_within_two_dispatches_beside_100_000_of_another() -> None:
    """Each time that a worker is free it gets one of each in turn, whoever waits for longer."""
    _, client = world_of(large=100_000)
    client.consume("q", 1)
    (message,) = client.messages()
    client.publish("q", *[b"x"] * 10, key="small")
    started: list[str] = []
    for _ in range(20):
        client.settle("ack", message)
        (message,) = client.messages()
        started.append(message.key)
    assert started == ["large", "small"] * 10


def test_alone_a_tenant_gets_everything() -> None:
    _, client = world_of(large=1_000)
    key_set(client, "large", weight=1)
    key_set(client, "other", weight=50)
    assert work_off(client, 1_000, 100) == ["large"] * 1_000


@pytest.mark.parametrize("prefetch", [1, 7, 100])
def test_three_to_one(prefetch: int) -> None:
    """75 of 100, give or take 3, at any time and with any prefetch."""
    _, client = world_of(gold=3_000, iron=3_000)
    key_set(client, "gold", weight=3)
    done = work_off(client, 2_000, prefetch)
    for start in range(0, 2_000, 400):
        share = Counter(done[start : start + 400])["gold"] / 4
        assert 72 <= share <= 78, share


def test_a_weight_beside_those_of_many() -> None:
    _, client = world_of(**{f"k{n}": 100 for n in range(5)}, gold=200)
    key_set(client, "gold", weight=5)
    counts = Counter(work_off(client, 200))
    assert counts["gold"] == 100
    assert {counts[f"k{n}"] for n in range(5)} == {20}


def test_a_weight_with_a_limit() -> None:
    """Both hold: never more in work than the limit says."""
    _, client = world_of(gold=100, iron=100)
    client.set("q", key_concurrency=2)
    key_set(client, "gold", weight=9)
    client.consume("q", 50)
    assert Counter(message.key for message in client.messages()) == {"gold": 2, "iron": 2}


# -- pauses -----------------------------------------------------------------------------------------


def test_a_paused_key_is_passed_over_until_it_goes_on() -> None:
    world, client = world_of(a=2, b=2)
    told = key_set(client, "a", pause_ms=FOR_EVER)
    assert (told["by"], told["paused_until_unix_ms"]) == ("w", 2**62)
    client.consume("q", 10)
    assert [message.key for message in client.messages()] == ["b", "b"]
    client.publish("q", b"x", key="a")
    world.advance(10**8)
    client.request({"op": "ping"})
    client.messages()
    assert keys(client)["a"]["weight"] == 1
    key_set(client, "a", pause_ms=0)
    assert [message.key for message in client.messages()] == ["a", "a", "a"]
    assert keys(client) == {}


@pytest.mark.parametrize("clean", [False, True])
def test_a_pause_ends_at_its_time_over_restarts(clean: bool) -> None:
    world, client = world_of(a=2)
    key_set(client, "a", pause_ms=20_000, weight=4)
    world.advance(5_000)
    world.restart(clean=clean, wall_ms=3_000)
    client = world.hello("w")
    client.consume("q", 10)
    world.advance(11_900)
    assert client.messages() == []
    world.advance(200)
    assert len(client.messages()) == 2
    assert [(key, each["weight"]) for key, each in keys(client).items()] == [("a", 4)]
    assert not keys(client)["a"]["paused_until_unix_ms"]


def test_what_a_worker_has_stays_its() -> None:
    world, client = world_of(a=2)
    client.consume("q", 1)
    (message,) = client.messages()
    key_set(client, "a", pause_ms=FOR_EVER)
    client.settle("ack", message)
    assert client.messages() == []
    world.check()


def test_a_pause_is_said_by_explain() -> None:
    world, client = world_of(a=2)
    key_set(client, "a", pause_ms=5_000)
    answer = client.explain((1, 1))
    assert (answer["reason"], answer["by"]) == ("key_paused", "w")
    assert answer["until_unix_ms"] == world.unix_ms + 5_000
    key_set(client, "a", pause_ms=FOR_EVER)
    assert client.explain((1, 1))["until_unix_ms"] == 0


# -- back-off ---------------------------------------------------------------------------------------


def test_a_nack_delays_the_whole_key() -> None:
    """As after "too many requests": the others of its key are not charged for it."""
    world, client = world_of(a=3, b=1)
    client.consume("q", 1)
    (message,) = client.messages()
    assert message.key == "a"
    client.settle("nack", message, delay_ms=0, key_delay_ms=30_000)
    (other,) = client.messages()
    assert other.key == "b"
    client.settle("ack", other)
    world.advance(29_900)
    assert client.messages() == []
    world.advance(200)
    seen = []
    for _ in range(3):
        (message,) = client.messages()
        seen.append(message.attempt)
        client.settle("ack", message)
    assert sorted(seen) == [1, 1, 2]


def test_a_longer_pause_stays_and_a_message_without_a_key_delays_nobody() -> None:
    world, client = world_of(a=1)
    client.publish("q", b"x", b"y")
    client.consume("q", 1)
    keyed, plain = None, None
    for _ in range(2):
        (message,) = client.messages()
        keyed, plain = (message, plain) if message.key else (keyed, message)
        if message.key:
            client.settle("nack", message, delay_ms=0, key_delay_ms=30_000)
        else:
            client.settle("nack", message, delay_ms=0, key_delay_ms=30_000)
    until = keys(client)["a"]["paused_until_unix_ms"]
    assert until == world.unix_ms + 30_000
    key_set(client, "a", pause_ms=60_000)
    assert list(keys(client)) == ["a"]
    assert len(client.messages()) == 1, "those without a key go on"


def test_very_many_keys_that_back_off_are_forgotten_when_they_are_over() -> None:
    world, client = world_of()
    client.publish("q", *[b"x"] * 500, keys=[f"k{n}" for n in range(500)])
    client.settle("nack", *client.receive_all("q"), delay_ms=0, key_delay_ms=1_000)
    client.consume("q", 1_000)
    assert client.messages() == []
    world.advance(1_100)
    for message in client.messages():
        client.settle("ack", message)
    world.advance(20_000)
    assert world.queue("q").count() == 0
    assert not len(world.queue("q").group.keys or ())
    assert not list(world.store.kept.of(KEY))


def test_a_pause_of_a_key_that_has_nothing_is_forgotten_when_it_is_over() -> None:
    """As one that was asked for by the nack of a message that died then: there may be very many in time."""
    world, client = world_of()
    client.set("q", max_attempts=1)
    client.publish("q", *[b"x"] * 20, keys=[f"k{n}" for n in range(20)])
    client.settle("nack", *client.receive_all("q"), key_delay_ms=1_000)
    key_set(client, "idle", pause_ms=1_000)
    assert len(keys(client)) == 21
    world.advance(1_100)
    assert not len(world.queue("q").group.keys or ())
    assert keys(client) == {}


def test_a_back_off_does_not_shorten_a_pause() -> None:
    _, client = world_of(a=2)
    client.consume("q", 1)
    (message,) = client.messages()
    key_set(client, "a", pause_ms=FOR_EVER)
    client.settle("nack", message, delay_ms=0, key_delay_ms=1_000)
    assert keys(client)["a"]["paused_until_unix_ms"] == 2**62


# -- a death ----------------------------------------------------------------------------------------


def dead_first(**settings: Any) -> tuple[World, Client]:
    """Return a world in which the first message of key a has died, with two behind it."""
    world, client = world_of()
    client.set("q", key_concurrency=1, key_on_dead="block", max_attempts=1, **settings)
    client.publish("q", b"a1", b"a2", b"a3", key="a")
    client.consume("q", 10)
    (message,) = client.messages()
    client.settle("nack", message)
    return world, client


@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize("full", [False, True])
def test_a_death_blocks_its_key_until_it_is_sent_back(restarts: bool, full: bool) -> None:
    world, client = world_of()
    client.set("q", key_concurrency=1, key_on_dead="block", max_attempts=1)
    client.set("q.dlq", max_messages=1)
    if full:
        client.publish("q", b"x")
        client.settle("reject", *client.receive_all("q"))
    client.publish("q", b"a1", b"a2", b"a3", key="a")
    client.consume("q", 10)
    (message,) = client.messages()
    client.settle("nack", message)
    if full:
        client.purge("q.dlq")
        world.run_jobs()
    if restarts:
        world.restart(clean=False)
        client = world.hello()
        client.consume("q", 10)
        world.advance(5_000)
    assert client.messages() == []
    (told,) = keys(client).values()
    assert told["by"] == f"the death of 1-{message.id[1]}"
    assert client.explain((1, message.id[1] + 1))["reason"] == "key_paused"
    client.redrive("q.dlq", [message.id])
    seen = []
    for _ in range(3):
        (message,) = client.messages()
        seen.append(message.body)
        client.settle("ack", message)
    assert seen == [b"a1", b"a2", b"a3"]
    assert keys(client) == {}


def test_a_key_that_a_death_blocks_can_be_let_go_on_without_it() -> None:
    _, client = dead_first()
    assert client.messages() == []
    key_set(client, "a", pause_ms=0)
    assert [message.body for message in client.messages()] == [b"a2"]


def test_a_death_of_another_message_lets_no_key_go_on() -> None:
    world, client = dead_first()
    client.publish("q", b"b1", b"b2", key="b")
    client.settle("reject", *client.messages())
    (other,) = [id for id in world.states("q.dlq") if id[1] == 4]
    client.redrive("q.dlq", [other])
    assert [message.body for message in client.messages()] == [b"b1"]
    assert list(keys(client)) == ["a"]


# -- refusals ---------------------------------------------------------------------------------------


def test_what_is_refused() -> None:
    _, client = world_of(a=1)
    ask = client.request
    assert ask({"op": "key_set", "queue": "q", "key": "", "weight": 2})["code"] == "bad_value"
    assert ask({"op": "key_set", "queue": "q.dlq", "key": "a"})["code"] == "bad_value"
    assert ask({"op": "key_set", "queue": "no", "key": "a"})["code"] == "unknown_queue"
    assert key_set(client, "a") == {
        "key": "a",
        "weight": 1,
        "paused_until_unix_ms": 0,
        "since_unix_ms": 0,
        "by": "",
    }


def test_a_queue_that_is_deleted_takes_what_was_set_with_it() -> None:
    world, client = world_of(a=1)
    key_set(client, "a", weight=3)
    client.delete("q", force=True)
    assert not list(world.store.kept.of(KEY))
    world.restart(clean=False)
    assert not list(world.store.kept.of(KEY))


def test_the_keys_of_one_queue_are_not_looked_for_among_those_of_others() -> None:
    """Nor do those of a queue end in one step with it: each has a record."""
    world, client = world_of(a=1)
    client.publish("other", b"x")
    for number in range(1_500):
        client.request({"op": "key_set", "queue": "other", "key": f"k{number}", "weight": 2})
    key_set(client, "a", weight=3)
    kept, looks = world.store.kept, 0
    with pytest.MonkeyPatch.context() as patch:

        def counting(kind: Kind) -> Iterator[Entry]:
            nonlocal looks
            for entry in of(kind):
                looks += 1
                yield entry

        of = kept.of
        patch.setattr(Kept, "of", lambda self, kind: counting(kind))
        assert list(keys(client)) == ["a"]
        client.delete("q", force=True)
    assert looks == 0
    client.delete("other", force=True)
    assert 0 < len(list(kept.of(KEY))) < 1_500
    world.run_jobs()
    assert not list(kept.of(KEY))


@pytest.mark.parametrize("settings", [{}, {"circuit_failures_percent": 50, "circuit_by": "key"}])
def test_what_changes_nothing_waits_for_no_batch(settings: dict[str, Any]) -> None:
    """A key that was not paused goes on: on a quiet server nothing is written that the answer could wait for."""
    world = World(auto_sync=False)
    client = world.hello()
    client.set("q", **settings)
    world.sync()
    client.inbox.clear()
    answer = client.request({"op": "key_set", "queue": "q", "key": "a", "pause_ms": 0})
    assert answer is not None
    assert answer["value"]["paused_until_unix_ms"] == 0
