"""Requests and the callers that wait for their answers."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import repeat
from typing import Any, Final

from minibroker.aio.timer import Timer, now_ms
from minibroker.contract.confirms import Confirm
from minibroker.contract.errors import Busy, DiskFull, MinibrokerError, Timeout
from minibroker.session.events import Answered
from minibroker.session.session import Session

FIRST_RETRY_MS: Final = 100  # doubled each time, where the server gives no hint
LONGEST_RETRY_MS: Final = 2_000
LEAST_MS: Final = 20  # before the deadline: nothing is tried again in less
FOREVER_MS: Final = 2**40


def retry_delay_ms(error: MinibrokerError, tries: int, left_ms: int) -> int | None:
    """Return when to try again what was refused for now; None: the deadline is too near."""
    if left_ms <= LEAST_MS:
        return None
    hint_ms = error.retry_ms or min(LONGEST_RETRY_MS, FIRST_RETRY_MS << min(tries, 10))
    return max(1, min(round(hint_ms * random.uniform(0.8, 1.2)), left_ms // 2))


class Calls:
    """The requests of a session that callers wait for, each under its deadline."""

    def __init__(
        self,
        session: Session,
        timer: Timer,
        loop: asyncio.AbstractEventLoop,
        schedule: Callable[[], None],
    ) -> None:
        self._session = session
        self._timer = timer
        self._loop = loop
        self._schedule = schedule  # has what waits written at the end of this turn
        self._waiting: dict[asyncio.Future[Any], tuple[str, int]] = {}  # operation, request

    async def wait(
        self, op: str, fields: Mapping[str, object], timeout_ms: int | None, columns: bytes = b""
    ) -> Any:
        """Add a request to what the next flush writes, and return its answer.

        What is refused for now changed nothing: it is asked again until the deadline.
        """
        by_ms = None if timeout_ms is None else now_ms() + timeout_ms
        tries = 0
        while True:
            try:
                return await self._once(op, fields, by_ms, columns)
            except (Busy, DiskFull) as error:
                left_ms = FOREVER_MS if by_ms is None else by_ms - now_ms()
                delay_ms = retry_delay_ms(error, tries, left_ms)
                if delay_ms is None:
                    raise
            tries += 1
            await asyncio.sleep(delay_ms / 1000)

    async def _once(
        self, op: str, fields: Mapping[str, object], by_ms: int | None, columns: bytes
    ) -> Any:
        future = self._loop.create_future()
        number = self._session.request(op, fields, future, columns)
        self._schedule()
        self._waiting[future] = (op, number)
        slot = None if by_ms is None else self._timer.at(by_ms, future)
        try:
            return await future
        except asyncio.CancelledError:
            # Answered in the same turn or not: its caller does not get it.
            self._withdraw(number, op)
            if future.done() and not future.cancelled():
                self._session.take_back(future.result() if future.exception() is None else None)
            raise
        finally:
            self._waiting.pop(future, None)
            if slot is not None:
                self._timer.discard(future, slot)

    def _withdraw(self, number: int, op: str) -> None:
        self._session.requests.withdraw(number, op)
        self._schedule()

    def due(self, future: asyncio.Future[Any], trouble: str) -> None:
        """Let a caller's deadline pass."""
        op, number = self._waiting.pop(future, ("the settlement", 0))
        if number:
            self._withdraw(number, op)
        if not future.done():
            future.set_exception(Timeout(f"{op} was not answered in time{trouble}"))

    def answered(self, event: Answered) -> bool:
        """Give an answer to its caller; False if there is none any more."""
        waiter = event.waiter
        if waiter is None or waiter.done():
            return False
        if event.error is not None:
            waiter.set_exception(event.error)
        else:
            waiter.set_result(event.value)
        return True

    def fail_all(self, error: MinibrokerError) -> None:
        """Answer every caller with `error`."""
        for future in list(self._waiting):
            if not future.done():
                future.set_exception(error)


def confirm_each(
    waiters: Sequence[asyncio.Future[Confirm]], origin: int, first: int, durability: str
) -> None:
    """Answer callers who wait for one message each; `first` is the sequence of the first one.

    Runs per message: the interpreter's own loops make the confirms and hand them out, and that a caller is gone is
    found out by trying.
    """
    if not waiters:
        return
    confirms = map(Confirm, repeat(origin), range(first, first + len(waiters)), repeat(durability))
    answers = map(type(waiters[0]).set_result, waiters, confirms)
    while True:
        try:
            deque(answers, maxlen=0)
        except asyncio.InvalidStateError:
            continue  # that caller was cancelled, or had waited for long enough; the next one follows
        return
