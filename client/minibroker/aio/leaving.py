"""Leaving: what a consumer, a run or a whole connection waits for before it goes, within one deadline.

A deadline that passed in vain is not waited for once more: while nothing is answered, everything that leaves
shares the instant that the first of them was given.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Final

from minibroker.aio.timer import now_ms
from minibroker.contract.errors import Timeout
from minibroker.session.outbox import PublishGroup

if TYPE_CHECKING:
    from minibroker.aio.consumer import Consumer
    from minibroker.aio.driver import Driver

logger = logging.getLogger("minibroker")

RELEASE_MS: Final = (
    1_000  # of a deadline, at most half: for what handlers release that are cancelled at its end
)


class Departure:
    """Who waits for the last answers of a driver, and until when."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self.runs: dict[Consumer[Any], Collection[asyncio.Task[Any]]] = {}  # with their workers
        self._waiters: list[tuple[asyncio.Future[None], bool]] = []
        self._by_ms = 0
        self._answers = -1  # how many there had been when that was set

    def by_ms(self) -> int:
        """Return until when to wait (monotonic ms): a whole time-out, unless nothing came since the last one."""
        driver = self._driver
        if self._answers != driver.answers:
            self._answers = driver.answers
            self._by_ms = now_ms() + driver.timeout_ms
        return self._by_ms

    def is_awaited(self) -> bool:
        """Return whether somebody waits for the last answer."""
        return bool(self._waiters)

    def wake(self) -> None:
        """Look whether those who wait may go on."""
        for entry in list(self._waiters):
            future, publishes = entry
            if future.done() or self._is_drained(publishes):
                self._waiters.remove(entry)
                if not future.done():
                    future.set_result(None)

    def _is_drained(self, publishes: bool) -> bool:
        session = self._driver.session
        if session.owes_settlements() or session.returned or (publishes and session.outbox.groups):
            return False
        return not any(
            publishes or not isinstance(sent.content, PublishGroup) for sent in session.window
        )

    async def drained(self, publishes: bool = False) -> bool:
        """Wait until no settlement (and no publish) is unconfirmed; False if that took too long."""
        driver = self._driver
        driver.flush()
        if driver.is_closed or self._is_drained(publishes):
            return True
        by_ms = self.by_ms()
        if by_ms <= now_ms():
            return False
        future = driver.create_future()
        self._waiters.append((future, publishes))
        slot = driver.timer.at(by_ms, future)
        try:
            await future
        except Timeout:
            logger.warning("not everything was confirmed within %d ms", driver.timeout_ms)
            return False
        finally:
            driver.timer.discard(future, slot)
        return True

    async def all(self) -> None:
        """End all consumers and runs, and wait for what they and others owe."""
        driver = self._driver
        by_ms = self.by_ms()
        driver.flush()
        for consumer in list(driver.consumers.values()):
            consumer.retire()
        here = asyncio.current_task()
        workers = {worker for some in self.runs.values() for worker in some}
        workers = {worker for worker in workers if worker is not here and not worker.done()}
        if workers:
            left_ms = by_ms - now_ms()
            release_ms = min(RELEASE_MS, left_ms // 2)
            _, late = await asyncio.wait(workers, timeout=max(0, left_ms - release_ms) / 1000)
            for worker in late:
                worker.cancel()
            if late:
                await asyncio.wait(late, timeout=max(0, release_ms // 2) / 1000)
        await self.drained(publishes=True)
