"""protocol.md 5.7: what is dead stays dead while its DLQ is full, and is moved when there is room."""

from __future__ import annotations

import pytest
from core_client import Client
from harness import World

HOURS_MS = 3_600_000


def world_with_full_dlq(how: str = "reject") -> tuple[World, Client]:
    """Return a world where `a` is in a DLQ that takes one, and `b` died after it."""
    world = World()
    client = world.hello()
    client.set("q", max_attempts=1, lease_ms=1_000, retry_jitter_percent=0)
    client.publish("q", b"a", b"b")
    client.settle("reject", *client.receive_all("q", 1))
    client.set("q.dlq", max_messages=1)
    die(world, client, how)
    return world, client


def die(world: World, client: Client, how: str) -> None:
    """Let the next message of `q` have its last attempt."""
    messages = client.receive_all("q", 1)
    if how == "lease":
        world.advance(1_008)
    else:
        client.settle(how, *messages)


@pytest.mark.parametrize("how", ["nack", "reject", "lease"])
def test_it_is_not_handed_out_again_and_its_history_does_not_grow(how: str) -> None:
    world, client = world_with_full_dlq(how)
    for _ in range(3):
        world.advance(HOURS_MS)
        assert client.receive_all("q") == []
    (info,) = client.peek("q")
    assert (info["state"], info["dead"], len(info["history"])) == ("DELAYED", True, 1)
    assert sum(info["attempts"].values()) == 1
    counters = client.stats("q")
    assert (counters["delayed"], counters["dead_waiting"], counters["dlq_full"]) == (1, 1, 1)


@pytest.mark.parametrize("room", ["purge", "redrive", "settings", "ack", "move"])
@pytest.mark.parametrize("restart", ["no", "clean", "crash", "forwarded"])
def test_it_is_moved_when_there_is_room_whatever_made_it(room: str, restart: str) -> None:
    world, client = world_with_full_dlq()
    if restart == "forwarded":
        world.free(world.core.synced)
    if restart != "no":
        world.restart(clean=restart != "crash")
        client = world.hello()
        world.advance(1_000)
    assert client.peek("q")[0]["dead"]
    make_room(client, room)
    world.advance(1_016)  # an ack is noticed within a second
    bodies = [info["body"] for info in client.peek("q.dlq")]
    assert b"b" in bodies
    assert client.stats("q")["dead_waiting"] == 0
    assert all("dead" not in info for info in client.peek("q.dlq"))
    world.check()


def make_room(client: Client, how: str) -> None:
    """Let the DLQ have room for one more."""
    if how == "purge":
        client.purge("q.dlq")
    elif how == "redrive":
        client.redrive("q.dlq")
    elif how == "settings":
        client.set("q.dlq", max_messages=2)
    elif how == "ack":
        client.settle("ack", *client.receive_all("q.dlq"))
    else:
        client.request({"op": "move", "queue": "q.dlq", "target": "elsewhere"})


def test_very_many_are_moved_in_steps() -> None:
    world = World()
    client = world.hello()
    client.publish("q", *[b"%d" % n for n in range(500)])
    client.settle("reject", *client.receive_all("q", 1))
    client.set("q.dlq", max_messages=1)
    client.settle("reject", *client.receive_all("q"))
    assert client.stats("q")["dead_waiting"] == 499
    client.set("q.dlq", max_messages=0)
    assert world.run_jobs() >= 5
    assert client.stats("q.dlq")["ready"] == 500


def test_a_purge_of_the_source_ends_it() -> None:
    world, client = world_with_full_dlq()
    assert client.purge("q")["value"]["purged"] == 1
    client.purge("q.dlq")
    world.advance(3_000)
    assert client.peek("q") == client.peek("q.dlq") == []
    client.delete("q", force=True)
    world.advance(3_000)
    world.check()


def test_an_operator_is_told_once_when_it_begins_and_once_when_it_is_over() -> None:
    world = World()
    client = world.hello()
    notes: list[str] = []
    apply = world.core.apply

    def noting(*args: object) -> object:
        effects = apply(*args)  # type: ignore[arg-type]
        notes.extend(note.event for note in effects.notes if note.event.startswith("dlq"))
        return effects

    world.core.apply = noting  # type: ignore[assignment]
    client.publish("q", b"a", b"b", b"c")
    client.settle("reject", *client.receive_all("q", 1))
    client.set("q.dlq", max_messages=1)
    client.settle("reject", *client.receive_all("q"))
    world.advance(5_000)
    assert notes == ["dlq_full"]
    client.set("q.dlq", max_messages=0)
    world.advance(5_000)
    assert notes == ["dlq_full", "dlq_has_room"]


def test_what_somebody_works_on_takes_room() -> None:
    """A dead-letter queue can be consumed: its limit counts what is held and begun."""
    world = World()
    client, other = world.hello(), world.hello()
    client.publish("q", b"a", b"b")
    one, two = client.receive_all("q", 2)
    client.settle("reject", one)
    client.set("q.dlq", max_messages=1)
    (held,) = other.receive_all("q.dlq")
    client.settle("reject", two)
    world.advance(5_000)
    assert [*world.states("q").values()] == ["DELAYED"]
    assert [*world.states("q.dlq").values()] == ["BEGUN"]
    other.settle("ack", held)
    world.advance(2_000)
    assert (world.states("q"), [*world.states("q.dlq").values()]) == ({}, ["READY"])
    world.check()
