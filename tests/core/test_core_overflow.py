"""protocol.md, 5.11: a queue at its limit never holds more, and what gives way says so."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from core_client import Client, settle_part
from harness import World

from minibroker.contract import wire
from minibrokerd.core.durable import paging
from minibrokerd.core.model.sums import Sums

EACH_BYTES = 168  # what a message published alone keeps in use beside its own


def world_of(**settings: Any) -> tuple[World, Client]:
    world = World()
    client = world.hello()
    client.set("q", **settings)
    return world, client


def bodies(client: Client, queue: str = "q") -> list[bytes]:
    return [each["body"] for each in client.peek(queue)]


def fill(client: Client, count: int = 3) -> None:
    for number in range(count):
        assert client.publish("q", b"%d" % number)["op"] == "confirm"


@pytest.mark.parametrize(("overflow", "code"), [("block", "busy"), ("reject", "queue_full")])
@pytest.mark.parametrize("limit", [{"max_messages": 3}, {"max_bytes": 3 * (EACH_BYTES + 1)}])
def test_a_full_queue_refuses_and_counts(overflow: str, code: str, limit: dict[str, int]) -> None:
    """Those that a worker has count, too; the refused frame changes nothing."""
    world, client = world_of(overflow=overflow, **limit)
    fill(client)
    message, *_ = client.receive_all("q", 1)
    before = len(world.log)
    answer = client.publish("q", b"3")
    assert (answer["code"], answer.get("retry_ms")) == (code, 1_000 if code == "busy" else None)
    assert (len(world.log), client.stats("q")["overflow_refused"]) == (before, 1)
    client.settle("ack", message)
    assert client.publish("q", b"3")["op"] == "confirm"
    assert bodies(client) == [b"1", b"2", b"3"]
    world.check()


@pytest.mark.parametrize("limit", [{"max_messages": 5}, {"max_bytes": 5 * 89}])
def test_a_frame_is_stored_whole_or_refused_whole(limit: dict[str, int]) -> None:
    """Messages of a frame of 3 take 48 + 120 // 3 and one byte: exactly five of them fit."""
    _, client = world_of(**limit)
    assert client.publish("q", b"1", b"2", b"3")["op"] == "confirm"
    assert client.publish("q", b"1", b"2", b"3")["code"] == "busy"
    assert client.publish("q", *[b"x"] * 8)["code"] == "too_large"
    assert len(bodies(client)) == 3


def test_bytes_are_exact_to_one() -> None:
    _, client = world_of(max_bytes=1_000)
    room = 1_000 - EACH_BYTES
    assert client.publish("q", b"x" * (room + 1))["code"] == "too_large"
    assert client.publish("q", b"x" * room)["op"] == "confirm"
    assert client.publish("q", b"")["code"] == "busy"


def test_the_parts_of_a_step_share_the_room() -> None:
    world, client = world_of(max_messages=2)
    client.publish("q", b"0")
    (message,) = client.receive_all("q")
    acks, columns = settle_part("ack", "q", [message.run])
    part = {"op": "publish", "queue": "q", "count": 1}
    lengths = b"\0\0\0\0\1\0\0\0"
    answer = client.sequenced([acks, part, part], columns, lengths * 2, b"xy")
    assert answer["code"] == "busy", "what a step acks makes room for the next one"
    assert client.sequenced([acks, part], columns, lengths, b"x")["op"] == "confirm"
    assert bodies(client) == [b"x"]
    world.check()


