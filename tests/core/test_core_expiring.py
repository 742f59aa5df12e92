"""Promises about leases that end: who gets the messages, and what very many of them may cost at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from core_client import Client
from harness import World

from minibrokerd.core import core
from minibrokerd.core.model import wheel
from minibrokerd.core.model.inputs import Tick
from minibrokerd.core.model.records import MoveMeta, ReturnMeta, decode
from minibrokerd.core.model.wheel import Timer, Wheel

MANY = 5_000


def begun(count: int, lease_ms: int = 2_000, **settings: int) -> tuple[World, Client]:
    """Return a client that has begun so many messages of one queue."""
    world = World()
    client = world.hello()
    client.set("q", **settings)
    while count:
        some = min(count, 1_000)
        client.publish("q", *[b"x"] * some)
        client.receive("q", some, lease_ms=lease_ms)
        world.run_jobs()
        client.inbox.clear()
        count -= some
    return world, client


def test_a_client_that_let_a_lease_end_gets_nothing_before_it_has_spoken() -> None:
    world = World()
    frozen, other = world.hello("frozen"), world.hello("other")
    frozen.publish("q", *[b"x"] * 5)
    frozen.consume("q", prefetch=5, lease_ms=2_000)
    frozen.begin(*frozen.messages())
    other.consume("q", prefetch=10)
    world.advance(2_008)
    assert len(other.messages()) == 5
    assert frozen.messages() == []
    other.publish("q", *[b"y"] * 20)
    world.advance(60_000)
    assert frozen.messages() == []
    assert frozen.request({"op": "ping"})["op"] == "pong"
    assert len(frozen.messages()) == 5


def test_a_receive_of_such_a_client_does_not_stand_in_the_way_of_others() -> None:
    world = World()
    frozen, other = world.hello("frozen"), world.hello("other")
    frozen.publish("q", b"x")
    frozen.receive_all("q", lease_ms=2_000)
    assert frozen.receive("q", wait_ms=60_000) is None
    assert other.receive("q", wait_ms=60_000) is None
    world.advance(2_008)
    assert len(other.messages()) == 1
    assert frozen.messages() == []


def test_the_attached_connection_does_not_speak_for_a_loop_that_stands_still() -> None:
    world = World()
    client = world.hello()
    attached = world.attach(client)
    client.publish("q", b"x")
    client.consume("q", prefetch=1, lease_ms=2_000)
    client.begin(*client.messages())
    world.advance(2_008)
    attached.request({"op": "ping"})
    assert client.messages() == []
    client.request({"op": "ping"})
    assert len(client.messages()) == 1


def test_messages_that_end_together_share_a_record_and_a_start_reads_it() -> None:
    world, client = begun(1_000)
    world.auto_sync = False
    world.now_ms += 2_008
    records = []
    for _ in range(20):
        records += world.core.apply(Tick(), world.now_ms, world.unix_ms).records
    says = [decode(record) for record in records]
    assert all(isinstance(meta, ReturnMeta) for meta in says)
    assert sum(meta.count for meta in says if isinstance(meta, ReturnMeta)) == 1_000
    assert len(says) <= 10
    world.open += records
    world.sync()
    peeked = client.peek("q", count=1_000)
    world.restart()
    again = world.hello().peek("q", count=1_000)
    for name in ("attempts", "history", "key"):
        assert [each[name] for each in again] == [each[name] for each in peeked]
    assert again[0]["attempts"]["expired"] == 1


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Count what one apply fires and moves, by the timers that it touches."""
    touched = [0]
    place = Wheel._place

    def placed(self: Wheel, timer: Timer) -> None:
        touched[0] += 1
        place(self, timer)

    monkeypatch.setattr(Wheel, "_place", placed)
    yield touched
    monkeypatch.undo()


@pytest.mark.parametrize("what", ["leases", "delays", "dead"])
def test_what_ends_together_ends_in_small_steps(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop must never stand still for it, however many they are."""
    monkeypatch.setattr(core, "TIMERS_PER_APPLY", 100)
    monkeypatch.setattr(wheel, "CASCADE_TIMERS", 300)
    if what == "delays":
        world = World()
        for _ in range(MANY // 1_000):
            delays = [2_000 + at % 2 for at in range(1_000)]
            world.hello().publish("q", *[b"x"] * 1_000, delays=delays)
    else:
        world, _ = begun(MANY, max_attempts=1 if what == "dead" else 5)
    world.now_ms += 3_000
    steps = 0
    with counted(monkeypatch) as touched:
        while (due_ms := world.core.next_deadline_ms()) is not None and due_ms <= world.now_ms:
            touched[0] = 0
            records = world.apply(Tick()).records
            steps += 1
            moves = sum(isinstance(decode(record), MoveMeta) for record in records)
            assert touched[0] <= 300
            assert moves <= 100
            assert len(records) <= 110
    assert steps >= MANY // 100
    queue = world.queue("q.dlq" if what == "dead" else "q")
    assert queue.group.lanes.ready == MANY
    world.check()


def test_timers_of_a_crowded_slot_fire_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Moved down some at a time, and others cancelled or set meanwhile."""
    monkeypatch.setattr(wheel, "CASCADE_TIMERS", 10)
    clock = Wheel(0)
    timers = [Timer(at) for at in range(200)]
    for timer in timers:
        clock.schedule(timer, 100_000 + timer.item % 7 * 8)
    fired: list[Timer] = []
    late = Timer(500)
    for step in range(1_000):
        fired += clock.advance(200_000, 5)
        if step == 3:
            clock.cancel(timers[0])
            clock.schedule(late, 100_000)
        if clock.next_deadline_ms() is None:
            break
    assert {timer.item for timer in fired} == {*range(1, 200), 500}
    ticks = [timer.tick for timer in fired if timer is not late]
    assert ticks == sorted(ticks)
