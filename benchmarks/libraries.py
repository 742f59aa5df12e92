"""Dramatiq and Taskiq on minibroker and on Redis: tasks that do nothing, idle workers, and one task alone.

    python -m benchmarks.libraries --rounds 3 --only dramatiq

Each case is a new server and one worker process with four threads, or four tasks at a time. Tasks are published
from eight threads (Dramatiq) or by twenty coroutines (Taskiq) first, then run. `sync` is beside an append-only
file with `appendfsync always`, `lazy` beside `everysec`. `idle_wakes` is how often a second a thread of the idle
worker was woken; `idle alone` is the same worker on a broker on which nothing comes: what of both is the library's
own. Ratios are taken within a round, and their median is printed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from time import monotonic, sleep
from typing import Final

from benchmarks.gauges import LoopGauge, SyncGauge, record_bytes
from benchmarks.peers.servers import MinibrokerServer, RedisServer, Server
from benchmarks.processes import cpu_seconds, wake_ups
from benchmarks.workers.running import BIN, ROOT, end, watched
from benchmarks.workers.tally import PATH_VARIABLE, Tally

JOBS: Final = 3_000
IDLE_S: Final = 15.0
START_S: Final = 5.0  # of which a worker computes little: it has started
STARTED: Final = 0.02  # so much of a CPU at most
SETTLED_S: Final = 2.0  # after the last task, before it is idle
MESSAGE_BYTES: Final = 400  # about what a task takes in the log
SINGLES: Final = 100
PUBLISHERS: Final = {
    "dramatiq": """
