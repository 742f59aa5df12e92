"""Damage to files at rest: every flipped bit, every cut, and files that are missing, swapped or of others.

The outcome must be one of three, told apart and counted: *refused* with the right place; *torn*, which is only
possible behind the last batch that something newer proves; *right*, where everything that comes back is as it was
written. Anything else is wrong: another content, a silent loss, an exception that is not in log/failures.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from disk_world import Content, DiskWorld, StraightLog, content_of
from judge import Violation, start
from states import State, disk_of, whole
from workloads import Shift, turn

from minibrokerd.log import format as layout
from minibrokerd.log.failures import DamagedLog, LogError, NotWritable
from support.simulated_disk import SimulatedDisk

LOG_BYTES: Final = 32 * 1024
SEGMENT_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class Victim:
    """A log at rest: its files, its batches, and where each batch of each segment starts and ends."""

    closed: bool
    state: State
    contents: list[Content]
    extents: dict[str, list[tuple[int, int]]]

    @property
    def segments(self) -> list[str]:
        """The names of the segments, oldest first."""
        return sorted(self.extents)

    @property
    def last(self) -> str:
        """The name of the newest segment."""
        return self.segments[-1]

    def batch_at(self, name: str, offset: int) -> int:
        """Return where the batch that covers this byte starts; behind the last one, where that ends."""
        for begin, end in self.extents[name]:
            if offset < end:
                return begin
        return self.extents[name][-1][1]

    def may_be_torn(self, name: str, offset: int) -> bool:
        """Whether nothing newer proves that this byte was synced: it is in the last batch, or behind it."""
        return not self.closed and name == self.last and offset >= self.extents[name][-1][0]


def victim(seed: int, *, closed: bool, log_bytes: int = LOG_BYTES) -> Victim:
    """Return a log that fills so many bytes, closed by a clean stop or as after a kill."""
    world = DiskWorld(seed, SEGMENT_BYTES)
    shift = Shift(world)
    while world.disk_log.disk_bytes < log_bytes:
        turn(shift)
    shift.publish(1, 40)
    world.sync()
    if closed:
        world.close_log()
    else:
        world.disk_log.abandon()
    disk = world.ops.inner
    assert isinstance(disk, SimulatedDisk)
    state = whole(disk)
    extents = {
        name: _extents(data)
        for name, (data, _) in state.items()
        if name.endswith(".log") and name.startswith("seg")
    }
    return Victim(closed, state, world.recording.appended[world.first :], extents)


def _extents(data: bytes) -> list[tuple[int, int]]:
    return [(at, at + header.batch_bytes) for at, header in layout.headers(data, len(data))]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a start made of a damaged log: how it ended, what came back, the refusal if there was one."""

    contents: list[Content]
    refusal: LogError | None
    torn_offset: int | None


def outcome_of(disk: SimulatedDisk) -> Outcome:
    """Recover a log, and start it if that goes.

    Raises:
        Violation: an exception came that the log does not promise, or the start failed after the recovery.
    """
    log = StraightLog(disk, SEGMENT_BYTES)
    contents: list[Content] = []
    try:
        for batch in log.batches():
            contents.append(content_of(batch.records))
    except (DamagedLog, NotWritable) as refusal:
        return Outcome(contents, refusal, None)
    except Exception as error:
        raise Violation("wrong", f"{type(error).__name__}: {error}") from error
    torn_offset = log.report.torn_offset if log.report.torn_bytes else None
    start(log)
    if torn_offset is not None:
        kept = log.report.torn_kept
        if kept is None or len(disk.entries[kept].data) != log.report.torn_bytes:
            raise Violation("wrong", "the torn bytes were not kept")
    log.abandon()
    return Outcome(contents, None, torn_offset)


