"""Requests and the callers that wait for their answers; what is refused for now is asked again until the deadline.

A caller is a waiter of the shell: an object with `done`, `cancelled`, `result`, `exception`, `set_result` and
`set_exception`, as futures have them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from minibroker.contract.errors import Busy, DiskFull, MinibrokerError, Timeout
from minibroker.session.events import Answered
from minibroker.session.session import Session
from minibroker.session.timers import Timers

FIRST_RETRY_MS: Final = 100  # doubled each time, where the server gives no hint
LONGEST_RETRY_MS: Final = 2_000
# Nothing is tried again in the last twentieth of a deadline, between these two: what had been refused, and stored
# nowhere, would end as one of which nothing is known, wherever the answer takes as long as that.
LEAST_MS: Final = 20
MOST_MS: Final = 1_000
FOREVER_MS: Final = 2**40
PASSED: Final = "its deadline, timeout=0, has passed already"

Jitter = Callable[[float, float], float]  # returns a random number between two


def retry_delay_ms(
    error: MinibrokerError, tries: int, left_ms: int, whole_ms: int, jitter: Jitter
) -> int | None:
    """Return when to try again what was refused for now; None: of its `whole_ms` too little is left."""
    spare_ms = max(LEAST_MS, min(MOST_MS, whole_ms // 20))
    if left_ms <= spare_ms:
        return None
    hint_ms = error.retry_ms or min(LONGEST_RETRY_MS, FIRST_RETRY_MS << min(tries, 10))
    return max(1, min(round(hint_ms * jitter(0.8, 1.2)), left_ms - spare_ms))


def deadline(op: str, now_ms: int, timeout_ms: int | None) -> int | None:
    """Return when a call is over that is made now; None: never. Timeout if that is over before it is made."""
    if timeout_ms == 0:
        raise Timeout(f"{op} was not asked: {PASSED}")
    return None if timeout_ms is None else now_ms + timeout_ms


class Call:
    """One request of one caller, until it has its answer."""

    __slots__ = (
        "by_ms", "columns", "fields", "number", "op", "slot", "tries", "waiter", "whole_ms",
    )  # fmt: skip

    def __init__(
        self,
        waiter: Any,
        op: str,
        fields: Mapping[str, object],
        columns: bytes,
        by_ms: int | None,
    ) -> None:
        self.waiter = waiter
        self.op = op
        self.fields = fields
        self.columns = columns
        self.by_ms = by_ms  # monotonic; None: for as long as it takes
        self.number = 0  # of the request; 0 while it waits to be asked again
        self.slot: int | None = None  # of the deadline
        self.tries = 0
        self.whole_ms = 0  # of its deadline, as it stood at its first refusal


class Calls:
    """The requests of a session that callers wait for, each under its deadline."""

    def __init__(
        self, session: Session, timers: Timers, jitter: Jitter, schedule: Callable[[], None]
    ) -> None:
        self._session = session
        self._timers = timers
        self._jitter = jitter
        self._schedule = schedule  # sees to it that what waits is written
        self._waiting: dict[Call, None] = {}

    def ask(
        self,
        waiter: Any,
        op: str,
        fields: Mapping[str, object],
        by_ms: int | None,
        columns: bytes = b"",
    ) -> Call:
        """Add a request to what the next flush writes; `waiter` gets its answer, or a Timeout at `by_ms`.

        Raises:
            BadValue, TooLarge: it can never be sent; nothing was added.
        """
        call = Call(waiter, op, fields, columns, by_ms)
        call.number = self._session.request(op, fields, call, columns)
        self._waiting[call] = None
        if by_ms is not None:
            call.slot = self._timers.at(by_ms, call)
        self._schedule()
        return call

    def gave_up(self, call: Call) -> None:
        """The caller is gone: nothing may be left of its request, at the server either."""
        self._done(call)
        if call.number:
            self._withdraw(call)
        # Answered in the same turn or not: its caller does not get it.
        waiter = call.waiter
        if waiter.done() and not waiter.cancelled():
            self._session.deliveries.take_back(
                waiter.result() if waiter.exception() is None else None
            )

    def due(self, call: Call, trouble: str) -> None:
        """Let a caller's deadline pass; `trouble` says what there is with the connection."""
        if call not in self._waiting:
            return
        call.slot = None
        self._done(call)
        if call.number:
            self._withdraw(call)
            call.number = 0
        if not call.waiter.done():
            call.waiter.set_exception(Timeout(f"{call.op} was not answered in time{trouble}"))

    def answered(self, event: Answered, now_ms: int) -> None:
        """Give an answer to its caller, or ask again what was refused for now."""
        call: Call | None = event.waiter
        if call is None:
            return
        waiter, error = call.waiter, event.error
        if call not in self._waiting or waiter.done():
            self._session.deliveries.take_back(
                event.value
            )  # its caller, cancelled in this turn, withdraws it
            return
        if isinstance(error, Busy | DiskFull):
            left_ms = FOREVER_MS if call.by_ms is None else call.by_ms - now_ms
            call.whole_ms = call.whole_ms or left_ms
            delay_ms = retry_delay_ms(error, call.tries, left_ms, call.whole_ms, self._jitter)
            if delay_ms is not None:
                call.number = 0
                call.tries += 1
                self._timers.at(now_ms + delay_ms, partial(self._again, call))
                return
        self._done(call)
        if error is not None:
            waiter.set_exception(error)
        else:
            waiter.set_result(event.value)

    def withdraw_all(self) -> None:
        """See to it that the end leaves nothing of them at the server: a receive may have been answered."""
        for call in self._waiting:
            if call.number:
                self._session.requests.withdraw(call.number, call.op)

    def fail_all(self, error: MinibrokerError) -> None:
        """Answer every caller with `error`."""
        for call in list(self._waiting):
            self._done(call)
            if not call.waiter.done():
                call.waiter.set_exception(error)

    def _again(self, call: Call, now_ms: int) -> None:
        if call not in self._waiting:
            return
        try:
            call.number = self._session.request(call.op, call.fields, call, call.columns)
        except MinibrokerError as error:  # a server that was restarted may take less
            self._done(call)
            call.waiter.set_exception(error)
            return
        self._schedule()

    def _withdraw(self, call: Call) -> None:
        self._session.requests.withdraw(call.number, call.op)
        self._schedule()

    def _done(self, call: Call) -> None:
        self._waiting.pop(call, None)
        if call.slot is not None:
            self._timers.discard(call, call.slot)
            call.slot = None
