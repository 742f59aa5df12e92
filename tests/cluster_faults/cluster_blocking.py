"""A publisher with the blocking client: keys, delays, short leases, and messages that may fail only once.

    cluster_blocking.py URL QUEUE LEDGER

What the consumers nack at the first attempt is dead then, where it may not fail: every 5th message.
"""

from __future__ import annotations

import signal
import sys
from itertools import count
from pathlib import Path
from random import Random
from threading import Event

import minibroker.sync

sys.path.append(str(Path(__file__).resolve().parent.parent / "kills"))
from worker_ledger import Ledger

KEYS = 16
LONGEST_DELAY_S = 2.0
LEASE_S = 10.0  # longer than the wait of a new leader for whoever has a message
PAUSE_S = 0.03
TIMEOUT_S = 60  # longer than any fault


def main(url: str, name: str, path: str) -> None:
    """Publish until SIGTERM."""
    stopping, random, ledger = Event(), Random(), Ledger(Path(path))
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    with minibroker.sync.connect(url, name="blocking publisher") as broker:
        queue = broker.queue(name)
        for number in count():
            if stopping.wait(PAUSE_S):
                return
            kind = number % 5
            confirm = queue.publish(
                b"blocking",
                key=f"key {random.randrange(KEYS)}" if kind in (0, 1) else None,
                delay=random.uniform(0, LONGEST_DELAY_S) if kind in (1, 2) else None,
                lease=LEASE_S if kind == 3 else None,
                max_attempts=1 if kind == 4 else None,
                timeout=TIMEOUT_S,
            )
            ledger.write("confirmed", confirm.origin, confirm.sequence, 1)


if __name__ == "__main__":
    main(*sys.argv[1:])
