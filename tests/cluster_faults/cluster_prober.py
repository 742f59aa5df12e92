"""Publishes one message after the other and takes each: when it could, and when it had what it published.

    cluster_prober.py URL LEDGER

Lines: `confirmed` and `delivered`, with the time of the call of the publish; so the first of each behind a fault
says how long nobody could.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from time import monotonic_ns

import minibroker

sys.path.append(str(Path(__file__).resolve().parent.parent / "kills"))
from loops import passes, run
from worker_ledger import Ledger

QUEUE = "probe"
PAUSE_S = 0.005
TIMEOUT_S = 120


async def publish(broker: minibroker.Broker, ledger: Ledger, stopping: asyncio.Event) -> None:
    """Publish the time, one after the other."""
    queue = broker.queue(QUEUE)
    while not await passes(stopping, PAUSE_S):
        called_ns = monotonic_ns()
        await queue.publish(called_ns, timeout=TIMEOUT_S)
        ledger.write("confirmed", called_ns)


async def take(broker: minibroker.Broker, ledger: Ledger) -> None:
    """Take what comes."""
    async with broker.queue(QUEUE).consume(prefetch=8) as messages:
        async for message in messages:
            ledger.write("delivered", message.body)
            await message.ack()


async def main(url: str, path: str) -> None:
    """Go on until SIGTERM."""
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    ledger = Ledger(Path(path))
    async with minibroker.connect(url, name="prober", timeout=TIMEOUT_S) as broker:
        taking = asyncio.ensure_future(take(broker, ledger))
        await publish(broker, ledger, stopping)
        taking.cancel()
        await asyncio.gather(taking, return_exceptions=True)


if __name__ == "__main__":
    run("uvloop", main(*sys.argv[1:]))
