"""The one timer of a client: it wakes the loop for the next entry of the table of deadlines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

from minibroker.session.deadlines import Deadlines


def now_ms() -> int:
    """Return the monotonic time in ms."""
    return int(monotonic() * 1000)


class Timer:
    """Calls `due` with the items whose time has come."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, due: Callable[[Sequence[Any]], None]
    ) -> None:
        self._loop = loop
        self._due = due
        self._deadlines: Deadlines[Any] = Deadlines()
        self._handle: asyncio.TimerHandle | None = None
        self._armed_ms = 0
        self.discard = self._deadlines.discard

    def at(self, when_ms: int, item: Any) -> int:
        """Let `item` be due at `when_ms`; return its slot, which `discard` takes."""
        slot = self._deadlines.add(item, when_ms)
        if self._handle is None or when_ms < self._armed_ms:
            self._arm(when_ms)
        return slot

    def stop(self) -> None:
        """Let nothing be due any more."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _arm(self, when_ms: int) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._armed_ms = when_ms
        self._handle = self._loop.call_later(max(0.0, when_ms / 1000 - monotonic()), self._fire)

    def _fire(self) -> None:
        self._handle = None
        try:
            # Loops can fire a little early: the armed time counts then.
            self._due(self._deadlines.pop_due(max(self._armed_ms, now_ms())))
        finally:
            # What was due may have armed the timer for an entry of its own, behind those that wait already.
            next_ms = self._deadlines.next_ms()
            if next_ms is not None and (self._handle is None or next_ms < self._armed_ms):
                self._arm(next_ms)
