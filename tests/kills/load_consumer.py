"""A consumer under load, with every handling in its ledger.

    load_consumer.py URL QUEUE LEDGER LOOP

Lines, all with origin, sequence, token, attempt: `begun` before anything else; then `acked` (handed over),
`safe` (confirmed) or `nacked`; `lost` when the client is told that a message is not its own any more. Without
numbers: `away` and `back`, of its connection. What becomes of which message is in handlings.py.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import suppress
from pathlib import Path

from handlings import Handlings
from loops import passes, run
from worker_ledger import Ledger, mark_connection

import minibroker

CONCURRENCY = 32
Message = minibroker.Message[bytes]


class Handlers(Handlings):
    """The handlers of one process."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__(ledger)
        self._never = asyncio.Event()

    async def handle(self, message: Message) -> None:
        """Handle one message; what is not settled here is acked by the caller's `process`."""
        self.note("begun", message)
        if self.fails(message):
            await message.nack("fails once", delay=0)
            self.note("nacked", message)
            return
        if rests_s := self.rests_s(message):
            await passes(self._never, rests_s)
        if self.is_confirmed(message):
            with suppress(minibroker.LeaseLost):  # `lost` has been told
                await message.ack(confirmed=True)
                self.note("safe", message)
        else:
            self.note("acked", message)


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
