"""Keeps the log on disk bounded: it has what lives copied out of the oldest segment, then has that freed.

The order is what makes it safe. All that lives in the oldest segment is written again; then the batches of these
copies are synced; then the log says in a synced batch that it starts later; then the file goes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from minibrokerd.core.core import Core
from minibrokerd.core.inputs import Forward
from minibrokerd.log.seam import Log

STEP_BYTES: Final = 128 * 1024  # of copies in one apply: 400 small messages, about 15 ms
MOST_STEP_BYTES: Final = 1024 * 1024  # and at most, when much is written meanwhile
# Copying begins when the log is 1.5 times what lives, and copies twice what is written meanwhile. What lives is
# copied once, then, before the log is 2 times that; and a segment behind it that is dead goes for nothing.
BEGIN_RATIO: Final = 1.5
COPY_RATIO: Final = 2
SPARE_SEGMENTS: Final = (
    2  # beside twice what lives: the one that is written, and the one that is emptied
)


class Forwarder:
    """Asked after every sync whether there is something to do; does a step of it, and then one in every turn."""

    def __init__(
        self,
        core: Core,
        log: Log,
        apply: Callable[[Forward], None],
        newest_batch: Callable[[], int],
        again: Callable[[], None],
    ) -> None:
        """`newest_batch` returns the newest batch that has records, `again` is called after each freeing."""
        self._core = core
        self._log = log
        self._apply = apply
        self._newest_batch = newest_batch
        self._again = again
        self._upto = 0  # what the segment has that is being emptied; 0: none is
        self._copied = 0  # the batch of the last copies, once all are made
        self._freed = 0  # up to here the log was asked to free
        self._written_bytes = 0  # since the last step

    def wrote(self, size_bytes: int) -> None:
        """Note what was written to the log."""
        self._written_bytes += size_bytes

    def step(self, now_ms: int, unix_ms: int) -> bool:
        """Go on: copy some more, or free what was copied; True: there is more to copy in the next turn."""
        written_bytes, self._written_bytes = self._written_bytes, 0
        if not self._upto and not self._begin():
            return False
        if self._core.clear_below <= self._upto:
            most_bytes = min(max(STEP_BYTES, COPY_RATIO * written_bytes), MOST_STEP_BYTES)
            self._apply(Forward(self._upto, min(most_bytes, self._log.max_batch_bytes // 4)))
            if self._core.clear_below <= self._upto:
                return not self._core.is_reading
            self._copied = self._newest_batch()
        if self._copied > self._core.synced:
            return False
        self._log.free(self._upto, now_ms, unix_ms, self._again)
        self._freed, self._upto = self._upto, 0
        return False

    def _begin(self) -> bool:
        """Whether the oldest segment is to be emptied now: the log has grown beyond what lives."""
        log = self._log
        spare_bytes = SPARE_SEGMENTS * log.segment_bytes
        if log.disk_bytes <= spare_bytes:
            return False
        oldest = log.oldest_upto
        if oldest is None or oldest <= self._freed:
            return False
        if log.disk_bytes <= spare_bytes + BEGIN_RATIO * self._core.live_bytes():
            return False
        self._upto = oldest
        return True
