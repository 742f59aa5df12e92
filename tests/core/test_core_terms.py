"""Promises about terms: attempts and lease that a message brings with it go before the settings of its queue."""

from __future__ import annotations

from typing import Any

import pytest
from core_client import Client
from harness import World

from minibrokerd.core.durable import paging
from minibrokerd.core.model.records import PublishMeta, decode
from minibrokerd.core.model.sums import Sums

TERMS: dict[str, Any] = {"max_attempts": 2, "lease_ms": 90_000, "priority": 7, "ttl_ms": 3_600_000}


def die_once(world: World, client: Client) -> list[tuple[str, str]]:
    """Fail the first message of q; return queue and state of what there is then."""
    (message,) = client.receive_all("q", 1)
    client.settle("nack", message, delay_ms=0)
    return [(name, state) for name in ("q", "q.dlq") for state in world.states(name).values()]


@pytest.mark.parametrize(("of_queue", "own"), [(5, 1), (1, 3)])
def test_a_message_dies_by_its_own_number_of_attempts(of_queue: int, own: int) -> None:
    world = World()
    client = world.hello()
    client.set("q", max_attempts=of_queue)
    client.publish("q", b"body", max_attempts=own)
    for attempt in range(1, own + 1):
        assert die_once(world, client) == [("q.dlq" if attempt == own else "q", "READY")]


def test_leases_that_end_count_towards_the_own_number() -> None:
    world = World()
    client = world.hello()
    client.publish("q", b"body", max_attempts=1)
    client.receive_all("q")
    world.advance(40_000)
    assert list(world.states("q.dlq").values()) == ["READY"]


@pytest.mark.parametrize("asked_ms", [0, 500])
def test_the_lease_of_a_message_goes_before_that_of_consumer_and_queue(asked_ms: int) -> None:
    world = World()
    client = world.hello()
    client.set("q", lease_ms=1_000)
    client.publish("q", b"body", lease_ms=90_000)
    assert client.receive("q", lease_ms=asked_ms)["lease_ms"] == 90_000
    world.advance(89_000)
    assert list(world.states("q").values()) == ["BEGUN"]
    world.advance(1_100)
    assert list(world.states("q").values()) == ["READY"]


def test_a_delivery_has_messages_of_the_same_terms() -> None:
    """So renewals, and clients that never heard of terms, need to know nothing more."""
    world = World()
    client = world.hello()
    for lease_ms in (0, 0, 5_000, 5_000, 0, 7_000):
        client.publish("q", b"body", lease_ms=lease_ms)
    client.publish("q", b"body", lease_ms=7_000, max_attempts=2)
    client.consume("q", prefetch=10)
    deliveries = [each for each in client.inbox if each["op"] == "deliver"]
    made = [(each["lease_ms"], each["count"]) for each in deliveries]
    assert made == [(30_000, 2), (5_000, 2), (30_000, 1), (7_000, 1), (7_000, 1)]
    own = [each.get("max_attempts", "left out") for each in deliveries]
    assert own == ["left out", "left out", "left out", "left out", 2]


def test_keys_take_turns_whatever_the_leases() -> None:
    world = World()
    client = world.hello()
    for lease_ms, key in ((0, "a"), (5_000, "a"), (5_000, "b"), (0, "b")):
        client.publish("q", b"body", lease_ms=lease_ms, key=key)
    client.consume("q", prefetch=10)
    made = [(d["lease_ms"], [m.key for m in d["messages"]]) for d in client.inbox]
    assert made == [(30_000, ["a"]), (5_000, ["b", "a"]), (30_000, ["b"])]
    world.check()


def own_of(client: Client, queue: str) -> list[dict[str, Any]]:
    """Return what peek says of the terms of each message."""
    names = ("max_attempts", "lease_ms", "priority", "ttl_ms")
    return [{k: v for k, v in m.items() if k in names} for m in client.peek(queue)]


def test_peek_shows_terms_where_there_are_any() -> None:
    client = World().hello()
    client.publish("q", b"plain")
    client.publish("q", b"tries", max_attempts=9)
    client.publish("q", b"both", **TERMS)
    assert own_of(client, "q") == [{}, {"max_attempts": 9}, TERMS]


@pytest.mark.parametrize("digests", [False, True])
@pytest.mark.parametrize(
    "fields",
    [{}, {"delay_ms": 500}, {"key": "k"}, {"keys": ["a", "b", "a"]}, {"encodings": [0, 1, 0]}],
    ids=str,
)
def test_terms_outlive_copies_restarts_and_the_way_through_the_dlq(
    fields: dict[str, Any], digests: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a run or a part, with a history, begun, cold: what is copied and read back has the terms that it had."""
    monkeypatch.setattr(Sums, "large_bytes", 0)
    monkeypatch.setattr(paging, "AHEAD_MESSAGES", 1)
    world = World(segment_batches=3)
    client = world.hello()
    client.publish("q", b"a", b"b", b"c", **TERMS, **fields)
    client.publish("q", b"plain")
    world.digests = digests
    world.free(world.segment_end(world.core.synced))
    world.freeze()
    world.restart()
    world.advance(2_000)
    client = world.hello()
    assert own_of(client, "q").count(TERMS) == 3
    some = client.receive_all("q") + client.receive_all("q")  # they have two leases
    message = next(m for m in some if m.body != b"plain")
    client.settle("reject", message)
    world.free(world.core.synced)
    world.restart()
    client = world.hello()
    world.advance(2_000)
    assert own_of(client, "q.dlq") == [TERMS]
    client.redrive("q.dlq")
    assert own_of(client, "q").count(TERMS) == 3


def test_the_record_of_an_older_release_has_no_terms() -> None:
    """They are the last fields, so an array that ends before them is read, and one with them by older releases."""
    world = World()
    client = world.hello()
    client.publish("q", b"body", **TERMS)
    (record,) = [r for b in world.log for r in b.records if isinstance(decode(r), PublishMeta)]
    own = b"\x02\xce\x00\x01\x5f\x90\x07\xce\x00\x36\xee\x80"
    assert record.meta.endswith(own), "2, 90,000, 7 and 3,600,000 in msgpack"
    count = len(PublishMeta.__struct_fields__)
    record.meta = bytes([0xDC, 0, count - 4]) + record.meta[3 : -len(own)]
    meta = decode(record)
    assert isinstance(meta, PublishMeta)
    assert meta.own_max_attempts == meta.own_lease_ms == meta.own_priority == meta.own_ttl_ms == 0
