"""The order in which a segment is emptied and freed: copies, their sync, then the file."""

from __future__ import annotations

from typing import Any

from minibrokerd.core.model.inputs import Forward
from minibrokerd.engine.clock import Clock
from minibrokerd.engine.forwarder import Forwarder
from minibrokerd.log.sizes import sizes_of

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
        self.sizes = sizes_of(8 * MIB)
        self.oldest_upto: int | None = 10
        self.reserve_segments = 3
        self.lacks_space = False
        self.last_room_bytes = self.rest_bytes = 64 * MIB
        self.pending_bytes: int | None = 0
        self.others = 0  # bytes
        self.freed: list[int] = []
        self.applied: list[Forward] = []
        self.again = 0
        self.segments = self  # its reserve
        core: Any = self
        log: Any = self
        self.forwarder = Forwarder(
            core,
            log,
            self._apply,
            lambda: self.newest,
            lambda: self.pending_bytes,
            lambda: self.others,
            self._again,
        )

    def last_room_for(self, size_bytes: int, *, copies: bool) -> bool:
        assert copies
        return size_bytes <= self.last_room_bytes

    def live_bytes(self) -> int:
        return self.live

    def trim(self, upto: int, now_ms: int, unix_ms: int, done: object) -> None:
        self.freed.append(upto)

    def step(self) -> None:
        self.forwarder.step(Clock(0))

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


def test_copying_begins_at_one_and_a_half_times_what_lives_and_two_segments() -> None:
    """Below that it would cost more than it frees; above, all that lives is copied before it is twice that."""
    world = World()
    world.live = 2 * MIB * 2 // 3 + 1
    world.step()
    assert world.applied == []
    world.live -= 1
    world.step()
    assert len(world.applied) == 1


def test_copies_are_twice_what_is_written_meanwhile_within_limits() -> None:
    """Else a busy queue would run away from the copying of an old one."""
    world = World()
    world.steps_left = 4
    for written_bytes in (0, 200 * 1024, 8 * MIB):
        world.forwarder.wrote(written_bytes)
        world.step()
    assert [command.most_bytes for command in world.applied] == [128 * 1024, 400 * 1024, MIB]


def test_a_step_is_as_large_as_the_last_room_allows() -> None:
    """Whoever waits because it makes room would wait for ever if the step then found itself too large."""
    world = World()
    world.steps_left = 4
    world.step()
    world.forwarder.wrote(8 * MIB)
    world.last_room_bytes = 300 * 1024
    assert world.forwarder.makes_room
    world.step()
    assert [command.most_bytes for command in world.applied] == [128 * 1024, 128 * 1024]
    world.last_room_bytes = 100 * 1024  # what is left to copy may be as little
    world.step()
    assert world.applied[-1].most_bytes == 32 * 1024
    world.last_room_bytes = 1024
    assert not world.forwarder.makes_room
    world.step()
    assert len(world.applied) == 3


def test_a_step_that_waits_for_a_read_is_not_repeated_until_it_was_read() -> None:
    """It would only spin."""
    world = World()
    world.steps_left, world.is_reading = 2, True
    assert not world.forwarder.step(Clock(0))
    world.is_reading = False
    assert not world.forwarder.step(Clock(0)), "the copies are to be synced first"


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


def test_while_the_reserve_is_short_the_log_is_copied_once_whatever_lives() -> None:
    """What filled the reserve has ended, and lies behind all that lives; a pass without a gain is not repeated."""
    world = World()
    world.live, world.reserve_segments, world.lacks_space = 4 * MIB, 2, True
    world.step()
    assert len(world.applied) == 1
    world.synced = 51
    world.step()
    assert world.freed == [10]
    world.oldest_upto, world.clear_below = (
        60,
        0,
    )  # all that stood there when the pass began was copied
    world.step()
    assert len(world.applied) == 1
    world.disk_bytes += MIB // 2  # the copies are longer than what they replace
    world.step()
    assert len(world.applied) == 1
    world.live -= MIB // 4
    world.step()
    assert len(world.applied) == 2


def test_while_the_reserve_is_short_what_others_wrote_and_ended_begins_a_pass() -> None:
    """As many publishes as acks: what lives stays as it is, and the log grows by what has ended."""
    world = World()
    world.live, world.reserve_segments, world.lacks_space = 4 * MIB, 2, True
    world.step()
    world.synced = 51
    world.step()
    world.oldest_upto, world.clear_below = 60, 0
    world.disk_bytes += MIB // 2
    world.others += MIB // 4
    world.step()
    assert len(world.applied) == 2


def test_the_last_reserve_segment_is_left_to_the_next_start() -> None:
    """Copies wait, and say so, for acks that they would make room for."""
    world = World()
    world.last_room_bytes = 0
    world.step()
    assert (world.applied, world.forwarder.makes_room) == ([], False)
    world.last_room_bytes = 64 * MIB
    assert world.forwarder.makes_room
    world.step()
    assert len(world.applied) == 1


def test_a_step_that_copies_nothing_is_followed_by_another() -> None:
    """No record, so no sync to go on from."""
    world = World()
    world.steps_left = 2
    assert world.forwarder.step(Clock(0))


def test_a_pass_for_settlements_needs_something_written_since_the_last_one() -> None:
    """It ends when the reserve is whole: what it gave beyond that would be the disk's."""
    world = World()
    world.live, world.lacks_space, world.reserve_segments = 4 * MIB, True, 3
    world.step()
    assert not world.applied, "nothing has ended"
    world.reserve_segments = 2
    assert world.forwarder.begin_pass(1_000)
    assert not world.forwarder.begin_pass(1_000)
    assert not world.forwarder.begin_pass(1_999, 1_000)
    world.step()
    assert len(world.applied) == 1
    world.synced = 51
    world.step()
    assert world.freed == [10]
    world.oldest_upto, world.reserve_segments = 20, 3
    world.step()
    assert len(world.applied) == 1


def test_while_space_is_short_copies_fill_the_segment_that_is_written() -> None:
    """A part of each segment that stays empty is what a pass over a long log would cost."""
    world = World()
    world.lacks_space, world.rest_bytes, world.pending_bytes = True, 5_000, 1_000
    world.step()
    assert world.applied[0].rest_bytes == 4_000


def test_then_they_wait_until_it_is_known_where_they_begin() -> None:
    """Another batch is on its way: the one that follows it may begin in this segment or in the next one."""
    world = World()
    world.lacks_space, world.pending_bytes = True, None
    world.step()
    assert not world.applied
    world.pending_bytes = 0
    world.step()
    assert len(world.applied) == 1


def test_where_there_is_space_copies_wait_for_nothing() -> None:
    """A pass beside a load would take as many syncs as it has steps, and each would be a small one."""
    world = World()
    world.pending_bytes = None
    world.step()
    assert [command.rest_bytes for command in world.applied] == [0]
