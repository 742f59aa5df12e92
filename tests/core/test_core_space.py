"""Promises about a disk that is nearly full: what is left of it is for the ends of messages."""

from __future__ import annotations

from typing import Any

import pytest
from core_client import Client
from harness import World

from minibroker.contract import wire
from minibrokerd.core.model import walks
from minibrokerd.core.model.inputs import Space
from minibrokerd.log.sizes import GROWTH_BYTES

LEASES = (5, 6)  # BEGIN, EXTEND: docs/architecture.md, section 6


def lease_records(world: World) -> int:
    return sum(record.type in LEASES for batch in world.log for record in batch.records)


def test_nothing_is_handed_out_while_space_is_made_and_acks_go_on() -> None:
    world = World()
    client = world.hello()
    client.publish("q", b"a", b"b")
    client.consume("q")
    (held,) = client.messages()
    world.apply(Space(short=True, pause=True))
    assert client.settle("ack", held)["results"] == [{"lost": 0}]
    assert client.messages() == []
    assert client.receive_all("q") == []
    world.apply(Space(short=True, pause=False))
    (held,) = client.messages()
    assert held.body == b"b"
    world.check()


def test_what_a_crash_may_forget_is_not_logged_while_space_is_short() -> None:
    """Leases and the texts of errors; the attempt itself counts."""
    world = World()
    client = world.hello()
    client.publish("q", b"a")
    world.apply(Space(short=True, pause=False))
    (begun,) = client.receive_all("q")
    client.settle("nack", begun, delay_ms=0, error=("E", "a long text"))
    (shown,) = client.peek("q")
    (attempt,) = shown["history"]
    assert (attempt["cause"], attempt["error_text"]) == ("failed", "")
    world.sync()
    assert lease_records(world) == 0
    world.check()


WRITERS: dict[str, dict[str, Any]] = {
    "move": {"queue": "q", "target": "r", "runs": 0},
    "redrive": {"queue": "q.dlq", "runs": 0},
    "retime": {"queue": "q", "runs": 1, "delay_ms": 5_000},
    "key_set": {"queue": "q", "key": "k", "weight": 2},
    "pause": {"queue": "q"},
    "queue_set": {"queue": "q", "settings": {"max_attempts": 7}},
    "schedule_pause": {"name": "s", "paused": 1},
}


def full_world() -> tuple[World, Client]:
    """Return a world that has a ready message, a dead one and a schedule, and no space any more."""
    world = World()
    client = world.hello()
    client.publish("q", b"dead", b"ready")
    client.settle("reject", *client.receive_all("q", 1), error=("E", "e"))
    job = {"op": "schedule_set", "name": "s", "queue": "q", "cron": "0 3 * * *", "zone": "UTC"}
    client.request(job | {"misfire": "once", "terms": {}}, wire.pack_strings([b"", b"x"]))
    world.apply(Space(short=True, pause=False))
    return world, client


@pytest.mark.parametrize("op", WRITERS)
def test_what_writes_and_ends_nothing_is_refused_while_space_is_short(op: str) -> None:
    """It used up what is kept for acks: 29,000 weights of keys, or a redrive, and the broker stopped itself."""
    world, client = full_world()
    written = sum(len(batch.records) for batch in world.log)
    columns = wire.pack_runs([(0, 1, 1, 1)]) if WRITERS[op].get("runs") else b""
    for _ in range(2):
        answer = client.request({"op": op, **WRITERS[op]}, columns)
        assert (answer["code"], answer["retryable"], answer["retry_ms"]) == (
            "disk_full",
            True,
            1_000,
        )
    assert sum(len(batch.records) for batch in world.log) == written
    world.apply(Space(short=False, pause=False))
    assert client.request({"op": op, **WRITERS[op]}, columns)["op"] == "reply"


def test_what_ends_messages_goes_on_while_space_is_short() -> None:
    world, client = full_world()
    assert client.cancel_messages("q", (1, 1))["value"]["cancelled"] == 1
    assert client.purge("q.dlq")["value"]["purged"] == 1
    assert client.request({"op": "schedule_delete", "name": "s"})["value"]["deleted"] == 1
    assert client.delete("q")["op"] == "reply"
    world.check()


@pytest.mark.parametrize("is_made", [True, False])
def test_a_move_waits_for_space_that_is_made_and_ends_where_none_is(
    monkeypatch: pytest.MonkeyPatch, is_made: bool
) -> None:
    monkeypatch.setattr(walks, "LOOKS", 300)
    world = World()
    client = world.hello()
    for _ in range(3):
        client.publish("q", *[b"x"] * 300)
    world.store.looks_left = 300
    assert client.request({"op": "move", "queue": "q", "target": "r", "runs": 0}) is None
    moved = len(world.states("r"))
    world.apply(Space(short=True, pause=is_made))
    world.run_jobs()
    assert len(world.states("r")) == moved > 0, "nothing more was written"
    answer = client.answer(request=client.requests)
    if not is_made:
        assert answer["value"] == {"moved": moved, "left": {"disk_full": 900 - moved}}
        return
    assert answer is None
    world.apply(Space(short=False, pause=False))
    world.advance(1_000)
    assert client.answer(request=client.requests)["value"] == {"moved": 900}


def test_a_move_writes_no_further_than_the_disk_follows() -> None:
    """While a sync takes long, what it writes would else stand in memory, and have no room in the end."""
    world = World()
    client = world.hello()
    for _ in range(4):
        client.publish("q", *[b"x"] * 1_000)
    world.auto_sync = False
    assert client.request({"op": "move", "queue": "q", "target": "r", "runs": 0}) is None
    for _ in range(200):
        world.run_job()
        world.close_batch()
    assert 0 < len(world.states("r")) < 2_000
    world.auto_sync = True
    world.advance(10_000)
    assert client.answer(request=client.requests)["value"] == {"moved": 4_000}


@pytest.mark.parametrize("digests", [False, True])
def test_a_start_knows_by_what_messages_will_grow(digests: bool) -> None:
    """Attempts behind the newest copy of their message: what was copied has grown, and what ended never will."""
    world = World(segment_batches=3)
    world.digests = digests
    client = world.hello()
    client.set("q", retry_delay_ms=0)
    client.publish("q", *[b"x"] * 10)
    some = client.receive_all("q", 4)
    client.settle("nack", *some[:2], error=("E", "e"))
    client.settle("reject", some[2], error=("E", "e"))
    client.settle("release", some[3])
    client.publish("other", b"x")
    world.restart(clean=False)
    assert world.store.sums.grown_bytes == 3 * GROWTH_BYTES
    world.free(world.core.synced)
    world.restart(clean=False)
    assert world.store.sums.grown_bytes == 0
    client = world.hello()
    client.settle("nack", *client.receive_all("q", 1), error=("E", "e"))
    world.restart(clean=False)
    assert world.store.sums.grown_bytes == 2 * GROWTH_BYTES
    client = world.hello()
    client.purge("q")
    world.restart(clean=False)
    assert world.store.sums.grown_bytes == 0
