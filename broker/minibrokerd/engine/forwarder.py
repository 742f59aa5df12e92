"""Keeps the log on disk bounded: it has what lives copied out of the oldest segment, then has that freed.

The order is what makes it safe. All that lives in the oldest segment is written again; then the batches of these
copies are synced; then the log says in a synced batch that it starts later; then the file goes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from minibrokerd.core.core import Core
from minibrokerd.core.model.inputs import Forward
from minibrokerd.engine.clock import Clock
from minibrokerd.log.reserve import reserve_of
from minibrokerd.log.seam import RESERVE_SEGMENTS, Log

STEP_BYTES: Final = 128 * 1024  # of copies in one apply: 400 small messages, about 15 ms
# And at most, when much is written meanwhile, or was read back.
MOST_STEP_BYTES: Final = 1024 * 1024
LAST_STEPS_BYTES: Final = (
    32 * 1024,
    8 * 1024,
    2 * 1024,
)  # what is left to copy may be as little as the room
# Copying begins when the log is 1.5 times what lives, and copies twice what is written meanwhile. What lives is
# copied once, then, before the log is 2 times that; and a segment behind it that is dead goes for nothing.
BEGIN_RATIO: Final = 1.5
COPY_RATIO: Final = 2
BOUND_RATIO: Final = 2  # beyond it, what is written meanwhile should be little
# Beside twice what lives: the one that is written, and the one that is emptied.
SPARE_SEGMENTS: Final = 2


class Forwarder:
    """Asked after every sync whether there is something to do; does a step of it, and then one in every turn."""

    def __init__(
        self,
        core: Core,
        log: Log,
        apply: Callable[[Forward], None],
        newest_batch: Callable[[], int],
        pending_bytes: Callable[[], int | None],
        others_bytes: Callable[[], int],
        again: Callable[[], None],
    ) -> None:
        """`newest_batch` returns the newest batch that has records, `pending_bytes` what is written in one batch
        with what is applied next (None: others are written before that), `others_bytes` what was ever written
        beside copies; `again` calls `freed`, then `step`, in a turn of its own.
        """
        self._core = core
        self._log = log
        self._reserve = reserve_of(log)
        self._apply = apply
        self._newest_batch = newest_batch
        self._pending_bytes = pending_bytes
        self._others_bytes = others_bytes
        self._again = again
        self._upto = 0  # what the segment has that is being emptied; 0: none is
        self._copied = 0  # the batch of the last copies, once all are made
        self._freeing = False
        self.freed_upto = 0  # up to here the log was asked to free
        self._written_bytes = 0  # since the last step
        # The log is longer than it should be: what is written meanwhile should be little.
        self.is_behind = False
        self._is_for_settlements = False  # the pass: it ends when the reserve is whole
        self._asked_at = 0  # what others had written when settlements had no room left
        self._pass_upto = 0  # of a pass over the whole log while space is short
        # What was on the disk when it began, what of that lived, and what others had written; or when space began
        # to be short.
        self._pass_start: tuple[int, int, int] | None = None

    def begin_pass(
        self, others_bytes: int, least_bytes: int = 1, *, goes_round: bool = False
    ) -> bool:
        """Begin a pass for settlements, if others wrote `least_bytes` since the last one; whether it begins.

        `others_bytes`: that they ever wrote. Records of settlements are dead when the pass comes to them, so what
        was written since is what a pass may give back; one after which nothing was written gives nothing. It
        `goes_round` all that there is, or ends when the reserve is whole.
        """
        if others_bytes < self._asked_at + least_bytes:
            return False
        self._asked_at = others_bytes
        self._pass_start = self._log.disk_bytes, self._core.live_bytes(), others_bytes
        self._pass_upto, self._is_for_settlements = self._newest_batch(), not goes_round
        return True

    @property
    def makes_room(self) -> bool:
        """Whether a segment is being emptied, and that can go on."""
        if not self._upto:
            return self._freeing
        return self._core.clear_below > self._upto or self._step_bytes() > 0

    @property
    def allowance_bytes(self) -> int:
        """What others may write for each segment that is freed: a pass over the log must fit into what is left."""
        log = self._log
        return log.segment_bytes**2 // max(log.disk_bytes, 1)

    def _step_bytes(self) -> int:
        """Return what may be copied in one apply: less, where the last room has no more; 0: nothing.

        Whoever waits because of `makes_room` counts on the next step, so both go by this.
        """
        most_bytes = min(max(STEP_BYTES, COPY_RATIO * self._written_bytes), MOST_STEP_BYTES)
        return self._first_that_fits(most_bytes, STEP_BYTES, *LAST_STEPS_BYTES)

    def rest_bytes(self) -> int | None:
        """Return what copies may take of the segment that is written; None: only the next sync tells.

        What stays empty in each segment is what a pass over a full disk costs, so what does not fit begins another
        batch. Where there is space that need not be: 0.
        """
        if not self._reserve.lacks_space:
            return 0
        pending_bytes = self._pending_bytes()
        return None if pending_bytes is None else max(self._reserve.rest_bytes - pending_bytes, 0)

    def _first_that_fits(self, *sizes_bytes: int) -> int:
        most_bytes = self._log.sizes.batch_bytes // 4
        for some_bytes in sizes_bytes:
            size_bytes = min(some_bytes, most_bytes)
            if self._reserve.last_room_for(size_bytes, copies=True):
                return size_bytes
        return 0

    def wrote(self, size_bytes: int) -> None:
        """Note what was written to the log."""
        self._written_bytes += size_bytes

    def freed(self) -> None:
        """Note that the file is gone; `makes_room` held until now, so nobody slips in between two segments."""
        self._freeing = False

    def step(self, clock: Clock) -> bool:
        """Go on: copy some more, or free what was copied; True: there is more to copy in the next turn."""
        if not self._upto and not self._begin():
            self.is_behind = False
            return False
        self.is_behind = self._is_behind()
        if self._core.clear_below <= self._upto:
            step_bytes, rest_bytes = self._step_bytes(), self.rest_bytes()
            if not step_bytes or rest_bytes is None:
                return False
            self._written_bytes = 0
            cold_bytes = self._first_that_fits(MOST_STEP_BYTES, step_bytes)
            self._apply(Forward(self._upto, step_bytes, cold_bytes, rest_bytes))
            if self._core.clear_below <= self._upto:
                return not self._core.is_reading
            self._copied = self._newest_batch()
        if self._copied > self._core.synced:
            return False
        self._freeing = True
        self._log.trim(self._upto, clock.now_ms(), clock.unix_ms(), self._again)
        self.freed_upto, self._upto = self._upto, 0
        return False

    def _is_behind(self) -> bool:
        return self._exceeds(BOUND_RATIO, self._core.live_bytes())

    def _exceeds(self, ratio: float, live_bytes: int) -> bool:
        """Whether the log is longer than two segments and `ratio` times what lives."""
        spare_bytes = SPARE_SEGMENTS * self._log.segment_bytes
        return self._log.disk_bytes > spare_bytes + ratio * live_bytes

    def _begin(self) -> bool:
        """Whether the oldest segment is to be emptied now: the log has grown beyond what lives."""
        log = self._log
        if not self._exceeds(0, 0):  # the common case asks nothing of the queues
            return False
        oldest = log.oldest_upto
        if oldest is None or oldest <= self.freed_upto:
            return False
        live_bytes = self._core.live_bytes()
        if not self._exceeds(BEGIN_RATIO, live_bytes) and not self._may_gain(live_bytes):
            return False
        self._upto = oldest
        return True

    def _may_gain(self, live_bytes: int) -> bool:
        """Whether space is short, and copying everything once is likely to give some back.

        How much lives is an estimate, so what counts is how much has ended since the last pass over the log began.
        A pass is cheap where whole segments have ended, and the last resort where each holds something that lives.
        """
        log = self._log
        before, now = self._pass_start, (log.disk_bytes, live_bytes, self._others_bytes())
        oldest = log.oldest_upto
        if not self._reserve.lacks_space or oldest is None:
            self._pass_start, self._pass_upto = None, 0
            return False
        is_short = self._reserve.reserve_segments < RESERVE_SEGMENTS
        if oldest <= self._pass_upto:
            if is_short or not self._is_for_settlements:
                return True
            # The reserve is whole again: what a pass gave beyond that would be the disk's, and is not given back.
            self._pass_upto, self._is_for_settlements = 0, False
            return False
        if before is None:
            self._pass_start = now
        else:
            # By copies the log may grow, too: another pass would give nothing of that back.
            grown_bytes = min(max(0, now[0] - before[0]), now[2] - before[2])
            ended_bytes = before[1] - now[1] + grown_bytes
            wanted_bytes = log.segment_bytes // 4 if is_short else log.disk_bytes // 8
            if ended_bytes < wanted_bytes:
                return False
        if before is not None or is_short:
            self._pass_start, self._pass_upto = now, self._newest_batch()
            self._is_for_settlements = False
        return self._pass_upto > 0
