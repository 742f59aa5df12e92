"""Leaving a whole connection: consumers and runs end, and what is owed is waited for, in one deadline."""

from __future__ import annotations

import asyncio
from typing import Final

from minibroker.aio.driver import Driver
from minibroker.shell.monotonic import now_ms

# Of a deadline, at most half: for what handlers release that are cancelled at its end.
RELEASE_MS: Final = 1_000


async def leave_all(driver: Driver) -> None:
    """End all consumers and runs, and wait for what they and others owe."""
    by_ms = driver.leaving.by_ms(now_ms())
    driver.flush()
    for consumer in list(driver.consumers.values()):
        driver.machine.retire(consumer)
    here = asyncio.current_task()
    workers = {worker for some in driver.runs.values() for worker in some}
    workers = {worker for worker in workers if worker is not here and not worker.done()}
    if workers:
        left_ms = by_ms - now_ms()
        release_ms = min(RELEASE_MS, left_ms // 2)
        _, late = await asyncio.wait(workers, timeout=max(0, left_ms - release_ms) / 1000)
        for worker in late:
            worker.cancel()
        if late:
            await asyncio.wait(late, timeout=max(0, release_ms // 2) / 1000)
    await driver.drained(publishes=True)
