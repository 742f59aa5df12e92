"""Promises about a log whose oldest part was freed: it tells the same story, and nothing is there twice."""

from __future__ import annotations

from typing import Any

import pytest
from core_client import Client
from harness import World
from hypothesis import given, settings
from hypothesis import strategies as st
from starts import everything

from minibrokerd.core.model.inputs import Forward
from minibrokerd.core.model.records import CopyMeta, CopyRunMeta, RunMeta, decode
from minibrokerd.log.seam import Batch


def close(first: dict[str, list[Any]], second: dict[str, list[Any]]) -> bool:
    """Whether two states differ by nothing but a tick or two in a deadline."""
    assert first.keys() == second.keys()
    for name in first:
        for a, b in zip(first[name], second[name], strict=True):
            assert a[:2] == b[:2], (a, b)
            if len(a) == 3 and a[2] is not None:
                assert a[2][:3] == b[2][:3], (a, b)
                assert abs(a[2][3] - b[2][3]) <= 2, (a, b)
    return True


def replayed(world: World, log: list[Batch], wall_ms: int = 0) -> dict[str, list[Any]]:
    """Return the state that a start finds in a log."""
    other = World()
    other.log, other.unix_ms, other.epoch = list(log), world.unix_ms, world.epoch
    other.restart(clean=False, wall_ms=wall_ms)
    return everything(other)


def lived_through() -> tuple[World, Client]:
    """Return a world with messages in every state and with every kind of history."""
    world = World()
    one = world.hello("one")
    one.set("q", max_attempts=3, retry_delay_ms=500, retry_jitter_percent=0, lease_ms=90_000)
    bodies = [b"x" * i for i in range(12)]
    one.publish("q", *bodies, keys=["", "k"] * 6, encodings=[0, 1, 0] * 4)
    one.publish("q", b"soon", b"late", delays=[70_000, 10**9])
    got = one.receive_all("q", 9)
    one.settle("ack", got[0])
    one.settle("nack", got[1], error=("ValueError", "no"))
    one.settle("nack", got[2], delay_ms=10**7)
    one.settle("reject", got[3], got[4], error=("KeyError", "never"))
    one.settle("release", got[5])
    one.settle("extend", got[6], lease_ms=200_000)
    one.redrive("q.dlq", ids=[got[3].id])
    world.advance(95_000)
    one.receive_all("q", 2, lease_ms=400_000)
    return world, one


@pytest.mark.parametrize("digests", [False, True])
@pytest.mark.parametrize("delay_ms", [0, 20_000])
def test_what_kept_the_time_of_what_it_replaced_is_there_once_beside_its_copy(
    delay_ms: int, digests: bool
) -> None:
    world = World(segment_batches=1)
    client = world.hello("one")
    client.publish("q", b"old", uniques=["k"], delays=[delay_ms])
    world.advance(1_000)
    client.publish("q", b"new", uniques=["k"], delays=[30_000], unique_mode="keep-latest")
    world.apply(Forward(world.core.synced, 2**30))
    world.sync()
    world.digests = digests
    world.restart(clean=False)
    world.check()  # nothing is in two places
    client = world.hello("two")
    client.consume("q", 10)
    world.advance(delay_ms)
    assert [message.body for message in client.messages()] == [b"new"]


@pytest.mark.parametrize("most_bytes", [1, 500, 2**30])
def test_a_log_without_its_old_part_replays_to_the_same_state(most_bytes: int) -> None:
    world, _ = lived_through()
    full = list(world.log)
    before = everything(world)
    world.free(world.core.synced, most_bytes=most_bytes)
    assert everything(world) == before
    assert world.log[0].number > full[-1].number
    for wall_ms in (0, 10_000, 10**8):
        assert close(replayed(world, full, wall_ms), replayed(world, world.log, wall_ms))
        # Copies beside what they copy, as after a crash before the old part was freed.
        assert close(replayed(world, full, wall_ms), replayed(world, [*full, *world.log], wall_ms))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 400)), min_size=1, max_size=4))
def test_freed_again_and_again_at_any_batch(frees: list[tuple[int, int]]) -> None:
    world, _ = lived_through()
    full, before = list(world.log), everything(world)
    for upto, most_bytes in frees:
        world.free(min(upto, world.core.synced), most_bytes=most_bytes)
    assert everything(world) == before
    assert close(replayed(world, full), replayed(world, world.log))


