"""Publishes through one broker alone, whether it answers or not: what it confirms, and when each call was made.

    cluster_witness.py URL QUEUE LEDGER CALLS

It waits for that broker while another one leads. LEDGER is that of any publisher; a line of CALLS is `confirmed`,
and the time of the call.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import suppress
from pathlib import Path
from time import monotonic_ns

import minibroker

sys.path.append(str(Path(__file__).resolve().parent.parent / "kills"))
from loops import passes, run
from worker_ledger import Ledger

PAUSE_S = 0.02
MOST = 200  # calls that have no answer
TIMEOUT_S = 3_600  # the other one may lead for as long as a campaign takes


async def publish(
    queue: minibroker.Queue[bytes], ledger: Ledger, calls: Ledger, free: asyncio.Semaphore
) -> None:
    """Publish once."""
    called_ns = monotonic_ns()
    confirm = await queue.publish(b"witness", timeout=TIMEOUT_S)
    calls.write("confirmed", called_ns)
    ledger.write("confirmed", confirm.origin, confirm.sequence, 1)
    free.release()


async def publish_on(queue: minibroker.Queue[bytes], ledger: Ledger, calls: Ledger) -> None:
    """Publish whether the calls before are answered or not: a broker that is cut off, or paused, is asked on."""
    free, never = asyncio.Semaphore(MOST), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        while True:
            await free.acquire()
            group.create_task(publish(queue, ledger, calls, free))
            await passes(never, PAUSE_S)


async def main(url: str, name: str, ledger_path: str, calls_path: str) -> None:
    """Go on until SIGTERM; calls that wait for a broker that does not lead are not waited for."""
    ledger, calls = Ledger(Path(ledger_path)), Ledger(Path(calls_path))
    async with minibroker.connect(url, name="witness", lazy=True, timeout=1) as broker:
        publishing = asyncio.ensure_future(publish_on(broker.queue(name), ledger, calls))
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, publishing.cancel)
        with suppress(asyncio.CancelledError):
            await publishing


if __name__ == "__main__":
    run("uvloop", main(*sys.argv[1:]))
