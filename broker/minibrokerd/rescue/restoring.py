"""`minibroker log restore`: a back-up, or a copy, becomes a data directory of its own.

Ids and tokens are derived from what stands in the log, so a log that goes back to an earlier state, or that runs
twice, would give them a second time: two messages under one id, a settlement that reaches the wrong delivery. A
start cannot know that. So the operator says it, and everything that numbers are made of is raised above whatever
the original can have used after the copy was made. docs/decisions/0016 has how far, and why.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from minibroker.contract import limits
from minibrokerd.bodies.store import BodyStore
from minibrokerd.core.core import Core
from minibrokerd.core.model.records import ReserveMeta, record
from minibrokerd.log.directory import DataDirectory
from minibrokerd.log.filelog import DEFAULT_SEGMENT_BYTES, FileLog
from minibrokerd.log.fileops import FileOps
from minibrokerd.log.seam import Batch, Record
from minibrokerd.log.writer import Job
from minibrokerd.rescue.checking import survey_of

RAISED_EPOCHS: Final = 2**16  # starts since the copy: one every eight minutes for a year
RAISED_IDS: Final = 2**44  # messages of a queue since then: 100,000 a second for five years
# Likewise of a retained log, which has 2^46: 10,000 a second for three years.
RAISED_OFFSETS: Final = 2**40
RAISED_QUEUES: Final = 2**24  # queues made since then


@dataclass(frozen=True, slots=True)
class Restored:
    """What was raised: the epoch of the next start is above `epoch`, the queues go on at other ids."""

    epoch_before: int
    epoch: int
    queues: int
    sessions: bool  # whether clients of the original may go on with their sessions


class AtOnce:
    """Does the jobs of the log where they are handed over: nobody else waits for anything."""

    def __init__(self, *_: Any) -> None:
        self.failed: BaseException | None = None

    def start(self) -> None:
        """Nothing is to be started."""

    def put(self, job: Job) -> None:
        """Do it; what it raises ends the command."""
        job.run()
        if job.done is not None:
            job.done()

    def do(self, run: Callable[[], None]) -> bool:
        """It is handed over as all others."""
        return False

    def wait(self, job: Job, seconds: float) -> bool:
        """It is done."""
        return True

    def look(self) -> None:
        """Nothing takes long that is seen here."""

    def post(self, callback: Any) -> None:
        """Call it."""
        callback()

    def stop(self) -> None:
        """Nothing is to be stopped."""


def restore(directory: DataDirectory, ops: FileOps, *, new_sessions: bool) -> Restored:
    """Raise the numbers of a data directory that no server runs on. Doing it twice raises them twice.

    Raises:
        LogError: the directory cannot be used, or the log in it cannot be started; nothing was raised.
        OSError: a write failed; a start finds the log whole, and this is to be done again.
    """
    log = FileLog(
        directory.path,
        segment_bytes=survey_of(directory, ops).segment_bytes or DEFAULT_SEGMENT_BYTES,
        ops=ops,
        make_writer=AtOnce,
        raised_epochs=RAISED_EPOCHS,
        adopts_copy=True,
    )
    core = Core(BodyStore(log.segments.read_one), sizes=log.sizes)
    for batch in log.recover():
        core.replay(batch)
    before, now_ms, unix_ms = log.epoch, log.now_ms + 1, time.time_ns() // 1_000_000
    if new_sessions:
        log.renew_session_key()
    log.lead(now_ms, unix_ms, _ignore, _ignore, _raise)
    core.opened(log.epoch, now_ms, unix_ms, clean=log.clean, next_batch=log.next_number)
    for records in _batches(_reservations(core), log.sizes.apply_bytes):
        log.append(Batch(log.next_number, records, now_ms, unix_ms), log.next_number - 1)
    log.close(now_ms, unix_ms)
    return Restored(before, log.epoch, len(core.store.by_number), not new_sessions)


def _reservations(core: Core) -> Iterator[Record]:
    store = core.store
    for queue in store.by_number.values():
        used = max(queue.reserved_until, queue.next_sequence)
        raised = RAISED_IDS
        if queue.group.retained is not None:  # a log, or a group, whose ids are offsets
            offset = used & limits.MAX_OFFSET
            raised = min(RAISED_OFFSETS, (limits.MAX_OFFSET - offset) // 2)
        yield record(ReserveMeta(queue.number, used + raised))
    yield record(ReserveMeta(0, store.next_queue_number + RAISED_QUEUES))


def _batches(records: Iterator[Record], most_bytes: int) -> Iterator[list[Record]]:
    batch: list[Record] = []
    size_bytes = 0
    for each in records:
        if batch and size_bytes + each.size_bytes > most_bytes:
            yield batch
            batch, size_bytes = [], 0
        batch.append(each)
        size_bytes += each.size_bytes
    yield batch


def _ignore(*_: object) -> None:
    """Whoever waits for a batch is this thread, which wrote it."""


def _raise(error: BaseException) -> None:
    raise error
