"""Celery on minibroker and on Redis: tasks that do nothing, published and executed, one at a time, and an idle
worker.

    python -m benchmarks.celery_rates --tasks 2000 --rounds 1

Each side with what a confirm means there: `sync` beside `appendfsync always`, `lazy` beside `everysec`. Both
pools of a side are measured one after the other. Executed a second is from the first task to the last of a
backlog; a start is from before `delay()` to the first line of the task, on a worker with nothing else to do;
idle CPU is that of the worker and its pool over some seconds.
"""

from __future__ import annotations

import argparse
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
IDLE_S: Final = 5.0
NAME: Final = os.environ.get("RATES", "minibroker")

app = Celery("rates", broker=f"{NAME}://127.0.0.1:{PORTS[NAME]}")
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
    """Return the seconds of CPU of a group of processes."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text("utf-8").rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group:
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def side(mode: str, tasks: int) -> None:
    """Measure one side, and print a row for each pool."""
    directory = Path(tempfile.mkdtemp(prefix="rates-"))
    done, stamps = directory / "done", directory / "stamps"
    os.environ |= {"RATES_DONE": str(done), "RATES_STAMPS": str(stamps)}
    try:
        with running(broker_command(mode, directory), directory / "broker.log"):
            time.sleep(2)
            if NAME == "minibroker":
                import minibroker.sync

                with minibroker.sync.connect(f"minibroker://127.0.0.1:{PORTS[NAME]}") as broker:
                    broker.queue("celery").set(durability=mode)
            for pool, flags in POOLS.items():
                measure(mode, pool, flags, tasks, directory)
                done.unlink()
                stamps.unlink()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def measure(mode: str, pool: str, flags: Any, tasks: int, directory: Path) -> None:
    """Publish a backlog, run it, then look at an idle worker."""
    done, stamps = directory / "done", directory / "stamps"
    began = time.perf_counter()
    for _ in range(tasks):
        nothing.delay()
    published_s = time.perf_counter() - began
    command = [
        sys.executable,
        "-m",
        "celery",
        "-A",
        "benchmarks.celery_rates",
        "worker",
        "-l",
        "ERROR",
    ]
    with running([*command, *flags], directory / "worker.log") as worker:
        await_(done.exists, "no task has begun")
        began = time.perf_counter()
        await_(lambda: done.stat().st_size >= tasks, "not all have run")
        executed_s = time.perf_counter() - began
        delays = []
        for number in range(60):
            began = time.time()
            stamp.delay()
            await_(lambda n=number: stamps.exists() and len(_lines(stamps)) > n, "no start")
            delays.append(float(_lines(stamps)[number]) - began)
            time.sleep(0.01)
        before = cpu_s(worker.pid)
        time.sleep(IDLE_S)
        idle = (cpu_s(worker.pid) - before) / IDLE_S
    print(
        f"| {NAME} {mode} | {pool} | {tasks / published_s:,.0f} | {tasks / executed_s:,.0f} "
        f"| {statistics.median(delays) * 1_000:.2f} | {idle * 100:.2f} % |",
        flush=True,
    )


def _lines(file: Path) -> list[str]:
    return file.read_text("utf-8").splitlines()


def main() -> None:
    """Measure all sides, each in a process of its own: an application of Celery has one broker."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--mode")
    said = parser.parse_args()
    if said.mode:
        side(said.mode, said.tasks)
        return
    print("| broker | pool | published/s | executed/s | p50 to the start, ms | idle CPU |")
    print("| --- | --- | --- | --- | --- | --- |", flush=True)
    for _ in range(said.rounds):
        for name, mode in SIDES:
            command = [sys.executable, "-m", "benchmarks.celery_rates", "--mode", mode]
            subprocess.run(
                [*command, "--tasks", str(said.tasks)],
                check=True,
                env={**os.environ, "RATES": name},
            )


if __name__ == "__main__":
    main()
