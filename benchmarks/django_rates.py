"""Django's Tasks on minibroker and in SQLite (django-tasks-db): tasks that do nothing, idle workers, one alone.

    pip install django-tasks-db
    python -m benchmarks.django_rates --rounds 3

Each case is a new server, or a new database, and one worker process. Tasks are published by one thread, one after
the other, then by eight; then all are run. `sync`: each commit waits for the disk, as SQLite does if nothing is
said. `lazy` is beside SQLite with a write-ahead log and `synchronous=NORMAL`. The worker of the database runs one
task at a time and looks for the next one each second, which are its defaults.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from time import monotonic, sleep
from typing import Final, NamedTuple

from benchmarks.peers.servers import MinibrokerServer
from benchmarks.processes import cpu_seconds
from benchmarks.workers.running import ROOT, end, watched
from benchmarks.workers.tally import PATH_VARIABLE, Tally

JOBS: Final = 2_000
IDLE_S: Final = 4.0
SINGLES: Final = 20
PUBLISH: Final = """
import sys, time, django
django.setup()
from concurrent.futures import ThreadPoolExecutor
from django.db import connections
from benchmarks.workers.jobs.django_jobs import noop
count, threads = int(sys.argv[1]), int(sys.argv[2])
def some(_):
    for _ in range(count // threads):
        noop.enqueue("x" * 100)
    connections.close_all()
noop.enqueue("x")
cpu, began = time.process_time(), time.monotonic()
with ThreadPoolExecutor(threads) as pool:
    list(pool.map(some, range(threads)))
took = time.monotonic() - began
print(count // threads * threads + 1, took, time.process_time() - cpu)
"""
ALONE: Final = """
import sys, time, django
django.setup()
from benchmarks.workers.jobs.django_jobs import late
for number in range(int(sys.argv[1])):
    late.enqueue(time.monotonic())
    time.sleep(0.1 + number / 17 % 1)
"""


class Case(NamedTuple):
    """What has the tasks, how safe they are there, and what runs them."""

    kind: str
    durability: str
    worker: tuple[str, ...]


OURS: Final = ("minibroker_worker", "--log-level", "warning", "--concurrency")
CASES: Final = {
    "minibroker sync": Case("minibroker", "sync", (*OURS, "4")),
    "minibroker sync, one at a time": Case("minibroker", "sync", (*OURS, "1")),
    "sqlite": Case("database", "sync", ("db_worker",)),
    "minibroker lazy": Case("minibroker", "lazy", (*OURS, "4")),
    "sqlite wal, normal": Case("database", "lazy", ("db_worker",)),
}


def measure(case: Case, folder: Path, jobs: int) -> dict[str, float]:
    """Return the figures of one case, in a new folder that is gone afterwards."""
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        folder.mkdir(parents=True)
        tally = Tally(folder / "tally")
        environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            "DJANGO_SETTINGS_MODULE": "benchmarks.workers.jobs.django_settings",
            "BENCH_FOLDER": str(folder),
            "BENCH_KIND": case.kind,
            "BENCH_DURABILITY": case.durability,
            PATH_VARIABLE: str(folder / "tally"),
        }
        server = None
        if case.kind == "minibroker":
            server = MinibrokerServer(folder / "server", "--no-http")
            stack.callback(server.close)
            server.start()
            environment["BENCH_URL"] = server.url

        def run(*words: str) -> str:
            done = subprocess.run(
                [sys.executable, *words],
                env=environment,
                check=True,
                capture_output=True,
                text=True,
            )
            return done.stdout

        def served() -> float:
            return 0.0 if server is None else server.cpu_s()

        run("-m", "django", "migrate", "--verbosity", "0")
        figures: dict[str, float] = {}
        published, before = 0, served()
        for threads in (1, 8):
            count, seconds, cpu_s = map(float, run("-c", PUBLISH, str(jobs), str(threads)).split())
            published += int(count)
            cpu_s, before = cpu_s + served() - before, served()
            figures[f"publish_{threads}"] = count / seconds
            figures[f"publish_{threads}_cpu_us"] = 1e6 * cpu_s / count
        output = folder / "output"
        with output.open("wb") as file:
            worker = subprocess.Popen(
                [sys.executable, "-m", "django", *case.worker],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env=environment,
                cwd=folder,
                start_new_session=True,
            )
        stack.callback(end, worker)
        done = watched(worker, tally, published, output, lambda: served() + cpu_seconds(worker.pid))
        sleep(1)
        idle, at = cpu_seconds(worker.pid) + served(), monotonic()
        sleep(IDLE_S)
        idle = (cpu_seconds(worker.pid) + served() - idle) / (monotonic() - at)
        run("-c", ALONE, str(SINGLES))
        sleep(2)
        late = [float(line) for line in (folder / "tally.latencies").read_text().split()]
        return figures | {
            "execute": done.rate,
            "execute_cpu_us": done.cpu_us,
            "idle_percent": 100 * idle,
            "latency_ms": 1_000 * median(late),
            "singles": len(late),
        }


def main() -> None:
    """Measure what is asked for, and print it as lines and as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.django_rates", description=__doc__)
    parser.add_argument("--only", choices=list(CASES), nargs="+", default=list(CASES))
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=JOBS)
    options = parser.parse_args()
    figures: dict[str, list[dict[str, float]]] = {}
    built = ROOT / "build"
    built.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=built) as folder:
        for number in range(options.rounds):
            for name in options.only:
                made = measure(CASES[name], Path(folder) / f"{number}-{name}", options.jobs)
                figures.setdefault(name, []).append(made)
                print(f"{name:31} {shown(made)}", flush=True)
    for name, rounds in figures.items():
        middle = {each: median(made[each] for made in rounds) for each in rounds[0]}
        print(f"median of {len(rounds)}: {name:31} {shown(middle)}")
    print(json.dumps(figures))


def shown(figures: dict[str, float]) -> str:
    """Return figures as text."""
    return "  ".join(f"{name} {value:,.1f}" for name, value in figures.items())


if __name__ == "__main__":
    main()
