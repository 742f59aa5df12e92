"""Celery under kills, on minibroker and on Redis: what was lost, and what ran twice.

    python -m benchmarks.celery_torture --tasks 20000 --seconds 60

Two workers of Celery (prefork, two processes each, late acks; with `--pool threads` two threads) run tasks that
write a line when they begin and one when they end. One in ten has a countdown, one in fifty an ETA that is later
than the lease, or the visibility timeout of Redis. Every two seconds a worker, with its whole pool, or the broker
gets a SIGKILL and is started again; after the time both workers are replaced as in a deployment, by SIGTERM. Then
the script waits until everything has run, or nothing has for longer than a lease and the last ETA.

A publish that failed is made again, and its number does not count as a double. Redis writes with `appendfsync
always`.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

from benchmarks.torture.notes import LEASE_S, LONGEST_DELAY_S, events_in, note, settle
from celery import Celery

COUNTDOWN_S: Final = 3
KILL_EVERY_S: Final = 2.0
PORTS: Final = {"minibroker": 7472, "redis": 7473}
URLS: Final = {
    "minibroker": f"minibroker://127.0.0.1:{PORTS['minibroker']}",
    "redis": f"redis://127.0.0.1:{PORTS['redis']}/0",
}
OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "minibroker": {"lease": LEASE_S},
    "redis": {"visibility_timeout": LEASE_S},
}

app = Celery("torture", broker=URLS[os.environ.get("TORTURE", "minibroker")])
app.conf.update(
    task_acks_late=True,
    task_ignore_result=True,
    broker_connection_retry_on_startup=True,
    broker_transport_options=OPTIONS[os.environ.get("TORTURE", "minibroker")],
)


@app.task(name="work")
def work(number: int, seconds: float) -> None:
    """Begin, work for a moment, end."""
    note("b", number)
    time.sleep(seconds)
    note("e", number)


class Side:
    """One broker with its two workers."""

    def __init__(self, name: str, directory: Path, pool: str) -> None:
        self.name = name
        self.pool = pool
        self.directory = directory
        self.said = directory / "said"
        self.env = {**os.environ, "TORTURE": name, "TORTURE_SAID": str(self.said)}
        self.broker = self._start_broker()
        self.workers = [self._start_worker(number) for number in range(2)]
        self.log: Counter[str] = Counter()

    def _start_broker(self) -> subprocess.Popen[bytes]:
        port = str(PORTS[self.name])
        if self.name == "redis":
            command = ["redis-server", "--port", port, "--dir", str(self.directory)]
            command += ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]
        else:
            command = [sys.executable, "-m", "minibrokerd", "serve", "--port", port, "--no-http"]
            command += ["--data-dir", str(self.directory / "data")]
        return self._start(command, "broker.log")

    def _start_worker(self, number: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "celery", "-A", "benchmarks.celery_torture", "worker"]
        command += [
            "-P",
            self.pool,
            "-c",
            "2",
            "-l",
            "WARNING",
            "-n",
            f"w{number}-{time.time_ns()}@torture",
        ]
        return self._start(command, "worker.log")

    def _start(self, command: list[str], log: str) -> subprocess.Popen[bytes]:
        with (self.directory / log).open("ab") as file:
            return subprocess.Popen(
                command, env=self.env, stdout=file, stderr=file, start_new_session=True
            )

    def kill(self, victim: int) -> None:
        """Kill a worker with its pool (0, 1) or the broker (2), and start it again."""
        process = self.broker if victim == 2 else self.workers[victim]
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        self.log["broker killed" if victim == 2 else "worker killed"] += 1
        if victim == 2:
            self.broker = self._start_broker()
        else:
            self.workers[victim] = self._start_worker(victim)

    def deploy(self) -> None:
        """Replace both workers, as a deployment does: a new one first, then SIGTERM to the old one."""
        old = self.workers
        self.workers = [self._start_worker(number) for number in range(2)]
        for process in old:
            process.send_signal(signal.SIGTERM)
        for process in old:
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                self.log["did not stop in 60 s"] += 1
                os.killpg(process.pid, signal.SIGKILL)

    def end(self) -> None:
        """End everything."""
        for process in (*self.workers, self.broker):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def publish(
    side: Side, tasks: int, seconds: float, repeated: set[int], due: dict[int, float]
) -> None:
    """Publish all tasks over the time, each again until its publish has succeeded."""
    task = app.signature("work")
    began = time.monotonic()
    for number in range(tasks):
        options: dict[str, float] = {}
        if number % 50 == 7:
            options["countdown"] = LONGEST_DELAY_S
        elif number % 10 == 3:
            options["countdown"] = COUNTDOWN_S
        while True:
            due[number] = time.time() + options.get("countdown", 0)
            try:
                task.apply_async((number, 0.002), **options)
                break
            except Exception:  # noqa: BLE001 - whatever the framework raises while its broker is away
                repeated.add(number)
                time.sleep(0.1)
        ahead_s = began + seconds * number / tasks - time.monotonic()
        if ahead_s > 0.01:
            time.sleep(ahead_s)


def run(name: str, tasks: int, seconds: float, seed: int, pool: str) -> dict[str, Any]:
    """Torture one side; return its counts."""
    directory = Path(tempfile.mkdtemp(prefix=f"torture-{name}-"))
    side = Side(name, directory, pool)
    repeated: set[int] = set()
    due: dict[int, float] = {}
    chosen = random.Random(seed)
    try:
        time.sleep(5)
        publisher = threading.Thread(target=publish, args=(side, tasks, seconds, repeated, due))
        publisher.start()
        ends_at = time.monotonic() + seconds
        while time.monotonic() < ends_at:
            time.sleep(KILL_EVERY_S)
            side.kill(chosen.randrange(3))
        side.deploy()
        publisher.join()
        settle(side.said, tasks)
        left = [process.poll() for process in side.workers]
        side.log["workers that ended by themselves"] = sum(code is not None for code in left)
    finally:
        side.end()
    counts = judged(side, tasks, repeated, due)
    shutil.rmtree(directory, ignore_errors=True)
    return counts


def judged(side: Side, tasks: int, repeated: set[int], due: dict[int, float]) -> dict[str, Any]:
    """Return the counts of a run."""
    events = events_in(side.said)
    begun = Counter(number for what, number, _ in events if what == "b")
    ended = Counter(number for what, number, _ in events if what == "e")
    return {
        "broker": side.name,
        "tasks": tasks,
        "never ran": tasks - len(ended),
        "begun and killed in it": sum(begun.values()) - sum(ended.values()),
        "ran to the end twice or more": sum(
            count - 1 for number, count in ended.items() if number not in repeated
        ),
        "publishes that failed": len(repeated),
        "begun before their time": sum(
            at < due[number] - 0.05 for what, number, at in events if what == "b"
        ),
        **side.log,
    }


def main() -> None:
    """Run both, or one, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--pool", choices=("prefork", "threads"), default="prefork")
    parser.add_argument("--only", choices=sorted(URLS))
    said = parser.parse_args()
    if not said.only:  # each in a process of its own: an application of Celery has one broker
        for name in URLS:
            command = [sys.executable, "-m", "benchmarks.celery_torture", "--only", name]
            command += ["--tasks", str(said.tasks), "--seconds", str(said.seconds)]
            command += ["--seed", str(said.seed), "--pool", said.pool]
            subprocess.run(command, check=True, env={**os.environ, "TORTURE": name})
        return
    for what, count in run(said.only, said.tasks, said.seconds, said.seed, said.pool).items():
        print(f"{what:32} {count}", flush=True)


if __name__ == "__main__":
    main()
