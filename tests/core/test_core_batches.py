"""No batch is larger than a segment has room for, whatever one apply emits; answers wait for all of it."""

from __future__ import annotations

from typing import Any

import pytest
from harness import World

from minibroker.contract import limits
from minibrokerd.core.model.records import TYPE_OF, FrameMeta
from minibrokerd.log.format import max_batch_bytes
from minibrokerd.log.sizes import LARGEST, Sizes, sizes_of

SMALL = sizes_of(max_batch_bytes(64 * 1024))  # of the smallest segments that `serve` takes
FRAME = TYPE_OF[FrameMeta]


def largest_batch(world: World) -> int:
    return max(sum(record.size_bytes for record in batch.records) for batch in world.log)


def frame_records(world: World) -> int:
    return sum(record.type == FRAME for batch in world.log for record in batch.records)


@pytest.mark.parametrize("kib", [64, 128, 256, 1024, 4096, 64 * 1024])
def test_the_bounds_are_one_chain(kib: int) -> None:
    sizes = sizes_of(max_batch_bytes(kib * 1024))
    assert sizes.open_bytes + sizes.apply_bytes <= sizes.batch_bytes
    assert sizes.frame_bytes < sizes.apply_bytes
    assert sizes.message_bytes + limits.MAX_HISTORY_TEXT_BYTES < sizes.apply_bytes
    assert sizes.message_bytes + 1_024 <= sizes.frame_bytes, "a message fits into a frame"


def test_segments_of_the_default_size_take_what_the_table_says() -> None:
    assert (LARGEST.frame_bytes, LARGEST.message_bytes) == (
        limits.MAX_FRAME_BYTES,
        limits.MAX_MESSAGE_BYTES,
    )


def full_of(count: int, sizes: Sizes = SMALL, **settings: int) -> tuple[World, Any]:
    """Return a world with so many messages in a queue, and a client."""
    world = World(sizes=sizes, auto_sync=False)
    client = world.hello()
    client.set("q", **(settings or {"max_attempts": 3}))
    client.take_from("q")
    for at in range(0, count, 1_000):
        client.publish("q", *[b"x"] * min(1_000, count - at))
        world.sync()
    return world, client


@pytest.mark.parametrize("op", ["begin", "extend", "nack", "reject", "release"])
def test_a_frame_that_emits_more_than_a_batch_is_answered_when_all_of_it_is_safe(op: str) -> None:
    world, client = full_of(2_000, lease_ms=1_000)
    held = client.receive_all("q")
    world.sync()
    more: dict[str, Any] = {"lease_ms": 9_000} if op == "extend" else {}
    if op in ("nack", "reject"):
        more = {"error": ("E" * 200, "e" * 1_024)}
    if op == "begin":
        client.consume("q", prefetch=1_000)
        world.sync()
        client.begin(*client.messages())
        world.close_batch()
    else:
        answer = client.settle(op, *held, **more)
        world.close_batch()
        assert len(world.closed) > 1
        while world.closed and op != "extend":  # a renewal rests on nothing
            assert answer is None
            world.sync_one()
            answer = client.answer(sequence=client.sequence)
        assert answer["results"] == [{"lost": 0}]
    world.sync()
    assert largest_batch(world) <= SMALL.batch_bytes
    world.check()
    world.restart(clean=False)
    world.check()


def test_leases_that_end_together_and_receives_that_are_answered_together_fit() -> None:
    world, client = full_of(1_000, lease_ms=1_000)
    others = [world.hello() for _ in range(3)]
    client.receive_all("q")
    world.sync()
    for other in others:
        for _ in range(300):
            other.receive("q", wait_ms=60_000)
    world.sync()
    world.advance(5_000)
    world.sync()
    assert largest_batch(world) <= SMALL.batch_bytes
    world.check()


def test_an_ack_with_a_gap_at_every_second_message_fits_into_records() -> None:
    world, client = full_of(5_000)
    client.consume("q", prefetch=10_000)
    world.sync()
    held = client.messages()
    client.settle("ack", *held[::2])
    world.sync()
    first = held[0].run
    before = frame_records(world)
    client.settle_runs("nack", "q", [(*first[:3], 1_000)], error=("E", "e"))
    client.settle_runs("ack", "q", [message.run for message in held])
    world.sync()
    assert largest_batch(world) <= SMALL.batch_bytes
    assert frame_records(world) == before + 1, "the outcome that no segment can hold is not kept"
    world.check()


def test_a_message_of_the_size_that_the_welcome_names_is_taken_and_one_byte_more_is_not() -> None:
    world = World(sizes=SMALL)
    client = world.hello()
    most = SMALL.message_bytes
    assert client.publish("q", bytes(most))["op"] == "confirm"
    refused = client.publish("q", bytes(most + 1))
    assert (refused["op"], refused["code"]) == ("error", "too_large")
    world.check()
