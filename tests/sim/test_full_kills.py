"""A broker on a disk with no byte free is killed at one step after the other, and starts and takes acks."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from full_world import FullWorld, SmallDisk

SEGMENT_BYTES = 64 * 1024
DISK_BYTES = 16 * SEGMENT_BYTES
WINDOW = 1_000
KILLS = range(1, 60, 5)  # after so many steps with one segment of the reserve left
ACKS = 4  # between two kills


class Killed(BaseException):
    """What no broker catches, and after which nothing that it does has an effect."""


class MortalDisk(SmallDisk):
    """A disk whose broker is killed at a step that changes it while most of the reserve is in use.

    A write may be half done by then.
    """

    steps_left = 0  # 0: it lives
    is_over = False
    half = False

    def dies_in(self, steps: int, *, half: bool = False) -> None:
        """Have it die at this step from now on."""
        self.steps_left, self.half = steps, half

    def revive(self) -> None:
        """Let the next broker have it; somebody else took what was free."""
        self.let_go()
        self.steps_left, self.is_over = 0, False
        self.most_bytes = min(self.most_bytes, self.used_bytes)

    def open(self, path: str, flags: int) -> int:
        """Open; making a file is a step."""
        return self._step(super().open, path, flags, counts=bool(flags & os.O_CREAT))

    def write(self, descriptor: int, data: bytes | memoryview, offset: int) -> int:
        """Write all of it, or half of it as the last thing that happens."""
        if self.half and self.steps_left == 1 and len(data) > 1:
            super().write(descriptor, data[: len(data) // 2], offset)
        return self._step(super().write, descriptor, data, offset)

    def allocate(self, descriptor: int, size_bytes: int) -> None:
        """Allocate."""
        self._step(super().allocate, descriptor, size_bytes)

    def sync(self, descriptor: int) -> None:
        """Sync."""
        self._step(super().sync, descriptor)

    def rename(self, old: str, new: str) -> None:
        """Rename."""
        self._step(super().rename, old, new)

    def unlink(self, path: str) -> None:
        """Remove."""
        self._step(super().unlink, path)

    def sync_directory(self, descriptor: int) -> None:
        """Sync the directory."""
        self._step(super().sync_directory, descriptor)

    def _step(self, act: Callable[..., Any], *arguments: Any, counts: bool = True) -> Any:
        if self.steps_left and counts and self._is_tight():
            self.steps_left -= 1
            self.is_over = not self.steps_left
        if self.is_over:
            raise Killed
        return act(*arguments)

    def _is_tight(self) -> bool:
        return sum(name.startswith("reserve-") for name in self.entries) <= 1


def acks(world: FullWorld, most: int) -> int:
    """Ack one message after the other, at most so many, until the broker is killed; return how many."""
    for acked in range(most):
        try:
            assert world.settle("ack", world.take()), f"refused after {acked}"
        except Killed:
            return acked
    return most


def test_wherever_it_is_killed_it_starts_and_takes_acks() -> None:
    """Among acks and copies of tiny messages, and once more in the start behind that."""
    disk = MortalDisk()
    world = FullWorld(SEGMENT_BYTES, DISK_BYTES, disk=disk)
    messages = world.fill(500, 10)
    acked = 0
    for number, kill in enumerate(KILLS, 1):
        world.consume(WINDOW)
        acked += acks(world, ACKS)
        disk.most_bytes = disk.used_bytes
        disk.dies_in(kill, half=kill % 2 == 0)
        acked += acks(world, messages)
        assert disk.is_over
        disk.revive()
        disk.dies_in(number)
        try:
            world.restart()
        except Killed:
            disk.revive()
            world.restart()
        disk.steps_left = 0
        # One for each kill may be written, and nobody was told.
        assert messages - acked - number <= world.living() <= messages - acked
