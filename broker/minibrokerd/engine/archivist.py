"""Works on the files of retained logs for the core: what it asks for is done in a thread, one thing after another.

A failed append is tried again: what is to be archived stands in the log. A failed sync is final, as that of the
log is: nobody knows what is on the disk then.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol
from zlib import crc32

import msgspec

from minibroker.contract.limits import LEAST_COMPACTION_MS
from minibrokerd.bodies.store import BodyStore
from minibrokerd.core.core import Core
from minibrokerd.core.model.inputs import Archived, Command, Fetched, LogHas
from minibrokerd.core.model.queues import Queue
from minibrokerd.core.model.records import TYPE_OF, PublishMeta
from minibrokerd.core.model.retained import (
    Archive,
    Extension,
    Feeder,
    Fetch,
    FileWork,
    Forget,
    Piece,
)
from minibrokerd.log.fileops import FileOps
from minibrokerd.log.seam import Record
from minibrokerd.log.sizes import PUBLISH_OVERHEAD_BYTES
from minibrokerd.process.logs import events
from minibrokerd.retained.compacting import CompactionResult
from minibrokerd.retained.frames import Chunk, Frame
from minibrokerd.retained.memory_files import MemoryFiles
from minibrokerd.retained.shelf import Files, Retained

RETRY_S: Final = 1.0
ROOM_LOOK_S: Final = 0.05  # while what was read waits for room in log or memory
# Between two slices of what nobody waits for, while somebody waits for other work.
BESIDE_S: Final = 0.05
LOOK_S: Final = 1.0  # between two looks at what is not to be kept any more, or as it is
_PUBLISH: Final = TYPE_OF[PublishMeta]
_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(tuple[str, int, list[str]]).decode


class SyncFailed(Exception):
    """Nobody knows what of the files of a log is on the disk."""


class Hand(Protocol):
    """Does work that may wait for the disk, in the order in which it comes."""

    def __call__(
        self, work: Callable[[], Any], done: Callable[[Any, BaseException | None], None]
    ) -> None:
        """Do `work`, and call `done` in the loop with what it returned, or raised."""
        ...

    def end(self) -> None:
        """Do no more, and return when nothing is under way; blocks. What waits is never done."""
        ...


@dataclass(frozen=True, slots=True)
class _Read:
    """What a fetch found: of a chunk that starts at an offset, and what the files have."""

    chunk: Chunk
    start: int
    behind: int
    has: Extension


class Archivist:
    """All work on the files; `apply` takes what comes of it."""

    def __init__(
        self,
        core: Core,
        retained: Retained | None,
        hand: Hand | None,
        loop: Any,
        apply: Callable[[Command], None],
        has_room: Callable[[int], bool],
        on_failed: Callable[[BaseException], None],
    ) -> None:
        """`has_room`: whether so many bytes may be published now. No files: they are in memory."""
        self._core = core
        self._retained = retained or InMemory()
        self._hand = hand or InTurn(loop)
        self._loop = loop
        self._apply = apply
        self._has_room = has_room
        self._on_failed = on_failed
        self._unix_ms: Callable[[], int] = lambda: core.store.unix_ms
        self._bodies = BodyStore()
        self._later: deque[Fetch] = deque()  # by groups, when there is room for what they get
        self._is_waiting = False  # for room
        self.ends: deque[Forget] = deque()  # what waits for the sync of a batch
        self._is_looking = False
        self._at_work: set[int] = set()  # logs whose files are being written anew
        self._is_asked = False  # for other work, since a slice of that was
        # When the last compaction of a log began (unix ms), and up to which offset it went.
        self._compacted: dict[int, tuple[int, int]] = {}
        # The log that is being compacted, one at a time, and what comes of it; None: it has not begun yet.
        self._compaction: tuple[int, CompactionResult | None] | None = None

    def start(self, unix_ms: Callable[[], int]) -> None:
        """Open what is there; blocks. What is of a log that was deleted goes, and what nobody knows is kept aside.

        Nobody knows a log whose records were lost, as in a salvage: somebody may want what it had.
        """
        self._unix_ms = unix_ms
        retained = self._core.store.retained
        logs = retained.logs
        for number in self._retained.numbers():
            if number in retained.ended:
                self._retained.delete(number)
            elif number not in logs:
                events.warning("retained_aside", log=number, path=self._retained.set_aside(number))
        retained.ended.clear()
        for number in logs:
            self._apply(LogHas(number, _has(self._retained.get(number))))
        if logs:
            self._look_later()

    def stop(self) -> None:
        """Do no more, and let go of the files; blocks. What is not done yet, a start asks for again."""
        self._hand.end()
        self._retained.close()

    def ask(self, works: list[FileWork]) -> None:
        """Do what the core asks for."""
        self._is_asked = True
        for work in works:
            if isinstance(work, Archive):
                self._archive(work)
            elif isinstance(work, Fetch):
                self._fetch(work)
            else:
                self.ends.append(work)
                self.synced()  # it may rest on nothing

    def synced(self) -> None:
        """More is safe: what ended may be deleted."""
        while self.ends and self.ends[0].rests_on <= self._core.synced:
            self._forget(self.ends.popleft())

    # -- what comes in -------------------------------------------------------------------------

    def _archive(self, work: Archive) -> None:
        def append() -> Extension:
            files = self._retained.get(work.log)
            with _final(files):
                files.append([_frame(piece) for piece in work.pieces])
                files.sync()
            return _has(files)

        def done(has: Extension, error: BaseException | None) -> None:
            if error is None:
                self._apply(Archived(work.log, has))
                self._look_later()
            elif not isinstance(error, OSError):
                self._on_failed(error)
            else:
                events.error("archive_failed", log=work.log, exc_info=error)
                self._loop.call_later(RETRY_S, self._archive, work)

        if work.log in self._core.store.retained.logs:
            self._hand(append, done)

    # -- what goes out -------------------------------------------------------------------------

    def _fetch(self, work: Fetch) -> None:
        def read() -> _Read:
            files = self._retained.get(work.log)
            offset = files.offset_at(work.since_unix_ms) if work.since_unix_ms else work.offset
            start = max(offset, files.first)
            chunk = self._retained.read(work.log, start, work.most_bytes)
            behind = files.messages_from(max(chunk.next_offset, start))
            return _Read(chunk, start, behind, _has(files))

        def done(found: _Read, error: BaseException | None) -> None:
            if error is None:
                self._fetched(work, found)
                return
            events.error("read_failed", log=work.log, exc_info=error)
            if work.group:
                self._loop.call_later(RETRY_S, self._fetch_again, work)
                return
            at, has = work.offset, _known(self._core, work.log) or Extension(0, 0, 0, 0)
            self._apply(Fetched(work, (), at, at, has, is_at_end=True, error=str(error)))

        if work.log in self._core.store.retained.logs:
            self._hand(read, done)
        else:
            nothing = Extension(0, 0, 0, 0)
            self._apply(Fetched(work, (), 0, 0, nothing, is_at_end=True))

    def _fetch_again(self, work: Fetch) -> bool:
        """Try again for a group, and return whether it is still waiting for it."""
        queue = self._core.store.by_number.get(work.group)
        there = queue.group.retained if queue is not None else None
        waits = isinstance(there, Feeder) and there.generation == work.generation
        if waits:
            self._fetch(work)
        return waits

    def _fetched(self, work: Fetch, found: _Read) -> None:
        chunk = found.chunk
        size = sum(len(frame.tail) + PUBLISH_OVERHEAD_BYTES for frame in chunk.frames)
        if work.group and not self._has_room(size):
            # Of what was read nothing is kept meanwhile: there may be a thousand groups.
            self._later.append(work)
            self._look_for_room()
            return
        fetched = Fetched(
            work,
            [self._piece(frame) for frame in chunk.frames],
            found.start,
            max(chunk.next_offset, found.start),
            found.has,
            is_at_end=chunk.at_end,
            behind=found.behind,
            damaged=chunk.skipped_damage,
        )
        self._apply(fetched)
        self._next()

    def _next(self) -> None:
        """Read for one that waits for room, if there is some; the next one follows when that is done."""
        while self._later and self._has_room(0):
            if self._fetch_again(self._later.popleft()):
                return

    def _look_for_room(self) -> None:
        if not self._is_waiting:
            self._is_waiting = True
            self._loop.call_later(ROOM_LOOK_S, self._room_again)

    def _room_again(self) -> None:
        self._is_waiting = False
        self._next()
        if self._later:
            self._look_for_room()

    def _piece(self, frame: Frame) -> Piece:
        key, encoding, columns = _unpack(frame.meta)
        # An extent of its own for each group: it will know one place in the log.
        record = Record(_PUBLISH, b"", bytes(frame.tail), frame.tail_checksum)
        extent = self._bodies.extent(record, 0)
        return Piece(frame.first, frame.count, frame.unix_ms, key, encoding, columns, extent)

    # -- what ends -----------------------------------------------------------------------------

    def _forget(self, forget: Forget) -> None:
        def work() -> Extension | None:
            if forget.below is None:
                self._retained.delete(forget.log)
                return None
            files = self._retained.get(forget.log)
            with _final(files):
                files.trim(forget.below)
            return _has(files)

        self._hand(work, lambda has, error: self._changed(forget.log, has, error))

    def _changed(self, log: int, has: Extension | None, error: BaseException | None) -> None:
        if error is not None:
            if not isinstance(error, OSError):
                self._on_failed(error)
                return
            events.error("retention_failed", log=log, exc_info=error)
        elif has is not None and has != (known := _known(self._core, log)):
            if known is not None and has.messages < known.messages:
                self._retained.cache.forget(log)  # what was read before is not there any more
            self._apply(LogHas(log, has))

    # -- what nobody waits for -----------------------------------------------------------------

    def _look_later(self) -> None:
        if not self._is_looking:
            self._is_looking = True
            self._loop.call_later(LOOK_S, self._look)

    def _look(self) -> None:
        """Delete what is not to be kept any more, compact; again after a while, as long as there is any."""
        self._is_looking = False
        unix_ms = self._unix_ms()
        for number, log in self._core.store.retained.logs.items():
            if not log.has.messages:
                continue
            self._look_later()
            self._retain(number, log.queue, unix_ms)
            if number not in self._at_work:
                self._at_work.add(number)
                self._work_ahead(number)
        self._compact(unix_ms)

    def _retain(self, number: int, queue: Queue, unix_ms: int) -> None:
        names = "retention_ms", "retention_bytes", "retention_messages"
        bounds = [queue.setting(name) for name in names]

        def work() -> Extension | None:
            files = self._retained.get(number)
            with _final(files):
                return _has(files) if files.retain(unix_ms, *bounds) else None

        if any(bounds):
            self._hand(work, lambda has, error: self._changed(number, has, error))

    def _compact(self, unix_ms: int) -> None:
        """Begin the compaction that is due longest, of a log that has grown, and not beside another one."""
        logs = self._core.store.retained.logs
        if self._compaction is not None:
            number, result = self._compaction
            if number in logs and not (result is not None and result.ended):
                return
            self._compaction = None
        due: list[tuple[int, int]] = []
        for number, log in logs.items():
            every_ms = log.queue.setting("compaction_ms")
            if not every_ms or not log.has.messages:
                continue
            began, upto = self._compacted.setdefault(number, (unix_ms, 0))
            # What comes right behind one waits for the next.
            if log.has.stop != upto and unix_ms - began >= max(every_ms, LEAST_COMPACTION_MS) // 2:
                due.append((began, number))
        if due:
            self._begin_compaction(min(due)[1], unix_ms)

    def _begin_compaction(self, number: int, unix_ms: int) -> None:
        queue, before = self._core.store.retained.logs[number].queue, self._compacted[number][1]
        tombstone_ms = queue.setting("tombstone_ms")

        def work() -> tuple[int, CompactionResult | None]:
            files = self._retained.get(number)
            with _final(files):
                upto = files.seal_to_compact(unix_ms)
            return upto, None if upto == before else files.begin_compaction(unix_ms, tombstone_ms)

        def done(found: tuple[int, CompactionResult | None], error: BaseException | None) -> None:
            self._changed(number, None, error)
            upto, result = (before, None) if error is not None else found
            self._compacted[number] = unix_ms, upto
            self._compaction = None if result is None else (number, result)

        self._compaction = number, None
        self._hand(work, done)

    def _work_ahead(self, number: int) -> None:
        """Do a slice of what makes files smaller and faster to read, and another one behind all else.

        While others want something of the files there is a pause between two: it would cost them the core.
        """

        def work() -> tuple[bool, Extension]:
            files = self._retained.get(number)
            return files.work_ahead(), _has(files)

        def done(found: tuple[bool, Extension], error: BaseException | None) -> None:
            is_more, has = (False, None) if error is not None else found
            self._changed(number, has, error)
            at, result = self._compaction or (number, None)
            if error is not None and at == number and result is not None:
                self._compaction = None  # it ended with that
            if not is_more or number not in self._core.store.retained.logs:
                self._at_work.discard(number)
            elif self._is_asked:
                self._loop.call_later(BESIDE_S, self._work_ahead, number)
            else:
                self._work_ahead(number)

        self._is_asked = False
        if number in self._core.store.retained.logs:
            self._hand(work, done)
        else:
            self._at_work.discard(number)


class InMemory(Retained):
    """Retained logs without files: they outlive the engines that work on them, and are gone with the process."""

    def __init__(self) -> None:
        super().__init__(FileOps(), "", make=lambda number: MemoryFiles())

    def numbers(self) -> list[int]:
        """Return the numbers of the logs that there are."""
        return sorted(self._logs)

    def set_aside(self, number: int) -> str:
        """Let go of it: there is nowhere else to keep it."""
        self.delete(number)
        return ""

    def close(self) -> None:
        """Keep them: the next engine goes on with them."""


class InTurn:
    """A hand that works in the loop, for what waits for no disk."""

    def __init__(self, loop: Any) -> None:
        self._loop = loop

    def __call__(
        self, work: Callable[[], Any], done: Callable[[Any, BaseException | None], None]
    ) -> None:
        """Do it in this turn."""
        self._loop.call_soon(lambda: _do(work, done))

    def end(self) -> None:
        """Nothing ever is under way."""


class InThread:
    """A hand that works in a thread of its own."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._executor = ThreadPoolExecutor(1, "minibroker-retained")
        self._has_ended = False

    def __call__(
        self, work: Callable[[], Any], done: Callable[[Any, BaseException | None], None]
    ) -> None:
        """Do it behind all that was asked for before."""

        def told(future: asyncio.Future[Any]) -> None:
            if not (future.cancelled() or self._has_ended):
                error = future.exception()
                done(None if error is not None else future.result(), error)

        if not self._has_ended:
            self._loop.run_in_executor(self._executor, work).add_done_callback(told)

    def end(self) -> None:
        """Wait for what is under way. Called before another server may open the files."""
        self._has_ended = True
        self._executor.shutdown(cancel_futures=True)


def _do(work: Callable[[], Any], done: Callable[[Any, BaseException | None], None]) -> None:
    try:
        found = work()
    except Exception as error:  # noqa: BLE001 - `done` judges it
        done(None, error)
    else:
        done(found, None)


@contextmanager
def _final(files: Files) -> Iterator[None]:
    """Tell an error of the disk that is final from one after which it may be tried again."""
    try:
        yield
    except OSError as error:
        if files.has_failed:
            raise SyncFailed(f"the sync of a retained log failed: {error}") from error
        raise


def _frame(piece: Piece) -> Frame:
    meta = _pack((piece.key, piece.encoding, piece.columns))
    extent: Any = piece.extent
    checksum = extent.checksum if not extent.place else crc32(extent.tail)
    return Frame(piece.first, piece.count, piece.unix_ms, meta, extent.tail, checksum)


def _known(core: Core, number: int) -> Extension | None:
    log = core.store.retained.logs.get(number)
    return None if log is None else log.has


def _has(files: Files) -> Extension:
    return Extension(files.first, files.stop, files.messages, files.size_bytes)
