"""Celery on minibroker and on Redis: tasks that do nothing, published and executed, one at a time, and an idle
worker.

    make bench-celery ARGS="--tasks 2000 --rounds 3"

Each side with what a confirm means there: `sync` beside `appendfsync always`, `lazy` beside `everysec`. Both
pools of a side are measured one after the other, and ratios are taken within a round. Executed a second is from
the first task to the last of a backlog. A start is from before `delay()` to the first line of the task, where the
worker has nothing else to do. Idle CPU is that of the worker and its pool, by the clock of the scheduler. `memory`
is kombu's own transport in the process of the publisher: what a `delay()` costs that is stored nowhere.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from benchmarks.gauges import LoopGauge, SyncGauge, record_bytes
from benchmarks.peers.sides import REDIS
from celery import Celery

PORTS: Final = {"minibroker": 7474, "redis": 7475}
SIDES: Final = (
    ("minibroker", "sync"),
    ("redis", "always"),
    ("minibroker", "lazy"),
    ("redis", "everysec"),
)
POOLS: Final = {
    "prefork 2": ("-P", "prefork", "-c", "2"),
    "threads 8": ("-P", "threads", "-c", "8"),
}
PAIRS: Final = {"minibroker sync": "redis always", "minibroker lazy": "redis everysec"}
IDLE_S: Final = 10.0
MESSAGE_BYTES: Final = 800  # about what a task takes in the log
NAME: Final = os.environ.get("RATES", "minibroker")
FIGURES: Final = {
    "published": "published/s",
    "executed": "executed/s",
    "start_ms": "p50 to the start, ms",
    "idle": "idle CPU, %",
    "publisher_us": "CPU of a publish, us: publisher",
    "server_us": "server",
}
DIGITS: Final = {"start_ms": 2, "idle": 3}

app = Celery("rates", broker=f"{NAME}://127.0.0.1:{PORTS[NAME]}" if NAME in PORTS else "memory://")
app.conf.update(task_ignore_result=True, broker_connection_retry_on_startup=True)


@app.task(name="nothing")
def nothing() -> None:
    """Leave one byte, so that they can be counted."""
    _append("RATES_DONE", b".")


@app.task(name="stamp")
def stamp() -> None:
    """Leave the time."""
    _append("RATES_STAMPS", f"{time.time():.6f}\n".encode())


def _append(variable: str, data: bytes) -> None:
    file = os.open(os.environ[variable], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, data)
    os.close(file)


def await_(condition: Callable[[], bool], what: str) -> None:
    """Return when it holds."""
    until = time.monotonic() + 120
    while not condition():
        if time.monotonic() > until:
            raise RuntimeError(what)
        time.sleep(0.002)


@contextmanager
def running(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program for the time of a block."""
    with log.open("ab") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def broker_command(mode: str, directory: Path) -> list[str]:
    """Return how the broker of this side is started."""
    port = str(PORTS[NAME])
    if NAME == "redis":
        kept = ["--appendonly", "yes", "--appendfsync", mode, "--save", ""]
        return ["redis-server", "--port", port, "--dir", str(directory), *kept]
    serve = [sys.executable, "-m", "minibrokerd", "serve", "--no-http"]
    return [*serve, "--port", port, "--data-dir", str(directory / "data")]


def cpu_s(group: int) -> float:
    """Return the seconds of CPU of all threads of a group of processes, to the nanosecond."""
    total_ns = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(stat.read_text("utf-8").rpartition(")")[2].split()[2]) != group:
                continue
            for thread in stat.parent.glob("task/*/schedstat"):
                total_ns += int(thread.read_text("utf-8").split()[0])
        except OSError:  # it has ended
            continue
    return total_ns / 1e9


def side(mode: str, tasks: int) -> None:
    """Measure one side, and print the figures of each pool as JSON."""
    if NAME == "memory":
        print(json.dumps({"memory": publish(tasks, 0)}), flush=True)
        return
    directory = Path(tempfile.mkdtemp(prefix="rates-"))
    os.environ |= {"RATES_DONE": str(directory / "done")}
    os.environ |= {"RATES_STAMPS": str(directory / "stamps")}
    try:
        with running(broker_command(mode, directory), directory / "broker.log") as broker:
            time.sleep(2)
            if broker.poll() is not None:
                raise RuntimeError((directory / "broker.log").read_text("utf-8"))
            if NAME == "minibroker":
                import minibroker.sync

                with minibroker.sync.connect(f"minibroker://127.0.0.1:{PORTS[NAME]}") as client:
                    client.queue("celery").set(durability=mode)
            nothing.delay()  # connects
            found = {}
            for pool, flags in POOLS.items():
                found[pool] = measure(flags, tasks, directory, broker.pid)
            print(json.dumps(found), flush=True)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def publish(tasks: int, server: int) -> dict[str, float]:
    """Publish a backlog; `server` is the group of processes of the broker, 0: there is none."""
    own, other, began = time.process_time(), server and cpu_s(server), time.perf_counter()
    for _ in range(tasks):
        nothing.delay()
    took_s = time.perf_counter() - began
    own, other = time.process_time() - own, server and cpu_s(server) - other
    return {
        "published": tasks / took_s,
        "publisher_us": own / tasks * 1e6,
        "server_us": other / tasks * 1e6,
    }


