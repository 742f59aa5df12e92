"""The order in which a segment is emptied and freed: copies, their sync, then the file."""

from __future__ import annotations

from typing import Any

from minibrokerd.core.inputs import Forward
from minibrokerd.forwarder import Forwarder

MIB = 1024 * 1024


class World:
    """A core and a log as the forwarder sees them, in a test's hands."""

    def __init__(self) -> None:
        self.clear_below = 0
        self.synced = 50
        self.is_reading = False
        self.live = 0
        self.steps_left = 1  # applies until all is copied
        self.newest = 50
        self.disk_bytes = 4 * MIB
        self.segment_bytes = MIB
        self.max_batch_bytes = 8 * MIB
        self.oldest_upto: int | None = 10
        self.freed: list[int] = []
        self.applied: list[Forward] = []
        self.again = 0
        core: Any = self
        log: Any = self
        self.forwarder = Forwarder(core, log, self._apply, lambda: self.newest, self._again)

    def live_bytes(self) -> int:
        return self.live

    def free(self, upto: int, now_ms: int, unix_ms: int, done: object) -> None:
        self.freed.append(upto)

    def step(self) -> None:
        self.forwarder.step(0, 0)

    def _apply(self, command: Forward) -> None:
        self.applied.append(command)
        self.newest += 1
        self.steps_left -= 1
        if self.steps_left <= 0:
            self.clear_below = command.upto + 1

    def _again(self) -> None:
        self.again += 1


def test_a_segment_is_freed_only_when_the_batch_of_its_last_copy_is_synced() -> None:
    """A crash before that would find neither the copy nor the original."""
    world = World()
    world.step()
    assert (len(world.applied), world.freed) == (1, [])
    world.step()
    assert (len(world.applied), world.freed) == (1, [])
    world.synced = 51
    world.step()
    assert world.freed == [10]


def test_it_is_copied_in_steps_between_the_syncs() -> None:
    """A step has a bound, so that nobody waits long behind one."""
    world = World()
    world.steps_left = 3
    for synced in (51, 52, 53):
        assert world.freed == []
        world.step()
        world.synced = synced
    world.step()
    assert (len(world.applied), world.freed) == (3, [10])
    assert all(command.most_bytes <= MIB for command in world.applied)


def test_the_log_may_be_twice_what_lives_and_two_segments() -> None:
    """Below that nothing is copied: it would cost more than it frees."""
    world = World()
    world.live = MIB
    world.step()
    assert world.applied == []
    world.live = MIB - 1
    world.step()
    assert len(world.applied) == 1


def test_the_segment_that_is_written_is_left_alone_and_none_is_freed_twice() -> None:
    """The log may take a while to forget a segment."""
    world = World()
    world.oldest_upto = None
    world.step()
    assert world.applied == []
    world.oldest_upto = 10
    world.step()
    world.synced = 51
    world.step()
    world.step()
    assert (len(world.applied), world.freed) == (1, [10])
    world.oldest_upto, world.steps_left = 20, 1
    world.step()
    assert len(world.applied) == 2