@pytest.mark.parametrize("overflow", ["drop-oldest", "dead-letter"])
@pytest.mark.parametrize("limit", [{"max_messages": 3}, {"max_bytes": 3 * (EACH_BYTES + 1)}])
@pytest.mark.parametrize("restart", [False, True])
def test_the_oldest_that_waits_gives_way(
    overflow: str, limit: dict[str, int], restart: bool
) -> None:
    world, client = world_of(overflow=overflow, **limit)
    fill(client)
    (running,) = client.receive_all("q", 1)
    assert client.publish("q", b"3")["op"] == "confirm"
    assert sorted(bodies(client)) == [b"0", b"2", b"3"]
    stats = client.stats("q")
    moved = overflow == "dead-letter"
    assert (stats["overflow_dropped"], stats["overflow_dead_lettered"]) == (not moved, moved)
    assert running.body == b"0"
    world.check()
    if restart:
        world.restart(clean=False, lose_unsynced=False)
        client = world.hello()
        assert sorted(bodies(client)) == [b"0", b"2", b"3"]
    if moved:
        (dead,) = client.peek("q.dlq")
        assert (dead["body"], dead["history"][0]["cause"]) == (b"1", "overflow")
        assert "QueueFull" in client.explain((1, 1))["by"]
    elif not restart:
        assert client.explain((1, 1))["reason"] == "dropped"
    world.check()


@pytest.mark.parametrize("overflow", ["drop-oldest", "dead-letter"])
def test_what_workers_have_is_never_taken_from_them(overflow: str) -> None:
    world, client = world_of(max_messages=3, overflow=overflow)
    fill(client)
    client.receive_all("q", 2)
    assert client.publish("q", b"3", b"4")["code"] == "busy"
    assert client.publish("q", b"3")["op"] == "confirm"
    assert sorted(bodies(client)) == [b"0", b"1", b"3"]
    world.check()


@pytest.mark.parametrize("fields", [{}, {"key": "k"}, {"delay_ms": 60_000}], ids=str)
def test_oldest_is_by_id_whatever_key_or_delay(fields: dict[str, Any]) -> None:
    world, client = world_of(max_messages=3, overflow="drop-oldest")
    client.publish("q", b"0", **fields)
    client.publish("q", b"1", b"2", keys=["a", "b"])
    client.publish("q", b"3")
    client.publish("q", b"4")
    assert sorted(bodies(client)) == [b"2", b"3", b"4"]
    world.check()


