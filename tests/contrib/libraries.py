"""Worker processes of other job libraries, and what their tasks wrote: one line for each run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from support.processes import TETHER

# Tasks say here what they have done, each with one write that is whole or not there.
RAN = """
import os
def ran(*words):
    line = " ".join(map(str, (os.getpid(), *words))) + "\\n"
    fd = os.open(os.environ["RAN"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(fd, line.encode())
    os.close(fd)
"""
DRAMATIQ = ("dramatiq", "tasks", "-p", "1", "-t", "4")
DJANGO = ("django", "minibroker_worker")
TASKIQ = ("taskiq", "worker", "tasks:broker", "--workers", "1")


class Library:
    """A module of tasks in a folder, and the worker processes that run it on a broker."""

    def __init__(
        self, folder: Path, url: str, source: str, command: Sequence[str], settings: str = ""
    ) -> None:
        self.folder = folder
        self.record = folder / "ran"
        self.record.touch()
        (folder / "tasks.py").write_text(RAN + source)
        path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
        self.env = {**os.environ, "MINIBROKER_URL": url, "RAN": str(self.record)}
        self.env["PYTHONPATH"] = path
        if settings:  # of Django
            (folder / "settings.py").write_text(settings)
            self.env["DJANGO_SETTINGS_MODULE"] = "settings"
        self.command = command
        self.workers: list[subprocess.Popen[bytes]] = []

    def start(self, *flags: str) -> subprocess.Popen[bytes]:
        """Start one more worker, which is the leader of a group of processes."""
        words = [sys.executable, "-m", *self.command, *flags]
        log = self.folder / f"worker-{len(self.workers)}.log"
        with log.open("wb") as output:
            worker = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", TETHER, *words],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self.env,
                cwd=self.folder,
                start_new_session=True,
            )
        self.workers.append(worker)
        return worker

    def call(self, source: str) -> None:
        """Run a program in its folder; AssertionError with what it printed if it fails."""
        done = subprocess.run(
            [sys.executable, "-c", source],
            env=self.env,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, (done.stderr, self.log)

    def ran(self) -> Counter[str]:
        """Return how often each thing was run, without the process that ran it."""
        lines = self.record.read_text().splitlines()
        return Counter(line.partition(" ")[2] for line in lines)

    @property
    def log(self) -> str:
        """What the workers printed."""
        logs = sorted(self.folder.glob("worker-*.log"))
        return "\n".join(log.read_text(errors="replace") for log in logs)

    def close(self) -> None:
        """End what still runs."""
        for worker in self.workers:
            if worker.poll() is None:
                os.killpg(worker.pid, 9)
            worker.wait()


class Start(Protocol):
    """Starts a worker on a module of tasks."""

    def __call__(self, source: str, command: Sequence[str], settings: str = "") -> Library: ...
