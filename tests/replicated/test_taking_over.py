"""What a start says when the stream does not let it lead; on the simulated stream, in the loop of its thread."""

from __future__ import annotations

import asyncio
from functools import partial
from random import Random

import pytest
from sim_stream import NO_FAULTS, Connection, Faults, SimStream

from minibrokerd.log.format import Kind
from minibrokerd.log.log_versions import FORMAT_VERSION
from minibrokerd.log.seam import Record
from minibrokerd.replicated.entries import Statement, encoded, new_owner
from minibrokerd.replicated.failures import DamagedStream, StreamUnreachable
from minibrokerd.replicated.history import History
from minibrokerd.replicated.leading import Fence
from minibrokerd.replicated.stream import Stream
from minibrokerd.replicated.taking_over import TakeOver

BATCH = partial(
    encoded, store_id=bytes(16), owner=new_owner("a test"), epoch=1, now_ms=1, unix_ms=1
)


def take_over(stream: SimStream) -> TakeOver:
    """Return a take-over of a stream that ticks whenever somebody waits."""

    async def turn() -> None:
        stream.tick()
        await asyncio.sleep(0)

    async def pause(seconds: float) -> None:
        await turn()

    async def open_stream() -> Connection:
        return stream.connect(turn)

    def make_fence(connection: Stream) -> Fence:
        return Fence(connection, lambda entry: False, pause)

    says = Statement(FORMAT_VERSION, 1, bytes(32), "a test")
    (claim,) = BATCH([says.record()], Kind.SEGMENT, number=0)
    return TakeOver(History("a stream"), open_stream, make_fence, lambda: claim, 0.2)


def test_a_stream_that_stores_nothing_is_given_up_with_the_reason() -> None:
    stream = SimStream(Random(1), Faults(lost=1))
    with pytest.raises(StreamUnreachable, match=r"nothing is stored there .*see that most servers"):
        list(take_over(stream).batches())
    assert stream.entries == []


def test_what_is_no_batch_is_damage_and_says_where() -> None:
    stream = SimStream(Random(1), NO_FAULTS)
    stream.send([b"from somebody else"], 0, 1, is_epoch=False)
    for _ in range(20):
        stream.tick()
    with pytest.raises(DamagedStream, match="at entry 1: no batch begins there"):
        list(take_over(stream).batches())


def test_a_stream_whose_head_was_purged_by_somebody_is_damage() -> None:
    """The newest checkpoint says where the log starts; without one it is the first entry."""
    stream = SimStream(Random(1), NO_FAULTS)
    for number in range(1, 4):
        stream.send(
            BATCH([Record(2, b"x")], Kind.DATA, number=number), number - 1, 1, is_epoch=False
        )
        for _ in range(20):
            stream.tick()
    stream.purge(3)
    with pytest.raises(DamagedStream, match="the log starts at entry 1, and that is not there"):
        list(take_over(stream).batches())
