"""Leaving: who waits for the last answers before he goes, and until when.

A deadline that passed in vain is not waited for once more: while nothing is answered, everything that leaves
shares the instant that the first of them was given.
"""

from __future__ import annotations

from typing import Any

from minibroker.contract.errors import Timeout
from minibroker.session.outbox import PublishGroup
from minibroker.session.session import Session
from minibroker.session.timers import Overdue, Timers


class Departure:
    """Who waits until nothing of a session is without an answer."""

    def __init__(self, session: Session, timers: Timers, timeout_ms: int) -> None:
        self.answers = 0  # that ever came; signs of life are none
        self.timeout_ms = timeout_ms
        self.retired: list[int] = []  # consumers that have gone, and are to be cancelled
        self._session = session
        self._timers = timers
        self._waiters: list[tuple[Any, bool]] = []
        self._by_ms = 0
        self._answers_then = -1  # how many there had been when that was set

    def by_ms(self, now_ms: int) -> int:
        """Return until when to wait (monotonic ms): a whole time-out, unless nothing came since the last one."""
        if self._answers_then != self.answers:
            self._answers_then = self.answers
            self._by_ms = now_ms + self.timeout_ms
        return self._by_ms

    def is_awaited(self) -> bool:
        """Return whether somebody waits for the last answer."""
        return bool(self._waiters)

    def is_drained(self, publishes: bool) -> bool:
        """Return whether no settlement (and no publish) is unconfirmed.

        With publishes, who asks says goodbye: then the consumers have gone at the server, too. Until it has
        said so, a message may be on its way that it has begun for a handler; that one is given back before.
        """
        session = self._session
        owed = session.owed
        if owed.is_any() or owed.returned or session.steps:
            return False
        if publishes and (session.outbox.groups or self._is_cancelling()):
            return False
        return not any(
            publishes or not isinstance(sent.content, PublishGroup) for sent in session.window
        )

    def _is_cancelling(self) -> bool:
        return bool(self.retired) or self._session.requests.is_written("cancel")

    def add(self, waiter: Any, publishes: bool, by_ms: int) -> None:
        """Let `waiter` have None when `is_drained`, or a Timeout at `by_ms`."""
        self._waiters.append((waiter, publishes))
        self._timers.at(by_ms, Overdue(waiter, _too_late))

    def wake(self) -> None:
        """Look whether those who wait may go on."""
        for entry in list(self._waiters):
            waiter, publishes = entry
            if waiter.done() or self.is_drained(publishes):
                self._waiters.remove(entry)
                if not waiter.done():
                    waiter.set_result(None)

    def close(self) -> None:
        """Let all of them go: nothing will be answered any more."""
        waiters, self._waiters = self._waiters, []
        for waiter, _ in waiters:
            if not waiter.done():
                waiter.set_result(None)


def _too_late() -> Timeout:
    return Timeout("not everything was confirmed in time")
