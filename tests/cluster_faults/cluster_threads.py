"""A consumer with the blocking client: threads that call a handler, and its ledger, as `load_consumer.py` has it.

cluster_threads.py URL QUEUE LEDGER
"""

from __future__ import annotations

import signal
import sys
from contextlib import suppress
from pathlib import Path
from random import Random
from threading import Event

import minibroker.sync

sys.path.append(str(Path(__file__).resolve().parent.parent / "kills"))
from worker_ledger import Ledger, mark_connection

THREADS = 4
LONGEST_S = 1.0
Message = minibroker.sync.Message[bytes]


class Handlers:
    """The handlers of one process."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._random = Random()

    def handle(self, message: Message) -> None:
        """Handle one message; what is not settled here is acked by `run`."""
        self.note("begun", message)
        kind = message.sequence % 32
        if kind in (5, 21) and message.attempt == 1:
            message.nack("fails once", delay=0)
            self.note("nacked", message)
            return
        if message.sequence % 64 == 7:
            Event().wait(self._random.uniform(0, LONGEST_S))
        if kind % 8 == 3:
            with suppress(minibroker.LeaseLost):  # `lost` has been told
                message.ack(confirmed=True)
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


def main(url: str, name: str, path: str) -> None:
    """Consume until SIGTERM; handlers that run are waited for, and their settlements."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    ledger = Ledger(Path(path))
    mark_connection(ledger)
    handlers = Handlers(ledger)
    with (
        suppress(KeyboardInterrupt),
        minibroker.sync.connect(
            url, name="threads", on_settle_error=handlers.lost, timeout=60
        ) as broker,
    ):
        broker.queue(name).run(handlers.handle, THREADS)


if __name__ == "__main__":
    main(*sys.argv[1:])
