"""A publisher under load: singles from many tasks and `publish_many`, each id into the ledger when confirmed.

    load_publisher.py URL QUEUE LEDGER LOOP

Lines: `confirmed` origin, first sequence, count. It goes on through any number of broker
deaths, until SIGTERM; a publish that fails ends it with an error.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

from loops import passes, run
from worker_ledger import Ledger

import minibroker

TASKS = 8
MANY = 50
TIMEOUT_S = 60  # of a publish: longer than any death of the broker
PAUSE_S = 0.005  # between two calls of a task, so that the consumers keep up


async def singles(queue: minibroker.Queue[bytes], ledger: Ledger, stopping: asyncio.Event) -> None:
    """Publish one after the other."""
    while not await passes(stopping, PAUSE_S):
        confirm = await queue.publish(b"single", timeout=TIMEOUT_S)
        ledger.write("confirmed", confirm.origin, confirm.sequence, 1)


async def many(queue: minibroker.Queue[bytes], ledger: Ledger, stopping: asyncio.Event) -> None:
    """Publish many in one call, one call after the other."""
    while not await passes(stopping, 8 * PAUSE_S):
        confirms = await queue.publish_many([b"one of many"] * MANY, timeout=TIMEOUT_S)
        for part in confirms.runs:
            ledger.write("confirmed", part.origin, part.first, part.messages)


async def main(url: str, name: str, ledger_path: str) -> None:
    """Publish until SIGTERM; what was called is waited for."""
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    ledger = Ledger(Path(ledger_path))
    async with minibroker.connect(url, name="publisher") as broker:
        queue = broker.queue(name)
        working = [singles(queue, ledger, stopping) for _ in range(TASKS)]
        await asyncio.gather(*working, many(queue, ledger, stopping))


if __name__ == "__main__":
    url, name, ledger, loop = sys.argv[1:]
    run(loop, main(url, name, ledger))
