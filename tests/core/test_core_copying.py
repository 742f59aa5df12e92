"""Promises about copies: a log without the originals of what was copied tells the same story."""

from __future__ import annotations

from typing import Any

from core_client import Client
from harness import World
from hypothesis import given, settings
from hypothesis import strategies as st

from minibrokerd.core.inputs import Copy
from minibrokerd.core.records import CopyMeta, QueueMeta, ReserveMeta, decode
from minibrokerd.log.seam import Batch

KEPT = (QueueMeta, ReserveMeta)  # what says of a queue that it exists is not copied here


def without_originals(log: list[Batch], batches: int) -> list[Batch]:
    """Return a log whose first batches have lost everything but their queues."""
    old = [
        Batch(
            batch.number,
            [record for record in batch.records if isinstance(decode(record), KEPT)],
            batch.now_ms,
            batch.unix_ms,
        )
        for batch in log[:batches]
    ]
    return old + log[batches:]


def everything(world: World) -> dict[str, list[Any]]:
    """Return all that a core knows of its messages, in a form to compare."""
    world.check()
    found: dict[str, list[Any]] = {}
    for queue in world.store.queues.values():
        entries = []
        for state, item in queue.items():
            for sequence in range(item.first, item.stop):
                entries.append(describe(world, state.name, item, sequence))
        found[queue.name] = sorted(entries, key=lambda entry: entry[0])
    return found


def describe(world: World, state: str, item: Any, sequence: int) -> Any:
    """Return one message as a tuple; deadlines are in ticks."""
    names = ("attempts", "history", "dropped", "redriven", "ended_token", "started_unix_ms")
    own = [getattr(item, name, None) or None for name in names]
    own[0] = None if own[0] == (0, 0, 0) else own[0]
    lease = None
    if state == "BEGUN":
        # A deadline is copied in whole ticks, so it may come one later.
        lease = (item.token, item.lease_ms, item.delivery.session, item.timer.tick)
    block = item.block
    return (
        (block.origin, sequence, state, item.key, item.marked, item.releases, item.ready_at_ms),
        (block.epoch, block.unix_ms, block.durability, block.encoding_of(sequence), own),
        lease,
    )


def ids_of(world: World) -> list[tuple[int, int]]:
    return [id for name in world.store.queues for id in world.states(name)]


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


def test_a_log_of_copies_alone_replays_to_the_same_state() -> None:
    world, _ = lived_through()
    before = len(world.log)
    world.apply(Copy(ids_of(world)))
    copies = [r for batch in world.log[before:] for r in batch.records]
    assert {type(decode(record)) for record in copies} == {CopyMeta}
    full, log = world.log, without_originals(world.log, before)
    for wall_ms in (0, 10_000, 10**8, -(10**6)):
        states = []
        for each in (full[:before], full, log):
            other = World()
            other.log, other.unix_ms, other.epoch = list(each), world.unix_ms, world.epoch
            other.restart(clean=False, wall_ms=wall_ms)
            states.append(everything(other))
        assert states[1] == states[2]
        # After a step back the originals would wait again for a delay that was over; a copy knows better.
        assert wall_ms < 0 or close(states[0], states[2])


def close(first: dict[str, list[Any]], second: dict[str, list[Any]]) -> bool:
    """Whether two states differ by nothing but a tick in a deadline."""
    for name in first.keys() | second.keys():
        for a, b in zip(first[name], second[name], strict=True):
            leases = (a[2][:3], b[2][:3]) if a[2] and b[2] else (a[2], b[2])
            same_lease = leases[0] == leases[1] and (not a[2] or abs(a[2][3] - b[2][3]) <= 2)
            assert a[0] == b[0], (a, b)
            assert a[1] == b[1], (a, b)
            assert same_lease, (a, b)
    return True


def test_what_happens_after_a_copy_happens_to_the_copy() -> None:
    world, one = lived_through()
    before = len(world.log)
    world.apply(Copy(ids_of(world)))
    more = one.receive_all("q", 4)
    one.settle("ack", more[0])
    one.settle("nack", more[1], delay_ms=5)
    one.settle("reject", more[2], error=("E", "e"))
    one.purge("q.dlq")
    world.advance(100)
    full = list(world.log)
    world.restart(clean=False)
    expected = everything(world)
    world.log, world.epoch = without_originals(full, before), world.epoch - 1
    world.restart(clean=False)
    assert close(expected, everything(world))
    assert sorted(world.states("q").values()).count("BEGUN") > 1


def test_only_what_still_lives_is_copied() -> None:
    world, one = lived_through()
    ids = [(1, sequence) for sequence in range(20)]
    live = ids_of(world)
    records = len(world.log)
    world.apply(Copy([*ids, (77, 1)]))
    copied = [decode(r) for batch in world.log[records:] for r in batch.records]
    assert sorted((m.origin, m.sequence) for m in copied if isinstance(m, CopyMeta)) == sorted(live)
    one.purge("q")
    one.purge("q.dlq")
    records = len(world.log)
    world.apply(Copy(ids))
    assert len(world.log) == records


def test_a_message_on_its_way_in_is_copied_too_and_memory_is_not() -> None:
    world = World(auto_sync=False)
    one = world.hello()
    one.publish("q", b"entering", b"too")
    effects = world.apply(Copy([(1, 1)]))
    assert [decode(r).sequence for r in effects.records] == [1]  # type: ignore[attr-defined]
    one.set("m", durability="memory")
    one.publish("m", b"gone")
    assert world.apply(Copy([(2, 0)])).records == []


def test_the_body_of_a_copy_is_the_one_that_was_published() -> None:
    world = World()
    one = world.hello()
    one.publish("q", b"a", b"", b"ccc", b"x" * 70_000, keys=["k", "", "", "k"])
    before = len(world.log)
    world.apply(Copy([(1, 0), (1, 1), (1, 2), (1, 3)]))
    world.log = without_originals(world.log, before)
    world.restart()
    got = {m.sequence: (m.body, m.key) for m in world.hello().receive_all("q")}
    assert got == {0: (b"a", "k"), 1: (b"", ""), 2: (b"ccc", ""), 3: (b"x" * 70_000, "k")}


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 13), max_size=14), st.integers(0, 3))
def test_any_part_copied_any_number_of_times_adds_nothing(some: list[int], times: int) -> None:
    world, _ = lived_through()
    expected = everything(world)
    for _ in range(times):
        world.apply(Copy([(1, sequence) for sequence in some]))
    assert everything(world) == expected
    copied = list(world.log)
    world.restart()
    states = [everything(world)]
    other = World()
    other.log = [
        Batch(
            b.number,
            [r for r in b.records if not isinstance(decode(r), CopyMeta)],
            b.now_ms,
            b.unix_ms,
        )
        for b in copied
    ]
    other.unix_ms, other.epoch = world.unix_ms, world.epoch - 1
    other.restart()
    states.append(everything(other))
    assert close(*states)
