"""What is due when: one table for all deadlines and all that is tried again. Clock and timer are the shell's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from minibroker.session.deadlines import Deadlines

NEVER_MS: Final = 2**62


class Timers:
    """Items and when they are due; `wake_ms` is when to look: never later than the first of them."""

    def __init__(self) -> None:
        self._deadlines: Deadlines[Any] = Deadlines()
        self.wake_ms = NEVER_MS
        self.discard = self._deadlines.discard

    def at(self, when_ms: int, item: Any) -> int:
        """Let `item` be due at `when_ms` (monotonic); return its slot, which `discard` takes."""
        if when_ms < self.wake_ms:
            self.wake_ms = when_ms
        return self._deadlines.add(item, when_ms)

    def take_all(self) -> list[Any]:
        """Take out and return everything, due or not: at the end nobody looks at deadlines any more."""
        return self.pop_due(NEVER_MS)

    def pop_due(self, now_ms: int) -> list[Any]:
        """Take out and return what is due, the earliest first."""
        due = self._deadlines.pop_due(now_ms)
        next_ms = self._deadlines.next_ms()
        self.wake_ms = NEVER_MS if next_ms is None else next_ms
        return due


class Overdue:
    """The deadline of a waiter of which nothing else is known: `error()` is what it gets when it is due."""

    __slots__ = ("_error", "_waiter")

    def __init__(self, waiter: Any, error: Callable[[], Exception]) -> None:
        self._waiter = waiter
        self._error = error

    def __call__(self, now_ms: int) -> None:
        """Let the deadline pass."""
        self.end(self._error())

    def end(self, error: Exception) -> None:
        """Answer with `error`, if there is no answer yet."""
        if not self._waiter.done():
            self._waiter.set_exception(error)