def judge(victim: Victim, outcome: Outcome, name: str, offset: int) -> str:
    """Return what became of a log with one damage, at this byte of this file: refused, torn or right.

    Raises:
        Violation: it is none of the three, or the refusal names another place.
    """
    refusal = outcome.refusal
    if refusal is not None:
        if not refusal.args[0] or victim.contents[: len(outcome.contents)] != outcome.contents:
            raise Violation(
                "wrong", f"before it refused, it yielded what was never written: {refusal}"
            )
        if name in victim.extents:
            _judge_place(victim, refusal, name, offset)
        return "refused"
    if outcome.torn_offset is not None:
        expected = victim.contents[: len(outcome.contents)]
        if not victim.may_be_torn(name, offset) or outcome.contents != expected:
            raise Violation(
                "lost", f"a cut was made silently for damage at byte {offset} of {name}"
            )
        if len(outcome.contents) < len(victim.contents) - 1:
            raise Violation("lost", "more than the last batch is gone")
        return "torn"
    if outcome.contents != victim.contents:
        raise Violation("wrong", f"{len(outcome.contents)} batches came back as if they were right")
    return "right"


def _judge_place(victim: Victim, refusal: LogError, name: str, offset: int) -> None:
    path = getattr(refusal, "path", "").rpartition("/")[2]
    begin = victim.batch_at(name, offset)
    following = dict(zip(victim.segments, victim.segments[1:], strict=False)).get(name)
    if path == following and offset == begin and getattr(refusal, "offset", -1) == 0:
        return  # what stands there ends with a whole batch: only the next header knows that one is missing
    if path != name:
        raise Violation("wrong", f"byte {offset} of {name} is damaged, and it says: {refusal}")
    if isinstance(refusal, DamagedLog) and refusal.offset != begin:
        raise Violation("wrong", f"byte {offset} of {name} is damaged, and it says: {refusal}")


def flipped(victim: Victim, name: str, bit: int) -> SimulatedDisk:
    """Return the log with one bit of one file turned over."""
    data, space = victim.state[name]
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return disk_of({**victim.state, name: (bytes(changed), space)})


def try_flip(victim: Victim, name: str, bit: int) -> str:
    """Flip one bit and return what became of it.

    Raises:
        Violation: it is not what it must be.
    """
    return judge(victim, outcome_of(flipped(victim, name, bit)), name, bit // 8)


def try_cut(victim: Victim, name: str, offset: int, *, shortened: bool) -> str:
    """End a segment at a byte, with zeros behind it or with the end of the file; return what became of it.

    The batches that follow the cut are gone without a trace if it is in the newest segment of an open log: what
    comes back must be exactly those before it.

    Raises:
        Violation: it is not what it must be.
    """
    data, space = victim.state[name]
    left = data[:offset] if shortened else data[:offset] + bytes(len(data) - offset)
    if left == data:
        return "right"
    outcome = outcome_of(
        disk_of({**victim.state, name: (left, min(space, len(left)) if shortened else space)})
    )
    if victim.closed or name != victim.last:
        # The last bytes of a batch may be zeros, so the first one that differs tells which is damaged.
        at = next((at for at in range(offset, len(data)) if data[at]), len(data) - 1)
        return judge(victim, outcome, name, offset if shortened else at)
    return _judge_prefix(victim, outcome, data, left)


def _judge_prefix(victim: Victim, outcome: Outcome, data: bytes, left: bytes) -> str:
    """An open log that ends earlier: its first batches, each whole, and the rest of the next one kept."""
    if outcome.refusal is not None:
        begin, end = victim.extents[victim.last][0]
        if left[begin:end] == data[begin:end]:
            raise Violation("wrong", f"an open log that ends early was refused: {outcome.refusal}")
        return "refused"  # a segment that `state` says was begun has lost its header
    before = len(victim.contents) - sum(
        header.kind is layout.Kind.DATA for _, header in layout.headers(data, len(data))
    )
    whole_ones = sum(
        header.kind is layout.Kind.DATA
        and left[at : at + header.batch_bytes] == data[at : at + header.batch_bytes]
        for at, header in layout.headers(data, len(data))
    )
    if outcome.contents != victim.contents[: before + whole_ones]:
        raise Violation(
            "lost", f"{len(outcome.contents)} batches came back of {before + whole_ones}"
        )
    return "torn"
