"""What a client was told of a duplicate stays so: the answer has a record, as what is stored has one."""

from __future__ import annotations

from typing import Any

import pytest
from core_client import Client
from harness import World

NAMES = [{"uniques": ["k"]}, {"dedupes": ["d"]}, {"uniques": ["k"], "dedupes": ["d"]}]


def ended_behind_a_duplicate(world: World, names: dict[str, Any]) -> tuple[Client, Any]:
    """Return a client that was told of a duplicate, and what: what stood then has ended."""
    client = world.hello()
    if "uniques" not in names:
        names = names | {"dedupe_window_ms": 1_000}
    client.publish("q", b"first", **names)
    answer = client.publish("q", b"second", **names)
    assert answer["results"][0]["known"] == 1
    client.settle("ack", *client.receive_all("q"))
    return client, answer


@pytest.mark.parametrize("digests", [False, True])
@pytest.mark.parametrize("names", NAMES)
def test_what_was_told_of_a_duplicate_is_told_again_after_a_crash(
    names: dict[str, Any], digests: bool
) -> None:
    world = World()
    client, answer = ended_behind_a_duplicate(world, names)
    world.digests = digests
    world.restart(clean=False)
    world.advance(2_000)
    again = world.resume(client).resend(2, client)
    assert (again["results"], again["lost_runs"]) == (answer["results"], answer["lost_runs"])
    assert world.states("q") == {}
    world.check()


def test_nobody_is_told_of_a_duplicate_before_the_record_of_that_is_safe() -> None:
    """A broker that another one took over from does not know what has ended since: it can have no record there."""
    world = World()
    client = world.hello()
    client.publish("q", b"first", uniques=["k"])
    world.auto_sync = False
    assert client.publish("q", b"second", uniques=["k"]) is None
    world.close_batch()
    world.sync()
    assert client.answer(sequence=2)["results"][0]["known"] == 1


def test_a_lazy_queue_tells_of_a_duplicate_at_once() -> None:
    world = World()
    client = world.hello()
    client.set("q", durability="lazy")
    client.publish("q", b"first", uniques=["k"])
    world.close_batch()
    world.sync()
    world.auto_sync = False
    assert client.publish("q", b"second", uniques=["k"])["results"][0]["known"] == 1


def test_a_queue_in_memory_has_no_record_of_a_duplicate() -> None:
    world = World()
    client = world.hello()
    client.set("q", durability="memory")
    client.publish("q", b"first", uniques=["k"])
    records = len(world.records)
    assert client.publish("q", b"second", uniques=["k"])["results"][0]["known"] == 1
    assert len(world.records) == records
