"""Processes as the kernel counts them: CPU and memory of a server with its children, and free ports."""

from __future__ import annotations

import os
import random
import socket
import time
from contextlib import suppress
from pathlib import Path

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
PORTS = (12_000, 30_000)
SCHEDULER_CLOCK = 2  # clock_getcpuclockid(3), which Python has for threads only
# An installation has its modules compiled; those of a checkout are at the first start, unless this is set.
COMPILED = {"PYTHONDONTWRITEBYTECODE": ""}
# Fields of /proc/PID/stat, counted behind the name in brackets, which may hold blanks.
PARENT, RESIDENT = 1, 21


def free_port() -> int:
    """Return a port on which nothing listens now, and none of those that a connecting socket is given.

    Whoever tries such a one until a server listens is sooner or later connected with itself.
    """
    while True:
        port = random.randrange(*PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def tree(root: int) -> dict[int, list[str]]:
    """Return the fields of a process and of all below it."""
    fields = {int(path.name): stat(path) for path in Path("/proc").glob("[0-9]*")}
    found, wanted = {}, [root]
    while wanted:
        pid = wanted.pop()
        if fields.get(pid):
            found[pid] = fields[pid]
            wanted += [child for child, each in fields.items() if each and int(each[PARENT]) == pid]
    return found


def stat(path: Path) -> list[str]:
    """Return the fields behind the name; none if the process has ended."""
    try:
        return (path / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def cpu_seconds(root: int) -> float:
    """Return the CPU time of a process and of all below it.

    From their CPU clocks, in nanoseconds: the ticks of /proc/PID/stat are 10 ms, a lot beside a short run.
    """
    return sum(clock_seconds(pid) for pid in tree(root))


def wake_ups(root: int) -> int:
    """Return how often threads of a process and of all below it have gone to sleep, and so were woken."""
    return sum(_slept(path) for pid in tree(root) for path in Path(f"/proc/{pid}/task").glob("*"))


def _slept(thread: Path) -> int:
    with suppress(OSError):  # it has ended
        for line in (thread / "status").read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches:"):
                return int(line.split()[1])
    return 0


def clock_seconds(pid: int) -> float:
    """Return what the CPU clock of a process shows, all its threads together; 0 if it has ended."""
    try:
        return time.clock_gettime((~pid << 3) | SCHEDULER_CLOCK)
    except OSError:
        return 0.0


def resident_bytes(root: int) -> int:
    """Return the resident memory of a process and of all below it."""
    return sum(int(each[RESIDENT]) * PAGE_BYTES for each in tree(root).values())
