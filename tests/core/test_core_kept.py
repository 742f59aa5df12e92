"""What is kept beside messages: one record, and one rule each for replay, digest, copying, memory and expiry."""

from __future__ import annotations

from typing import Any

import pytest
from harness import World

from minibrokerd.core.model import kept
from minibrokerd.core.model.kept import BUCKET_MS, ENDED, ENTRY_BYTES, KINDS, STEP_ENTRIES, Kind
from minibrokerd.core.model.records import StateMeta, UnknownRecord, record
from minibrokerd.log.seam import Batch, Digested

DEDUPE = Kind(99, "dedupe id", (int, str), (int,))
HOUR_MS = 3_600_000


@pytest.fixture(autouse=True)
def row(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kind more is a row more."""
    monkeypatch.setattr(kept, "KINDS", {**KINDS, DEDUPE.number: DEDUPE})


class Kept:
    """The entries of a world, and a client whose publishes make batches."""

    def __init__(self, **options: Any) -> None:
        self.world = World(**options)
        self.client = self.world.hello()

    def put(self, name: str, value: int, after_ms: int = 0) -> None:
        """Put an entry, in a batch of its own."""
        store = self.world.store
        expires = self.world.unix_ms + after_ms if after_ms else 0
        store.kept.put(store, DEDUPE, (1, name), (value,), expires)
        self.take()

    def end(self, name: str) -> None:
        """End an entry."""
        store = self.world.store
        store.kept.end(store, DEDUPE, (1, name))
        self.take()

    def take(self) -> None:
        """Let the records of a change go where those of an apply go."""
        effects = self.world.store.effects
        self.world.open += effects.records
        effects.records = []
        self.world.sync()

    def get(self, name: str) -> int | None:
        """Return the value of an entry."""
        value = self.world.store.kept.get(self.world.store, DEDUPE, (1, name))
        return None if value is None else int(value[0])

    def look(self) -> dict[str, int | None]:
        """Return all that stand, by name."""
        return {str(entry.key[1]): self.get(str(entry.key[1])) for entry in self.world.store.kept}

    def restart(self, *, digests: bool) -> None:
        """Crash, and start from the log, or from digests of its segments."""
        self.world.digests = digests
        self.world.restart(clean=False)


@pytest.mark.parametrize("digests", [False, True])
@pytest.mark.parametrize("segment_batches", [1, 2, 3, 100])
def test_the_last_record_of_a_key_stands_after_a_start(segment_batches: int, digests: bool) -> None:
    entries = Kept(segment_batches=segment_batches)
    entries.put("a", 1)
    entries.put("b", 2)
    entries.put("a", 3)
    entries.put("c", 4)
    entries.end("b")
    entries.end("never")
    for value in range(4):
        entries.put("d", value)
    assert entries.look() == {"a": 3, "c": 4, "d": 3}
    entries.restart(digests=digests)
    assert entries.look() == {"a": 3, "c": 4, "d": 3}
    entries.put("b", 5)
    entries.restart(digests=digests)
    assert entries.look() == {"a": 3, "b": 5, "c": 4, "d": 3}


def test_a_digest_has_the_last_record_of_a_key_alone() -> None:
    entries = Kept(segment_batches=100)
    for value in range(150):
        entries.put("a", value)
    (first, *_) = entries.world._digested()
    assert isinstance(first, Digested)
    assert len(first.payload) < 100
    entries.restart(digests=True)
    assert entries.look() == {"a": 149}


@pytest.mark.parametrize("digests", [False, True])
def test_what_stands_is_copied_once_for_each_segment_that_goes_and_what_ended_is_not(
    digests: bool,
) -> None:
    entries = Kept()
    entries.put("stays", 1)
    entries.put("ends", 2)
    entries.put("over", 3, after_ms=1_000)
    entries.end("ends")
    world = entries.world
    world.advance(2 * BUCKET_MS)
    for _ in range(3):
        upto = world.core.synced
        world.free(upto)
        copies = [each for batch in world.log for each in batch.records]
        states = [each.says for each in copies if isinstance(each.says, StateMeta)]
        assert [(each.key, each.value) for each in states] == [((1, "stays"), (1,))]
    entries.restart(digests=digests)
    assert entries.look() == {"stays": 1}


def test_what_is_newer_than_a_pass_is_not_copied_by_it() -> None:
    entries = Kept()
    entries.put("old", 1)
    upto = entries.world.core.synced
    entries.put("new", 2)
    number = entries.world.log[-1].number
    entries.world.free(upto)
    batches = [
        batch.number
        for batch in entries.world.log
        for each in batch.records
        if isinstance(each.says, StateMeta) and each.says.key == (1, "new")
    ]
    assert batches == [number]
    entries.world.free(number)
    entries.restart(digests=False)
    assert entries.look() == {"new": 2, "old": 1}


def test_an_entry_ends_to_the_millisecond_and_leaves_memory_within_its_bucket() -> None:
    entries = Kept()
    world = entries.world
    entries.put("a", 1, after_ms=10_000)
    entries.put("b", 1, after_ms=HOUR_MS)
    world.advance(9_999)
    assert entries.get("a") == 1
    world.advance(1)
    world.run_job()
    assert entries.get("a") is None
    world.advance(2 * BUCKET_MS)
    assert list(entries.look()) == ["b"]
    world.advance(HOUR_MS)
    assert (list(entries.look()), world.store.sums.kept_bytes) == ([], 0)
    assert world.store.sums.kept_log_bytes == 0


@pytest.mark.parametrize("digests", [False, True])
def test_the_end_is_the_same_over_a_restart(digests: bool) -> None:
    entries = Kept()
    entries.put("a", 1, after_ms=10_000)
    entries.put("b", 1, after_ms=30_000)
    entries.world.digests = digests
    entries.world.restart(clean=False, wall_ms=20_000)
    assert entries.look() == {"b": 1}
    entries.world.advance(10_000 + 2 * BUCKET_MS)
    assert entries.look() == {}


def test_a_clock_that_is_set_back_lets_an_entry_live_as_long_as_it_says() -> None:
    entries = Kept()
    entries.put("a", 1, after_ms=10_000)
    entries.world.advance(60_000, wall_ms=-HOUR_MS)
    assert entries.get("a") == 1
    entries.world.advance(HOUR_MS + 60_000)
    assert entries.look() == {}


def test_a_value_that_is_put_anew_has_the_end_of_the_new_one() -> None:
    entries = Kept()
    entries.put("a", 1, after_ms=10_000)
    entries.put("a", 2, after_ms=HOUR_MS)
    entries.world.advance(60_000)
    assert entries.get("a") == 2
    entries.put("a", 3)
    entries.world.advance(2 * HOUR_MS)
    assert entries.get("a") == 3


def test_many_that_end_together_leave_in_steps() -> None:
    entries = Kept()
    store = entries.world.store
    many = 3 * STEP_ENTRIES + 1
    for number in range(many):
        store.kept.put(
            store, DEDUPE, (1, str(number)), (1,), entries.world.unix_ms + 1, logged=False
        )
    timers = store.wheel.next_deadline_ms()
    assert timers is not None
    entries.world.now_ms += 2 * BUCKET_MS
    entries.world.unix_ms += 2 * BUCKET_MS
    entries.world.run_job()
    left = []
    while store.jobs:
        left.append(len(entries.look()))
        entries.world.run_job()
    assert left == [many - STEP_ENTRIES * step for step in range(1, 4)]
    assert entries.look() == {}


def test_memory_is_counted_with_the_bytes_of_key_and_value() -> None:
    entries = Kept()
    core, store = entries.world.core, entries.world.store
    before, live = core.memory_bytes(), core.live_bytes()
    entries.put("x" * 1_000, 1)
    assert core.memory_bytes() - before == ENTRY_BYTES + 1_000 + 2 * 8
    assert core.live_bytes() - live == ENTRY_BYTES + 1_000 + 2 * 8
    entries.put("x" * 1_000, 2)
    assert core.memory_bytes() - before == ENTRY_BYTES + 1_000 + 2 * 8
    entries.end("x" * 1_000)
    assert (core.memory_bytes(), core.live_bytes(), store.sums.kept_bytes) == (before, live, 0)


def test_what_no_record_has_is_gone_after_a_start_and_has_no_end_in_the_log() -> None:
    entries = Kept()
    store = entries.world.store
    store.kept.put(store, DEDUPE, (1, "a"), (1,), logged=False)
    assert entries.get("a") == 1
    entries.end("a")
    states = [each for batch in entries.world.log for each in batch.records]
    assert not [each for each in states if isinstance(each.says, StateMeta)]


def test_of_a_bounded_kind_the_oldest_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    few = Kind(98, "few", (int,), (int,), most=2)
    monkeypatch.setattr(kept, "KINDS", {few.number: few})
    store = World().store
    for number in (1, 2, 1, 3):
        store.kept.put(store, few, (number,), (0,))
    assert [entry.key for entry in store.kept] == [(1,), (3,)]


@pytest.mark.parametrize(
    "meta",
    [
        StateMeta(77, (1,), (1,), 0),
        StateMeta(ENDED.number, ("1",), (1, 1), 0),
        StateMeta(ENDED.number, (1, 1), (1, 1), 0),
        StateMeta(ENDED.number, (1,), (1,), 0),
        StateMeta(ENDED.number, (1,), (b"1", 1), 0),
    ],
)
def test_what_a_kind_does_not_have_stops_a_start(meta: StateMeta) -> None:
    world = World()
    world.log.append(Batch(len(world.log) + 1, [record(meta)], 1, 1))
    with pytest.raises(UnknownRecord):
        world.restart()