def test_a_backlog_is_copied_in_runs() -> None:
    world = World()
    one = world.hello()
    for _ in range(3):
        one.publish("q", *[b"%d" % i for i in range(500)])
    got = one.receive_all("q", 1_000)
    one.settle("ack", *got[:200], *got[300:400])
    world.disconnect(one)
    world.advance(60_000)
    full, before = list(world.log), everything(world)
    world.free(world.core.synced)
    copies = [meta for batch in world.log for meta in map(decode, batch.records)]
    assert sum(isinstance(meta, CopyRunMeta) for meta in copies) == 1
    assert sum(isinstance(meta, CopyMeta) for meta in copies) == 700
    assert everything(world) == before
    assert close(replayed(world, full), replayed(world, [*full, *world.log]))
    one = world.hello()
    assert {m.body for m in one.receive_all("q")} <= {b"%d" % i for i in range(500)}


def test_what_happens_after_a_copy_happens_to_the_copy() -> None:
    world, one = lived_through()
    full = list(world.log)
    world.free(world.core.synced)
    copies = len(world.log)
    more = one.receive_all("q", 4)
    one.settle("ack", more[0])
    one.settle("nack", more[1], delay_ms=5)
    one.settle("reject", more[2], error=("E", "e"))
    one.purge("q.dlq")
    world.advance(100)
    assert close(replayed(world, [*full, *world.log]), replayed(world, world.log))
    assert len(world.log) > copies
    assert sorted(world.states("q").values()).count("BEGUN") > 1


def test_memory_is_not_copied_and_what_ended_is_not() -> None:
    world, one = lived_through()
    one.set("m", durability="memory")
    one.publish("m", b"gone")
    one.purge("q")
    one.purge("q.dlq")
    world.free(world.core.synced)
    copies = [meta for batch in world.log for meta in map(decode, batch.records)]
    assert not [meta for meta in copies if isinstance(meta, CopyMeta | RunMeta)]
    assert list(world.states("m").values()) == ["READY"]


def test_frames_that_come_again_after_their_records_were_freed_get_their_answers() -> None:
    world = World()
    one = world.hello()
    one.publish("q", b"a", b"b")
    got = one.receive_all("q")
    one.settle("ack", got[0])
    one.settle("ack", got[0])  # lost
    answers = [one.resend(sequence) for sequence in (1, 2, 3)]
    world.free(world.core.synced)
    one.publish("q", b"c")
    for clean in (False, True):
        world.restart(clean=clean)
        again = world.resume(one)
        again.sent = one.sent
        assert [again.resend(sequence) for sequence in (1, 2, 3)] == answers
    assert world.store.queues["q"].count() == 2


def test_forgotten_outcomes_stay_forgotten_whatever_the_order_of_their_records() -> None:
    world = World()
    one = world.hello()
    for _ in range(5):
        one.publish("q", b"x")
    world.free(3)
    one.answered_below = 5
    one.publish("q", b"y")
    world.restart(clean=False)
    (session,) = world.store.sessions.values()
    assert list(session.window) == [5, 6]
    assert session.unanswered_bytes == sum(outcome.size for outcome in session.window.values())


def test_queues_and_numbers_outlive_the_records_that_made_them() -> None:
    world = World()
    one = world.hello()
    one.set("a", lease_ms=77_000)
    one.publish("gone", b"x")
    one.publish("a", b"x")
    one.settle("reject", *one.receive_all("a"))
    upto = world.core.synced
    one.publish("a", b"y")
    one.settle("reject", *one.receive_all("a"))
    one.delete("gone", force=True)
    world.free(upto)
    assert close(everything(world), replayed(world, world.log))
    world.free(world.core.synced)
    before = everything(world)
    world.restart(clean=False)
    world.advance(1_000)
    assert close(before, everything(world))
    one = world.hello()
    assert one.publish("new", b"x")["results"][0]["origin"] == 4  # a, gone, a.dlq were before
    assert one.redrive("a.dlq")["value"] == {"redriven": 2}


def test_live_bytes_follow_what_lives() -> None:
    world, one = lived_through()
    store = world.store
    live = store.live_bytes()
    world.restart(clean=False)
    assert world.store.live_bytes() == live
    one = world.hello()
    empty = live - sum(queue.live_bytes for queue in world.store.queues.values())
    one.publish("q", b"x" * 1_000)
    assert world.store.live_bytes() > live + 1_000
    one.purge("q")
    one.purge("q.dlq")
    assert world.store.live_bytes() == pytest.approx(empty, abs=1_000)


def test_outcomes_that_are_kept_are_live() -> None:
    """A log whose bound leaves no room for them would be copied round and round, with nobody doing anything."""
    world = World()
    one = world.hello()
    for _ in range(200):
        one.publish("q", b"x")
    one.purge("q")
    world.free(world.core.synced)
    kept = sum(record.size_bytes for batch in world.log for record in batch.records)
    assert kept > 200 * 60
    assert kept <= world.store.live_bytes() <= 3 * kept


