"""A stream with `max_bytes`: publishes are refused before it is full; acks and copies go on and free it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from log_kinds import SEGMENT_BYTES, Hand, InStream

import minibroker
from minibrokerd.log.seam import RESERVE_SEGMENTS, Room
from minibrokerd.replicated.nats_stream import NatsStream
from minibrokerd.replicated.stream import Info
from minibrokerd.replicated.stream_address import parse
from minibrokerd.replicated.stream_settings import LEAST_BYTES, config_of, unfit
from minibrokerd.replicated.stream_space import StreamSpace
from support.broker import StartBroker

LIMIT = 12 * SEGMENT_BYTES
BODY = b"x" * 900_000


def says(size_bytes: int, most_bytes: int) -> Info:
    """Return what a server says of such a stream."""
    return Info(1, 1, size_bytes, "a", ("a",), (), most_bytes)


@pytest.mark.parametrize("most", [-1, 0])
def test_a_stream_without_a_limit_has_room(most: int) -> None:
    space = StreamSpace(SEGMENT_BYTES)
    assert space.has_room(2**40)
    space.told(says(2**40, most))
    assert space.has_room(2**40)


def test_what_is_appended_counts_until_a_server_says_more() -> None:
    space = StreamSpace(SEGMENT_BYTES)
    space.told(says(0, LIMIT))
    free = LIMIT - RESERVE_SEGMENTS * SEGMENT_BYTES
    assert space.has_room(free - 1_000)
    assert not space.has_room(free)
    space.appended(2_000)
    assert not space.has_room(free - 1_000)
    space.told(says(500, LIMIT))
    assert space.has_room(free - 2_000)


async def test_publishes_are_refused_while_the_rest_goes_on(tmp_path: Path) -> None:
    """The log in a stream that is really full at its end: what stands apart is there, and a trim gives room."""
    kind = InStream(tmp_path)
    kind.stream.most_bytes = LIMIT
    hand = Hand(kind)
    rooms: list[int] = []
    hand.recover()
    hand.log.lead(1, 1, hand._on_synced, lambda: rooms.append(1), hand._on_failed)
    await hand.append(b"first")
    while hand.log.room_for(1_000) is Room.GRANTED:
        await hand.append(bytes(1_000))
    assert sum(len(entry.body) for entry in kind.stream.entries) < LIMIT
    kept = await hand.fill(RESERVE_SEGMENTS, SEGMENT_BYTES - 1_000)  # of settlements and copies
    assert hand.synced[-1] == kept[-1]
    assert hand.log.room_for(1_000) is Room.REFUSED
    upto = hand.log.oldest_upto
    assert upto is not None
    assert not rooms
    await hand.trim(kept[0])
    assert rooms
    assert hand.log.room_for(1_000) is Room.GRANTED


def test_a_limit_that_leaves_no_room_to_copy_is_refused() -> None:
    address = parse("nats://a/orders")
    (fault,) = unfit(config_of(address) | {"max_bytes": LEAST_BYTES - 1}, address)
    assert f"max_bytes is {LEAST_BYTES - 1}" in fault
    assert not unfit(config_of(address) | {"max_bytes": LEAST_BYTES}, address)


async def filled(queue: minibroker.Queue) -> int:
    """Publish until that is refused; return how much was confirmed."""
    for count in range(LEAST_BYTES // len(BODY)):
        try:
            await queue.publish(BODY, timeout=1.0)
        except minibroker.DiskFull:
            return count
    raise AssertionError("the stream took all that it can hold")


async def test_a_full_stream_says_disk_full_and_acks_free_it(
    start_broker: StartBroker, new_stream: Callable[[], str]
) -> None:
    """With a real server: as much is published as it takes, and all of it is acked."""
    address = new_stream()
    stream = NatsStream(parse(address))
    await stream.open()
    config = config_of(parse(address)) | {"max_bytes": LEAST_BYTES}
    await stream._ask_well("STREAM.UPDATE", json.dumps(config).encode())
    await stream.close()
    server = await asyncio.to_thread(start_broker, "--log", address)
    async with minibroker.connect(server.url) as broker:
        queue = broker.queue("orders")
        count = await filled(queue)
        assert count * len(BODY) > LEAST_BYTES // 2
        left = count
        while left:
            for message in await queue.receive(10):
                await message.ack()
                left -= 1
        await queue.publish("again")
    server.kill()
    await asyncio.to_thread(server.restart)
    async with minibroker.connect(server.url) as broker:
        found = await broker.queue("orders").peek(10)
        assert [message.body for message in found] == ["again"]
