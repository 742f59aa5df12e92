"""Frames of begins and settlements: what is owed, and the packing of parts within what frame_room.py allows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from minibroker.contract import limits, wire
from minibroker.session.frame_room import FRAME_BYTES, FrameRoom, room_alone
from minibroker.session.settlements import GOES_ON, Item, Run, Settlements, SettlePart, runs_of
from minibroker.session.window import Window

# A login frame may have 4 KiB; this many runs fit with the other fields. Only a lease that was lost in a crash
# needs to be named, and a crash loses the latest ones: those begun first stay begun at the server all the same.
MAX_RESUME_RUNS: Final = 128
NOT_ALL: Final[Run] = (
    0,
    0,
    0,
    1,
)  # in place of those that a resume does not name: no delivery has token 0


def pack_parts(parts: Sequence[SettlePart], header: Mapping[str, object]) -> bytes:
    """Return a frame of these parts."""
    columns = b"".join([part.columns() for part in parts])
    packed = wire.pack_header({"parts": [part.header() for part in parts], **header})
    return wire.frame_of_packed(packed, columns)


def frames_naming(
    op: str,
    messages: Iterable[Item],
    value_of: Callable[[Item], int | None],
    max_frame_bytes: int = limits.MAX_FRAME_BYTES,
) -> Iterator[list[SettlePart]]:
    """Yield the parts of as many frames as it takes to say `op` of `messages`.

    A part speaks of one queue and has one value, which `value_of` a message returns.
    """
    groups: dict[tuple[str, int | None], list[Item]] = {}
    for message in messages:
        groups.setdefault((message.queue, value_of(message)), []).append(message)
    room, parts = FrameRoom(max_frame_bytes), list[SettlePart]()
    for (queue, value), members in groups.items():
        at = 0
        while at < len(members):
            count = room.for_part(queue)
            if not count:
                yield parts
                room, parts = FrameRoom(max_frame_bytes), []
                count = room.for_part(queue)
            part = SettlePart(op, queue, members[at : at + count], value)
            part.runs = runs_of(part.messages)
            room.add_part(queue)
            room.add_messages(len(part.messages))
            parts.append(part)
            at += count
    if parts:
        yield parts


def resume_runs(messages: list[Item]) -> list[Run]:
    """Return the runs of `messages` for a resume; of too many, `NOT_ALL` and those that were begun last."""
    latest = messages
    if len(latest) > limits.MAX_RUNS_PER_FRAME:
        latest = sorted(messages, key=_begun_at)[1 - limits.MAX_RUNS_PER_FRAME :]
    runs = runs_of(latest)
    if len(runs) > MAX_RESUME_RUNS and latest is messages:
        latest = sorted(messages, key=_begun_at)
    while len(runs) > MAX_RESUME_RUNS - (latest is not messages):
        latest = latest[len(latest) // 8 or 1 :]
        runs = runs_of(latest)
    return runs if latest is messages else [NOT_ALL, *runs]


def _begun_at(message: Item) -> float:
    return float(message.begun_at)


class Owed:
    """Begins and settlements that are not written yet, and parts of frames that were refused.

    `owing` has the queues of which something waits; `single` are parts whose frame was refused: each leaves in one
    of its own; `returned` were refused for now: the shell says when to try again. `waiting` is who began to
    wait for messages last: the next frame says so, to a server that wants to hear it (`tells_waits`).
    """

    __slots__ = ("owing", "returned", "single", "tells_waits", "waiting")

    def __init__(self) -> None:
        self.owing: dict[Settlements, None] = {}
        self.single: list[SettlePart] = []
        self.returned: list[SettlePart] = []
        self.waiting: Any = None  # a Subscription: that module builds on this one
        self.tells_waits = False

    def is_any(self) -> bool:
        """Return whether settlements wait to be written."""
        return bool(self.single) or any(not waiting.is_empty() for waiting in self.owing)

    def messages(self) -> Iterator[Item]:
        """Yield the messages of settlements that wait and end them."""
        for settlements in list(self.owing):
            yield from list(settlements.acks)
            yield from [other.message for other in settlements.others if other.op not in GOES_ON]

    def let_go(self) -> None:
        """Forget what waits: nobody will be told of it any more."""
        for settlements in self.owing:
            settlements.let_go()
        self.owing.clear()
        self.returned.clear()
        self.single.clear()
        self.waiting = None

    def write(
        self, frames: list[bytes], window: Window[Any], max_frame_bytes: int, now_ms: int
    ) -> None:
        """Add the frames that may be written now to `frames` and to the window."""
        if self.single:
            write_singly(self.single, frames, window, now_ms)
        if len(self.owing) == 1:
            self._write_acks(frames, window, max_frame_bytes, now_ms)
        while self.owing:
            room, parts = FrameRoom(max_frame_bytes), list[SettlePart]()
            has_room = window.has_room(FRAME_BYTES)
            seen = []
            for settlements in self.owing:
                if not room.parts:
                    break  # thousands of queues are looked at for the frame that they leave in, not for each
                seen.append(settlements)
                if has_room and (settlements.acks or settlements.others):
                    parts += settlements.take(room)
            is_sequenced = bool(parts)
            for settlements in seen:
                if settlements.begins:
                    parts += settlements.take_begins(room)
            if not parts:
                self._forget_written(list(self.owing))
                break
            if is_sequenced:
                waiting, self.waiting = self.waiting, None
                _write(parts, frames, window, now_ms, waiting if self.tells_waits else None)
            else:
                # No settlement to ride with: not sequenced, so it needs no room and gets no answer.
                frames.append(pack_parts(parts, {}))
            self._forget_written(seen)

    def _write_acks(
        self, frames: list[bytes], window: Window[Any], max_frame_bytes: int, now_ms: int
    ) -> None:
        """Write what nearly always waits: acks of one queue, in which all that began has ended; else nothing."""
        (settlements,) = self.owing
        acks, begins = settlements.acks, settlements.begins
        if (
            not acks
            or (begins and begins != acks)
            or settlements.others
            or settlements.waiters
            or settlements.extend_waiters
            or len(acks) > room_alone(settlements.queue, max_frame_bytes)
            or not window.has_room(FRAME_BYTES)
        ):
            return
        settlements.acks, settlements.begins = [], []
        part = SettlePart("ack", settlements.queue, acks, None)
        part.runs = runs_of(acks)
        waiting, self.waiting = self.waiting, None
        _write([part], frames, window, now_ms, waiting if self.tells_waits else None)
        settlements.flush_at = 1
        self.owing.clear()

    def _forget_written(self, seen: list[Settlements]) -> None:
        for settlements in seen:
            settlements.flush_at = 1
            if not (settlements.acks or settlements.others or settlements.begins):
                del self.owing[settlements]


def write_singly(
    waiting: list[SettlePart], frames: list[bytes], window: Window[Any], now_ms: int
) -> None:
    """Write each of these parts in a frame of its own, under a new sequence, as far as the window has room."""
    while waiting and window.has_room(FRAME_BYTES):
        _write([waiting.pop(0)], frames, window, now_ms)


def _write(
    parts: list[SettlePart],
    frames: list[bytes],
    window: Window[Any],
    now_ms: int,
    waiting: Any = None,
) -> None:
    header: dict[str, object] = {
        "sequence": window.next_sequence,
        "answered_below": window.answered_below,
    }
    if waiting is not None and waiting.is_free():
        header["waits"] = waiting.number
    frame = pack_parts(parts, header)
    window.add(frame, parts, now_ms)
    frames.append(frame)
