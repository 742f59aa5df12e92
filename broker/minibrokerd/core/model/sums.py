"""What all queues and sessions come to, counted where it changes: nobody walks them to know it.

The sums are asked after each sync and at each look at memory, and there may be 100,000 queues.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from minibrokerd.core.model.footprints import (
    DELIVERY_BYTES,
    FAILING_KEY_BYTES,
    KEY_CIRCUIT_BYTES,
    OUTCOME_OBJECT_BYTES,
    QUEUE_OBJECT_BYTES,
    SESSION_BYTES,
    UNIQUE_KEY_BYTES,
)
from minibrokerd.core.model.histogram import Histogram
from minibrokerd.core.model.lifetimes import Lifetimes, forget
from minibrokerd.core.model.paces import Pace
from minibrokerd.core.model.standing import Standing
from minibrokerd.core.model.timed import Timed

if TYPE_CHECKING:
    from minibrokerd.core.model.group import Group
    from minibrokerd.core.model.key_circuits import KeyCircuits
    from minibrokerd.core.model.messages import Item
    from minibrokerd.core.model.queues import Queue
    from minibrokerd.core.model.single import Single
    from minibrokerd.core.model.wheel import Timer

# About what the record of a kept outcome takes in a log, its batch included.
OUTCOME_BYTES: Final = 160
QUEUE_BYTES: Final = 400  # the same for the settings and the reservation of a queue


class Sums:
    """Bytes of the messages of all queues, and what else is kept in numbers.

    `live_bytes` are of the log, `cold_bytes` those of them whose messages left memory, `memory_bytes` of messages
    in no log. `held_bytes` are what extents take: all of a publish as long as one of its messages is in memory.
    `waits_ms` counts messages by the time from publish to begin, `runs_ms` attempts by that from begin to their
    end; those of one run, or of one frame of acks, share the time of one of them. `timed` has the times of some
    queues alone. `large` are the queues that may have more than `large_bytes` in memory: with less, a queue keeps
    it; each with its pace, where that was looked at. `lifetimes` are of the blocks in memory whose messages have a
    time to live.
    """

    large_bytes = 1024 * 1024
    __slots__ = (
        "broken",
        "by_key_group",
        "cold_bytes",
        "failing_keys",
        "full",
        "grown_bytes",
        "held_bytes",
        "kept_bytes",
        "kept_log_bytes",
        "key_circuits",
        "key_groups",
        "large",
        "lifetimes",
        "live_bytes",
        "looked_after",
        "memory_bytes",
        "outcomes",
        "runs_ms",
        "singles",
        "standing",
        "timed",
        "unique_keys",
        "waits_ms",
    )

    def __init__(self) -> None:
        self.live_bytes = 0
        self.cold_bytes = 0
        self.memory_bytes = 0
        self.held_bytes = 0
        self.grown_bytes = 0  # of attempts that a start found behind the newest copies of messages
        self.kept_bytes = 0  # what entries of Kept take of memory
        self.kept_log_bytes = 0  # and of the log, those that are copied
        self.outcomes = 0  # of frames, in the windows of all sessions; a large one counts several
        self.unique_keys = 0  # that are held, in all queues
        self.failing_keys = 0  # in the windows of the circuits of keys
        self.key_circuits = 0  # that are not closed
        self.broken: dict[KeyCircuits, None] = {}  # those of queues that have some of these
        self.large: dict[Queue, Pace | None] = {}
        self.singles: dict[Group, Single] = {}  # of queues with one active consumer
        self.looked_after: dict[
            Queue, Timer
        ] = {}  # temporary queues: is there still somebody who uses them?
        self.full: set[Queue] = set()  # a publish found no room, and it was noted
        self.lifetimes = Lifetimes()
        self.standing = Standing()
        self.waits_ms = Histogram()
        self.runs_ms = Histogram()
        self.timed = Timed()
        self.by_key_group: dict[Group, None] = {}  # those with times by groups of keys,
        self.key_groups = 0  # and how many these have in all

    @property
    def hot_bytes(self) -> int:
        """About how many bytes the messages take of memory."""
        return self.live_bytes + self.memory_bytes - self.cold_bytes

    def let_go(self, item: Item) -> None:
        """Note that messages which were counted in are not in memory any more."""
        extent = item.block.extent
        extent.refs -= item.stop - item.first
        assert extent.refs >= 0, "what is let go was counted in, once"
        if not extent.refs:
            self.held_bytes -= extent.size
            if self.lifetimes:
                forget(self.lifetimes, item.block)

    def needed_bytes(self, queues: int) -> int:
        """Return about how many bytes of the log are still needed, where there are so many queues.

        Outcomes count too: of clients that fell silent there may be many, and a log whose bound leaves them
        no room would be copied for ever.
        """
        outcome_bytes = OUTCOME_BYTES * self.outcomes
        return self.live_bytes + QUEUE_BYTES * queues + outcome_bytes + self.kept_log_bytes

    def used_bytes(self, queues: int, sessions: int, deliveries: int) -> int:
        """Return about how many bytes of memory all takes, where there are so many of these."""
        return (
            max(self.hot_bytes, self.held_bytes)
            + self.standing.item_bytes
            + QUEUE_OBJECT_BYTES * queues
            + SESSION_BYTES * sessions
            + DELIVERY_BYTES * deliveries
            + OUTCOME_OBJECT_BYTES * self.outcomes
            + UNIQUE_KEY_BYTES * self.unique_keys
            + FAILING_KEY_BYTES * self.failing_keys
            + KEY_CIRCUIT_BYTES * self.key_circuits
            + self.kept_bytes
        )
