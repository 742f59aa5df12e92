"""The threads that read messages back, without threads: a read takes simulated time, and may be overtaken.

Whether a read sees the disk as it is when the read begins or when it ends is drawn, as for writes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from sim_loop import Life, LifeLoop, SimulatedLoop

from minibrokerd.log.seam import Elsewhere, Record

Records = list[Record | None]


class Reading:
    """What `run_in_executor` returns: the future of one read."""

    def __init__(self, loop: LifeLoop, read: Callable[[], Records]) -> None:
        self._loop = loop
        self._read = read
        self._records: Records = []
        self._error: Exception | None = None
        self._done: Callable[[Any], None] | None = None
        self._has_run = False

    def run(self) -> None:
        """Read, in the thread."""
        if not self._has_run:
            self._has_run = True
            try:
                self._records = self._read()
            except Exception as error:  # noqa: BLE001 - as a thread hands it over; see `exception`
                self._error = error

    def end(self) -> None:
        """Tell who waits, in the loop."""
        self.run()
        if self._done is not None:
            self._loop.call_soon(self._done, self)

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Have somebody told of the end."""
        self._done = callback

    def cancelled(self) -> bool:
        """It is never."""
        return False

    def exception(self) -> Exception | None:
        """Return what the system said; anything else is a mistake of the broker, and ends the world."""
        if self._error is None or isinstance(self._error, OSError | Elsewhere):
            return self._error
        raise self._error

    def result(self) -> Records:
        """Return what was read."""
        return self._records


class BrokerLoop(LifeLoop):
    """The loop of a broker: it has threads that read. `latency_us` is asked how long each read takes.

    `create_task` makes what waits for something that is on no disk.
    """

    create_task: Callable[[Any], Any]

    def __init__(
        self, loop: SimulatedLoop, life: Life, random: Random, latency_us: Callable[[], int]
    ) -> None:
        super().__init__(loop, life)
        self._random = random
        self._latency_us = latency_us
        self.reads = 0

    def run_in_executor(
        self,
        executor: None,
        read: Callable[[int, Sequence[int]], Records],
        segment: int,
        offsets: Sequence[int],
    ) -> Reading:
        """Let a thread read."""
        self.reads += 1
        reading = Reading(self, lambda: read(segment, offsets))
        if self._random.random() < 0.5:
            reading.run()
        self.call_later(self._latency_us() / 1_000_000, reading.end)
        return reading
