"""Is what a start makes of a state what it must be? Batches first, then the messages that clients were told of."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

from disk_world import Content, Id, Recording, StraightLog, content_of
from harness import START_UNIX_MS, World

from minibrokerd.log.failures import LogError
from minibrokerd.log.fileops import FileOps
from minibrokerd.log.seam import Batch, Record


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


class Judge:
    """Recovers states and compares them with one recording; counts the recoveries."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.recoveries = 0
        self._outcomes: dict[Found, dict[Id, bytes]] = {}
        self._accepted: set[tuple[Found, int]] = set()

    def read(self, disk: FileOps, expected: Expected) -> tuple[StraightLog, Found]:
        """Recover, and return the log, not started, and what was found.

        Raises:
            Violation: the start is refused, or something is lost, made up or changed.
        """
        self.recoveries += 1
        log = StraightLog(disk, self.recording.segment_bytes)
        try:
            batches = [content_of(batch.records) for batch in log.recover()]
        except LogError as error:
            raise Violation("refused", str(error)) from error
        return log, self.place(batches, expected, clean=log.clean)

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

    def accept(self, found: Found, step: int) -> None:
        """Compare the messages in a log that was found with what clients knew after `step` steps.

        Raises:
            Violation: one is missing, ended or made up, or its body is another.
        """
        told = bisect_right(self.recording.told, step, key=lambda each: each.step)
        if (found, told) in self._accepted:
            return
        there = self._messages(found)
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

    def _messages(self, found: Found) -> dict[Id, bytes]:
        """Return the messages that a broker has after replaying these batches."""
        outcome = self._outcomes.get(found)
        if outcome is None:
            outcome = self._outcomes[found] = messages_in(
                self.recording.appended[found.start : found.stop],
                self.recording.times_ms[found.start : found.stop],
                clean=found.clean,
            )
        return outcome


def messages_in(contents: list[Content], times_ms: list[int], *, clean: bool) -> dict[Id, bytes]:
    """Return id and body of every message that a broker has after replaying these batches."""
    world = World()
    world.log = [
        Batch(number, [Record(*fields) for fields in content], now_ms, START_UNIX_MS)
        for number, (content, now_ms) in enumerate(zip(contents, times_ms, strict=True), 1)
    ]
    world._start(clean=clean)
    client = world.hello()
    found: dict[Id, bytes] = {}
    for queue in list(world.store.queues):
        for message in client.peek(queue):
            id = message["origin"], message["sequence"]
            assert id not in found, f"{id} is there twice"
            found[id] = message["body"]
    world.check()
    return found


def start(log: StraightLog) -> None:
    """Start a recovered log as a broker does.

    Raises:
        Violation: it could not be.
    """
    try:
        log.start(log.now_ms + 1, START_UNIX_MS)
    except (LogError, OSError) as error:
        raise Violation("refused", str(error)) from error
    if log.reserve_segments < 3:
        raise Violation("wrong", f"the reserve has {log.reserve_segments} segments")
