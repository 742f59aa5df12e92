"""Promises about messages that left memory: they come back as they were, or are set aside and counted."""

from __future__ import annotations

import pytest
from harness import World

from minibrokerd.bodies.memory_extents import MemoryExtent
from minibrokerd.bodies.shelves import pack_place, stands
from minibrokerd.bodies.store import BodyStore
from minibrokerd.core.durable import paging
from minibrokerd.core.model.cold import ColdRun
from minibrokerd.core.model.effects import Effects, ReadBack
from minibrokerd.core.model.inputs import Command, Loaded
from minibrokerd.core.model.messages import Span
from minibrokerd.core.model.records import DamagedMeta, decode
from minibrokerd.core.model.sums import Sums
from minibrokerd.log.seam import Place, Record


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two messages of a queue stay in memory, and all others may leave it."""
    monkeypatch.setattr(paging, "AHEAD_MESSAGES", 2)
    monkeypatch.setattr(Sums, "large_bytes", 0)


def frozen(count: int) -> World:
    """Return a world whose messages left memory but for the first two."""
    world = World(segment_batches=100)
    client = world.hello()
    for number in range(count):
        client.publish("q", b"%d" % number)
    world.freeze()
    assert sum(run.left for run in world.queue("q").group.lanes.default.cold) == count - 2
    return world


def read_back(world: World) -> tuple[ReadBack, list[Record | None]]:
    """Return what a core asks for that wants its first cold messages, and what the log has there."""
    queue = world.queue("q")
    lanes = queue.group.lanes.foremost
    paging.ask(world.store, queue, lanes, lanes.default.cold[0])
    (asked,) = world.store.effects.reads
    return asked, world._read(asked)


def test_what_left_memory_comes_back_in_order_with_its_bodies() -> None:
    world = frozen(9)
    client = world.hello()
    client.consume("q", prefetch=1)
    got: list[bytes] = []
    while len(got) < 9:
        (message,) = client.messages()
        got.append(message.body)
        client.settle("ack", message)
    assert got == [b"%d" % number for number in range(9)]
    world.check()


@pytest.mark.parametrize("spoil", ["missing", "type", "meta"])
def test_a_frame_that_cannot_be_read_back_is_set_aside_alone(spoil: str) -> None:
    world = frozen(6)
    queue = world.queue("q")
    asked, records = read_back(world)
    good = records[1]
    assert good is not None
    spoilt = {
        "missing": None,
        "type": Record(8, good.meta, good.tail),
        "meta": Record(good.type, b"\x90", good.tail),
    }
    records[1] = spoilt[spoil]
    effects = world.core.apply(Loaded(asked, records), world.now_ms, world.unix_ms)
    (said,) = map(decode, effects.records)
    assert isinstance(said, DamagedMeta)
    assert (said.first, said.count, said.segment, said.offset) == (3, 1, 1, stands(asked)[1][1])
    assert queue.group.counters["damaged"] == 1
    world._route(effects)
    world.sync()
    assert sorted(world.states("q")) == [(1, n) for n in (0, 1, 2, 4, 5)]
    world.check()
    world.restart(clean=False)
    assert sorted(world.states("q")) == [(1, n) for n in (0, 1, 2, 4, 5)]


def test_a_place_that_names_another_record_stops_everything() -> None:
    """To go on would be to guess: memory or log are not to be trusted."""
    world = frozen(6)
    asked, records = read_back(world)
    records[0], records[1] = records[1], records[0]
    with pytest.raises(paging.WrongRecord):
        world.core.apply(Loaded(asked, records), world.now_ms, world.unix_ms)


def test_what_is_read_for_a_queue_that_was_purged_meanwhile_is_dropped() -> None:
    world = frozen(6)
    asked, records = read_back(world)
    world.hello().purge("q")
    world.run_jobs()
    world.apply(Loaded(asked, records))
    assert world.states("q") == {}
    world.check()


def test_a_queue_whose_last_cold_message_was_set_aside_goes_on() -> None:
    """Its lane has nothing left: it must leave the turn, or it stands there twice with the next message."""
    world = frozen(3)
    client = world.hello()
    queue = world.queue("q")
    asked, _ = read_back(world)
    client.settle("ack", *client.receive_all("q"))
    world.apply(Loaded(asked, [None]))
    assert (queue.group.counters["damaged"], queue.group.lanes.ready) == (1, 0)
    client.publish("q", b"plain")
    assert [message.body for message in client.receive_all("q")] == [b"plain"]
    client.publish("q", b"keyed", key="k")
    assert [message.body for message in client.receive_all("q")] == [b"keyed"]
    world.check()


def test_a_run_is_read_in_the_order_of_the_file() -> None:
    """What had come back to its queue may be copied behind a later message."""

    def stored(segment: int, offset: int) -> MemoryExtent:
        extent = BodyStore().nothing
        extent.placed(pack_place(Place(segment, offset)))
        return extent

    run = ColdRun(1, BodyStore().shelf(), 3, 147, 0)
    run.shelf.append(stored(7, 3_381))
    run.append(1, 100)
    assert not run.joins(148, stored(7, 3_249))
    assert not run.joins(148, stored(8, 3_500))
    assert not run.joins(149, stored(7, 3_500))
    assert run.joins(148, stored(7, 3_500))


def test_after_a_start_what_was_delayed_stands_where_its_delay_ended() -> None:
    """In front of the others, where it was published, it would hold up what had left memory, but nothing else."""
    world = World()
    client = world.hello()
    client.publish("q", b"delayed", delay_ms=1_000)
    for number in range(5):
        client.publish("q", b"%d" % number)
    world.advance(1_000)
    world.restart()
    lane = world.queue("q").group.lanes.default
    assert [(span.first, span.stop) for span in lane.fresh] == [(n, n + 1) for n in range(1, 6)]
    assert [entry[2] for entry in lane.returned] == [0]


def test_what_enters_behind_cold_messages_that_are_ready_later_takes_its_own_place() -> None:
    world = frozen(9)
    lane = world.queue("q").group.lanes.default
    lane.close_up()
    lane.late.clear()
    lane.cold[-1].ready_at_ms = 500
    span = Span(lane.fresh[0].block, 50, 51, "", 400)
    lane.enter(span)
    assert [entry[3] for entry in lane.returned] == [span]


def test_cold_messages_are_written_again_in_steps_of_about_the_size_that_was_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A batch must fit into a segment: what one read brings back had gone into one, however small that was."""
    world = frozen(400)
    sizes: list[int] = []
    apply = world.core.apply

    def watched(command: Command, now_ms: int, unix_ms: int) -> Effects:
        effects = apply(command, now_ms, unix_ms)
        if isinstance(command, Loaded):
            sizes.append(sum(record.size_bytes for record in effects.records))
        return effects

    monkeypatch.setattr(world.core, "apply", watched)
    world.free(300, most_bytes=2_000)
    assert len(sizes) > 10
    assert max(sizes) <= 2_500
    world.check()