def test_the_body_of_a_copy_is_the_one_that_was_published() -> None:
    world = World()
    one = world.hello()
    one.publish("q", b"a", b"", b"ccc", b"x" * 70_000, keys=["k", "", "", "k"])
    world.free(world.core.synced)
    for _ in range(2):
        got = {m.sequence: (m.body, m.key) for m in one.receive_all("q")}
        assert got == {0: (b"a", "k"), 1: (b"", ""), 2: (b"ccc", ""), 3: (b"x" * 70_000, "k")}
        world.restart(clean=False)
        world.advance(400_000)
        one = world.hello()


def test_what_is_not_synced_is_not_taken_for_old() -> None:
    world = World(auto_sync=False)
    one = world.hello()
    one.publish("q", b"entering")
    effects = world.apply(Forward(10**9, 2**30))
    assert effects.records == []


def test_copies_begin_another_batch_where_the_segment_ends() -> None:
    """Those that do not fit would take all the others of their batch along, and leave the rest of it empty."""
    world = World(auto_sync=False)
    client = world.hello()
    for _ in range(20):
        client.publish("q", bytes(100))
    world.sync()
    command = Forward(world.core.synced, 2**30, rest_bytes=1_000)
    effects = world.core.apply(command, world.now_ms, world.unix_ms)
    (_, records, size_bytes), (_, _, more_bytes) = effects.ended
    assert 800 < size_bytes == sum(record.size_bytes for record in records) <= 1_000
    assert more_bytes > 1_000, "and there the others are"
    assert not effects.records, "what others emit would not fit"


def test_an_ack_in_the_batch_of_the_copy_ends_the_message() -> None:
    """Copy and ack stand in one batch, one behind the other: the ack is about the copy, too."""
    world = World()
    client = world.hello()
    client.publish("q", b"a", b"b")
    message, other = client.receive_all("q", 2, lease_ms=60_000)
    world.auto_sync = False
    world.apply(Forward(world.core.synced, 2**30))
    client.settle("ack", message)
    world.sync()
    kinds = [type(decode(record)).__name__ for record in world.log[-1].records]
    assert kinds.index("CopyMeta") < kinds.index("AckMeta"), "they share a batch"
    world.restart(clean=False)
    assert list(world.states("q")) == [other.id]


@pytest.mark.parametrize("why", ["key", "delay", "came back"])
def test_what_is_handed_out_in_the_middle_of_a_pass_is_copied_too(why: str) -> None:
    """It left the bucket that the pass had not come to, for a delivery that the pass had left behind."""
    world = World()
    client = world.hello()
    for n in range(200):
        client.publish("q", b"x", keys=[f"{n}" * (why == "key")], delays=[9 * (why == "delay")])
    if why == "came back":
        client.settle("release", *client.receive_all("q", 200))
    upto = world.core.synced
    world.apply(Forward(upto, 1))
    world.advance(16)
    assert world.core.clear_below <= upto
    client.receive_all("q", 100)
    world.free(upto, most_bytes=1)
    world.restart(clean=False)
    assert sorted(world.states("q").values()) == ["BEGUN"] * 100 + ["READY"] * 100


def test_what_is_handed_out_of_a_line_that_the_pass_has_not_come_to_is_copied_too() -> None:
    """It is in a delivery that was not there when the pass began."""
    world = World()
    client = world.hello()
    queues = [f"q{number}" for number in range(8)]
    for queue in queues:
        for _ in range(4):
            client.publish(queue, b"x")
    upto = world.core.synced
    world.apply(Forward(upto, 1))
    assert world.core.clear_below <= upto
    for queue in queues:
        client.receive_all(queue, 2)
    world.free(upto, most_bytes=1)
    world.restart(clean=False)
    for queue in queues:
        assert sorted(world.states(queue).values()) == ["BEGUN"] * 2 + ["READY"] * 2, queue


def test_a_short_wait_of_an_old_message_stays_short_when_the_wall_clock_went_back() -> None:
    """Its copy says what is left of the wait, not how long ago it was published."""
    world = World()
    client = world.hello()
    hour_ms = 3_600_000
    client.publish("q", b"old")
    world.advance(hour_ms)
    for _ in range(2):  # the second release waits for a second
        client.consume("q", prefetch=1)
        client.settle("release", *client.messages())
        client.cancel()
    assert list(world.states("q").values()) == ["DELAYED"]
    world.free(world.core.synced)
    world.restart(clean=False, wall_ms=-hour_ms)
    world.advance(5_000)
    assert list(world.states("q").values()) == ["READY"]
