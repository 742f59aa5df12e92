"""A worker whose handlers do nothing, except for the poison: that kills the process, as a crash would.

    poison_worker.py URL QUEUE LEDGER LOOP SHAPE

SHAPE: `each` is `async for` with `process`, prefetch 32; `run` is `Queue.run`, one at a time. The body of
the poison says how it kills: `die` at once, `compute` and then die (a C extension that crashes late), `hang` until
somebody else does it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from time import monotonic

from loops import run
from worker_ledger import Ledger

import minibroker

COMPUTE_S = {b"die": 0.0, b"compute": 0.1, b"hang": 60.0}


def compute(seconds: float) -> None:
    """Compute in pure Python; neither the loop nor anything else of this thread gets a turn."""
    end = monotonic() + seconds
    while monotonic() < end:
        sum(range(100))


async def each(
    queue: minibroker.Queue[bytes], handle: Callable[[minibroker.Message[bytes]], Awaitable[None]]
) -> None:
    """Handle messages as they come, one after the other."""
    async with queue.consume(prefetch=32) as messages:
        async for message in messages:
            async with message.process():
                await handle(message)


async def main(url: str, name: str, ledger_path: str, shape: str) -> None:
    """Consume until SIGTERM, or until the poison comes."""
    ledger = Ledger(Path(ledger_path))

    async def handle(message: minibroker.Message[bytes]) -> None:
        if message.body in COMPUTE_S:
            compute(COMPUTE_S[message.body])
            os.kill(os.getpid(), signal.SIGKILL)
        ledger.write("handled", message.sequence, message.attempt)

    async with minibroker.connect(url, name="worker") as broker:
        queue = broker.queue(name)
        if shape == "run":
            working = asyncio.ensure_future(queue.run(handle))
        else:
            working = asyncio.ensure_future(each(queue, handle))
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, working.cancel)
        ledger.write("ready")
        with suppress(asyncio.CancelledError):
            await working


if __name__ == "__main__":
    url, name, ledger, loop, shape = sys.argv[1:]
    run(loop, main(url, name, ledger, shape))
