"""A power cut at every call: what was synced is there, nothing torn is read, nothing is there twice.

The world behaves as the archiver does: what was not synced when the power went comes again, in other frames.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from random import Random

import pytest
from retained_world import bodies_in, body_of, frame_with, read_all
from states import Crash, State, disk_of, durable, whole

from minibrokerd.retained import files as files_module
from minibrokerd.retained import rewriting
from minibrokerd.retained.files import RetainedFiles
from minibrokerd.retained.frames import Frame
from support.simulated_disk import SimulatedDisk

SEGMENT_BYTES = 1_500
STATES = int(os.environ.get("STATES", "3"))  # that are tried of those that one cut may leave
KEYS = 5


class WatchedDisk(SimulatedDisk):
    """Calls `watch` before each change."""

    watch: Callable[[], None] = staticmethod(lambda: None)

    def open(self, path: str, flags: int) -> int:
        """Watched where it may make a file."""
        if flags & (os.O_CREAT | os.O_TRUNC):
            self.watch()
        return super().open(path, flags)

    def write(self, descriptor: int, data: bytes | memoryview, offset: int) -> int:
        """Watched."""
        self.watch()
        return super().write(descriptor, data, offset)

    def sync(self, descriptor: int) -> None:
        """Watched."""
        self.watch()
        super().sync(descriptor)

    def sync_directory(self, descriptor: int) -> None:
        """Watched."""
        self.watch()
        super().sync_directory(descriptor)

    def truncate(self, descriptor: int, size_bytes: int) -> None:
        """Watched."""
        self.watch()
        super().truncate(descriptor, size_bytes)

    def rename(self, old: str, new: str) -> None:
        """Watched."""
        self.watch()
        super().rename(old, new)

    def unlink(self, path: str) -> None:
        """Watched."""
        self.watch()
        super().unlink(path)


class World:
    """A log, what was published to it, and the disks that a cut at any call would have left."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.disk = WatchedDisk()
        self.files = opened(self.disk)
        self.published: dict[int, bytes] = {}
        self.next_offset = 0
        self.now_ms = 1_000
        self.acked = 0  # safe in the archive: all below
        self.low = 0  # nothing below is ever read again
        self.gone: set[int] = set()  # deleted by retention or compaction
        self.tried = 0

    def publish(self) -> None:
        """Append some frames; they are not safe yet."""
        frames = []
        for _ in range(self.random.randint(1, 4)):
            self.next_offset += self.random.choice((0, 0, 0, 3))
            self.now_ms += self.random.choice((1, 1, 5, 2_000))
            count = self.random.choice((1, 1, 1, 2, 9))
            offsets = range(self.next_offset, self.next_offset + count)
            bodies = [self._body(offset) for offset in offsets]
            self.published.update(zip(offsets, bodies, strict=True))
            key = b"key %d" % self.random.randrange(KEYS)
            frames.append(frame_with(self.next_offset, bodies, self.now_ms, key=key))
            self.next_offset += count
        self.files.append(frames)

    def _body(self, offset: int) -> bytes:
        if self.random.random() < 0.1:
            return b""
        return body_of(offset, self.random.choice((20, 60, 300)))

    def sync(self) -> None:
        """Have it safe."""
        self.files.sync()
        self.acked = self.files.stop

    def tidy(self) -> None:
        """Do all the work that nobody waits for."""
        while self.files.work_ahead():
            pass

    def trim(self) -> None:
        """Have nothing below some offset."""
        first = self.files.first
        self.low = max(self.low, self.random.randint(first, max(first, self.acked)))
        self.files.trim(self.low)

    def trim_all(self) -> None:
        """Have nothing."""
        self.low = self.acked = self.next_offset = self.next_offset + 2
        self.files.trim(self.low)

    def retain(self) -> None:
        """Keep the last messages."""
        self.files.retain(self.now_ms, 0, 0, max(self.files.messages // 2, 1))

    def compact(self) -> None:
        """Keep the last of each key."""
        self.files.compact(self.now_ms, 10, seal=self.random.random() < 0.5)

    def again(self) -> None:
        """A stop and a start."""
        self.sync()
        self.files.close()
        self.files = opened(self.disk)

    def do(self, step: Callable[[World], None]) -> None:
        """Do a step, with a look at the disk before each call; then judge what a cut there would have left."""
        acked, before, low = self.acked, held(self.files, self.low), self.low
        points: list[SimulatedDisk] = []
        self.disk.watch = lambda: points.append(self.disk.copy())  # type: ignore[method-assign]
        step(self)
        self.disk.watch = lambda: None  # type: ignore[method-assign]
        points.append(self.disk.copy())
        after = held(self.files, self.low)
        self.gone |= before - after
        must = {offset for offset in before & after if offset < acked}
        for disk in points:
            for state in self._states(disk):
                self._judge(state, acked, must, low)

    def _states(self, disk: SimulatedDisk) -> Iterator[State]:
        yield whole(disk)
        yield durable(disk)
        crash = Crash(disk, self.random)
        for _ in range(STATES):
            yield crash.one()

    def _judge(self, state: State, acked: int, must: set[int], low: int) -> None:
        self.tried += 1
        disk = disk_of(state)
        disk.there = True
        files = opened(disk)
        self._check(files, must, low)
        again = [offset for offset in self.published if offset >= max(acked, self.low)]
        files.append(list(self._frames(again)))
        files.sync()
        must = must | set(again) - self.gone
        self._check(files, must, low)
        while files.work_ahead():
            self._check(files, must, low)
        files.close()
        disk.let_go()
        self._check(opened(disk), must, low)

    def _frames(self, offsets: list[int]) -> Iterator[Frame]:
        """Yield messages in other frames than at first."""
        while offsets:
            most = self.random.randint(1, 4)
            size = next(
                (at for at in range(1, len(offsets)) if offsets[at] != offsets[0] + at),
                len(offsets),
            )
            some, offsets = offsets[: min(most, size)], offsets[min(most, size) :]
            bodies = [self.published[offset] for offset in some]
            yield frame_with(some[0], bodies, self.now_ms, key=b"again")

    def _check(self, files: RetainedFiles, must: set[int], low: int) -> None:
        found: list[int] = []
        for offset, body in messages(files):
            assert body == self.published[offset]
            if offset >= files.first:
                found.append(offset)
        assert found == sorted(set(found))
        assert not must - set(found)
        assert not found or found[0] >= low
        assert files.damaged == 0


def opened(disk: SimulatedDisk) -> RetainedFiles:
    """Return the log on a disk."""
    files = RetainedFiles(disk, "7", segment_bytes=SEGMENT_BYTES)
    files.open()
    return files


def messages(files: RetainedFiles) -> Iterator[tuple[int, bytes]]:
    """Yield all messages in the frames of a log."""
    for frame in read_all(files, most_bytes=700):
        yield from zip(range(frame.first, frame.stop), bodies_in(frame), strict=True)


def held(files: RetainedFiles, low: int) -> set[int]:
    """Return the offsets that a log holds."""
    return {offset for offset, _ in messages(files) if offset >= max(low, files.first)}


STEPS: list[tuple[Callable[[World], None], int]] = [
    (World.publish, 8),
    (World.sync, 4),
    (World.tidy, 2),
    (World.trim, 1),
    (World.trim_all, 1),
    (World.retain, 2),
    (World.compact, 2),
    (World.again, 1),
]


@pytest.mark.parametrize("seed", range(int(os.environ.get("WORLDS", "3"))))
def test_a_power_cut_loses_nothing_that_was_safe(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every call of every operation, as the seed has them."""
    random = Random(seed)
    monkeypatch.setattr(files_module, "INDEX_BYTES", random.choice((100, 1_000, 10**6)))
    monkeypatch.setattr(rewriting, "_WRITE_BYTES", 600)
    monkeypatch.setattr(rewriting, "_SYNC_BYTES", 1_000)
    world = World(random)
    steps, weights = zip(*STEPS, strict=True)
    for _ in range(25):
        (step,) = random.choices(steps, weights)
        world.do(step)
    assert world.tried > 100
