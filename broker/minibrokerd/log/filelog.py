"""`FileLog`: the log on disk, as the engine sees it. It joins directory, recovery, tail and writer.

Calls come from the event loop's thread and return at once, except `recover`, `start`, `close` and
the bounded wait of `append`. What is read here of the writer's state are single attributes:
they may be a moment old, which only makes the answer more careful.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final

from minibrokerd.log import format as layout
from minibrokerd.log.allocation import Allocation
from minibrokerd.log.directory import DataDirectory, State
from minibrokerd.log.failures import Deposed, LogFailed, NotWritable
from minibrokerd.log.fileops import FileOps
from minibrokerd.log.format import Kind
from minibrokerd.log.reader import read_bytes, read_records
from minibrokerd.log.recovery import Recovery, RecoveryReport
from minibrokerd.log.rewrite import reopen, rewrite
from minibrokerd.log.seam import (
    RESERVE_SEGMENTS,
    Batch,
    Digested,
    Leadership,
    Meanwhile,
    Place,
    Record,
    Room,
    nothing,
)
from minibrokerd.log.segments import BATCH_OVERHEAD_BYTES, Segments
from minibrokerd.log.sizes import sizes_of
from minibrokerd.log.tail import Tail
from minibrokerd.log.writer import Job, JobRunner, Writer

DEFAULT_SEGMENT_BYTES: Final = 64 * 1024 * 1024
MIN_SEGMENT_BYTES: Final = 4096
_ASIDE: Final = 1024 * 1024  # bytes that are kept of a record whose end is not known
# Of work ahead, whether a retry is due, a retry, and what to call when a job failed; see `Writer`.
MakeWriter = Callable[
    [
        Callable[[], bool],
        Callable[[], bool],
        Callable[[], bool],
        Callable[[BaseException], None],
    ],
    JobRunner,
]


class FileLog:
    """The log of one data directory; see `minibrokerd.log.seam.Log` for what each call means.

    `segment_bytes` is the size of new segments, a multiple of 4,096. `report` says what the
    recovery found. `session_key` (32 bytes) is kept beside the log. Numbers of appended batches
    start at `next_number` and only name batches to the callbacks of this run: the log's own batches
    take numbers too, so those on disk run ahead.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        segment_bytes: int = DEFAULT_SEGMENT_BYTES,
        ops: FileOps | None = None,
        digests: bool = False,
        make_writer: MakeWriter = Writer,
        raised_epochs: int = 1,
        adopts_copy: bool = False,
    ) -> None:
        """`raised_epochs`: how far a start raises the epoch. `adopts_copy`: as in `DataDirectory`."""
        if segment_bytes < MIN_SEGMENT_BYTES or segment_bytes % 4096:
            raise ValueError(
                f"segment_bytes is {segment_bytes}: not a multiple of 4096 from 4096 on"
            )
        self.sizes = sizes_of(layout.max_batch_bytes(segment_bytes))
        self.epoch = 0
        self.now_ms = 0
        self.store_id = b""
        self.clean = True
        self.next_number = 1
        self._ops = ops or FileOps()
        self._directory = DataDirectory(path, self._ops, adopts_copy=adopts_copy)
        self._raised_epochs = raised_epochs
        self._recovery = Recovery(self._directory, self._ops, digests=digests)
        self._allocation = Allocation(self._directory, self._ops, segment_bytes)
        self._tail = Tail(self._directory, self._ops, self._allocation, b"")
        self.segments = Segments(
            self._directory,
            self._ops,
            self._recovery,
            self._allocation,
            self._tail,
            self.sizes.batch_bytes,
        )
        self.leadership: Leadership | None = None  # the directory is locked
        self._recovered = False
        self._make_writer = make_writer
        self._writer: JobRunner | None = None
        self._under_way: Batch | None = None
        self._room_awaited = False
        self._on_synced: Callable[[int], None] = _not_started
        self._on_room: Callable[[], None] = _not_started
        self._on_failed: Callable[[BaseException], None] = _not_started

    @property
    def report(self) -> RecoveryReport:
        """What the recovery found; whole after `recover` ended, `torn_kept` after `start`."""
        return self._recovery.report

    @property
    def recovered_percent(self) -> int:
        """How much of the log `recover` has read."""
        return self._recovery.percent

    @property
    def session_key(self) -> bytes:
        """The 32 random bytes for session secrets; known once `recover` was called."""
        return self._directory.session_key

    def renew_session_key(self) -> None:
        """Make another session key, before `start`: no session of before goes on."""
        self._directory.renew_key()

    def adopt(self, store_id: bytes, session_key: bytes) -> None:
        """Make a new log that of this store, between `recover` and `lead`: its sessions and ids go on here."""
        self.store_id = store_id
        self._directory.write_key(session_key)

    def recover(self) -> Iterator[Batch | Digested]:
        """Open and lock the directory, then yield every batch of data, oldest first.

        With `digests`, what a side index says is yielded instead of the batches that it is about.

        Raises:
            DirectoryLocked, NotWritable, DamagedLog, NewerFormat: see `minibrokerd.log.failures`.
        """
        self._directory.open()
        return self._recover()

    def _recover(self) -> Iterator[Batch | Digested]:
        try:
            yield from self._recovery.batches()
        except BaseException:
            self._directory.close()
            raise
        self.clean = self._recovery.clean
        self.epoch, self.now_ms = self._recovery.epoch, self._recovery.now_ms
        self.store_id = self._recovery.store_id or self._ops.random_bytes(16)
        self._recovered = True
        self.report.copied_from = self._directory.copied_from

    def lead(
        self,
        now_ms: int,
        unix_ms: int,
        on_synced: Callable[[int], None],
        on_room: Callable[[], None],
        on_failed: Callable[[BaseException], None],
    ) -> None:
        """Make the log appendable under a new epoch; blocks until that is synced.

        Raises:
            NotWritable: a step failed; the log is as it was or as the next start finds it whole.
        """
        assert self._recovered, "recover() comes first, to its end"
        self._on_synced, self._on_room, self._on_failed = on_synced, on_room, on_failed
        try:
            self._open_tail(now_ms, unix_ms)
        except OSError as exc:
            self.abandon()
            raise NotWritable(
                self._directory.path, "start the log in", str(exc), "make space or check the disk"
            ) from exc
        self._writer = self._make_writer(
            self._tail.zero_ahead,
            lambda: self._allocation.failed is not None,
            self._retry,
            self._fail,
        )
        self.segments.writer = self._writer
        self._writer.start()
        if self._allocation.leftovers:
            job = Job(self._tidy, self._tell_room)
            job.expect_callback()
            self._put(job)

    def append(
        self,
        batch: Batch,
        expected: int,
        wait_us: int = 0,
        meanwhile: Meanwhile = nothing,
        *,
        is_small: bool = False,
    ) -> bool:
        """Write one batch here, or have the writer do it and wait up to `wait_us`; True: synced, no callback."""
        run, writer = self._begun(batch, expected), self._writer
        assert writer is not None
        if is_small and writer.do(run):
            if writer.failed is not None:
                return False
        else:
            job = Job(run, self._synced)
            if not wait_us:
                job.expect_callback()
                writer.put(job)
                return False
            writer.put(job)
            job.then = meanwhile()
            if not writer.wait(job, wait_us / 1_000_000):
                return False
        self._finish()
        if self._room_awaited:
            writer.post(self._tell_room)  # never from inside a call
        return True

    def room_for(self, size_bytes: int) -> Room:
        """Grant room for records of `size_bytes` out of what is there, reserve excepted."""
        needed = self.segments.under_way_bytes + BATCH_OVERHEAD_BYTES + size_bytes
        if self._has_room(needed):
            return Room.GRANTED
        already_asked, self._room_awaited = self._room_awaited, True
        if self._allocation.failed is not None:
            return Room.REFUSED
        if self._allocation.whole:
            # The thread may have made it so since it was looked at, and nothing that is to come would tell.
            return Room.GRANTED if self._has_room(needed) else Room.WAIT
        if not already_asked:
            job = Job(self._prepare, self._tell_room)
            job.expect_callback()
            self._put(job)
        return Room.WAIT

    @property
    def disk_bytes(self) -> int:
        """The bytes of all segments, the reserve apart."""
        segment = self._tail.segment
        current = segment.size_bytes if segment is not None else 0
        return current + self._tail.sealed_bytes

    @property
    def segment_bytes(self) -> int:
        """The bytes of a new segment."""
        return self._allocation.segment_bytes

    @property
    def oldest_upto(self) -> int | None:
        """The newest batch in the oldest segment; None while that one is still written."""
        return sealed[0].upto if (sealed := self._tail.sealed) else None

    def trim(self, upto: int, now_ms: int, unix_ms: int, done: Callable[[], None]) -> None:
        """Give up the segments whose batches are `upto` or older."""
        job = Job(lambda: self._tail.free(upto, now_ms, unix_ms), done)
        job.expect_callback()
        self._put(job)

    @property
    def last_place(self) -> Place | None:
        """Where the first record of the newest batch of data stands."""
        segment = self._tail.segment
        return Place(segment.name.number, self._tail.last_offset) if segment is not None else None

    def read(self, segment: int, offsets: Sequence[int]) -> list[Record | None]:
        """Read records back; bytes that do not verify are kept aside, too."""
        path = self._directory.at(self.segments.name_of(segment))
        found = read_records(self._ops, path, offsets)
        for index, record in enumerate(found):
            if record is None:
                end = offsets[index + 1] if index + 1 < len(offsets) else offsets[index] + _ASIDE
                size_bytes = min(end - offsets[index], _ASIDE)
                data = read_bytes(self._ops, path, offsets[index], size_bytes)
                self._directory.keep_damaged(segment, offsets[index], data)
        return found

    def close(self, now_ms: int, unix_ms: int) -> None:
        """Write and sync the footer, and let go of the directory.

        Raises:
            LogFailed: the footer could not be synced, or the log had failed before.
        """
        assert self._writer is not None, "not started"
        self._put(Job(lambda: self._tail.append_own(Kind.FOOTER, now_ms, unix_ms), None))
        self._put(Job(self._close_state, None))
        failed = self._stop_writer()
        try:
            self.abandon()
        except OSError as exc:  # a file that cannot be closed: its sync said that all was well
            failed = failed or self._failure(exc)
        if failed is not None:
            raise failed

    def abandon(self) -> None:
        """Let go of everything without a footer, as a crash would; the disk stays as it is."""
        self._stop_writer()
        self._tail.close()
        self._allocation.close()
        self._directory.close()

    def _open_tail(self, now_ms: int, unix_ms: int) -> None:
        recovery, directory, allocation, tail = (
            self._recovery, self._directory, self._allocation, self._tail,
        )  # fmt: skip
        directory.sync()  # names that were read may stand in the page cache only
        last = recovery.last
        directory.write_state(State(False, last.name.number if last else 0))
        allocation.adopt(directory.listing().reserve, recovery.temporary)
        if (
            not allocation.reserve_count
        ):  # there may be no byte for a copy but those of what was copied last
            allocation.adopt([], recovery.replaced)
            recovery.replaced = []
        tail.store_id, tail.epoch = self.store_id, recovery.epoch + self._raised_epochs
        tail.log_start, tail.format_version = recovery.log_start, recovery.format_version
        tail.last_number, tail.last_checksum = recovery.last_number, recovery.last_checksum
        tail.last_data = tail.last_safe = recovery.last_number
        tail.sealed.extend(recovery.sealed)
        tail.sealed_bytes = sum(sealed.size_bytes for sealed in recovery.sealed)
        if last is not None:
            checksum, indexed = None, 0
            if recovery.clean:
                tail.segment = reopen(last, directory, self._ops)
            else:
                tail.segment, checksum, indexed = rewrite(
                    last, recovery.report, directory, self._ops, allocation
                )
            region = recovery.region_of(last, checksum)
            tail.adopt(region, recovery.ended, recovery.indexes)
        # Not before: the batch or the name that made leftovers of these may have been in the page cache only.
        allocation.leftovers += recovery.freed + recovery.replaced
        whole = {str(recovery.names[number].index) for number in recovery.indexes}
        directory.remove(name for name in directory.listing().indexes if name not in whole)
        if last is not None and last.slices and not recovery.clean:
            tail.repeat_index(last.slices, indexed)
        recovery.last = None  # its bytes are needed no more
        tail.append_own(Kind.SEGMENT, now_ms, unix_ms)
        # What is zeroed for the reserve takes a while: the writer does that when the port is open.
        if not allocation.leftovers:
            allocation.fill_reserve()
        directory.sync()
        directory.forget_failed()
        self.epoch = tail.epoch
        self.next_number = tail.last_number + 1

    def _begun(self, batch: Batch, expected: int) -> Callable[[], None]:
        """Return what writes and syncs a batch, which is under way from here on."""
        number = batch.number
        assert self._under_way is None, "one batch at a time"
        assert number >= self.next_number, "numbers grow"
        if expected != self.next_number - 1:
            return partial(self._depose, expected)
        self.next_number = number + 1
        # Encoded here, where the records are warm: on the writer's core it costs a lone publish 20 us more.
        body = layout.encode_body(batch.records)
        self._under_way = batch
        self.segments.under_way_bytes = body.body_bytes + BATCH_OVERHEAD_BYTES
        return partial(self._tail.append, number, body, batch.now_ms, batch.unix_ms)

    def _depose(self, expected: int) -> None:
        raise Deposed(self._directory.path, expected, self.next_number - 1)

    def _put(self, job: Job) -> None:
        assert self._writer is not None, "not started"
        self._writer.put(job)

    def _synced(self) -> None:
        self._on_synced(self._finish())
        self._tell_room()

    def _finish(self) -> int:
        batch, self._under_way, self.segments.under_way_bytes = self._under_way, None, 0
        assert batch is not None
        return batch.number

    def _tell_room(self) -> None:
        if self._room_awaited:
            self._room_awaited = False
            self._on_room()

    def _has_room(self, needed: int) -> bool:
        if len(self._allocation.reserve) < RESERVE_SEGMENTS:
            return False
        if needed <= self._tail.room_bytes:
            return True
        segment_bytes = self._allocation.segment_bytes
        capacity = segment_bytes - layout.OWN_BATCH_BYTES - layout.own_room(segment_bytes)
        return self._allocation.next_ready and needed <= capacity

    def _tidy(self) -> None:
        self._allocation.tidy()
        self._directory.sync()

    def _prepare(self) -> None:
        self._allocation.prepare_next()

    def _retry(self) -> bool:
        """Try again to allocate on a full disk, in the writer thread."""
        assert self._writer is not None
        if not self._allocation.prepare_next():
            return False
        self._writer.post(self._tell_room)
        return True

    def _close_state(self) -> None:
        segment = self._tail.segment
        assert segment is not None
        self._directory.write_state(State(True, segment.name.number))

    def _stop_writer(self) -> LogFailed | None:
        writer = self._writer
        if writer is None:
            return None
        writer.stop()
        self._writer = self.segments.writer = None
        return None if writer.failed is None else self._failure(writer.failed)

    def _fail(self, exc: BaseException) -> None:
        """Note the last safe batch, in the writer thread, then tell the loop."""
        if isinstance(exc, Deposed):  # nothing was written, so what is there is safe
            assert self._writer is not None
            self._writer.post(lambda: self._on_failed(exc))
            return
        error = self._failure(exc)
        try:
            self._directory.check()  # a note in another directory would stop a start there
            self._directory.write_failed(self._tail.last_safe)
        except OSError as side:
            error.add_note(f"the number could not be kept in the file `failed`: {side}")
        assert self._writer is not None
        self._writer.post(lambda: self._on_failed(error))

    def _failure(self, exc: BaseException) -> LogFailed:
        error = LogFailed(self._directory.path, self._tail.last_safe, exc)
        error.__cause__ = exc
        return error


def _not_started(*_: object) -> None:
    raise AssertionError("the log was not started")
