"""Frames of begins and settlements: the packing of parts, within what frame_room.py says that a frame holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

from minibroker.contract import limits, wire
from minibroker.session.frame_room import FrameRoom
from minibroker.session.settlements import Item, Run, SettlePart, runs_of

# A login frame may have 4 KiB; this many runs fit with the other fields. Only a lease that was lost in a crash
# needs to be named, and a crash loses the latest ones: those begun first stay begun at the server all the same.
MAX_RESUME_RUNS: Final = 128


def pack_parts(parts: Sequence[SettlePart], header: Mapping[str, object]) -> bytes:
    """Return a frame of these parts."""
    columns = b"".join([part.columns() for part in parts])
    return wire.pack_frame({"parts": [part.header() for part in parts], **header}, columns)


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
    """Return the runs of `messages` for a resume; if they are too many, of those that were begun last."""
    latest = messages
    if len(latest) > limits.MAX_RUNS_PER_FRAME:
        latest = sorted(messages, key=_begun_at)[-limits.MAX_RUNS_PER_FRAME :]
    runs = runs_of(latest)
    if len(runs) > MAX_RESUME_RUNS and latest is messages:
        latest = sorted(messages, key=_begun_at)
    while len(runs) > MAX_RESUME_RUNS:
        latest = latest[len(latest) // 8 or 1 :]
        runs = runs_of(latest)
    return runs


def _begun_at(message: Item) -> float:
    return float(message.begun_at)
