"""Whether a command may be applied now: a publish needs room in log and memory, a settlement some of the reserve.

What may not waits, and everything behind it on the same connection waits with it, so that the order of a client
stays what it was; or it is refused, and nothing was changed. Three things make a publish wait: the log is about to
allocate, the log is longer than it may be and what lives is being copied, or both.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final, Protocol

from minibroker.contract import limits
from minibroker.contract.wire import RUN
from minibrokerd.core.core import Core, error_header
from minibrokerd.core.model.effects import Outgoing
from minibrokerd.core.model.inputs import NEEDS_RESERVE, NEEDS_SPACE, Command, Frame, Space
from minibrokerd.engine.forwarder import Forwarder
from minibrokerd.engine.pager import Pager
from minibrokerd.log.reserve import reserve_of
from minibrokerd.log.seam import RESERVE_SEGMENTS, Log, Room
from minibrokerd.log.sizes import GROWTH_BYTES, PUBLISH_OVERHEAD_BYTES
from minibrokerd.process.logs import events

BEHIND_SHARE: Final = 8  # of a segment
# What ends nothing leaves the same, of the room of settlements, to acks: a nack makes its message larger.
ACKS_SHARE: Final = 2


class Door(Protocol):
    """What is asked of the engine."""

    @property
    def pending_bytes(self) -> int:
        """The bytes of records that were applied and not appended yet."""
        ...

    @property
    def is_idle(self) -> bool:
        """Whether no batch is open, closed or under way."""
        ...

    @property
    def others_bytes(self) -> int:
        """The bytes that were ever applied, copies apart."""
        ...

    def submit(self, command: Command) -> None:
        """Take a command that waited."""
        ...

    def answer(self, outgoing: Outgoing) -> None:
        """Send a refusal."""
        ...

    def make_room(self) -> None:
        """Have copying go on."""
        ...

    def cut_off(self, connection: int, code: str, text: str) -> None:
        """End a connection."""
        ...


class Admission:
    """Asked for every command; `go_on` when what was waited for may have come."""

    def __init__(
        self, core: Core, log: Log, forwarder: Forwarder, pager: Pager, door: Door
    ) -> None:
        self._core = core
        self._log = log
        self._reserve = reserve_of(log)
        self._forwarder = forwarder
        self._pager = pager
        self._door = door
        self._waiting: deque[Command] = deque()  # commands behind one that waits
        self._blocked: dict[int, int] = {}  # their connections, with the bytes that wait
        self._full = False  # the log refused room, and has not granted any since
        self._space = (False, False)  # what the core was told: short, and pause
        self._tight = False  # the reserve is not whole: settlements go on as it is made whole
        self._lacks_space = False
        # By how much messages will grow when they are copied, each with the newest batch when that was settled.
        self._growth: deque[tuple[int, int]] = deque()
        self._growth_bytes = 0
        self._written_bytes = 0  # by publishes, since a segment was freed
        self._paid_bytes = 0  # of the others' bytes, those that freed segments have made up for

    def opened(self) -> None:
        """Know by how much what was let through before this start will grow."""
        grown_bytes = self._core.store.sums.grown_bytes
        if grown_bytes:
            self._growth.append((self._core.synced, grown_bytes))
            self._growth_bytes += grown_bytes

    def admits(self, command: Command) -> bool:
        """Whether to apply a command now; if not, it waits or was refused."""
        if self._blocked and getattr(command, "connection", None) in self._blocked:
            self._wait(command)
            return False
        if not isinstance(command, Frame):
            return True
        if command.needs >= NEEDS_SPACE:
            return self._admits_publish(command)
        return (
            not self._lacks_space
            or command.needs != NEEDS_RESERVE
            or self._admits_settlement(command)
        )

    def has_room(self, size: int) -> bool:
        """Whether the server itself may publish so many bytes: as `admits` judges a frame."""
        # What is more than one apply may write would wait for ever: it comes in parts, or a segment is larger.
        size = min(size, self._log.sizes.apply_bytes)
        if self._pager.is_full or (self._forwarder.is_behind and not self._may_write(size)):
            return False
        return self._log.room_for(self._door.pending_bytes + size) is Room.GRANTED

    def look_at_waiting(self) -> None:
        """Take or refuse what waits for room that is not being made: nothing else would end that wait."""
        if self._waiting and not self._forwarder.makes_room:
            self.go_on()

    def go_on(self) -> None:
        """Ask again for what waits."""
        if self._full and self._log.room_for(0) is Room.GRANTED:
            self._full = False
            events.info("disk_has_room")
        waiting, self._waiting = self._waiting, deque()
        self._blocked.clear()
        for command in waiting:
            self._door.submit(command)

    def freed(self) -> None:
        """A segment was given up: others may write again."""
        self._written_bytes = 0
        paid_bytes = self._paid_bytes + self._forwarder.allowance_bytes
        self._paid_bytes = min(paid_bytes, self._door.others_bytes)

    def look_at_reserve(self) -> Space | None:
        """Return what the core should be told of the reserve, if that is news."""
        did_lack, self._lacks_space = self._lacks_space, self._reserve.lacks_space
        if not (self._lacks_space or did_lack):  # as nearly always
            self._paid_bytes = self._door.others_bytes
            return None
        self._tight = self._lacks_space and self._reserve.reserve_segments < RESERVE_SEGMENTS
        if not self._tight:
            self._paid_bytes = self._door.others_bytes
        # A pause without an end would be worse than a full disk: what frees something comes after deliveries.
        space = (self._tight, self._tight and self._forwarder.makes_room)
        if space == self._space:
            return None
        self._space = space
        return Space(*space)

    def _admits_publish(self, frame: Frame) -> bool:
        size = frame.size + PUBLISH_OVERHEAD_BYTES * len(frame.parts)
        # What has more than that in its records the core refuses.
        size = min(size, self._log.sizes.apply_bytes)
        too_large = frame.size > self._log.sizes.frame_bytes
        room = Room.REFUSED
        if not (too_large or self._pager.is_full):
            if self._forwarder.is_behind and not self._may_write(size):
                return self._wait_for_copying(frame)
            room = self._log.room_for(self._door.pending_bytes + size)
        # A frame that came again needs no room, and "nothing was stored" would be untrue.
        if room is Room.GRANTED or self._core.knows(frame):
            return True
        if room is Room.WAIT:
            return self._wait(frame)
        if too_large:
            most = self._log.sizes.frame_bytes
            text = f"a frame of {frame.size} bytes exceeds {most}, which the segments allow"
            return self._refuse(frame, "too_large", text, None)
        if self._pager.is_full:
            text = "memory is full of messages that wait: nothing was stored; add consumers, acks go on"
            return self._refuse(frame, "busy", text, 1_000)
        if not self._full:
            self._full = True
            events.error("disk_full", bytes=size)
        text = "the disk is full: nothing was stored; acks still work, free some space"
        return self._refuse(frame, "disk_full", text, 1_000)

    def _may_write(self, size: int) -> bool:
        """Whether a publish may be written although copying is behind: a little for each segment that is freed.

        Where all of a segment lives, freeing it gives nothing back, so what is written meanwhile is how far the
        log grows beyond its bound (measured beside a backlog of 42 segments: 9 of them with a half of one each, 2
        with this).
        """
        if (
            self._written_bytes > self._log.segment_bytes // BEHIND_SHARE
            and self._forwarder.makes_room
        ):
            return False
        self._written_bytes += size
        return True

    def _admits_settlement(self, frame: Frame) -> bool:
        """Whether a settlement may be applied while the reserve is not whole.

        Requests pass: a purge, or a queue that is deleted, is what helps.
        """
        if frame.sequence is None or self._core.knows(frame):
            return True
        growth_bytes = _growth_bytes(frame)
        if (self._tight or growth_bytes) and not self._has_room(frame, growth_bytes):
            return False
        if growth_bytes:
            self._growth.append((self._core.store.open_batch, growth_bytes))
            self._growth_bytes += growth_bytes
        return True

    def _has_room(self, frame: Frame, growth_bytes: int) -> bool:
        """Whether a settlement has room, and what it makes larger by so much has when that is copied."""
        size = frame.size + PUBLISH_OVERHEAD_BYTES
        needed_bytes = self._door.pending_bytes + size
        if growth_bytes:
            while self._growth and self._growth[0][0] <= self._forwarder.freed_upto:
                self._growth_bytes -= self._growth.popleft()[1]
            needed_bytes += growth_bytes + self._growth_bytes
            needed_bytes += self._log.segment_bytes // ACKS_SHARE
        is_last = not self._reserve.last_room_for(needed_bytes, copies=False)
        if not self._forwarder.makes_room:
            # What was written so far is for the next pass to give back.
            self._paid_bytes = self._door.others_bytes
            self._ask_early(size)
        elif is_last or self._owed_bytes() >= self._forwarder.allowance_bytes:
            return self._wait_for_copying(frame)
        if is_last:
            # The sync of what is under way may free something, and asks for what waits in any case.
            if not self._door.is_idle:
                return self._wait(frame)
            if self._forwarder.begin_pass(self._door.others_bytes, goes_round=growth_bytes > 0):
                return self._wait_for_copying(frame)
            # The reserve may only be in the making, as after a start: its end asks for what waits, too.
            if self._log.room_for(self._door.pending_bytes + size) is Room.WAIT:
                return self._wait(frame)
            text = "the disk is full, and nothing can be freed: ack messages, make space or purge a queue"
            return self._refuse(frame, "disk_full", text, 1_000)
        return True

    def _ask_early(self, size_bytes: int) -> None:
        """Begin a pass while half of the room of settlements is left.

        What they took out of the middle of a copy makes more copies of it, and those come first: the records of
        the settlements are dead, but stand at the end of the log.
        """
        segment_bytes = self._log.segment_bytes
        needed_bytes = self._door.pending_bytes + size_bytes + segment_bytes // 2
        if not self._reserve.last_room_for(
            needed_bytes, copies=False
        ) and self._forwarder.begin_pass(self._door.others_bytes, segment_bytes // 4):
            self._door.make_room()

    def _owed_bytes(self) -> int:
        return self._door.others_bytes - self._paid_bytes

    def _wait_for_copying(self, frame: Frame) -> bool:
        self._door.make_room()  # room comes back without a word, so nobody else may ask for the next step
        return self._wait(frame)

    def _wait(self, command: Any) -> bool:
        """Let a command wait; a flood behind it ends its connection."""
        connection = command.connection
        size = command.size if isinstance(command, Frame) else 0
        self._waiting.append(command)
        self._blocked[connection] = self._blocked.get(connection, 0) + size
        if self._blocked[connection] > limits.MAX_UNANSWERED_BYTES + limits.MAX_FRAME_BYTES:
            self._waiting = deque(
                waiting
                for waiting in self._waiting
                if getattr(waiting, "connection", 0) != connection
            )
            self._blocked[connection] = 0
            text = "too much waits behind a publish that waits for room"
            self._door.cut_off(connection, "busy", text)
        return False

    def _refuse(self, frame: Frame, code: str, text: str, retry_ms: int | None) -> bool:
        header = error_header(code, text, retry_ms, frame)
        self._door.answer(Outgoing(frame.connection, 0, header))
        return False


def _growth_bytes(frame: Frame) -> int:
    """Return by how much messages will grow that a frame settles and does not end."""
    growth_bytes = 0
    for part, its in zip(frame.parts, frame.slices or (frame,), strict=True):
        if part.row.settles and not part.row.ends:
            runs = its.columns[: RUN.size * min(part.runs, len(its.columns) // RUN.size)]
            growth_bytes += its.size + GROWTH_BYTES * sum(run[3] for run in RUN.iter_unpack(runs))
    return growth_bytes
