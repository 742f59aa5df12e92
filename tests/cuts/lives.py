"""Crashes one after the other: in the middle of a recovery, and after a kill the loss of power.

A life begins on what the last one left, recovers, starts, appends a batch or two, and ends at some step of all
this: by a kill, which keeps what was written and not synced, or by a loss of power, which leaves some of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from disk_world import Content, Recording, content_of
from judge import Expected, Found, Judge, start
from recorder import Player, RecordingOps, Step
from states import Crash, disk_of

from minibrokerd.core.model.records import ReserveMeta, record
from support.simulated_disk import SimulatedDisk

MOST_LIVES = 5


@dataclass(slots=True)
class Life:
    """One undisturbed life on a disk: its steps, and from which of them on what is known.

    `served` is the step from which on what it found is promised to clients.
    """

    steps: list[Step]
    found: Found
    appended: list[Content]
    served: int = 0
    begun: list[int] = field(default_factory=list)
    synced: list[int] = field(default_factory=list)

    def expected(self, before: Expected, step: int) -> Expected:
        """Return what the next life must find, when this one ends at this step."""
        if step < self.served:
            return before
        stop = self.found.stop
        synced, begun = sum(at <= step for at in self.synced), sum(at <= step for at in self.begun)
        return Expected(frozenset({self.found.start}), stop + synced, stop + begun)


class Chain:
    """Lives on a disk, judged by a copy of a recording that grows with what they append."""

    def __init__(self, recording: Recording, expected: Expected, random: Random) -> None:
        self.judge = Judge(Recording(recording.segment_bytes, appended=list(recording.appended)))
        self.random = random
        self.expected = expected

    def live(self, disk: SimulatedDisk) -> Life:
        """Return a whole life on a copy of this disk.

        Raises:
            Violation: it finds not what it must, or cannot start.
        """
        ops = RecordingOps(disk.copy())
        log, found = self.judge.read(ops, self.expected)
        life = Life(ops.steps, found, self.judge.recording.appended[: found.stop])
        start(log)
        life.served = len(ops.steps)
        for _ in range(self.random.randrange(3)):
            records = [record(ReserveMeta(1, self.random.randrange(2**32)))]
            life.begun.append(len(ops.steps))
            life.appended.append(content_of(records))
            log.write(records, log.now_ms + 2, 0)
            life.synced.append(len(ops.steps))
        log.abandon()
        return life

    def end(self, disk: SimulatedDisk, life: Life, step: int, *, power: bool) -> SimulatedDisk:
        """End a life that began on this disk after so many steps, and return what it left."""
        player = Player(disk.copy())
        for each in life.steps[:step]:
            player.play(each)
        self.expected = life.expected(self.expected, step)
        if step >= life.served:
            self.judge.recording.appended[:] = life.appended
        if power:
            return disk_of(Crash(player.disk, self.random).one())
        return player.disk.copy()

    def run(self, disk: SimulatedDisk) -> None:
        """Live up to five lives, each ended at random, and one that is not.

        Raises:
            Violation: one of them finds not what it must.
        """
        for _ in range(self.random.randrange(1, MOST_LIVES + 1)):
            life = self.live(disk)
            step = self.random.randrange(len(life.steps) + 1)
            disk = self.end(disk, life, step, power=self.random.random() < 0.5)
        self.live(disk)


def crash_everywhere(
    recording: Recording, expected: Expected, disk: SimulatedDisk, random: Random
) -> int:
    """End the recovery of a disk at each of its steps, by a kill and by a loss of power; return the recoveries.

    Raises:
        Violation: the next start finds not what it must.
    """
    first = Chain(recording, expected, random)
    life = first.live(disk)
    recoveries = first.judge.recoveries
    for step in range(len(life.steps) + 1):
        for power in (False, True):
            chain = Chain(recording, expected, random)
            chain.live(chain.end(disk, life, step, power=power))
            recoveries += chain.judge.recoveries
    return recoveries
