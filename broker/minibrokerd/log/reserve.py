"""What copies and settlements may use at the end of a log: a reserve, or as much as they like."""

from __future__ import annotations

from typing import Final

from minibrokerd.log.seam import RESERVE_SEGMENTS, Log, Reserve


class Endless:
    """The `Reserve` of a log that has no segment store: its end does not come near."""

    reserve_segments: Final = RESERVE_SEGMENTS
    lacks_space: Final = False
    rest_bytes: Final = 0

    def last_room_for(self, size_bytes: int, *, copies: bool) -> bool:
        """Whether so many bytes leave alone what is kept: nothing is."""
        return True


def reserve_of(log: Log) -> Reserve:
    """Return what is kept at the end of a log."""
    return log.segments or Endless()
