"""Promises about what is read back to be written again: copies fill segments, and are no larger than it was."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from core_client import Client
from harness import World

from minibrokerd.core.durable import paging
from minibrokerd.core.model.inputs import Loaded
from minibrokerd.core.model.records import (
    CopyPartMeta,
    CopyRunMeta,
    CopySomeMeta,
    PublishMeta,
    decode,
)
from minibrokerd.core.model.sums import Sums
from minibrokerd.log.seam import Record

KIB = 1024


@pytest.fixture(autouse=True)
def _small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let all but the first publish leave memory."""
    monkeypatch.setattr(paging, "AHEAD_MESSAGES", 1)
    monkeypatch.setattr(Sums, "large_bytes", 0)


def frozen(count: int, body_bytes: int, **fields: Any) -> tuple[World, Client, list[bytes]]:
    """Return a world with two publishes in a queue. The second one, with these bodies, has left memory."""
    world = World(segment_batches=100)
    client = world.hello()
    client.publish("q", b"first")
    bodies = [b"%03d" % number + bytes(body_bytes - 3) for number in range(count)]
    client.publish("q", *bodies, **fields)
    world.freeze()
    assert [run.left for run in world.queue("q").group.lanes.default.cold] == [count]
    return world, client, bodies


def write_again(world: World, rest_bytes: int) -> list[list[Record]]:
    """Have what is cold written again in a segment with so many bytes left; return the batches of that."""
    lanes = world.queue("q").group.lanes.foremost
    upto, first = world.core.synced, len(world.log)
    paging.ask(world.store, world.queue("q"), lanes, lanes.default.cold[0], 2**20)
    (asked,) = world.store.effects.reads
    world.store.effects.reads = ()
    loaded = Loaded(asked, world._read(asked))
    loaded.rest_bytes = rest_bytes
    world.apply(loaded)
    world.sync()
    batches = [batch.records for batch in world.log[first:]]
    world.free(upto)
    return batches


def counts_of(records: Sequence[Record]) -> list[int]:
    """Return how many messages each of these copies of runs has."""
    metas = [decode(record) for record in records]
    return [meta.count for meta in metas if isinstance(meta, CopyRunMeta)]


def found_by_starts(world: World, bodies: list[bytes]) -> None:
    """These are there, and after each kind of start, too."""
    for digests in (None, False, True):
        if digests is not None:
            world.digests = digests
            world.restart(clean=False)
        world.check()
        world.freeze()
        world.thaw()
        assert len(world.states("q")) == len(bodies)
    client = world.hello()
    got = client.receive_all("q", 1_000) + client.receive_all("q", 1_000)
    assert [message.body for message in got] == bodies


def test_what_does_not_fit_into_the_segment_goes_on_in_the_next_one() -> None:
    """What stays empty in each segment is what a pass over a full disk costs, and a start has most of it cold."""
    world, _, bodies = frozen(100, 100)
    first, second = write_again(world, 4 * KIB)
    assert 3 * KIB < sum(record.size_bytes for record in first) <= 4 * KIB
    assert second
    found_by_starts(world, [b"first", *bodies])


@pytest.mark.parametrize("shape", ["plain", "encodings"])
def test_what_ended_in_the_middle_of_it_leaves_one_record(shape: str) -> None:
    """Ten bytes that end between others free less than the head of a record takes."""
    fields = {"encodings": [n % 2 for n in range(200)]} if shape == "encodings" else {}
    world, client, bodies = frozen(200, 10, **fields)
    published = max(
        record.size_bytes
        for batch in world.log
        for record in batch.records
        if isinstance(decode(record), PublishMeta)
    )
    client.cancel_messages("q", *list(world.states("q"))[1::2])
    ((copy,),) = write_again(world, 64 * KIB)
    assert isinstance(decode(copy), CopySomeMeta)
    assert copy.size_bytes <= published
    # And once more, out of that record, and in two.
    client.cancel_messages("q", *list(world.states("q"))[1::3])
    living = [bodies[number] for number in range(1, 200, 2) if number // 2 % 3]
    world.freeze()
    front, rest = write_again(world, 1 * KIB)
    assert all(isinstance(decode(record), CopySomeMeta) for record in (*front, *rest))
    found_by_starts(world, [b"first", *living])


def test_what_is_far_apart_is_written_alone() -> None:
    """What ended between two messages would cost more than a record of its own."""
    world, client, bodies = frozen(200, 10)
    client.cancel_messages("q", *list(world.states("q"))[2:200])
    ((first, last),) = write_again(world, 64 * KIB)
    assert first.size_bytes + last.size_bytes < 300
    found_by_starts(world, [b"first", bodies[0], bodies[-1]])


@pytest.mark.parametrize("digests", [False, True])
def test_what_was_copied_in_pieces_is_read_back_as_the_one_that_it_is_after_a_start(
    digests: bool,
) -> None:
    """A record of a kind that nobody expected there was taken for damaged, and its messages were set aside."""
    world = World(segment_batches=100)
    client = world.hello()
    bodies = [b"%d" % number for number in range(6)]
    client.publish("q", b"first")
    client.publish("q", *bodies)
    for number in range(4):
        client.consume("q", 2, number)
    world.free(world.core.synced)
    kinds = [type(decode(record)) for batch in world.log for record in batch.records]
    assert CopyPartMeta in kinds
    world.digests = digests
    world.restart(clean=False)
    world.freeze()
    assert [run.left for run in world.queue("q").group.lanes.default.cold] == [len(bodies)]
    found_by_starts(world, [b"first", *bodies])


def test_what_was_written_in_two_is_one_record_again() -> None:
    """Were it not, each pass over a full disk would leave as many records more as there are segments."""
    world, _, bodies = frozen(100, 100)
    front, rest = write_again(world, 4 * KIB)
    assert len(front) == len(rest) == 1
    world.free(world.core.synced)
    copies = [record for batch in world.log for record in batch.records if record.tail]
    assert counts_of([record for record in copies if record.size_bytes > KIB]) == [100]
    found_by_starts(world, [b"first", *bodies])


def test_a_step_reads_one_frame_more_than_it_may_write() -> None:
    """It is written, too, if it is of the same publish: else each step would leave a publish in two."""
    world = World(segment_batches=100, auto_sync=False)
    client = world.hello()
    for count in (1, 600, 600):
        client.publish("q", *[bytes(10)] * count)
    world.sync()
    world.freeze()
    lanes = world.queue("q").group.lanes.foremost
    paging.ask(world.store, world.queue("q"), lanes, lanes.default.cold[0], 1)
    (asked,) = world.store.effects.reads
    assert asked.high == 2
    effects = world.core.apply(Loaded(asked, world._read(asked)), world.now_ms, world.unix_ms)
    assert counts_of(effects.records) == [600]


def test_what_goes_into_one_record_is_no_more_than_a_frame_and_was_published_at_once() -> None:
    world = World(segment_batches=100)
    client = world.hello()
    client.publish("q", b"first")
    for count in (600, 600, 10):
        client.publish("q", *[bytes(10)] * count)
    world.advance(5)
    client.publish("q", *[bytes(10)] * 20)
    world.freeze()
    ((*copies,),) = write_again(world, 64 * KIB)
    assert counts_of(copies) == [600, 610, 20]
    found_by_starts(world, [b"first", *[bytes(10)] * 1_230])
