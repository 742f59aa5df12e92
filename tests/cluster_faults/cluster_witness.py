"""Publishes through one broker alone, from several tasks: what it confirms, and when each call was made.

    cluster_witness.py URL QUEUE LEDGER CALLS

It waits for that broker while another one leads. LEDGER is that of any publisher; a line of CALLS is `confirmed`,
and the time of the call.
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

TASKS = 4
PAUSE_S = 0.02
TIMEOUT_S = 3_600  # the other one may lead for as long as a campaign takes


async def publish(
    queue: minibroker.Queue[bytes], ledger: Ledger, calls: Ledger, stopping: asyncio.Event
) -> None:
    """Publish one after the other."""
    while not await passes(stopping, PAUSE_S):
        called_ns = monotonic_ns()
        confirm = await queue.publish(b"witness", timeout=TIMEOUT_S)
        calls.write("confirmed", called_ns)
        ledger.write("confirmed", confirm.origin, confirm.sequence, 1)


async def main(url: str, name: str, ledger_path: str, calls_path: str) -> None:
    """Go on until SIGTERM; who waits for a broker that does not lead is not waited for."""
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    ledger, calls = Ledger(Path(ledger_path)), Ledger(Path(calls_path))
    async with minibroker.connect(url, name="witness", lazy=True, timeout=1) as broker:
        queue = broker.queue(name)
        tasks = [asyncio.create_task(publish(queue, ledger, calls, stopping)) for _ in range(TASKS)]
        stopped = asyncio.create_task(stopping.wait())
        await asyncio.wait([stopped, *tasks], return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if not stopping.is_set() and task.done():
                task.result()
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


if __name__ == "__main__":
    run("uvloop", main(*sys.argv[1:]))
