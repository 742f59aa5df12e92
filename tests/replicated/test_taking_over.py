"""What a start says when the stream does not let it lead; on the simulated stream, in the loop of its thread."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from random import Random

import pytest
from sim_stream import NO_FAULTS, Connection, Faults, SimStream

from minibrokerd.log.failures import ReadAgain
from minibrokerd.log.format import Kind
from minibrokerd.log.log_versions import FORMAT_VERSION
from minibrokerd.log.seam import Batch, Record
from minibrokerd.process.notify import Notifier
from minibrokerd.replicated.entries import Statement, encoded, new_owner
from minibrokerd.replicated.failures import DamagedStream, StreamUnreachable, Trimmed
from minibrokerd.replicated.history import History
from minibrokerd.replicated.leading import Fence
from minibrokerd.replicated.log import JetStreamLog
from minibrokerd.replicated.stream import Entry, Stream
from minibrokerd.replicated.taking_over import TakeOver
from minibrokerd.serving.recovering import MOST_TIMES, Recovering

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


def test_what_is_trimmed_while_it_is_read_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cold start beside a broker that leads and trims: what ended in between is known to nobody."""
    stream = SimStream(Random(1), NO_FAULTS)

    async def turn() -> None:
        stream.tick()
        await asyncio.sleep(0)

    async def open_stream() -> Connection:
        return stream.connect(turn)

    def put(parts: list[bytes], *, is_epoch: bool = False) -> None:
        stream.send(parts, stream.proposed, 1, is_epoch=is_epoch)
        for _ in range(20):
            stream.tick()

    says = Statement(FORMAT_VERSION, 1, bytes(32), "a test")
    put(BATCH([says.record()], Kind.SEGMENT, number=0), is_epoch=True)
    for number in range(1, 5):
        put(BATCH([Record(2, b"%d" % number)], Kind.DATA, number=number))
    is_trimmed, read = False, Connection.read

    async def trims_meanwhile(self: Connection, first: int, most_bytes: int) -> list[Entry]:
        nonlocal is_trimmed
        if first == 3 and not is_trimmed:
            is_trimmed = True
            trims = Statement(FORMAT_VERSION, 5, bytes(32), "a test")
            put(BATCH([trims.record()], Kind.MARKER, number=4))
            stream.purge(5)
        return (await read(self, first, most_bytes))[: max(3 - first, 1)]

    monkeypatch.setattr(Connection, "read", trims_meanwhile)
    monkeypatch.setattr("minibrokerd.replicated.leading.PAUSE_S", 0.0)
    log = JetStreamLog("a stream", open_stream)
    with pytest.raises(ReadAgain):
        list(log.recover())
    assert [batch.number for batch in log.recover() if batch] == [4]
    assert log.history.log_start == 5


class Engine:
    """What a start does to an engine."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.base_ms = 0

    def replay(self, batch: Batch) -> None:
        """Take a batch."""
        self.numbers.append(batch.number)

    def begin_again(self) -> None:
        """Forget all."""
        self.numbers.clear()

    def start(self, base_ms: int) -> None:
        """Go on at a time of the log."""
        self.base_ms = base_ms


@pytest.mark.parametrize("times", [1, MOST_TIMES])
async def test_a_start_throws_away_what_counts_no_more(times: int) -> None:
    """It ended with 69 and was to be started again; who is overtaken each time still does."""
    reads = 0

    class Log:
        now_ms = 300
        recovered_percent = 100  # asked for where the start takes long

        def recover(self) -> Iterator[Batch]:
            nonlocal reads
            reads += 1
            yield Batch(reads, [], 1, 1)
            if reads <= times:
                raise Trimmed("a stream", 7)

    engine = Engine()
    start = Recovering(Log(), engine, Notifier(), lambda: None, lambda: False)  # type: ignore[arg-type]
    if times == MOST_TIMES:
        with pytest.raises(Trimmed):
            await start.run()
        assert reads == MOST_TIMES
    else:
        await start.run()
        assert (engine.numbers, engine.base_ms) == ([2], 300)
