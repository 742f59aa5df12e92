"""How much one frame of begins and settlements may hold.

The limits table is enforced by the server; every frame that speaks of messages is filled through `FrameRoom`, so
none can exceed it: not in parts, not in runs or messages, not in bytes of header or frame.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any, Final

from minibroker.contract import limits, wire

Settlement = Any  # of settlements.py, which builds on this module

# A settle frame stays below it, so that several fit into the window.
FRAME_BYTES: Final = 512 * 1024
MAX_ERRORS: Final = 100  # errors in one frame: the server writes their texts into one batch
HEADER_BYTES: Final = 128  # of a frame's header beside its parts: names, sequence, answered_below
PART_BYTES: Final = 64  # of a part's header beside the name of its queue
STRING_BYTES: Final = 4  # the length of an entry in a string column


class FrameRoom:
    """What one frame can still take; each part that is added takes its share."""

    __slots__ = ("column_bytes", "errors", "header_bytes", "messages", "parts")

    def __init__(self, max_frame_bytes: int = limits.MAX_FRAME_BYTES) -> None:
        self.parts = limits.MAX_PARTS_PER_FRAME
        self.messages = limits.MAX_RUNS_PER_FRAME
        self.errors = MAX_ERRORS
        self.header_bytes, self.column_bytes = _shares(max_frame_bytes)

    def for_part(self, queue: str) -> int:
        """Return how many messages a further part for `queue` may name; 0 if there is no room for one.

        Each message is taken for a run of its own, whatever becomes one when they are merged.
        """
        if self.parts == 0 or self.header_bytes < PART_BYTES + len(queue.encode()):
            return 0
        return max(0, min(self.messages, self.column_bytes // wire.RUN.size))

    def is_whole(self) -> bool:
        """Return whether nothing was added yet: what comes first is taken, whatever its size."""
        return self.parts == limits.MAX_PARTS_PER_FRAME

    def takes_error(self, new_part: str | None, other: Settlement) -> bool:
        """Return whether there is room for a settlement; `new_part`: the queue, if it needs a part."""
        if self.errors == 0 or self.messages == 0 or (new_part and not self.for_part(new_part)):
            return False
        return self.column_bytes >= _size_of(other)

    def add_error(self, other: Settlement) -> None:
        """Take the room of one settlement of its own run."""
        self.errors -= 1
        self.messages -= 1
        self.column_bytes -= _size_of(other)

    def add_part(self, queue: str) -> None:
        """Take the room of a part's header."""
        self.parts -= 1
        self.header_bytes -= PART_BYTES + len(queue.encode())

    def add_messages(self, count: int) -> None:
        """Take the room of `count` messages."""
        self.messages -= count
        self.column_bytes -= count * wire.RUN.size


@lru_cache(1_000)
def room_alone(queue: str, max_frame_bytes: int) -> int:
    """Return how many messages a part for `queue` may name in a frame of its own."""
    return FrameRoom(max_frame_bytes).for_part(queue)


@cache
def _shares(max_frame_bytes: int) -> tuple[int, int]:
    """Return the bytes for parts and for columns of a frame; a quarter of a small frame is for its header."""
    most = min(FRAME_BYTES, max_frame_bytes)
    header_bytes = min(limits.MAX_HEADER_BYTES, most // 4)
    return header_bytes - HEADER_BYTES, most - header_bytes - HEADER_BYTES


def _size_of(other: Settlement) -> int:
    return wire.RUN.size + 2 * STRING_BYTES + len(other.error_class) + len(other.error_text)
