"""Promises about messages that left memory: they come back as they were, once, and only if they verify."""

from __future__ import annotations

import pytest
from core_client import Client
from harness import World

from minibroker.contract import wire
from minibrokerd.core.durable import paging
from minibrokerd.core.model.inputs import Forward, Loaded
from minibrokerd.core.model.records import DamagedMeta, decode
from minibrokerd.core.model.sums import Sums
from minibrokerd.log.sizes import LARGEST

MESSAGES = 12


@pytest.fixture(autouse=True)
def _small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a handful of messages leave memory."""
    monkeypatch.setattr(paging, "AHEAD_MESSAGES", 2)
    monkeypatch.setattr(Sums, "large_bytes", 0)


def frozen() -> tuple[World, Client]:
    """Return a world in which all but the first messages of q have left memory."""
    world = World(segment_batches=100)
    client = world.hello()
    for number in range(MESSAGES):
        client.publish("q", b"%d" % number)
    world.freeze()
    assert world.queue("q").group.lanes.default.cold
    return world, client


def drained(client: Client) -> list[bytes]:
    """Receive and acknowledge everything; return the bodies."""
    bodies = []
    while got := client.receive_all("q", 2):
        bodies += [message.body for message in got]
        client.settle("ack", *got)
    return bodies


def test_what_left_memory_comes_back_in_its_order() -> None:
    _, client = frozen()
    assert drained(client) == [b"%d" % number for number in range(MESSAGES)]


@pytest.mark.parametrize("verb", ["cancel_messages", "purge", "overflow"])
def test_places_of_messages_that_all_ended_are_neither_in_line_nor_read(
    verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, client = frozen()
    reads: list[object] = []
    monkeypatch.setattr(world, "_load", reads.append)
    lanes = world.queue("q").group.lanes
    ids = list(world.states("q"))
    if verb == "overflow":
        client.set("q", max_messages=MESSAGES, overflow="drop-oldest")
        client.publish("q", *[b"x"] * MESSAGES, priority=9)
    else:
        part = {"op": verb, "queue": "q", "runs": len(ids)}
        client.request(part, wire.pack_runs((0, *id, 1) for id in ids))
        world.run_jobs()
    level = lanes.levels[-1] if verb == "overflow" else lanes
    assert (list(level.default.cold), level.turns, level.oldest_ms(10)) == ([], 0, None)
    assert reads == []
    world.check()


def test_what_left_the_middle_of_a_run_gives_way_in_its_turn() -> None:
    """It was the last one to go: all the rest of the run went before it."""
    world, client = frozen()
    ids = sorted(world.states("q"))
    client.retime("q", ids[-2], 1_000)
    world.run_jobs()
    client.set("q", max_messages=MESSAGES, overflow="drop-oldest")
    client.publish("q", *[b"x"] * (MESSAGES - 1))
    assert sorted(world.states("q"))[0] == ids[-1]


def test_the_rest_of_a_run_begins_behind_what_stands_in_front_of_it() -> None:
    """A frame that was split is in both; runs in line are searched by where they begin."""
    world = World()
    client = world.hello()
    for _ in range(4):
        client.publish("q", b"0", b"1", b"2")
    world.freeze()
    lane = world.queue("q").group.lanes.default
    run = lane.cold[0]
    first, stop = run.start, run.stop
    lane.cold.insert(1, run.split(first + 2))
    assert [each.start for each in lane.cold][:2] == [first, first + 2]
    for sequence in range(first, stop):
        assert lane.run_of(sequence) is lane.cold[sequence >= first + 2]


def test_copies_of_what_is_cold_are_not_read_before_they_are_safe() -> None:
    """A place is known once the record is; until then a queue waits with what is ready."""
    world, client = frozen()
    world.auto_sync = False
    cold = world.queue("q").group.lanes.default.cold
    while not any(run.batch > world.core.synced for run in cold):
        world.apply(Forward(world.core.synced, 2**30))
    for _ in range(MESSAGES):
        client.receive("q", 1, 60_000)  # whatever is in memory before the copies goes
    world.check()
    world.sync()
    world.auto_sync = True
    world.restart(clean=False)
    assert len(world.states("q")) == MESSAGES, "nothing was acked, and nothing is lost"


def spoil_second_cold(world: World) -> bytes:
    """Have the second frame that is read back not verify; return its body."""
    asked_for: list[object] = []
    apply = world.core.apply

    def spoilt(command: object, now_ms: int, unix_ms: int) -> object:
        if isinstance(command, Loaded) and not asked_for and len(command.records) > 1:
            asked_for.append(command)
            records = list(command.records)
            records[1] = None
            command = Loaded(command.asked, records)
        return apply(command, now_ms, unix_ms)  # type: ignore[arg-type]

    world.core.apply = spoilt  # type: ignore[method-assign, assignment]
    return b"%d" % 3


def test_a_frame_that_does_not_verify_is_set_aside_once_and_for_all() -> None:
    """The others are delivered, the queue says how many are missing, and no start asks for them again."""
    world, client = frozen()
    missing = spoil_second_cold(world)
    bodies = drained(client)
    assert bodies == [b"%d" % n for n in range(MESSAGES) if b"%d" % n != missing]
    assert client.stats("q")["damaged"] == 1
    says = [decode(record) for batch in world.log for record in batch.records]
    assert len([meta for meta in says if isinstance(meta, DamagedMeta)]) == 1
    world.restart(clean=False)
    assert world.states("q") == {}


def test_what_was_copied_is_read_where_its_copy_stands() -> None:
    """The first place is freed with its segment."""
    world, client = frozen()
    while world.core.synced < world.segment_batches:
        client.publish("r", b"")  # so that the copies stand in another segment
    world.free(world.core.synced)
    assert {segment for segment, _ in world.records} == {2}
    assert world.queue("q").group.lanes.default.cold, "nothing came back for the copy"
    assert drained(client) == [b"%d" % number for number in range(MESSAGES)]
    world.check()


def test_copies_that_fill_several_batches_are_read_where_each_stands() -> None:
    """Two batches may stand in two segments, and a run is read out of one."""
    world = World(segment_batches=MESSAGES)  # all of them are read in one go
    client = world.hello()
    bodies = [b"%02d" % number * 100 for number in range(MESSAGES)]
    for body in bodies:
        client.publish("q", body)
    world.freeze()
    while world.core.synced % world.segment_batches:
        client.publish("r", b"")
    world.segment_batches = 1
    world.store.sizes = world.store.sizes._replace(apply_bytes=1_000)
    world.free(world.core.synced)
    world.store.sizes = LARGEST
    assert len({segment for segment, _ in world.records}) > 2, "one batch had all copies"
    assert drained(client) == bodies
    world.check()
