"""Dramatiq and Taskiq under kills, on minibroker and on Redis: what was lost, and what ran twice.

    python -m benchmarks.torture --tasks 3000 --seconds 60 --only dramatiq

Two workers (one process each, four tasks at a time) run tasks that write a line when they begin and one when they
end. Of Dramatiq's tasks one in ten has a delay of 3 s, one in fifty of 15 s; the brokers of taskiq-redis have no
delays, so Taskiq's have none. Every two seconds a worker, with its processes, or the broker gets a SIGKILL and is
started again; after the time both workers are replaced as in a deployment, by SIGTERM. Then it waits until
everything has run, or nothing has for longer than a lease and the last delay.

A lease is 10 s here; there Dramatiq's `heartbeat_timeout`, and the stream's `idle_timeout`, are the same. Redis
writes with `appendfsync always`. A publish that failed is made again, and does not count as a double.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.torture.side import SIDES, Work, tortured
from benchmarks.workers.running import ROOT


def main() -> None:
    """Torture all sides of the libraries, one after another, and print a table for each library."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.torture", description=__doc__)
    parser.add_argument("--tasks", type=int, default=3_000)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--only", choices=list(SIDES), nargs="+", default=list(SIDES))
    parser.add_argument("--side", nargs=2, metavar=("LIBRARY", "BROKER"), help=argparse.SUPPRESS)
    said = parser.parse_args()
    if said.side:
        _one(said.side[0], said.side[1], Work(said.tasks, said.seconds, said.seed))
        return
    for library in said.only:
        counts = {broker: _apart(library, broker, said) for broker in SIDES[library]}
        rows = list(dict.fromkeys(name for each in counts.values() for name in each))
        print(f"| {library} | {' | '.join(counts)} |")
        print("| --- |" + " --- |" * len(counts))
        for row in rows:
            print(f"| {row} | {' | '.join(str(each.get(row, 0)) for each in counts.values())} |")
        print(flush=True)


def _apart(library: str, broker: str, said: argparse.Namespace) -> dict[str, Any]:
    """Torture one side in a process of its own: a library has one broker in each."""
    work = ["--tasks", str(said.tasks), "--seconds", str(said.seconds), "--seed", str(said.seed)]
    command = [sys.executable, "-m", "benchmarks.torture", "--side", library, broker, *work]
    ran = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    counts: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return counts


def _one(library: str, broker: str, work: Work) -> None:
    built = ROOT / "build"
    built.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"torture-{library}-{broker}-", dir=built))
    try:
        print(json.dumps(tortured(library, broker, folder, work)), flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
