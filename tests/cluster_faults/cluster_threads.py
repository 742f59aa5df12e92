"""A consumer with the blocking client: threads that call a handler, and its ledger, as `load_consumer.py` has it.

cluster_threads.py URL QUEUE LEDGER
"""

from __future__ import annotations

import signal
import sys
from contextlib import suppress
from pathlib import Path
from threading import Event

import minibroker.sync

sys.path.append(str(Path(__file__).resolve().parent.parent / "kills"))
from handlings import Handlings
from worker_ledger import Ledger, mark_connection

THREADS = 4
Message = minibroker.sync.Message[bytes]


class Handlers(Handlings):
    """The handlers of one process."""

    def handle(self, message: Message) -> None:
        """Handle one message; what is not settled here is acked by `run`."""
        self.note("begun", message)
        if self.fails(message):
            message.nack("fails once", delay=0)
            self.note("nacked", message)
            return
        if rests_s := self.rests_s(message):
            Event().wait(rests_s)
        if self.is_confirmed(message):
            with suppress(minibroker.LeaseLost):  # `lost` has been told
                message.ack(confirmed=True)
                self.note("safe", message)
        else:
            self.note("acked", message)


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
