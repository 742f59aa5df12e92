"""What tasks write down as they begin and end, in whichever process they run, and who reads it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

LEASE_S: Final = 10  # of minibroker; after so long the others give back what a dead worker had
LONGEST_DELAY_S: Final = 15.0
QUIET_S: Final = LEASE_S + LONGEST_DELAY_S + 10  # nothing has happened for so long: nothing will


def note(what: str, number: int) -> None:
    """Append a line to what all processes write to, in one call: b(egin) or e(nd), number, process, time."""
    line = f"{what} {number} {os.getpid()} {time.time():.3f}\n".encode()
    file = os.open(os.environ["TORTURE_SAID"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(file, line)
    os.close(file)


def events_in(said: Path) -> list[tuple[str, int, float]]:
    """Return what was noted in a file: begin or end, number, time."""
    if not said.exists():
        return []
    rows = (line.split() for line in said.read_text("utf-8").splitlines())
    return [(row[0], int(row[1]), float(row[3])) for row in rows if len(row) == 4]


def settle(said: Path, tasks: int) -> None:
    """Return when all have run, or none has for long."""
    quiet_since, before = time.monotonic(), -1
    while time.monotonic() - quiet_since < QUIET_S:
        events = events_in(said)
        if len({number for what, number, _ in events if what == "e"}) == tasks:
            time.sleep(LEASE_S + 2)  # what is to run a second time does so now
            return
        if len(events) != before:
            before, quiet_since = len(events), time.monotonic()
        time.sleep(0.5)
