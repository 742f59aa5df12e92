"""Is what a start makes of a state what it must be? Batches first, then the messages that clients were told of."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

from disk_world import Content, Recording, StraightLog, content_of
from harness import START_UNIX_MS
from portraits import Portrait, Recovered, difference
from states import key_of, whole

from minibrokerd.log.failures import LogError
from minibrokerd.log.fileops import FileOps
from minibrokerd.log.seam import Batch, Digested, Place
from support.simulated_disk import SimulatedDisk


class Violation(Exception):
    """A state after which the log is not what it must be; `kind` is lost, wrong or refused."""

    def __init__(self, kind: str, what: str) -> None:
        super().__init__(f"{kind}: {what}")
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Expected:
    """What a log may be: batches from one of `starts` up to `sure`, or one more if that was under way."""

    starts: frozenset[int]
    sure: int
    most: int

    @classmethod
    def at(cls, recording: Recording, step: int) -> Expected:
        """Return what must be there when `step` steps of a recording were done."""
        freed = max(start for at, start in recording.freed if at <= step)
        starts = {start for at, start in recording.starts if at <= step and start >= freed}
        begun, synced = bisect_right(recording.begun, step), bisect_right(recording.synced, step)
        return cls(frozenset(starts), synced, begun)


@dataclass(frozen=True, slots=True)
class Found:
    """The batches that a recovery yielded, by their indices in the recording; `clean`: as after a stop."""

    start: int
    stop: int
    clean: bool


@dataclass(frozen=True, slots=True)
class Seen:
    """What a start knows: batches, what side indexes say instead of some, and where the records stand.

    Two starts with equal ones have equal messages: the bytes at the places are those of the batches.
    """

    found: Found
    now_ms: int
    places: tuple[Place | None, ...]
    digests: tuple[tuple[int, int, int, bool], ...]


class Judge:
    """Recovers states and compares them with one recording; counts the recoveries, and those by side indexes."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.recoveries = 0
        self.indexed = 0
        self._portraits: dict[Seen, Portrait] = {}
        self._due: dict[Seen, list[tuple[int, bytes]]] = {}  # what a start has the log keep
        self._plain: dict[tuple[int, Expected], tuple[Found, Portrait]] = {}
        self._accepted: set[tuple[Found, int]] = set()

    def read(self, disk: FileOps, expected: Expected) -> tuple[StraightLog, Found]:
        """Recover, and return the log, not started, and what was found.

        Raises:
            Violation: the start is refused, or something is lost, made up or changed.
        """
        log, found, _ = self._read(disk, expected)
        return log, found

    def _read(
        self, disk: FileOps, expected: Expected
    ) -> tuple[StraightLog, Found, list[Batch | Digested]]:
        log, parts = self._recover(disk, digests=False)
        batches = [content_of(part.records) for part in parts if isinstance(part, Batch)]
        return log, self.place(batches, expected, clean=log.clean), parts

    def _recover(
        self, disk: FileOps, *, digests: bool
    ) -> tuple[StraightLog, list[Batch | Digested]]:
        self.recoveries += 1
        log = StraightLog(disk, self.recording.segment_bytes, digests=digests)
        try:
            return log, list(log.recover())
        except LogError as error:
            how = " by its indexes" if digests else ""
            raise Violation("refused", f"{error}{how}") from error

    def read_both(
        self, disk: SimulatedDisk, ops: FileOps, expected: Expected, step: int | None
    ) -> tuple[StraightLog, Found, list[tuple[int, bytes]]]:
        """Recover the disk without side indexes and, by `ops` on it, with them: both must give the same messages.

        They are compared with what clients knew after `step` steps, too (None: nobody knows). Returns the log that
        was recovered with them, not started, what was found, and the digests that a start has it keep.

        Raises:
            Violation: see `read` and `accept`; or the indexes say something else than the batches.
        """
        found, plain = self._read_plain(disk, expected)
        if step is not None:
            self.accept(found, plain, step)
        log, parts = self._recover(ops, digests=True)
        self.indexed += any(isinstance(part, Digested) for part in parts)
        other, due = self._portrait(log, found, parts)
        if other is not plain and (what := difference(plain, other)):
            raise Violation("wrong", f"the side indexes say something else: {what}")
        return log, found, due

    def _read_plain(self, disk: SimulatedDisk, expected: Expected) -> tuple[Found, Portrait]:
        """Recover without side indexes; once for all states that are equal apart from those."""
        state = {name: file for name, file in whole(disk).items() if not name.endswith(".index")}
        key = key_of(state), expected
        if key not in self._plain:
            log, found, parts = self._read(disk, expected)
            self._plain[key] = found, self._portrait(log, found, parts)[0]
            log.abandon()
        return self._plain[key]

    def _portrait(
        self, log: StraightLog, found: Found, parts: list[Batch | Digested]
    ) -> tuple[Portrait, list[tuple[int, bytes]]]:
        """Return the messages in a log that was recovered, and what its start has it keep."""
        seen = Seen(
            found,
            log.now_ms,
            tuple(part.place for part in parts if isinstance(part, Batch)),
            tuple(
                (part.segment, part.number, hash(part.payload), part.complete)
                for part in parts
                if isinstance(part, Digested)
            ),
        )
        if seen not in self._portraits:
            world = Recovered(log, parts)
            self._due[seen] = world.digests_due
            self._portraits[seen] = world.portrait()
        return self._portraits[seen], self._due[seen]

    def place(self, batches: list[Content], expected: Expected, *, clean: bool) -> Found:
        """Return where in the recording these batches stand.

        Raises:
            Violation: nowhere, or not where they must be.
        """
        appended = self.recording.appended
        for start in expected.starts:
            stop = start + len(batches)
            if expected.sure <= stop <= expected.most and batches == appended[start:stop]:
                return Found(start, stop, clean)
        for start in expected.starts:
            stop = start + len(batches)
            if batches == appended[start:stop]:
                kind = "lost" if stop < expected.sure else "wrong"
                raise Violation(kind, f"batches {start} to {stop} came back, not {expected}")
        raise Violation("wrong", f"{len(batches)} batches came back that are not {expected}")

    def accept(self, found: Found, portrait: Portrait, step: int) -> None:
        """Compare the messages in a log that was found with what clients knew after `step` steps.

        Raises:
            Violation: one is missing, ended or made up, or its body is another.
        """
        told = bisect_right(self.recording.told, step, key=lambda each: each.step)
        if (found, told) in self._accepted:
            return
        there = portrait.bodies
        for id, body in there.items():
            if self.recording.sent.get(id) != body:
                raise Violation("wrong", f"message {id} is not one that was published")
        ends = {each.id: each.since for each in self.recording.told if each.body is None}
        for each in self.recording.told[:told]:
            if each.body is None and each.id in there:
                raise Violation("wrong", f"message {each.id} was acked, and is there again")
            may_have_ended = ends.get(each.id, found.stop) < found.stop
            if each.body is not None and each.id not in there and not may_have_ended:
                raise Violation("lost", f"message {each.id} was confirmed, and is gone")
        self._accepted.add((found, told))


def start(log: StraightLog) -> None:
    """Start a recovered log as a broker does.

    Raises:
        Violation: it could not be.
    """
    try:
        log.lead(log.now_ms + 1, START_UNIX_MS)
    except (LogError, OSError) as error:
        raise Violation("refused", str(error)) from error
    if log.segments.reserve_segments < 3:
        raise Violation("wrong", f"the reserve has {log.segments.reserve_segments} segments")
