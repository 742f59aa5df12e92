"""A worker whose one handler keeps the event loop from turning.

    busy_worker.py URL QUEUE LEDGER LOOP ENOUGH

It goes on until there is a file ENOUGH. The body says how: `compute` is pure Python, `derive` is in C, which
releases the GIL. Lines: `begun`
and `done`, with the sequence and the attempt; `safe` when the ack is confirmed; `lost` when it was refused.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from loops import run
from worker_ledger import Ledger

import minibroker


def compute(enough: Path) -> None:
    """Compute in pure Python: other threads get the GIL, the loop does not turn."""
    while not enough.exists():
        sum(range(10_000))


def derive(enough: Path) -> None:
    """Be in C for that long, but for a moment now and then; OpenSSL works without the GIL."""
    while not enough.exists():
        hashlib.pbkdf2_hmac("sha256", b"", b"", 200_000)


async def main(url: str, name: str, ledger_path: str, enough: Path) -> None:
    """Handle one message."""
    ledger = Ledger(Path(ledger_path))
    async with (
        minibroker.connect(url, name="busy") as broker,
        broker.queue(name).consume(prefetch=4) as messages,
    ):
        async for message in messages:
            ledger.write("begun", message.sequence, message.attempt)
            {b"compute": compute, b"derive": derive}[message.body](enough)
            ledger.write("done", message.sequence, message.attempt)
            try:
                await message.ack(confirmed=True)
            except minibroker.LeaseLost:
                ledger.write("lost", message.sequence, message.attempt)
            else:
                ledger.write("safe", message.sequence, message.attempt)
            break


if __name__ == "__main__":
    url, name, ledger, loop, enough = sys.argv[1:]
    run(loop, main(url, name, ledger, Path(enough)))
