"""Every state that a crash may leave of recorded workloads, each recovered, started and recovered again.

A `Source` is one recording; its points are the steps after which the crash comes. Each point has a random
generator of its own, so that one can be tried again alone.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass, field, fields
from itertools import count
from random import Random
from typing import Final

from disk_world import Recording
from judge import Expected, Judge, Violation, start
from lives import Chain, crash_everywhere
from recorder import Player, Step
from states import SPOILT, Crash, State, disk_of, durable, key_of, whole
from workloads import WORKLOADS, record

from support.simulated_disk import SimulatedDisk

SEGMENT_BYTES: Final = (4096, 8192, 16384)
SAMPLES: Final = 12
CHAINS: Final = 3  # series of crashes tried at each point
EVERYWHERE: Final = 16  # at one point in so many, a recovery is ended at each of its steps


@dataclass(slots=True)
class Tally:
    """What was tried, and what came of it; `faults` say how to try again."""

    states: int = 0
    recoveries: int = 0
    cuts: int = 0
    orders: int = 0
    chains: int = 0
    indexed: int = 0
    flips: int = 0
    files: int = 0
    indexes: int = 0
    bodies: int = 0
    refused: int = 0
    torn: int = 0
    right: int = 0
    set_aside: int = 0
    wrong: int = 0
    lost: int = 0
    faults: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Add the figures of another."""
        for row in fields(Tally):
            setattr(self, row.name, getattr(self, row.name) + getattr(other, row.name))

    def violated(self, violation: Violation, where: str) -> None:
        """Count a violation; a start that refuses what it must take loses all of it."""
        if violation.kind == "wrong":
            self.wrong += 1
        else:
            self.lost += 1
        self.faults.append(f"{where}: {violation}")

    def __str__(self) -> str:
        figures = [f"{row.name}={getattr(self, row.name)}" for row in fields(Tally)[:-1]]
        return "cuts: " + " ".join(figures)


@dataclass(frozen=True, slots=True)
class Source:
    """Which recording: a workload, the size of its segments, its seed."""

    name: str
    segment_bytes: int
    seed: int

    def __str__(self) -> str:
        return f"{self.name}:{self.segment_bytes}:{self.seed}"


def sources(seed: int) -> Iterator[Source]:
    """Yield all workloads with all sizes, then the same with the next seed, without end."""
    while True:
        for segment_bytes in SEGMENT_BYTES:
            for name in WORKLOADS:
                yield Source(name, segment_bytes, seed)
        seed += 1


class Sweep:
    """The points of one source, tried one after the other.

    `each_cut`: of the lengths to which a write may be cut short each n-th is tried; most states are of them.
    """

    def __init__(
        self, source: Source, recording: Recording | None = None, each_cut: int = 1
    ) -> None:
        self.source = source
        self._each_cut = each_cut
        self.recording = recording or record(source.name, source.seed, source.segment_bytes)
        self.judge = Judge(self.recording)
        self._seen: set[tuple[int, Expected]] = set()
        self._left: set[tuple[int, int, Expected]] = set()  # by starts; judged already

    def run(self, points: Container[int] | None = None) -> Iterator[Tally]:
        """Yield what each point gave; `points` are numbers of steps, all by default."""
        player = Player(SimulatedDisk(seed=self.source.seed))
        for step_count, step in enumerate(self.recording.steps, 1):
            player.play(step)
            if points is None or step_count in points:
                yield self._point(player.disk, step, step_count)

    def _point(self, disk: SimulatedDisk, step: Step, step_count: int) -> Tally:
        tally, where = Tally(), f"ONLY={self.source}:{step_count}"
        random = Random(where)
        expected = Expected.at(self.recording, step_count)
        before, indexed = self.judge.recoveries, self.judge.indexed
        cuts = count(Random(f"{where} cuts").randrange(self._each_cut))
        for kind, state in Crash(disk, random).states(SAMPLES):
            is_left_out = kind == "cuts" and next(cuts) % self._each_cut
            if not is_left_out and self._is_new(state, expected):
                self._try(tally, kind, state, expected, step_count, where)
        tally.recoveries += self.judge.recoveries - before
        tally.indexed += self.judge.indexed - indexed
        self._chains(tally, disk, expected, random, where)
        return tally

    def _is_new(self, state: State, expected: Expected) -> bool:
        key = key_of(state), expected
        if key in self._seen:
            return False
        self._seen.add(key)
        return True

    def _try(
        self, tally: Tally, kind: str, state: State, expected: Expected, step: int, where: str
    ) -> None:
        tally.states += 1
        tally.cuts += kind == "cuts"
        tally.orders += kind == "orders"
        try:
            self._recover(disk_of(state), expected, step)
        except Violation as violation:
            if kind == SPOILT and violation.kind == "refused":
                tally.refused += 1
            else:
                tally.violated(violation, f"{where} {kind}")

    def _recover(self, disk: SimulatedDisk, expected: Expected, step: int) -> None:
        """Recover, start, and recover what that left: on the disk only and as written, and again the same."""
        log, found, due = self.judge.read_both(disk, disk, expected, step)
        start(log)
        for segment, payload in due:
            log.segments.keep_digest(segment, payload)
        log.abandon()
        same = Expected(frozenset({found.start}), found.stop, found.stop)
        left = key_of(durable(disk)), key_of(whole(disk)), same
        if left in self._left:
            return  # another state came to the same
        self._left.add(left)
        again, _ = self.judge.read(disk_of(durable(disk)), same)
        again.abandon()
        again, *_ = self.judge.read_both(disk, disk, same, None)
        again.abandon()

    def _chains(
        self, tally: Tally, disk: SimulatedDisk, expected: Expected, random: Random, where: str
    ) -> None:
        for number in range(CHAINS):
            chain = Chain(self.recording, expected, random)
            left = disk.copy() if number == 0 else disk_of(Crash(disk, random).one())
            tally.chains += 1
            try:
                chain.run(left)
            except Violation as violation:
                tally.violated(violation, f"{where} chain {number}")
            tally.recoveries += chain.judge.recoveries
        if random.randrange(EVERYWHERE) == 0:
            left = disk_of(Crash(disk, random).one())
            try:
                tally.recoveries += crash_everywhere(self.recording, expected, left, random)
            except Violation as violation:
                tally.violated(violation, f"{where} crash in the recovery")
