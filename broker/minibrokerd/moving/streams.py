"""A stream as one end of a move.

Whoever moves a log leads the stream, as a broker does, so that no broker can append beside it. A log that comes to
a stream is no log before its last checkpoint: the epoch record in front of it says so, and a broker refuses it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from time import monotonic, time_ns
from typing import Final

from minibrokerd.log.seam import Batch
from minibrokerd.moving.both_ends import CannotMove, How, Origin, Tally, WasLeft
from minibrokerd.replicated.failures import StreamUnreachable
from minibrokerd.replicated.history import MOVED_TO, MOVES_IN, History
from minibrokerd.replicated.leading import READ_BYTES
from minibrokerd.replicated.log import JetStreamLog
from minibrokerd.replicated.nats_stream import NatsStream
from minibrokerd.replicated.standing_by import SILENT_S
from minibrokerd.replicated.stream import Info, Stream, StreamAway
from minibrokerd.replicated.stream_address import StreamAddress

PATIENCE_S: Final = 30.0
AGAIN_S: Final = 0.05


class _End:
    """What both ends have: a connection, and a log that leads."""

    def __init__(self, address: StreamAddress) -> None:
        self.name = str(address)
        self._address = address
        self._stream = NatsStream(address)
        self._log: JetStreamLog | None = None
        self._failed: asyncio.Future[None] | None = None
        self._upto = 0  # the last entry that is read
        self._info: Info | None = None

    async def _connect(self) -> Info:
        await self._stream.open()
        self._info = info = await self._stream.info()
        self._upto = info.last
        return info

    def _new_log(self, owner: str) -> JetStreamLog:
        async def open_stream() -> Stream:
            stream = NatsStream(self._address)
            await stream.open()
            return stream

        self._log = log = JetStreamLog(self.name, open_stream, owner)
        log.history.is_for_move = True
        return log

    def _claim(self, log: JetStreamLog) -> None:
        """Read all that there is, and lead it."""
        for _ in log.recover():
            pass
        self._upto = log.history.read_to

    def _lead(self, log: JetStreamLog, now_ms: int, unix_ms: int) -> None:
        self._failed = asyncio.get_running_loop().create_future()
        log.lead(now_ms, unix_ms, lambda number: None, lambda: None, self._on_failed)

    def _on_failed(self, error: BaseException) -> None:
        assert self._failed is not None, "it is led"
        if not self._failed.done():
            self._failed.set_exception(error)

    async def _told(self, append: Callable[[Callable[[int], object]], object]) -> None:
        """Append, and return when that is stored."""
        assert self._failed is not None, "it is led"
        stored = asyncio.get_running_loop().create_future()
        append(lambda size: stored.set_result(None))
        await asyncio.wait([stored, self._failed], return_when=asyncio.FIRST_COMPLETED)
        if self._failed.done():
            await self._failed
        assert self._log is not None, "it is led"
        self._upto = self._log.position

    async def _read(self, history: History) -> AsyncIterator[Batch]:
        """Yield what stands in the stream up to the entry that is known to be the last one."""
        assert self._info is not None, "connected"
        if self._upto == 0:
            return
        history.is_for_move = True
        history.begin(self._info.first)
        waits_s = monotonic()
        while history.read_to < self._upto:
            try:
                entries = await self._stream.read(history.read_to + 1, READ_BYTES)
                why = "entries are missing"
            except StreamAway as away:
                entries, why = [], str(away)
            if not entries:
                if monotonic() - waits_s > PATIENCE_S:
                    raise StreamUnreachable(self.name, why, "begin again")
                await asyncio.sleep(AGAIN_S)
                continue
            waits_s = monotonic()
            for entry in entries:
                if entry.sequence <= self._upto and (batch := history.take(entry)) is not None:
                    yield batch

    async def close(self) -> None:
        """Let go of the connections; what was not finished stays as it is."""
        if self._log is not None:
            await self._log.abandon()
        if self._failed is not None and self._failed.done():
            self._failed.exception()  # it was raised, or nobody asked any more
        await self._stream.close()


class StreamOrigin(_End):
    """A stream that a log leaves."""

    def __init__(self, address: StreamAddress) -> None:
        super().__init__(address)
        self.store_id = self.session_key = b""
        self.epoch = self.now_ms = self.unix_ms = 0
        self.clean = True

    async def open(self, how: How) -> None:
        """Hear whether a broker leads it, and then lead it, so that none can append any more.

        For a copy the one that leads goes on: what was there when it was asked is a whole log by itself.
        """
        info = await self._connect()
        if info.last == 0:
            raise CannotMove(f"cannot move {self.name}: it holds no log")
        if how is How.COPY:
            return
        heard: list[bytes] = []
        await self._stream.hear(heard.append)
        await asyncio.sleep(SILENT_S)
        if heard:
            raise CannotMove(
                f"cannot move {self.name}: a broker leads it; stop those that stand by, then that one"
            )
        if how is How.MOVE:
            log = self._new_log("a move to elsewhere")
            self._claim(log)
            self.store_id, self.session_key = log.store_id, log.session_key
            self._lead(log, log.now_ms, time_ns() // 1_000_000)

    async def batches(self) -> AsyncIterator[Batch]:
        """Read the entries up to our own epoch record."""
        history = History(self.name)
        async for batch in self._read(history):
            self.unix_ms = batch.unix_ms
            yield batch
        history.is_for_move = False
        history.end()
        self.store_id, self.session_key = history.store_id, history.session_key
        self.epoch, self.now_ms, self.clean = history.epoch, history.now_ms, history.is_clean

    async def hold(self) -> None:
        """Append a checkpoint: nobody else can have claimed the stream before it."""
        await self._state("a move to elsewhere")

    async def moved(self, to: str) -> None:
        """Append a last checkpoint, which a start reads."""
        await self._state(MOVED_TO + to)

    async def _state(self, more: str) -> None:
        log = self._log
        assert log is not None, "open() comes first"
        await self._told(lambda done: log.state(more, done))


class StreamTarget(_End):
    """A stream that a log comes to; it is made if it is not there."""

    async def reserve(self, origin: Origin) -> None:
        """Claim a new stream before the source is looked through: a broker that finds it empty leads it."""
        if (await self._connect()).last or not origin.store_id:
            return
        log = self._new_log(MOVES_IN + origin.name)
        log.store_id, log.session_key = origin.store_id, origin.session_key
        self._claim(log)
        await log.abandon()
        self._log = None

    async def look(self, origin: Origin) -> tuple[Tally, bool]:
        """Return what a move left, or the whole log."""
        tally, history = Tally(), History(self.name)
        info = await self._connect()
        if info.last and info.last < info.first:
            raise CannotMove(f"cannot move to {self.name}: it was purged; name a new stream")
        async for batch in self._read(history):
            tally.add(batch)
        if self._upto and history.store_id != origin.store_id:
            raise CannotMove(
                f"cannot move to {self.name}: it is not empty: a broker ran on it, or another log is there; "
                "name a new stream, or delete this one if nothing in it is wanted"
            )
        if history.moved_to:
            raise WasLeft(self.name)
        return tally, bool(self._upto) and not history.half_of

    async def open(self, origin: Origin) -> None:
        """Claim the stream as the store of the log that comes."""
        log = self._new_log(MOVES_IN + origin.name)
        log.store_id, log.session_key = origin.store_id, origin.session_key
        log.history.epoch = origin.epoch
        self._claim(log)
        self._info = await self._stream.info()
        self._lead(log, origin.now_ms, origin.unix_ms)

    async def append(self, batches: Sequence[Batch]) -> None:
        """Append them as one."""
        log = self._log
        assert log is not None, "open() comes first"
        await self._told(lambda done: log.append_all(batches, done))

    async def batches(self) -> AsyncIterator[Batch]:
        """Read the entries back."""
        async for batch in self._read(History(self.name)):
            yield batch

    async def finish(self, origin: Origin) -> None:
        """Append the checkpoint that makes it a log, and end as the source did."""
        log = self._log
        assert log is not None, "open() comes first"
        await self._told(lambda done: log.state(f"moved from {origin.name}", done))
        if origin.clean:
            await asyncio.to_thread(log.close, origin.now_ms, origin.unix_ms)
            self._log = None
