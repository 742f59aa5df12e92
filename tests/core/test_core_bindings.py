"""Bindings by the thousand: what they take of memory, and how they end."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import pytest
from core_client import Client
from harness import World

from minibroker.contract import limits, wire
from minibrokerd.core.model import ordered
from minibrokerd.core.model.exchanges import Binding
from minibrokerd.core.model.footprints import (
    BINDING_BYTES,
    OUTCOME_OBJECT_BYTES,
    TOPIC_NODE_BYTES,
)
from minibrokerd.core.model.ordered import Ordered

COUNT = 1_000


def bound(client: Client, count: int, type: str = "direct") -> None:
    """Have an exchange `e` with so many bindings to the queue `q`."""
    client.request({"op": "exchange_set", "name": "e", "type": type})
    for n in range(count):
        client.request({"op": "bind", "exchange": "e", "queue": "q", "pattern": f"all.of.k{n}"})


def test_values_in_order_are_what_a_sorted_list_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """They come and go at random; pages of them, too, from places that may be gone."""
    monkeypatch.setattr(ordered, "MOST", 8)
    rng = random.Random(5)
    values: Ordered[int] = Ordered()
    plain: list[int] = []
    for _ in range(4_000):
        value = rng.randrange(150)
        assert (value in values) == (value in plain)
        if value in plain:
            plain.remove(value)
            values.remove(value)
        else:
            plain = sorted([*plain, value])
            values.add(value)
        after, most = rng.randrange(-1, 151), rng.randrange(30)
        assert values.behind(after, most) == [each for each in plain if each > after][:most]
        assert (list(values), len(values)) == (plain, len(plain))


@pytest.mark.parametrize("what", ["queue", "exchange", "target"])
@pytest.mark.parametrize("type", ["direct", "topic"])
def test_what_many_bindings_lead_to_ends_in_steps(what: str, type: str) -> None:
    """A step of some hundred, whatever their number; a name that comes again meanwhile has none of them."""
    world = World()
    client = world.hello()
    bound(client, COUNT, type)
    if what == "target":
        client.request({"op": "exchange_set", "name": "t", "type": "fanout"})
        for n in range(COUNT):
            client.request({"op": "bind", "exchange": "e", "target": "t", "pattern": f"t{n}"})
    known = world.core.store.exchanges
    counts = [known.bindings]
    ends: dict[str, dict[str, Any]] = {
        "queue": {"op": "queue_delete", "queue": "q", "force": 1},
        "exchange": {"op": "exchange_delete", "name": "e"},
        "target": {"op": "exchange_delete", "name": "t"},
    }
    assert client.request(ends[what])["op"] == "reply"
    while world.core.store.jobs:
        client.request({"op": "exchange_set", "name": "e", "type": type})
        client.request({"op": "bind", "exchange": "e", "queue": "q", "pattern": "all.of.k1"})
        counts.append(known.bindings)
        world.run_job()
        counts.append(known.bindings)
    went = [before - after for before, after in pairwise(counts)]
    assert 100 < max(went) <= 200
    assert sum(went) >= COUNT - 1
    (shown,) = client.request({"op": "exchanges", "name": "e"})["value"]["exchanges"]
    assert shown["bindings"] == known.bindings == (COUNT if what == "target" else 1)
    world.restart()
    assert world.core.store.exchanges.bindings == known.bindings
    assert world.core.store.exchanges.nodes == known.nodes


def test_an_exchange_and_a_queue_that_end_together_let_their_bindings_go_once() -> None:
    """What one of them has to do the other one may have done."""
    world = World()
    client = world.hello()
    bound(client, COUNT)
    client.request({"op": "exchange_delete", "name": "e"})
    client.request({"op": "queue_delete", "queue": "q", "force": 1})
    for _ in range(50):
        world.run_job()
    known = world.core.store.exchanges
    assert (known.bindings, known._leading, known._owners) == (0, {}, {})


def test_what_bindings_take_of_memory_is_counted_and_given_back() -> None:
    """Words that no pattern before has in its place; 125 of them in a pattern are 30 KB."""
    world = World()
    client = world.hello()
    bound(client, 1, "topic")
    before = world.core.memory_bytes()
    pattern = ".".join(["all", "of", *("*" for _ in range(100))])
    for queue in ("a", "b"):
        client.request({"op": "queue_set", "queue": queue, "settings": {}})
    queues = world.core.memory_bytes()
    for queue in ("a", "b"):
        client.request({"op": "bind", "exchange": "e", "queue": queue, "pattern": pattern})
    grown = world.core.memory_bytes() - queues
    assert grown - 2 * BINDING_BYTES - 100 * TOPIC_NODE_BYTES in range(2 * 500)
    for queue in ("a", "b"):
        client.request({"op": "unbind", "exchange": "e", "queue": queue, "pattern": pattern})
        client.request({"op": "queue_delete", "queue": queue, "force": 1})
    assert world.core.memory_bytes() == before


def test_the_words_of_all_patterns_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each counts once where several begin alike; a start takes what there is."""
    monkeypatch.setattr(limits, "MAX_TOPIC_WORDS", 5)
    world = World()
    client = world.hello()
    bound(client, 3, "topic")
    bind = {"op": "bind", "exchange": "e", "queue": "q"}
    assert client.request({**bind, "pattern": "all.of.k3"})["code"] == "limit_reached"
    assert client.request({**bind, "pattern": "all.of"})["value"] == {"created": 1}
    client.request({"op": "unbind", "exchange": "e", "queue": "q", "pattern": "all.of.k2"})
    assert client.request({**bind, "pattern": "all.of.k3"})["value"] == {"created": 1}
    monkeypatch.setattr(limits, "MAX_TOPIC_WORDS", 1)
    world.restart()
    assert world.core.store.exchanges.nodes == 5


