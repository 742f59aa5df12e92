"""A whole broker on a recorded disk: the core with its clients, the real log, and no thread.

`StraightLog` is `FileLog` with the writer's jobs done in the caller's thread, so that a seed gives the same
recording each time. `DiskWorld` is the world of the core tests with that log under it; on the way it writes a
`Recording`: the steps of the disk, what was appended, and what clients had been told at each point.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any, NamedTuple, cast

from harness import World
from recorder import RecordingOps, Step

from minibrokerd.bodies.shelves import stands
from minibrokerd.bodies.store import BodyStore
from minibrokerd.core.core import Core
from minibrokerd.core.model.effects import ReadBack
from minibrokerd.core.model.inputs import Forward
from minibrokerd.engine.indexer import Indexer
from minibrokerd.log.directory import DataDirectory
from minibrokerd.log.filelog import FileLog
from minibrokerd.log.fileops import FileOps
from minibrokerd.log.recovery import Recovery
from minibrokerd.log.seam import Batch, Place, Record, Room
from minibrokerd.log.writer import Job, Writer
from support.simulated_disk import SimulatedDisk

PATH = "/log"
Content = tuple[tuple[int, bytes, bytes], ...]  # type, meta and tail of each record of a batch
Id = tuple[int, int]


def content_of(records: list[Record]) -> Content:
    """Return what a batch says, apart from its number."""
    return tuple((record.type, record.meta, bytes(record.tail)) for record in records)


class FailingDisk(SimulatedDisk):
    """A disk whose next synced write of a batch fails when `fails` is set: written, and nobody knows how safe."""

    fails = False

    def write_synced(self, descriptor: int, data: bytes | memoryview, offset: int) -> int:
        """Write and sync, or write and fail."""
        if not self.fails:
            return super().write_synced(descriptor, data, offset)
        self.fails = False
        self.write(descriptor, data, offset)
        raise OSError(errno.EIO, "Input/output error")


class StraightWriter:
    """Does each job at once, and some of the work ahead after it."""

    def __init__(self, log: StraightLog) -> None:
        self._log = log
        self.failed: BaseException | None = None

    def put(self, job: Job) -> None:
        """Do a job, unless one failed before."""
        if self.failed is None:
            try:
                job.run()
            except OSError as exc:
                self.failed = exc
                self._log._fail(exc)
        if job.end(self.failed is None) and job.done is not None:
            job.done()
        while self.failed is None and self._log.goes_ahead() and self._log._tail.zero_ahead():
            continue

    def post(self, callback: Callable[[], None]) -> None:
        """Call at once: this is the only thread."""
        callback()

    def stop(self) -> None:
        """All is done already."""


class SyncFailed(Exception):
    """The log took nothing more: the broker must end."""


class StraightLog(FileLog):
    """A log that does everything before it returns; `goes_ahead` says whether to zero another slice now."""

    def __init__(
        self,
        ops: Any,
        segment_bytes: int,
        goes_ahead: Callable[[], bool] = lambda: True,
        path: str = PATH,
        *,
        digests: bool = False,
    ) -> None:
        super().__init__(path, segment_bytes=segment_bytes, ops=ops, digests=digests)
        self.goes_ahead = goes_ahead

    def lead(self, now_ms: int, unix_ms: int, *callbacks: Any) -> None:
        """As `FileLog.lead`, without its thread; callbacks that are left out are not needed."""
        self._on_synced, self._on_room, self._on_failed = callbacks or (_ignore,) * 3
        self._open_tail(now_ms, unix_ms)
        self._writer = self.segments.writer = cast(Writer, StraightWriter(self))
        self._tidy()

    def batches(self) -> Iterator[Batch]:
        """As `recover`, of a log that reads no side indexes."""
        for batch in self.recover():
            assert isinstance(batch, Batch)
            yield batch

    @property
    def failed(self) -> bool:
        """Whether a job failed."""
        return self._writer is not None and self._writer.failed is not None

    def write(self, records: list[Record], now_ms: int, unix_ms: int) -> int:
        """Append a batch under the next number, and return that."""
        number = self.next_number
        self.append(Batch(number, records, now_ms, unix_ms), number - 1)
        return number


def batches_of(ops: FileOps, path: str) -> list[Batch]:
    """Return what a recovery reads that neither locks nor writes, nor looks at side indexes."""
    directory = DataDirectory(path, ops)
    if not directory.has("key"):
        return []
    parts = list(Recovery(directory, ops).batches())
    return [part for part in parts if isinstance(part, Batch)]


def _ignore(*_: object) -> None:
    return


class Told(NamedTuple):
    """What a client knows for sure after `step` steps: a message is there (`body`), or has ended (None).

    It was done in a batch from index `since` on.
    """

    step: int
    since: int
    id: Id
    body: bytes | None


@dataclass(slots=True)
class Recording:
    """What a workload did, step by step; the lists of marks are in the order of steps.

    `synced` are the steps after which each appended batch was safe, `begun` those at which its append began.
    `starts` are (step, index): from this step on the log may begin at this batch, and `freed` are those from
    which on it must. `failures` counts appends that failed.
    """

    segment_bytes: int
    steps: list[Step] = field(default_factory=list)
    appended: list[Content] = field(default_factory=list)
    times_ms: list[int] = field(default_factory=list)
    begun: list[int] = field(default_factory=list)
    synced: list[int] = field(default_factory=list)
    starts: list[tuple[int, int]] = field(default_factory=lambda: [(0, 0)])
    freed: list[tuple[int, int]] = field(default_factory=lambda: [(0, 0)])
    told: list[Told] = field(default_factory=list)
    sent: dict[Id, bytes] = field(default_factory=dict)  # every body that was ever published


class DiskWorld(World):
    """One broker on a recorded disk; see the head of this module."""

    def __init__(self, seed: int, segment_bytes: int, inner: Any = None, path: str = PATH) -> None:
        self.path = path
        self.random = Random(seed)
        self.recording = Recording(segment_bytes)
        self.disk = inner or FailingDisk(seed=seed)
        self.ops = RecordingOps(self.disk)
        self.recording.steps = self.ops.steps
        self.numbers: list[int] = []  # of the batches from `first` on, as the log calls them now
        self.first = 0
        self.noted = Place(0, 0)  # up to where the segment that is written is in its side index
        self.disk_log: StraightLog
        super().__init__(auto_sync=False)

    @property
    def step(self) -> int:
        """How many steps the disk has seen."""
        return len(self.ops.steps)

    def _start(self, *, clean: bool) -> None:
        self.open, self.closed, self.held = [], [], []
        batches = batches_of(self.disk, self.path)
        self._compare([content_of(batch.records) for batch in batches])
        self.numbers = [batch.number for batch in batches]
        self.disk_log = log = StraightLog(
            self.ops,
            self.recording.segment_bytes,
            lambda: self.random.random() < 0.7,
            self.path,
            digests=True,
        )
        self.core = Core(
            BodyStore(log.segments.read_one), auto_create=self.auto_create, sizes=log.sizes
        )
        self.indexer = Indexer()
        for part in log.recover():
            self.core.replay(part)
            self.indexer.replayed(part)
        self.now_ms = log.now_ms + 1
        log.lead(self.now_ms, self.unix_ms)
        if self.recording.synced[-1:] == [2**31]:
            self.recording.synced[-1] = self.step
        self.epoch = log.epoch
        self.core.opened(
            log.epoch, self.now_ms, self.unix_ms, clean=log.clean, next_batch=log.next_number
        )
        self.noted = log.last_place or self.noted
        for segment in self.indexer.segments():
            log.segments.keep_digest(segment, self.indexer.take(segment))
        self._fill()

    def _fill(self) -> None:
        """As the pager does before the port opens: read back what comes first, some of the time."""
        for asked in self.core.wanted():
            self._load(asked)
            if self.random.random() < 0.5:
                break

    def _read(self, asked: ReadBack) -> list[Record | None]:
        return self.disk_log.read(*stands(asked))

    def _place(self, batch: Batch) -> None:
        batch.place = self.disk_log.last_place

    def _note_places(self) -> None:
        """As the engine does, with slices that are small and of different sizes."""
        place, before, log = self.disk_log.last_place, self.noted, self.disk_log
        assert place is not None
        if place.segment != before.segment:
            log.segments.keep_digest(before.segment, self.indexer.take(before.segment))
            self.noted = Place(place.segment, 0)
        elif place.offset - before.offset >= self.random.randrange(self.recording.segment_bytes):
            log.segments.keep_digest(place.segment, self.indexer.take(place.segment))
            self.noted = place

    def _compare(self, contents: list[Content]) -> None:
        """What comes back is what was appended; of a batch whose sync failed, all or nothing."""
        recording = self.recording
        failed = len(recording.appended) - len(recording.synced)
        if failed and contents == recording.appended[self.first : -1]:
            for column in (recording.appended, recording.times_ms, recording.begun):
                column.pop()
        elif failed:
            recording.synced.append(2**31)  # as safe as it is: the start will say when
        assert contents == recording.appended[self.first :]

    def sync_one(self) -> None:
        """The log writes the oldest closed batch; then whoever waits for it is told."""
        batch, recording = self.closed[0], self.recording
        size_bytes = sum(record.size_bytes for record in batch.records)
        if self.disk_log.room_for(size_bytes) is Room.WAIT:
            assert self.disk_log.room_for(size_bytes) is Room.GRANTED
        recording.begun.append(self.step)
        recording.appended.append(content_of(batch.records))
        recording.times_ms.append(batch.now_ms)
        self.numbers.append(batch.number)
        self.disk_log.append(batch, self.disk_log.next_number - 1)
        if self.disk_log.failed:
            raise SyncFailed
        recording.synced.append(self.step)
        super().sync_one()
        self._note_places()

    def free_oldest(self) -> bool:
        """Copy forward what lives in the oldest segment and free it; False: there is only one."""
        upto = self.disk_log.oldest_upto
        if upto is None:
            return False
        while self.core.clear_below <= upto:
            self.apply(Forward(upto, self.disk_log.sizes.batch_bytes // 4))
            self.sync()
        self.sync()
        start = self.first + sum(number <= upto for number in self.numbers)
        self.recording.starts.append((self.step, start))
        self.disk_log.trim(upto, self.now_ms, self.unix_ms, lambda: None)
        self.recording.freed.append((self.step, start))
        self.numbers = self.numbers[start - self.first :]
        self.first = start
        return True

    def fail_next(self) -> None:
        """Let the next sync fail."""
        self.disk.fails = True

    def mark(self) -> None:
        """Let the idle log write its marker."""
        self.disk_log.segments.mark(self.now_ms, self.unix_ms)

    def stop(self) -> None:
        """Stop as SIGTERM does, and start again."""
        for connection in list(self.clients):
            self.disconnect(connection)
        self.sync()
        self.close_log()
        self._start(clean=True)

    def close_log(self) -> None:
        """Write what a clean stop writes."""
        if self.noted.segment:
            segment = self.noted.segment
            self.disk_log.segments.keep_digest(segment, self.indexer.take(segment))
        self.disk_log.close(self.now_ms, self.unix_ms)

    def die(self) -> None:
        """End as kill -9 does, and start again: what was written stays in the page cache."""
        self.disk_log.abandon()
        for client in self.clients.values():
            client.closed = True
        self.clients.clear()
        self._start(clean=False)

    # -- what clients were told ------------------------------------------------------------------

    def tell(self, since: int, id: Id, body: bytes | None) -> None:
        """A client has the confirm: a message with this body is there, or has ended (None)."""
        self.recording.told.append(Told(self.step, since, id, body))
