"""What a bench is asked to do, and the order in which it does it. Pure: time is passed in.

Closed loop: a call is due when the one before it on its lane has ended, so a slow server is asked less often.
Open loop: calls are due at times that are fixed before the first one. A slow server changes nothing about them,
and what waits meanwhile is measured from the time at which it was due: a stall of a second is then the latency
of everything that fell into it, not of one unlucky call (Gil Tene calls the mistake "coordinated omission").
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Plan:
    """All parameters of a bench; they are printed with its results."""

    producers: int = 1
    consumers: int = 1
    connections: int = 1  # of the producers together, and as many of the consumers
    window: int = 1  # publishes under way, for each producer
    batch: int = 1  # messages of one publish
    prefetch: int = 32
    body_size: int = 100  # bytes
    body_type: str = "bytes"
    keys: int = 0
    durability: str = "sync"
    rate: float | None = None  # messages a second; None: closed loop
    count: int | None = None  # messages
    duration: float | None = None  # seconds; of publishing

    @property
    def planned(self) -> float:
        """How many messages there are to be at most; infinite if only time ends a closed loop."""
        most = math.inf if self.count is None else self.count
        if self.rate is None or self.duration is None:
            return most
        return min(most, math.ceil(self.rate * self.duration))


class Schedule:
    """Hands out the calls of all producers in one order; times are nanoseconds of one monotonic clock."""

    def __init__(self, plan: Plan, start_ns: int) -> None:
        self.taken = 0  # messages
        self._batch = plan.batch
        self._planned = plan.planned
        self._start_ns = start_ns
        self._end_ns = math.inf if plan.duration is None else start_ns + plan.duration * 1e9
        self._apart_ns = None if plan.rate is None else 1e9 / plan.rate

    def take(self, now_ns: int) -> tuple[int, int, int] | None:
        """Return the next call: number of its first message, how many it has, when it is due.

        None if nothing is to be published any more. A plain tuple, since this runs for each call.
        """
        first = self.taken
        if first >= self._planned or now_ns >= self._end_ns:
            return None
        size = int(min(self._batch, self._planned - first))
        self.taken = first + size
        if self._apart_ns is None:
            return first, size, now_ns
        return first, size, self._start_ns + int(first * self._apart_ns)

    @property
    def unsent(self) -> int:
        """Messages of an open loop that were planned and never taken: the time was over."""
        return 0 if self._apart_ns is None else int(self._planned) - self.taken
