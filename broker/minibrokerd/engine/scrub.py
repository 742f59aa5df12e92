"""Looks after a start at the sealed segments that it did not read, because their side indexes were there.

A bit that flipped in one of them would be found when its message is read back, and set aside then. It is better
to know before: while it is one message, and a copy of the disk can still be had. One stretch at a time is read
and summed up in a thread, at a pace that leaves the disk to others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, Final

from minibrokerd.log.failures import LogError
from minibrokerd.log.seam import SegmentStore
from minibrokerd.process.logs import OwnText, events

PAUSE_S: Final = 0.05  # after each stretch of 8 MiB: 64 MiB take about half a second


class Scrub:
    """One pass over what a start took on trust."""

    def __init__(self, segments: SegmentStore, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._stretches: Iterator[LogError | None] = segments.scrub()
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = False

    def start(self) -> None:
        """Begin; it goes on by itself."""
        if not self._stopped:
            self._timer = self._loop.call_later(PAUSE_S, self._next)

    def stop(self) -> None:
        """Begin no other stretch: the server stops, and its threads with it."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()

    def _next(self) -> None:
        future = self._loop.run_in_executor(None, next, self._stretches, StopIteration)
        future.add_done_callback(self._done)

    def _done(self, future: asyncio.Future[Any]) -> None:
        if future.cancelled() or (found := future.result()) is StopIteration:
            return
        if isinstance(found, LogError):
            events.error("damage_found", text=OwnText(found))
        self.start()
