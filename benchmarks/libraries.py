"""Dramatiq and Taskiq on minibroker and on Redis: tasks that do nothing, idle workers, and one task alone.

    python -m benchmarks.libraries --rounds 3 --only dramatiq

Each case is a new server and one worker process with four threads, or four tasks at a time. Tasks are published
from eight threads (Dramatiq) or by twenty coroutines (Taskiq) first, then run. `sync` is beside an append-only
file with `appendfsync always`, `lazy` beside `everysec`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from time import monotonic, sleep
from typing import Any, Final

from benchmarks.peers.servers import MinibrokerServer, RedisServer, Server
from benchmarks.processes import cpu_seconds
from benchmarks.workers.running import BIN, ROOT, end, watched
from benchmarks.workers.tally import PATH_VARIABLE, Tally

JOBS: Final = 3_000
IDLE_S: Final = 4.0
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
        program, *flags = WORKERS[library]
        output = folder / "output"
        with output.open("wb") as file:
            worker = subprocess.Popen(
                [str(BIN / program), *flags],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env=environment,
                cwd=folder,
                start_new_session=True,
            )
        stack.callback(end, worker)

        def used() -> float:
            return server.cpu_s() + cpu_seconds(worker.pid)

        done = watched(worker, tally, int(published), output, used)
        sleep(0.5)
        idle, at = (cpu_seconds(worker.pid), server.cpu_s()), monotonic()
        sleep(IDLE_S)
        took = monotonic() - at
        idle_worker = (cpu_seconds(worker.pid) - idle[0]) / took
        idle_server = (server.cpu_s() - idle[1]) / took
        run(ALONE[library], SINGLES)
        sleep(0.5)
        late = [float(line) for line in (folder / "tally.latencies").read_text().split()]
        return {
            "publish": published / seconds,
            "execute": done.rate,
            "cpu_us": done.cpu_us,
            "idle_worker_percent": 100 * idle_worker,
            "idle_server_percent": 100 * idle_server,
            "latency_ms": 1_000 * median(late),
            "singles": len(late),
        }


def main() -> None:
    """Measure what is asked for, and print it as lines and as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.libraries", description=__doc__)
    parser.add_argument("--only", choices=list(WORKERS), nargs="+", default=list(WORKERS))
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    figures: dict[str, dict[str, list[dict[str, float]]]] = {}
    built = ROOT / "build"
    built.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=built) as folder:
        for number in range(options.rounds):
            for library in options.only:
                for case in CASES:
                    made = measure(library, case, Path(folder) / f"{library}-{case}-{number}")
                    figures.setdefault(library, {}).setdefault(case, []).append(made)
                    shown = "  ".join(f"{name} {value:,.2f}" for name, value in made.items())
                    print(f"{library:9} {case:16} {shown}", flush=True)
    for library, cases in figures.items():
        for ours, theirs in PAIRS.items():
            print(f"{library:9} {ours} / {theirs}: {ratios(cases[ours], cases[theirs])}")
    print(json.dumps(figures))


def ratios(ours: list[dict[str, float]], theirs: list[dict[str, float]]) -> str:
    """Return the median of each figure as a ratio, taken within a round."""
    names: list[Any] = ["publish", "execute", "cpu_us", "idle_worker_percent", "latency_ms"]
    return "  ".join(
        f"{name} {median(one[name] / other[name] for one, other in zip(ours, theirs, strict=True)):.2f}"
        for name in names
    )


if __name__ == "__main__":
    main()