@pytest.mark.parametrize("overflow", ["drop-oldest", "dead-letter"])
@pytest.mark.parametrize("priority", [0, 5])
def test_what_left_memory_gives_way_too(
    overflow: str, priority: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To be moved it is read back first, of whatever priority: the publish is refused for that moment."""
    monkeypatch.setattr(Sums, "large_bytes", 0)
    monkeypatch.setattr(paging, "AHEAD_MESSAGES", 0)
    world, client = world_of(max_messages=6, overflow=overflow)
    client.publish("q", b"0", b"1", b"2")
    fill(client, 2)
    client.publish("q", b"first", priority=priority)
    world.freeze()
    assert any(lanes.default.cold for lanes in world.queue("q").group.lanes.levels)
    assert (1, 3) not in {
        (item.block.origin, item.first) for _, item in world.queue("q").group.items()
    }
    new = [b"new"] * 4  # one more than there are in memory before those that left it
    answer = client.publish("q", *new, priority=priority)
    assert answer.get("code") == ("busy" if overflow == "dead-letter" else None)
    if overflow == "dead-letter":
        answer = client.publish("q", *new, priority=priority)  # it was read meanwhile
    assert answer["op"] == "confirm"
    world.check()
    world.thaw()
    assert len(world.states("q")) == 6
    assert (1, 3) not in world.states("q")
    world.restart()
    assert (1, 3) not in world.states("q")


def test_a_dead_letter_queue_that_is_full_takes_nothing_for_room() -> None:
    world, client = world_of(max_messages=1, overflow="dead-letter")
    client.set("q.dlq", max_messages=1)
    for _ in range(2):
        assert client.publish("q", b"x")["op"] == "confirm"
    assert client.publish("q", b"x")["code"] == "busy"
    world.check()


def test_an_operator_reads_of_it_once_and_of_its_end() -> None:
    world, client = world_of(max_messages=10, overflow="drop-oldest")
    notes: list[str] = []
    apply = world.core.apply

    def noting(*args: Any) -> Any:
        effects = apply(*args)
        notes.extend(note.event for note in effects.notes)
        return effects

    world.core.apply = noting  # type: ignore[method-assign,assignment]
    fill(client, 14)
    assert notes.count("queue_full") == 1
    client.purge("q")
    fill(client, 1)
    assert [note for note in notes if note.startswith("queue_")][-1] == "queue_has_room"


@pytest.mark.parametrize("overflow", ["drop-oldest", "dead-letter"])
def test_what_is_replaced_makes_room_and_is_not_the_oldest(overflow: str) -> None:
    world, client = world_of(max_messages=3, overflow=overflow)
    client.publish("q", b"0", uniques=["k"])
    client.publish("q", b"1", b"2")
    client.publish("q", b"3", b"4", uniques=["k", ""], unique_mode="replace")
    assert sorted(bodies(client)) == [b"2", b"3", b"4"]
    client.publish("q", b"5", uniques=["k"])
    assert sorted(bodies(client)) == [b"2", b"3", b"4"], "a duplicate needs no room"
    world.check()


def deduped(*parts: tuple[str, str, bytes]) -> tuple[list[dict[str, Any]], bytes, bytes, bytes]:
    """Return a frame of publishes, each of one message: its queue, its dedupe id, its body."""
    fields = {"op": "publish", "count": 1, "columns": ["dedupe_id"]}
    return (
        [fields | {"queue": queue} for queue, _, _ in parts],
        b"".join(wire.pack_strings([id.encode()]) for _, id, _ in parts),
        b"".join(struct.pack("<II", 0, len(body)) for _, _, body in parts),
        b"".join(body for _, _, body in parts),
    )


@pytest.mark.parametrize("overflow", ["drop-oldest", "dead-letter"])
@pytest.mark.parametrize("other", ["q", "other"])
def test_nobody_gives_way_to_what_is_there_already(overflow: str, other: str) -> None:
    """Two publishes that share a frame are sent again after a lost connection."""
    world, client = world_of(max_messages=2, overflow=overflow)
    frame = deduped(("q", "1", b"0"), (other, "2", b"1"))
    client.sequenced(*frame)
    client.publish("q", b"2") if other == "other" else None
    before = bodies(client)
    assert len(before) == 2
    assert client.sequenced(*frame)["results"][0]["known"] == 1
    assert bodies(client) == before
    world.check()


@pytest.mark.parametrize("overflow", ["block", "reject"])
def test_what_is_there_already_needs_no_room_beside_publishes_to_others(overflow: str) -> None:
    world, client = world_of(max_messages=1, overflow=overflow)
    frame = deduped(("q", "1", b"0"), ("other", "2", b"1"))
    client.sequenced(*frame)
    answer = client.sequenced(*frame)
    assert [result["known"] for result in answer["results"]] == [1, 1]
    world.check()


@pytest.mark.parametrize("overflow", ["block", "reject", "drop-oldest", "dead-letter"])
def test_what_replaces_another_has_its_bytes_and_no_more(overflow: str) -> None:
    most = 3 * (EACH_BYTES + 10)
    world, client = world_of(max_bytes=most, overflow=overflow)
    for key in "abc":
        client.publish("q", bytes(10), uniques=[key])
    again = {"uniques": ["c"], "unique_mode": "replace"}
    assert client.publish("q", bytes(10), **again)["op"] == "confirm"
    assert client.publish("q", bytes(most), **again)["code"] == "too_large"
    answer = client.publish("q", bytes(11), **again)
    if overflow in ("block", "reject"):
        assert answer["code"] == ("busy" if overflow == "block" else "queue_full")
        assert client.publish("q", bytes(9), **again)["op"] == "confirm"
    else:
        assert [len(body) for body in bodies(client)] == [10, 11], "the oldest gave way"
    assert world.queue("q").log_bytes <= most
    world.check()
