"""What waits, what is refused and what passes: the admission of commands, between fakes of log and core."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from minibroker.contract import limits, wire
from minibrokerd.core.model.effects import Outgoing
from minibrokerd.core.model.inputs import Command, Disconnected, Frame, Space
from minibrokerd.engine.admission import BEHIND_SHARE, Admission
from minibrokerd.log.seam import BATCH_HEADER_BYTES, RESERVE_SEGMENTS, Room
from minibrokerd.log.sizes import GROWTH_BYTES, PUBLISH_OVERHEAD_BYTES, sizes_of
from minibrokerd.net.frames import read_frame

SEGMENT_BYTES = 64 * 1024
KIB = 1024


class World:
    """Core, log, forwarder, pager and engine, as the admission sees them."""

    def __init__(self) -> None:
        self.room = Room.GRANTED
        self.known: set[int] = set()  # sequences of frames that came before
        self.sizes = sizes_of(SEGMENT_BYTES)
        self.segment_bytes = SEGMENT_BYTES
        self.reserve_segments = RESERVE_SEGMENTS
        self.is_full_disk = False
        self.has_last_room = True
        self.last_room_bytes = 16 * SEGMENT_BYTES
        self.passes: list[int] = []  # that were asked for, with what is to be written before
        self.is_behind = False
        self.makes_room = True
        self.freed_upto = 0
        self.store = self.sums = self
        self.open_batch = 1
        self.synced = self.grown_bytes = 0
        self.allowance_bytes = 8 * KIB
        self.is_full = False  # memory
        self.pending_bytes = 0
        self.others_bytes = 0
        self.is_idle = True
        self.asked: list[int] = []  # for how much room
        self.applied: list[Command] = []
        self.refusals: list[dict[str, Any]] = []
        self.cut: list[tuple[int, str]] = []
        self.steps_asked = 0
        self.segments = self  # its reserve
        me: Any = self
        self.admission = Admission(me, me, me, me, me)

    # -- core and log

    def knows(self, frame: Frame) -> bool:
        return frame.sequence in self.known

    def room_for(self, size_bytes: int) -> Room:
        self.asked.append(size_bytes)
        return self.room

    @property
    def lacks_space(self) -> bool:
        return self.is_full_disk or self.reserve_segments < RESERVE_SEGMENTS

    def begin_pass(
        self, others_bytes: int, least_bytes: int = 1, *, goes_round: bool = False
    ) -> bool:
        self.passes.append(least_bytes)
        return False  # a pass would give nothing

    def last_room_for(self, size_bytes: int, *, copies: bool) -> bool:
        assert not copies, "what frees a segment needs room after all others"
        return self.has_last_room and size_bytes <= self.last_room_bytes

    # -- engine

    def submit(self, command: Command) -> None:
        if self.admission.admits(command):
            self.applied.append(command)
            self.others_bytes += getattr(command, "size", 0) + BATCH_HEADER_BYTES

    def answer(self, outgoing: Outgoing) -> None:
        self.refusals.append(outgoing.header)

    def make_room(self) -> None:
        self.steps_asked += 1

    def cut_off(self, connection: int, code: str, text: str) -> None:
        self.cut.append((connection, code))

    # -- what a test does

    def publish(self, sequence: int, size: int = KIB, connection: int = 1, parts: int = 1) -> None:
        part = {"op": "publish", "queue": "q", "count": 1}
        lengths, blob = struct.pack("<II", 0, size) * parts, bytes(size) * parts
        self._frame([part] * parts, connection, lengths, blob, sequence=sequence)

    def ack(self, sequence: int, connection: int = 1, runs: int = 1) -> None:
        part = {"op": "ack", "queue": "q", "runs": runs}
        columns = struct.pack("<QIQI", 1, 1, 1, 1) * runs
        self._frame([part], connection, sequence=sequence, columns=columns)

    def release(self, sequence: int, count: int) -> None:
        part = {"op": "release", "queue": "q", "runs": 1}
        columns = struct.pack("<QIQI", 1, 1, 1, count)
        self._frame([part], 1, sequence=sequence, columns=columns)

    def ask(self, op: str, connection: int = 1) -> None:
        self._frame([{"op": op, "queue": "q"}], connection, request=1)

    def _frame(
        self,
        parts: list[dict[str, Any]],
        connection: int,
        lengths: bytes = b"",
        blob: bytes = b"",
        columns: bytes = b"",
        **numbers: int,
    ) -> None:
        payload = wire.pack_frame({"parts": parts, **numbers}, columns, lengths, blob)[4:]
        self.submit(read_frame(payload, connection, 0.0))

    def tighten(self, reserve_segments: int = RESERVE_SEGMENTS - 1) -> Space | None:
        self.reserve_segments = reserve_segments
        return self.admission.look_at_reserve()

    def freed(self) -> None:
        """What the engine does when a segment was given up."""
        self.admission.freed()
        self.admission.go_on()

    @property
    def sequences(self) -> list[tuple[int, int | None]]:
        """The frames that were applied, as (connection, sequence)."""
        return [(c.connection, c.sequence) for c in self.applied if isinstance(c, Frame)]


# -- order --------------------------------------------------------------------------------------


def test_what_a_client_sent_after_a_publish_that_waits_waits_behind_it() -> None:
    """And nobody else does; all of it goes on in its order."""
    world = World()
    world.room = Room.WAIT
    world.publish(1)
    world.ack(2)
    world.publish(3)
    world.ask("purge")
    world.submit(Disconnected(1))
    world.ack(1, connection=2)
    assert world.sequences == [(2, 1)]
    world.room = Room.GRANTED
    world.admission.go_on()
    assert world.sequences == [(2, 1), (1, 1), (1, 2), (1, 3), (1, None)]
    assert isinstance(world.applied[-1], Disconnected)


def test_what_has_to_wait_once_more_keeps_its_order() -> None:
    world = World()
    world.room = Room.WAIT
    world.publish(1)
    world.ack(2)
    world.publish(1, connection=2)
    for _ in range(3):
        world.admission.go_on()
    world.publish(3)
    assert world.applied == []
    world.room = Room.GRANTED
    world.admission.go_on()
    assert world.sequences == [(1, 1), (1, 2), (2, 1), (1, 3)]


def test_room_is_asked_for_what_is_pending_and_what_comes() -> None:
    world = World()
    world.pending_bytes = 10_000
    world.publish(1)
    (asked,) = world.asked
    assert 10_000 + KIB + PUBLISH_OVERHEAD_BYTES < asked < 10_000 + KIB + 2 * PUBLISH_OVERHEAD_BYTES


def test_no_more_room_is_asked_for_than_there_ever_is() -> None:
    """Parts count as more than they take, and what a larger segment had may be published again by the server."""
    world = World()
    most = world.sizes.batch_bytes
    world.publish(1, 600, parts=limits.MAX_PARTS_PER_FRAME)
    assert world.admission.has_room(100 * most)
    assert 0 < min(world.asked) <= max(world.asked) <= most


def test_a_flood_behind_what_waits_ends_its_connection_alone() -> None:
    world = World()
    world.sizes = sizes_of(64 * 1024 * KIB)
    world.room = Room.WAIT
    world.publish(1, connection=2)
    most = limits.MAX_UNANSWERED_BYTES + limits.MAX_FRAME_BYTES
    sequence = 0
    while not world.cut:
        sequence += 1
        world.publish(sequence, 512 * KIB)
        assert sequence * 512 * KIB <= most + 1024 * KIB, "it takes more than it may"
    assert sequence * 512 * KIB > most - 1024 * KIB
    assert world.cut == [(1, "busy")]
    world.submit(Disconnected(1))
    world.room = Room.GRANTED
    world.admission.go_on()
    assert world.sequences == [(2, 1)], "nothing of the one that was cut off is applied"
    assert any(isinstance(command, Disconnected) for command in world.applied)


# -- publishes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("room", "is_full", "size", "code", "retry_ms"),
    [
        (Room.REFUSED, False, KIB, "disk_full", 1_000),
        (Room.GRANTED, True, KIB, "busy", 1_000),
        (Room.GRANTED, False, SEGMENT_BYTES, "too_large", None),
    ],
)
def test_a_refusal_says_why_and_whether_it_may_come_again(
    room: Room, is_full: bool, size: int, code: str, retry_ms: int | None
) -> None:
    """And a frame that came before is let through to its answer: it was stored."""
    world = World()
    world.room, world.is_full = room, is_full
    world.publish(7, size)
    (refusal,) = world.refusals
    assert (refusal["code"], refusal.get("retry_ms"), refusal["sequence"]) == (code, retry_ms, 7)
    assert refusal["retryable"] == (retry_ms is not None)
    world.ack(8)
    assert world.sequences == [(1, 8)], "acks go on"
    world.known.add(7)
    world.publish(7, size)
    assert world.sequences == [(1, 8), (1, 7)]


def test_a_publish_waits_while_copying_is_behind_and_goes_on_after_a_segment_was_freed() -> None:
    world = World()
    world.is_behind = True
    for sequence in range(1, 100):
        world.publish(sequence)
    first = len(world.applied)
    share = SEGMENT_BYTES // BEHIND_SHARE
    assert share // 2 < first * KIB <= share + 2 * KIB
    world.ack(1, connection=2)
    world.admission.go_on()
    assert len(world.applied) == first + 1, "only an ack passed"
    world.freed()
    assert len(world.applied) > first + 1
    world.is_behind = False
    world.freed()
    assert [sequence for connection, sequence in world.sequences if connection == 1] == [
        *range(1, 100)
    ]


def test_a_publish_does_not_wait_for_a_copying_that_cannot_go_on() -> None:
    world = World()
    world.is_behind, world.makes_room = True, False
    for sequence in range(1, 100):
        world.publish(sequence)
    assert len(world.applied) == 99


# -- settlements while the reserve is not whole -------------------------------------------------


def test_settlements_pass_freely_while_the_reserve_is_whole() -> None:
    world = World()
    world.has_last_room = False
    for sequence in range(1, 1_000):
        world.ack(sequence)
    assert len(world.applied) == 999
    assert not world.refusals


def test_settlements_keep_step_with_what_is_freed() -> None:
    """A pass over the whole log must fit into what is left of the reserve."""
    world = World()
    world.tighten()
    for sequence in range(1, 1_000):
        world.ack(sequence)
    first = len(world.applied)
    assert 0 < first < 100
    world.freed()
    assert first < len(world.applied) <= 2 * first + 1
    world.makes_room = False  # nothing is copied: waiting would have no end
    world.admission.go_on()
    assert [sequence for _, sequence in world.sequences] == [*range(1, 1_000)]


def test_a_large_settlement_waits_for_as_many_segments_as_pay_for_it() -> None:
    """One for each segment that was freed, whatever its size, had used up the reserve in one pass."""
    world = World()
    world.tighten()
    world.ack(1, runs=2_000)  # 48 KB, at 8 KiB for a segment
    world.ack(2)
    for freed in range(4):
        world.freed()
        assert len(world.applied) == 1, freed
    world.freed()
    assert len(world.applied) == 2


def test_what_was_written_before_the_pass_is_not_owed() -> None:
    """It is what the pass gives back: waiting for that would stop everybody until its end."""
    world = World()
    world.others_bytes = 100 * SEGMENT_BYTES
    world.tighten(RESERVE_SEGMENTS)
    world.tighten()
    world.makes_room = False
    world.ack(1, runs=2_000)
    world.ack(2)
    world.makes_room = True
    world.ack(3)
    assert [sequence for _, sequence in world.sequences] == [1, 2, 3]


def test_the_last_of_the_reserve_is_waited_for_while_room_is_made_and_refused_when_none_is() -> (
    None
):
    world = World()
    world.tighten()
    world.has_last_room = False
    world.ack(1)
    assert (world.applied, world.refusals) == ([], [])
    world.makes_room = False
    world.admission.go_on()
    (refusal,) = world.refusals
    assert (refusal["code"], refusal["retryable"]) == ("disk_full", True)
    world.ask("purge")
    world.ask("queue_delete")
    assert world.sequences == [(1, None), (1, None)], "what helps always passes"
    world.reserve_segments = RESERVE_SEGMENTS
    world.admission.look_at_reserve()
    world.ack(1)
    assert world.sequences[-1] == (1, 1)


def test_whoever_waits_for_copying_has_it_go_on() -> None:
    """It may have stopped for want of room, and room comes back without a word."""
    world = World()
    world.publish(1)
    assert world.steps_asked == 0
    world.reserve_segments = 0
    world.admission.look_at_reserve()
    world.has_last_room = False
    world.ack(2)
    assert (world.steps_asked, world.refusals) == (1, [])


def test_what_waits_is_refused_when_room_is_no_longer_made() -> None:
    """The copies may take the last room themselves: a wait for them would have no end."""
    world = World()
    world.reserve_segments = 0
    world.admission.look_at_reserve()
    world.has_last_room = False
    world.ack(1)
    world.admission.look_at_waiting()
    assert (world.applied, world.refusals) == ([], [])
    world.makes_room = False
    world.admission.look_at_waiting()
    assert [refusal["code"] for refusal in world.refusals] == ["disk_full"]


def test_nothing_is_refused_while_a_batch_is_under_way() -> None:
    """What its sync sets free is not known before."""
    world = World()
    world.tighten()
    world.has_last_room = world.makes_room = world.is_idle = False
    world.ack(1)
    world.admission.look_at_waiting()
    assert (world.applied, world.refusals) == ([], [])
    world.has_last_room = True
    world.admission.look_at_waiting()
    assert world.sequences == [(1, 1)]


def test_a_settlement_waits_for_a_reserve_that_is_only_being_made() -> None:
    """As after a start without its files: only when that has failed is the disk full."""
    world = World()
    world.tighten(0)
    world.has_last_room = world.makes_room = False
    world.room = Room.WAIT
    world.ack(1)
    world.ack(2)
    world.admission.look_at_waiting()
    assert (world.applied, world.refusals) == ([], [])
    world.room = Room.REFUSED
    world.admission.go_on()
    assert [refusal["code"] for refusal in world.refusals] == ["disk_full"] * 2
    world.room = Room.WAIT
    world.ack(3)
    world.has_last_room = True
    world.admission.go_on()
    assert world.sequences == [(1, 3)]


def test_the_core_is_told_of_the_reserve_once_for_each_change() -> None:
    world = World()
    assert world.admission.look_at_reserve() is None
    short = world.tighten()
    assert short is not None
    assert (short.short, short.pause) == (True, True)
    assert world.tighten() is None
    world.makes_room = False  # a pause without an end would be worse
    going_on = world.tighten()
    assert going_on is not None
    assert (going_on.short, going_on.pause) == (True, False)
    whole = world.tighten(RESERVE_SEGMENTS)
    assert whole is not None
    assert (whole.short, whole.pause) == (False, False)


def test_a_pass_begins_before_the_room_for_settlements_is_used_up() -> None:
    """Copies come before the records that they make good for are freed."""
    world = World()
    world.tighten()
    world.makes_room, world.last_room_bytes = False, SEGMENT_BYTES // 3
    world.ack(1)
    assert (world.sequences, world.passes) == ([(1, 1)], [SEGMENT_BYTES // 4])


def test_what_makes_messages_larger_leaves_room_to_those_that_end_some() -> None:
    """A history is written again with its message: if that has no room, acks have none either, ever."""
    world = World()
    world.tighten()
    world.makes_room, world.last_room_bytes = False, SEGMENT_BYTES // 2 + 40 * GROWTH_BYTES
    world.release(1, count=41)
    assert [refusal["code"] for refusal in world.refusals] == ["disk_full"]
    world.release(2, count=20)
    world.release(3, count=20)
    assert world.sequences == [(1, 2)], "what was let through grows later"
    world.ack(4)
    assert world.sequences == [(1, 2), (1, 4)]
    world.freed_upto = world.open_batch
    world.release(5, count=20)
    assert world.sequences[-1] == (1, 5), "it has grown, and there is as much room as before"


def test_growth_is_noted_on_a_full_disk_whose_reserve_is_whole() -> None:
    """The last segment that was given has room for more nacks than their histories have later."""
    world = World()
    world.is_full_disk = True
    world.admission.look_at_reserve()
    world.release(1, count=30)
    world.tighten()
    world.makes_room, world.last_room_bytes = False, SEGMENT_BYTES // 2 + 40 * GROWTH_BYTES
    world.release(2, count=20)
    world.ack(3)
    assert world.sequences == [(1, 1), (1, 3)]


def test_what_a_start_found_to_grow_is_noted() -> None:
    """It was let through before the start, and takes the same room when it is copied."""
    world = World()
    world.grown_bytes, world.synced = 30 * GROWTH_BYTES, 7
    world.admission.opened()
    world.tighten()
    world.makes_room, world.last_room_bytes = False, SEGMENT_BYTES // 2 + 40 * GROWTH_BYTES
    world.release(1, count=20)
    assert [refusal["code"] for refusal in world.refusals] == ["disk_full"]
    world.ack(2)
    world.freed_upto = 7
    world.release(3, count=20)
    assert world.sequences == [(1, 2), (1, 3)]
