"""A consumer under load, with every handling in its ledger.

    load_consumer.py URL QUEUE LEDGER LOOP

Lines, all with origin, sequence, token, attempt: `begun` before anything else; then `acked` (handed over),
`safe` (confirmed) or `nacked`; `lost` when the client is told that a message is not its own any more. Without
numbers: `away` and `back`, of its connection. Every 16th message fails once. Every 64th takes up to 1 s, so that
it is begun when the broker dies.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import suppress
from pathlib import Path
from random import Random

from loops import passes, run
from worker_ledger import Ledger, mark_connection

import minibroker

CONCURRENCY = 32
LONGEST_S = 1.0
Message = minibroker.Message[bytes]


class Handlers:
    """The handlers of one process."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._random = Random()
        self._never = asyncio.Event()

    async def handle(self, message: Message) -> None:
        """Handle one message; what is not settled here is acked by the caller's `process`."""
        self.note("begun", message)
        kind = message.sequence % 32
        if kind in (5, 21) and message.attempt == 1:
            await message.nack("fails once", delay=0)
            self.note("nacked", message)
            return
        if message.sequence % 64 == 7:
            await passes(self._never, self._random.uniform(0, LONGEST_S))
        if kind % 8 == 3:
            with suppress(minibroker.LeaseLost):  # `lost` has been told
                await message.ack(confirmed=True)
                self.note("safe", message)
        else:
            self.note("acked", message)

    def note(self, verb: str, message: Message) -> None:
        """Write a line about a message."""
        id = message.id
        self._ledger.write(verb, id.origin, id.sequence, message.token, message.attempt)

    def lost(self, message: Message, error: Exception) -> None:
        """Note that a settlement was refused, or a lease lost; `connect`."""
        print(message, error, flush=True)
        self.note("lost", message)


async def main(url: str, name: str, ledger_path: str) -> None:
    """Consume until SIGTERM; handlers that run are waited for, and their settlements."""
    ledger = Ledger(Path(ledger_path))
    mark_connection(ledger)
    handlers = Handlers(ledger)
    async with minibroker.connect(
        url, name="consumer", on_settle_error=handlers.lost, timeout=60
    ) as broker:
        working = asyncio.ensure_future(broker.queue(name).run(handlers.handle, CONCURRENCY))
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, working.cancel)
        with suppress(asyncio.CancelledError):
            await working


if __name__ == "__main__":
    url, name, ledger, loop = sys.argv[1:]
    run(loop, main(url, name, ledger))
