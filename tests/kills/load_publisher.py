"""A publisher under load: singles from many tasks and `publish_many`, each id into the ledger when confirmed.

    load_publisher.py URL QUEUE LEDGER LOOP [PAUSE]

PAUSE is in seconds, between two calls of a task, and so long that the consumers keep up.

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
PAUSE_S = "0.005"


async def singles(
    queue: minibroker.Queue[bytes], ledger: Ledger, stopping: asyncio.Event, pause_s: float
) -> None:
    """Publish one after the other."""
    while not await passes(stopping, pause_s):
        confirm = await queue.publish(b"single", timeout=TIMEOUT_S)
        ledger.write("confirmed", confirm.origin, confirm.sequence, 1)


async def many(
    queue: minibroker.Queue[bytes], ledger: Ledger, stopping: asyncio.Event, pause_s: float
) -> None:
    """Publish many in one call, one call after the other."""
    while not await passes(stopping, 8 * pause_s):
        confirms = await queue.publish_many([b"one of many"] * MANY, timeout=TIMEOUT_S)
        for part in confirms.runs:
            ledger.write("confirmed", part.origin, part.first, part.messages)


async def main(url: str, name: str, ledger_path: str, pause_s: float) -> None:
    """Publish until SIGTERM; what was called is waited for."""
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    ledger = Ledger(Path(ledger_path))
    async with minibroker.connect(url, name="publisher") as broker:
        queue = broker.queue(name)
        working = [singles(queue, ledger, stopping, pause_s) for _ in range(TASKS)]
        await asyncio.gather(*working, many(queue, ledger, stopping, pause_s))


if __name__ == "__main__":
    url, name, ledger, loop, pause = (*sys.argv[1:], PAUSE_S)[:5]
    run(loop, main(url, name, ledger, float(pause)))