def measure(flags: Any, tasks: int, directory: Path, server: int) -> dict[str, float]:
    """Publish a backlog, run it, then look at an idle worker."""
    done, stamps = directory / "done", directory / "stamps"
    found = publish(tasks, server)
    words = ["-m", "celery", "-A", "benchmarks.celery_rates", "worker", "-l", "ERROR", *flags]
    with running([sys.executable, *words], directory / "worker.log") as worker:
        await_(done.exists, "no task has begun")
        began = time.perf_counter()
        await_(lambda: done.stat().st_size >= tasks, "not all have run")
        found["executed"] = tasks / (time.perf_counter() - began)
        delays = []
        for number in range(60):
            began = time.time()
            stamp.delay()
            await_(lambda n=number: stamps.exists() and len(_lines(stamps)) > n, "no start")
            delays.append(float(_lines(stamps)[number]) - began)
            time.sleep(0.01)
        found["start_ms"] = statistics.median(delays) * 1_000
        time.sleep(1)
        before = cpu_s(worker.pid)
        time.sleep(IDLE_S)
        found["idle"] = (cpu_s(worker.pid) - before) / IDLE_S * 100
    done.unlink()
    stamps.unlink()
    return found


def _lines(file: Path) -> list[str]:
    return file.read_text("utf-8").splitlines()


Rounds = dict[str, dict[str, list[dict[str, float]]]]  # by broker and pool


def run(name: str, mode: str, tasks: int) -> dict[str, dict[str, float]]:
    """Measure a side in a process of its own: an application of Celery has one broker."""
    command = [sys.executable, "-m", "benchmarks.celery_rates", "--mode", mode]
    printed = subprocess.run(
        [*command, "--tasks", str(tasks)],
        check=True,
        env={**os.environ, "RATES": name},
        stdout=subprocess.PIPE,
    ).stdout
    found: dict[str, dict[str, float]] = json.loads(printed)
    return found


def row(broker: str, pool: str, each: list[dict[str, float]]) -> str:
    """Return medians as a row of a table."""
    cells = []
    for name in FIGURES:
        value = statistics.median(one.get(name, 0.0) for one in each)
        cells.append(f"{value:,.{DIGITS.get(name, 0)}f}")
    return f"| {broker} | {pool} | {' | '.join(cells)} |"


def told(rounds: Rounds) -> list[str]:
    """Return medians of the rounds, and of the ratios within them."""
    lines = [f"| broker | pool | {' | '.join(FIGURES.values())} |", "| --- " * 8 + "|"]
    lines += [
        row(broker, pool, each) for broker, pools in rounds.items() for pool, each in pools.items()
    ]
    for ours, theirs in PAIRS.items():
        for pool in POOLS:
            both = [rounds.get(side, {}).get(pool, []) for side in (ours, theirs)]
            pairs = list(zip(*both, strict=False))  # without Redis there are none
            if pairs:
                ratios = [
                    f"{FIGURES[name].partition(',')[0]} "
                    f"{statistics.median(one[name] / other[name] for one, other in pairs):.2f}"
                    for name in ("published", "executed", "start_ms", "idle")
                ]
                lines.append(f"{ours} / {theirs}, {pool}: " + ", ".join(ratios))
    return lines


def main() -> None:
    """Measure all sides, round by round."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--mode", help=argparse.SUPPRESS)
    said = parser.parse_args()
    if said.mode:
        side(said.mode, said.tasks)
        return
    missing = REDIS.missing()
    if missing:
        print(f"redis: skipped: {missing}")
    rounds: Rounds = {}
    with tempfile.TemporaryDirectory() as folder:
        sync, loop = SyncGauge(Path(folder), record_bytes(1, MESSAGE_BYTES)), LoopGauge()
        for _ in range(said.rounds):
            for name, mode in (*SIDES, ("memory", "nowhere")):
                if name == "redis" and missing:
                    continue
                for pool, found in run(name, mode, said.tasks).items():
                    broker = "kombu" if name == "memory" else f"{name} {mode}"
                    rounds.setdefault(broker, {}).setdefault(pool, []).append(found)
                    print(row(broker, pool, [found]), flush=True)
            sync.measure(200)
            loop.measure(0.1)
        sync.close()
    print(f"medians of {said.rounds} rounds of {said.tasks} tasks; ", end="")
    print(f"fdatasync p50 {sync.p50_us:.0f} us, loop {loop.per_second / 1e6:.0f} M/s")
    print(*told(rounds), sep="\n")


if __name__ == "__main__":
    main()
