"""A blocking consumer that lends its messages: what a library with threads of its own pulls from."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import Any

from minibroker.contract.errors import LeaseLost
from minibroker.contrib.lending import Lending
from minibroker.session.settlements import HELD
from minibroker.session.subscription import Subscription
from minibroker.sync.consumer import Consumer
from minibroker.sync.driver import Driver
from minibroker.sync.message import Message
from minibroker.sync.waiter import Waiter


class LentMessages(Lending, Consumer[Any]):
    """A consumer of at most `prefetch` messages of a queue; `lend` them, `begin` each, then settle it."""

    def __init__(self, driver: Driver, queue: str, prefetch: int, lease_ms: int = 0) -> None:
        super().__init__(driver, queue, (prefetch, None), lease_ms)

    def lend(self, within_ms: int) -> Message[Any] | None:
        """Return a message that is not begun; None if none came in time.

        Raises:
            MinibrokerError: no more will come, for this reason.
            RuntimeError: the consumer was closed.
        """
        driver = self._driver
        waiter = Waiter()
        with driver as now:
            if (message := self._next()) is not None:
                return message
            waiter.owner = driver.machine
            self._wait(waiter, now)
            overdue = partial(_wake, waiter)
            slot = driver.machine.timers.at(now + within_ms, overdue)
        try:
            driver.wait(waiter, partial(self._pass_on, waiter))
        finally:
            with driver:
                driver.machine.timers.discard(overdue, slot)
                with suppress(ValueError):
                    self._waiters.remove(waiter)
        with driver:
            return self._next()

    def _next(self) -> Message[Any] | None:
        message: Message[Any] | None = self.lend_one()
        if message is None and self._ended:
            self._driver.machine.check_open()
            raise self.error or RuntimeError(f"the consumer of {self.queue} was closed")
        return message

    def begin(self, message: Message[Any]) -> bool:
        """Begin a message; False: it is not here any more, and somebody else may have it."""
        driver = self._driver
        driver.__enter__()
        try:
            is_here = self.begin_lent(message, driver.clock())
            flush = is_here and self.leaves_first(message, driver.last_write)
        except BaseException as error:
            driver.__exit__(type(error), error, None)
            raise
        driver.leave(flush=flush)
        if is_here and not flush and driver.keeper is not None:
            driver.keeper.soon()
        return is_here

    def give_back(self, message: Message[Any]) -> None:
        """Give a message back, uncharged; one that was not begun has never been away."""
        with self._driver:
            unseen = self._lent.pop(id(message), None) is not None
            if unseen and message.state == HELD:
                self._driver.machine.give_back([message])
        if not unseen:
            with suppress(LeaseLost):
                message.release()

    def give_back_rest(self) -> None:
        """Give back what was not lent yet; what was stays."""
        with self._driver:
            messages = Subscription.take_buffer(self)
            self._driver.machine.give_back([each for each in messages if each.state == HELD])

    def write(self) -> None:
        """Write what was settled, now: a process that dies then does not take it along."""
        self._settlements.owe()
        with self._driver:
            pass


def _wake(waiter: Waiter, now_ms: int) -> None:
    if not waiter.done():
        waiter.set_result(None)
