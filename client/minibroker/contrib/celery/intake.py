"""Consumers of several queues for one thread: it waits for whatever comes first, without a poll.

A blocking consumer has one queue, and a connection of kombu has several: tasks, control, events. All of them
are on one client here, so one waiter stands in the line of each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from minibroker.contract.errors import MinibrokerError
from minibroker.contrib.lent_messages import LentMessages
from minibroker.session.batching import begin_some
from minibroker.session.message import Delivery
from minibroker.sync.consumer import Consumer
from minibroker.sync.driver import Driver
from minibroker.sync.message import Message
from minibroker.sync.waiter import Waiter


class Fed(LentMessages):
    """A consumer that lends, and rings in the loop of its intake when somebody else has read for it."""

    intake: Intake

    def take_now(self, most: int) -> list[Message[Any]]:
        """Return up to `most` messages that are here, begun; the server has been told when this returns."""
        driver = self._driver
        with driver:
            if self._ended:
                return []
            return begin_some(self._buffer, most, driver.clock(), self._settlements)

    def lend_now(self, most: int) -> list[Message[Any]]:
        """Return up to `most` messages that are here, and not begun."""
        lent: list[Message[Any]] = []
        with self._driver:
            while len(lent) < most and (message := self.lend_one()) is not None:
                lent.append(message)
        return lent

    def begin(self, message: Message[Any], *, told: bool = True) -> bool:
        """As `LentMessages.begin`; the server has been told when this returns, unless an ack is to tell it."""
        driver = self._driver
        try:
            driver.__enter__()
            has_begun = self.begin_lent(message, driver.clock())
        except BaseException as error:
            driver.__exit__(type(error), error, None)
            raise
        driver.leave(flush=told)
        return has_begun

    def deliver(self, delivery: Delivery, now_ms: int) -> bool:
        """As `Subscription.deliver`."""
        changed = super().deliver(delivery, now_ms)
        self.intake.came()
        return changed

    def answered(self, took_ms: int) -> None:
        """As `Subscription.answered`: on a new connection, too, which the loop is to watch."""
        super().answered(took_ms)
        self.intake.came()

    def end(self, error: MinibrokerError | None) -> None:
        """As `Subscription.end`."""
        super().end(error)
        self.intake.came()


class Intake:
    """Where one thread waits for the messages of several consumers, or a loop looks for them."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._waiter: Waiter | None = None
        self._woken = False
        self._looks = False
        self.ring: Callable[[], None] | None = None  # wakes the loop, where there is one

    def consume(self, queue: str, prefetch: int, lease_ms: int) -> Fed:
        """Ask for messages of a queue; raises what `Queue.consume` raises."""
        consumer = Fed(self._driver, queue, prefetch, lease_ms)
        consumer.intake = self
        consumer.start()
        return consumer

    def change(self, consumer: Consumer[Any], prefetch: int) -> None:
        """Let a consumer have so many in hand from now on."""
        driver = self._driver
        with driver:
            consumer.prefetch = prefetch
            consumer.set_half(driver.consumers.values())
        driver.request("consume", consumer.fields(), driver.timeout_ms)

    def wait(self, consumers: Sequence[Consumer[Any]], seconds: float) -> None:
        """Return when one of them has something, or has ended; when `wake` was called; or after so long."""
        driver, waiter = self._driver, Waiter()
        passed, slot = _Passed(waiter), None
        try:
            with driver as now:
                machine = driver.machine
                machine.check_open()
                if self._woken or any(each._buffer or each._ended for each in consumers):
                    return
                waiter.owner = machine
                for each in consumers:
                    each._wait(waiter, now)
                self._waiter = waiter
                slot = machine.timers.at(now + max(1, int(seconds * 1_000)), passed)
            driver.answered(waiter)
        finally:
            with driver:
                self._waiter, self._woken = None, False
                if slot is not None and driver.machine is waiter.owner:
                    machine.timers.discard(passed, slot)
                if not waiter.done():
                    waiter.cancel()
                for each in consumers:
                    with suppress(ValueError):
                        each._waiters.remove(waiter)

    def look(self) -> None:
        """Take what has come, without waiting; for a loop that watches the connection."""
        driver = self._driver
        with driver as now:
            driver.machine.check_open()
            self._looks = True
            try:
                driver.look(now)
            finally:
                self._looks = False

    def came(self) -> None:
        """Something changed for a consumer: wake the loop, unless it is there that this was read."""
        if self.ring is not None and not self._looks:
            self.ring()

    def wake(self) -> None:
        """Let the thread that waits, or the loop, look again; any thread may call it."""
        if self.ring is not None:
            self.ring()
            return
        driver = self._driver
        with driver:
            self._woken = True
            if self._waiter is not None and not self._waiter.done():
                self._waiter.set_result(None)
                driver.ring()


class _Passed:
    """The time of a wait, in the table of what is due."""

    __slots__ = ("_waiter",)

    def __init__(self, waiter: Waiter) -> None:
        self._waiter = waiter

    def __call__(self, now_ms: int) -> None:
        """Let the wait end."""
        if not self._waiter.done():
            self._waiter.set_result(None)
