"""One library on one broker: its processes, who kills them, and what came of it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.peers.servers import MinibrokerServer, RedisServer, Server
from benchmarks.torture.notes import LONGEST_DELAY_S, events_in, settle

KILL_EVERY_S: Final = 2.0
TASK_S: Final = 0.002
DELAYS: Final = {
    7: LONGEST_DELAY_S,
    3: 3.0,
}  # of tasks that are so much past a multiple of 50, of 10
AT_ONCE: Final = 4
WORKERS: Final = {
    "dramatiq": ("dramatiq", "benchmarks.torture.dramatiq_tasks", "-p", "1", "-t", str(AT_ONCE)),
    "taskiq": (
        *("taskiq", "worker", "benchmarks.torture.taskiq_tasks:broker", "--workers", "1"),
        *("--max-async-tasks", str(AT_ONCE), "--log-level", "ERROR"),
    ),
}
SIDES: Final = {
    "dramatiq": ("minibroker", "redis"),
    "taskiq": ("minibroker", "redis-stream", "redis-list"),
}
Send = Callable[[int, float, float], None]


@dataclass(frozen=True, slots=True)
class Work:
    """What one side is given: so many tasks in so many seconds, and the seed of who is killed."""

    tasks: int
    seconds: float
    seed: int


class Side:
    """One broker with its two workers."""

    def __init__(self, library: str, broker: str, folder: Path) -> None:
        self.library, self.folder = library, folder
        self.said = folder / "said"
        kind: type[Server] = MinibrokerServer if broker == "minibroker" else RedisServer
        self.server = kind(folder / "server", "--no-http" if kind is MinibrokerServer else "always")
        self.server.start()
        url = self.server.url if kind is MinibrokerServer else f"{self.server.url}/0"
        self.environment = {
            "TORTURE_URL": url,
            "TORTURE_BROKER": broker,
            "TORTURE_SAID": str(self.said),
        }
        self.workers = [self._start_worker() for _ in range(2)]
        self.log: Counter[str] = Counter()

    def _start_worker(self) -> subprocess.Popen[bytes]:
        with (self.folder / "worker.log").open("ab") as file:
            return subprocess.Popen(
                [sys.executable, "-m", *WORKERS[self.library]],
                env=os.environ | self.environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    def kill(self, victim: int) -> None:
        """Kill a worker with its processes (0, 1) or the broker (2), and start it again."""
        if victim == 2:
            self.log["SIGKILLs of the broker"] += 1
            self.server.kill()
            self.server.start()
            return
        self.log["SIGKILLs of a worker"] += 1
        os.killpg(self.workers[victim].pid, signal.SIGKILL)
        self.workers[victim].wait()
        self.workers[victim] = self._start_worker()

    def deploy(self) -> None:
        """Replace both workers, as a deployment does: new ones first, then SIGTERM to the old ones."""
        old = self.workers
        self.workers = [self._start_worker() for _ in range(2)]
        for process in old:
            process.send_signal(signal.SIGTERM)
        for process in old:
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                self.log["workers that did not stop in 60 s"] += 1
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def end(self) -> None:
        """End everything."""
        for process in self.workers:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        self.server.close()


def delay_of(library: str, number: int) -> float:
    """Return the delay of a task in seconds. The brokers of taskiq-redis have none."""
    if library == "taskiq":
        return 0.0
    return DELAYS[7] if number % 50 == 7 else DELAYS[3] if number % 10 == 3 else 0.0


def tortured(library: str, broker: str, folder: Path, work: Work) -> dict[str, Any]:
    """Torture one side; return its counts. A process has one library on one broker: call it in a fresh one."""
    side = Side(library, broker, folder)
    os.environ.update(side.environment)
    repeated: set[int] = set()
    due: dict[int, float] = {}
    chosen = random.Random(work.seed)
    publisher = threading.Thread(target=_publish, args=(library, work, repeated, due))
    try:
        time.sleep(5)
        publisher.start()
        ends_at = time.monotonic() + work.seconds
        while time.monotonic() < ends_at:
            time.sleep(KILL_EVERY_S)
            side.kill(chosen.randrange(3))
        side.deploy()
        publisher.join()
        settle(side.said, work.tasks)
        left = [process.poll() for process in side.workers]
        side.log["workers that ended by themselves"] = sum(code is not None for code in left)
    finally:
        side.end()
    return _judged(side, work.tasks, repeated, due)


def _publish(library: str, work: Work, repeated: set[int], due: dict[int, float]) -> None:
    """Publish all tasks over the time, each again until its publish has succeeded."""
    send = _sender(library)
    began = time.monotonic()
    for number in range(work.tasks):
        delay_s = delay_of(library, number)
        while True:
            due[number] = time.time() + delay_s
            try:
                send(number, TASK_S, delay_s)
                break
            except Exception:  # noqa: BLE001 - whatever the library raises while its broker is away
                repeated.add(number)
                time.sleep(0.1)
        ahead_s = began + work.seconds * number / work.tasks - time.monotonic()
        if ahead_s > 0.01:
            time.sleep(ahead_s)


def _sender(library: str) -> Send:
    if library == "dramatiq":
        from benchmarks.torture.dramatiq_tasks import send  # its broker stands in the environment
    else:
        from benchmarks.torture.taskiq_tasks import send
    return send


def _judged(side: Side, tasks: int, repeated: set[int], due: dict[int, float]) -> dict[str, Any]:
    """Return the counts of a run. What was published twice since nobody knew, and ran twice, is no double."""
    events = events_in(side.said)
    begun = Counter(number for what, number, _ in events if what == "b")
    ended = Counter(number for what, number, _ in events if what == "e")
    twice = sum(count - 1 for number, count in ended.items() if number not in repeated)
    early = sum(at < due[number] - 0.05 for what, number, at in events if what == "b")
    kills = "SIGKILLs of a worker", "SIGKILLs of the broker"
    return {
        **{name: side.log.pop(name, 0) for name in kills},
        "tasks that never ran": tasks - len(ended),
        "begun, and killed in it": sum(begun.values()) - sum(ended.values()),
        "ran to the end twice": twice,
        "begun before their time": early,
        "publishes that failed, and were made again": len(repeated),
        **side.log,
    }
