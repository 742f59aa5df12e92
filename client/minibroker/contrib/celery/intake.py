"""Consumers of several queues for one thread: it waits for whatever comes first, without a poll.

A blocking consumer has one queue, and a connection of kombu has several: tasks, control, events. All of them
are on one client here, so one waiter stands in the line of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from minibroker.sync.consumer import Consumer
from minibroker.sync.driver import Driver
from minibroker.sync.waiter import Waiter


class Intake:
    """Where one thread waits for the messages of several consumers."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._waiter: Waiter | None = None
        self._woken = False

    def consume(self, queue: str, prefetch: int, lease_ms: int) -> Consumer[Any]:
        """Ask for messages of a queue; raises what `Queue.consume` raises."""
        consumer: Consumer[Any] = Consumer(self._driver, queue, (prefetch, None), lease_ms)
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

    def wake(self) -> None:
        """Let the thread that waits look again; any thread may call it."""
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
