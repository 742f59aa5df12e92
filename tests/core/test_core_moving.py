"""Moves that take steps: what happens to their target meanwhile, and what they cost where very much is delayed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from core_client import Client
from harness import World

from minibroker.contract import wire
from minibrokerd.core.durable import paging
from minibrokerd.core.model.effects import ReadBack
from minibrokerd.core.model.sums import Sums

COUNT = 30


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a few messages be many, so that they leave memory."""
    monkeypatch.setattr(Sums, "large_bytes", 0)
    monkeypatch.setattr(paging, "AHEAD_MESSAGES", 5)


def asked_for_cold_ones(world: World, client: Client) -> list[ReadBack]:
    """Have messages that left memory moved from `q` to `t`; return the reads that this waits for."""
    for at in range(COUNT):
        client.publish("q", b"%d" % at)
    world.freeze()
    load, asked = world._load, list[ReadBack]()
    world._load = asked.append  # type: ignore[assignment, method-assign]
    runs = wire.pack_runs([(0, 1, 15, 10)])
    move = {"op": "move", "queue": "q", "target": "t", "runs": 1}
    assert client.request(move, runs) is None
    world._load = load  # type: ignore[method-assign]
    assert asked
    return asked


@pytest.mark.parametrize("restart", [False, True])
def test_what_is_read_back_stays_where_it_was_if_the_target_was_deleted(restart: bool) -> None:
    world = World()
    client, other = world.hello(), world.hello()
    asked = asked_for_cold_ones(world, client)
    move = client.requests
    other.delete("t", force=True)
    for each in asked:
        world._load(each)
    world.advance(1_000)
    assert client.answer(request=move)["value"] == {"moved": 0}
    if restart:
        world.restart(clean=False, lose_unsynced=False)
        world.advance(2_000)
        client = world.hello()
    assert client.stats("q")["ready"] == COUNT
    world.check()


def test_what_is_read_back_stays_where_it_was_if_the_target_was_filled() -> None:
    world = World()
    client, other = world.hello(), world.hello()
    asked = asked_for_cold_ones(world, client)
    move = client.requests
    other.set("t", max_messages=1)
    other.publish("t", b"the one")
    for each in asked:
        world._load(each)
    world.advance(1_000)
    assert client.answer(request=move)["value"] == {"moved": 0, "left": {"full": 10}}
    assert (client.stats("q")["ready"], client.stats("t")["ready"]) == (COUNT, 1)
    world.check()


class Table(dict[Any, Any]):
    """Counts how often somebody begins to walk it: each time passes over all that was taken out before."""

    walks = 0

    def __iter__(self) -> Iterator[Any]:
        Table.walks += 1
        return super().__iter__()


def test_delayed_messages_are_found_without_passing_over_those_that_have_gone() -> None:
    world = World()
    client = world.hello()
    for _ in range(2):
        client.publish("q", *[b"x"] * 1_000, delays=[10**6 + n for n in range(1_000)])
    queue = world.queue("q")
    queue.group.delayed = Table(queue.group.delayed)
    assert client.request({"op": "move", "queue": "q", "target": "t", "count": 1_900}) is None
    move = client.requests
    for _ in range(100):
        world.advance(10)
    assert client.answer(request=move)["value"] == {"moved": 1_900}
    assert client.stats("q")["delayed"] == 100
    assert Table.walks <= 20


def half_way(how: str, synced: int) -> tuple[set[str], bool]:
    """Crash with so many batches of a message's way to another queue synced.

    Returns the queues that have it then, and whether these were all of its batches.
    """
    world = World()
    client = world.hello()
    client.publish("q", b"x")
    (message,) = client.receive_all("q")
    if how != "reject":
        client.settle("reject", message)
    world.auto_sync = False
    if how == "reject":
        client.settle("reject", message)
    elif how == "redrive":
        client.redrive("q.dlq")
    else:
        client.request({"op": "move", "queue": "q.dlq", "target": "q", "runs": 0, "count": 0})
    world.close_batch()
    while world.store.jobs:
        world.run_job()
        world.close_batch()
    for _ in range(synced):
        world.sync_one()
    is_all = not world.closed
    world.restart(clean=False)
    return {name for name in ("q", "q.dlq") if world.states(name)}, is_all


@pytest.mark.parametrize("how", ["reject", "redrive", "move"])
def test_a_crash_finds_what_moves_in_one_of_the_two_queues(how: str) -> None:
    """At whatever border of batches: it is in none of them missing, and in none of them twice."""
    synced, is_all, places = 0, False, list[set[str]]()
    while not is_all:
        found, is_all = half_way(how, synced)
        places.append(found)
        synced += 1
    assert {len(found) for found in places} == {1}
    assert places[0] != places[-1]