import sys, time
from concurrent.futures import ThreadPoolExecutor
from benchmarks.workers.jobs.dramatiq_jobs import noop, publish
publish(8, "x")
count, began = int(sys.argv[1]), time.monotonic()
with ThreadPoolExecutor(8) as pool:
    list(pool.map(lambda _: publish(count // 8, "x" * 100), range(8)))
print(count // 8 * 8, time.monotonic() - began)
""",
    "taskiq": """
import asyncio, sys, time
from benchmarks.workers.jobs.taskiq_jobs import broker, noop
async def main(count):
    await broker.startup()
    await noop.kiq("x")
    async def some():
        for _ in range(count // 20):
            await noop.kiq("x" * 100)
    began = time.monotonic()
    await asyncio.gather(*(some() for _ in range(20)))
    print(count // 20 * 20, time.monotonic() - began)
    await broker.shutdown()
asyncio.run(main(int(sys.argv[1])))
""",
}
ALONE: Final = {
    "dramatiq": """
import sys, time
from benchmarks.workers.jobs.dramatiq_jobs import late
for _ in range(int(sys.argv[1])):
    late.send(time.monotonic())
    time.sleep(0.02)
""",
    "taskiq": """
import asyncio, sys, time
from benchmarks.workers.jobs.taskiq_jobs import broker, late
async def main(count):
    await broker.startup()
    for _ in range(count):
        await late.kiq(time.monotonic())
        await asyncio.sleep(0.02)
    await broker.shutdown()
asyncio.run(main(int(sys.argv[1])))
""",
}
JOB_MODULE: Final = "benchmarks.workers.jobs"
WORKERS: Final = {
    "dramatiq": ("dramatiq", f"{JOB_MODULE}.dramatiq_jobs", "-p", "1", "-t", "4"),
    "taskiq": (
        *("taskiq", "worker", f"{JOB_MODULE}.taskiq_jobs:broker", "--workers", "1"),
        *("--max-async-tasks", "4", "--log-level", "WARNING"),
    ),
}
CASES: Final[Mapping[str, tuple[type[Server], str, str]]] = {
    "minibroker sync": (MinibrokerServer, "--no-http", "sync"),
    "redis always": (RedisServer, "always", ""),
    "minibroker lazy": (MinibrokerServer, "--no-http", "lazy"),
    "redis everysec": (RedisServer, "everysec", ""),
}
FIGURES: Final = (
    *("publish", "execute", "cpu_us", "idle_worker_percent", "idle_wakes", "latency_ms"),
)
PAIRS: Final = {"minibroker sync": "redis always", "minibroker lazy": "redis everysec"}


def measure(library: str, case: str, folder: Path) -> dict[str, float]:
    """Return the figures of one library on one server."""
    kind, option, durability = CASES[case]
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        folder.mkdir(parents=True)
        server = kind(folder / "server", option)
        stack.callback(server.close)
        server.start()
        tally = Tally(folder / "tally")
        environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            "BENCH_URL": server.url if durability else f"{server.url}/0",
            "BENCH_DURABILITY": durability,
            PATH_VARIABLE: str(folder / "tally"),
        }

        def run(source: str, count: int) -> str:
            words = [sys.executable, "-c", source, str(count)]
            return subprocess.run(
                words, env=environment, check=True, capture_output=True, text=True
            ).stdout

        published, seconds = map(float, run(PUBLISHERS[library], JOBS).split())
        worker = started(library, folder, environment)
        stack.callback(end, worker)

        def used() -> float:
            return server.cpu_s() + cpu_seconds(worker.pid)

        done = watched(worker, tally, int(published), folder / "output", used)
        idle = idling(worker.pid, server.cpu_s)
        run(ALONE[library], SINGLES)
        sleep(0.5)
        late = [float(line) for line in (folder / "tally.latencies").read_text().split()]
        return {
            "publish": published / seconds,
            "execute": done.rate,
            "cpu_us": done.cpu_us,
            **idle,
            "latency_ms": 1_000 * median(late),
            "singles": len(late),
        }


def started(library: str, folder: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start a worker in a process group of its own; what it says goes to a file."""
    program, *flags = WORKERS[library]
    with (folder / "output").open("wb") as file:
        return subprocess.Popen(
            [str(BIN / program), *flags],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env=environment,
            cwd=folder,
            start_new_session=True,
        )


def idling(worker: int, server_cpu_s: Callable[[], float]) -> dict[str, float]:
    """Return what a worker, and its server, compute while nothing happens, and how often the worker wakes."""
    sleep(SETTLED_S)
    before, at = (cpu_seconds(worker), server_cpu_s(), wake_ups(worker)), monotonic()
    sleep(IDLE_S)
    took = monotonic() - at
    return {
        "idle_worker_percent": 100 * (cpu_seconds(worker) - before[0]) / took,
        "idle_server_percent": 100 * (server_cpu_s() - before[1]) / took,
        "idle_wakes": (wake_ups(worker) - before[2]) / took,
    }


def alone(library: str, folder: Path) -> dict[str, float]:
    """Return what a worker computes on a broker on which nothing ever comes."""
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        folder.mkdir(parents=True)
        Tally(folder / "tally")
        said = {"PYTHONPATH": str(ROOT), "BENCH_URL": "nothing"}
        worker = started(
            library, folder, os.environ | said | {PATH_VARIABLE: f"{folder / 'tally'}"}
        )
        stack.callback(end, worker)
        used, before = 1.0, 0.0
        while used > STARTED:  # nobody sees that it works
            sleep(START_S)
            used, before = (cpu_seconds(worker.pid) - before) / START_S, cpu_seconds(worker.pid)
        return idling(worker.pid, lambda: 0.0)


def main() -> None:
    """Measure what is asked for, and print it as lines and as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.libraries", description=__doc__)
    parser.add_argument("--only", choices=list(WORKERS), nargs="+", default=list(WORKERS))
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    figures: dict[str, dict[str, list[dict[str, float]]]] = {}
    built = ROOT / "build"
    built.mkdir(exist_ok=True)
    idle: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory(dir=built) as folder:
        sync, loop = SyncGauge(Path(folder), record_bytes(1, MESSAGE_BYTES)), LoopGauge()
        for number in range(options.rounds):
            for library in options.only:
                quiet = alone(library, Path(folder) / f"{library}-alone-{number}")
                idle.setdefault(library, []).append(quiet)
                print(f"{library:9} {'idle alone':16} {shown(quiet)}", flush=True)
                for case in CASES:
                    made = measure(library, case, Path(folder) / f"{library}-{case}-{number}")
                    figures.setdefault(library, {}).setdefault(case, []).append(made)
                    print(f"{library:9} {case:16} {shown(made)}", flush=True)
            sync.measure(200)
            loop.measure(0.1)
        sync.close()
    print(f"medians of {options.rounds} rounds of {JOBS:,} tasks; ", end="")
    print(f"fdatasync p50 {sync.p50_us:.0f} us, loop {loop.per_second / 1e6:.0f} M/s")
    for library, quiet_rounds in idle.items():
        for theirs in PAIRS.values():
            own = [
                one["idle_worker_percent"] / other["idle_worker_percent"]
                for one, other in zip(quiet_rounds, figures[library][theirs], strict=True)
            ]
            print(f"{library:9} idle alone / {theirs}: idle_worker_percent {median(own):.2f}")
    for library, cases in figures.items():
        for ours, theirs in PAIRS.items():
            print(f"{library:9} {ours} / {theirs}: {ratios(cases[ours], cases[theirs])}")
    print(json.dumps({"figures": figures, "idle alone": idle}))


def ratios(ours: list[dict[str, float]], theirs: list[dict[str, float]]) -> str:
    """Return the median of each figure as a ratio, taken within a round."""
    return "  ".join(
        f"{name} {median(one[name] / other[name] for one, other in zip(ours, theirs, strict=True)):.2f}"
        for name in FIGURES
    )


def shown(figures: Mapping[str, float]) -> str:
    """Return figures as a line; those of an idle worker have more digits."""
    return "  ".join(
        f"{name} {value:,.{4 if name.startswith('idle') and 'wakes' not in name else 2}f}"
        for name, value in figures.items()
    )


if __name__ == "__main__":
    main()