def test_what_a_routing_key_came_to_is_remembered_for_so_many_bindings_alone() -> None:
    """A thousand keys that each reach thousands of bindings would be megabytes."""
    world = World()
    bound(world.hello(), 1, "topic")
    exchange = world.core.store.exchanges.by_name["e"]
    for queue in range(200):
        exchange.add(Binding(exchange.number, queue, 0, "#"))
    for n in range(150):
        exchange.match(f"k{n}", {})
    remembered = sum(len(some or ()) for some in exchange._remembered.values())
    assert 200 < remembered <= 20_000
    assert remembered == exchange._remembered_count


@pytest.mark.parametrize("type", ["hash", "headers"])
def test_what_looks_at_each_binding_has_few(type: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hash of each for each routing key is a step of the loop."""
    monkeypatch.setattr(limits, "MAX_SCANNED_BINDINGS", 2)
    client = World().hello()
    client.request({"op": "exchange_set", "name": "e", "type": type})
    bind = {"op": "bind", "exchange": "e", "pattern": "all" if type == "headers" else ""}
    for queue in "ab":
        assert client.request({**bind, "queue": queue})["value"] == {"created": 1}
    assert client.request({**bind, "queue": "c"})["code"] == "limit_reached"


def test_what_names_a_thousand_queues_is_counted_and_shared() -> None:
    """Outcomes are kept until the client has them: names once for all of one kind, and runs for each."""
    world = World()
    client = world.hello()
    client.request({"op": "exchange_set", "name": "e", "type": "fanout"})
    for n in range(200):
        client.request({"op": "bind", "exchange": "e", "queue": f"{'q' * 50}-{n}"})
    for _ in range(5):
        part = {"op": "route", "exchange": "e", "count": 1}
        assert client.sequenced([part], b"", b"\0\0\0\0\1\0\0\0", b"x")["op"] == "confirm"
    outcomes = world.store.sessions[client.session].window.values()
    assert len({id(each.results[0]["queues"]) for each in outcomes}) == 1
    assert world.store.sums.outcomes * OUTCOME_OBJECT_BYTES > 5 * 200 * (wire.RUN.size + 50)
    counted = world.store.sums.outcomes
    world.restart()
    assert world.store.sums.outcomes == counted
    client = world.resume(client)
    client.answered_below = client.sequence + 1
    client.publish("q", b"x")
    assert world.store.sums.outcomes == 1
