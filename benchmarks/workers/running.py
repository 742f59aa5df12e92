"""One repetition: a fresh server, jobs published beforehand, a worker that is watched until the last is done."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, perf_counter, sleep

from benchmarks.peers.servers import MinibrokerServer, RedisServer, SideFailed
from benchmarks.processes import cpu_seconds
from benchmarks.rows import BODY_BYTES
from benchmarks.workers.settings import MINIBROKER, Setting
from benchmarks.workers.tally import PATH_VARIABLE, Tally

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
LOOK_S = 0.002
START_S = 60.0  # for a worker that imports its framework
MOST_S = 120.0  # for its jobs
END_S = 10.0


class MemoryRedis(RedisServer):
    """Redis that writes nothing to the disk: what is fastest for those who use it, and promises nothing."""

    def command(self) -> list[str]:
        """Return the settings that differ from the defaults."""
        return [
            "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder), "--save", "",
        ]  # fmt: skip

    @property
    def url(self) -> str:
        """The address with a database, as all clients take it."""
        return f"{super().url}/0"


@dataclass(frozen=True, slots=True)
class Timed:
    """From the first job that was seen done to the last: `jobs` in `seconds`.

    `cpu_s` is what the server and all processes of the worker computed meanwhile, those that have ended apart.
    """

    jobs: int
    seconds: float
    cpu_s: float

    @property
    def rate(self) -> float:
        """Jobs a second."""
        return self.jobs / self.seconds

    @property
    def cpu_us(self) -> float:
        """CPU time of a job in microseconds."""
        return self.cpu_s / self.jobs * 1e6


def repetition(setting: Setting, folder: Path, share: float) -> Timed:
    """Publish `share` of the setting's jobs, have its worker do them, and return how long that took.

    Raises:
        SideFailed: the worker ended, or did not finish in time; its output stands in the text.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    jobs = max(1_000, int(setting.jobs * share) // 1_000 * 1_000) if setting.jobs > 500 else 500
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        kind = MinibrokerServer if setting.framework == MINIBROKER else MemoryRedis
        server = kind(folder / "server", "")
        stack.callback(server.close)
        server.start()
        environment = {
            **os.environ,
            **setting.environment,
            "PYTHONPATH": str(ROOT),
            "BENCH_URL": server.url,
            PATH_VARIABLE: str(folder / "tally"),
        }
        tally = Tally(folder / "tally")
        publish = "import sys; from {} import publish; publish(int(sys.argv[1]), 'x' * {})"
        subprocess.run(
            [sys.executable, "-c", publish.format(setting.module, BODY_BYTES), str(jobs)],
            env=environment,
            cwd=folder,
            check=True,
        )
        worker = start(setting, server.url, environment, folder)
        stack.callback(end, worker)

        def used() -> float:
            return server.cpu_s() + cpu_seconds(worker.pid)

        return watched(worker, tally, jobs, folder / "output", used)


def start(
    setting: Setting, url: str, environment: dict[str, str], folder: Path
) -> subprocess.Popen[bytes]:
    """Start the worker in a process group of its own; what it says goes to a file."""
    program, *flags = (part.format(url=url) for part in setting.command)
    with (folder / "output").open("wb") as output:
        return subprocess.Popen(
            [str(BIN / program), *flags],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
            cwd=folder,
            start_new_session=True,
        )


def watched(
    worker: subprocess.Popen[bytes],
    tally: Tally,
    jobs: int,
    output: Path,
    used: Callable[[], float],
) -> Timed:
    """Look at the tally until all jobs are done."""
    ends, first, started, used_s = monotonic() + START_S, 0, 0.0, 0.0
    while (count := tally.count()) < jobs:
        if count and not first:
            used_s, first, started = used(), count, perf_counter()
            ends = monotonic() + MOST_S
        if monotonic() > ends or worker.poll() is not None:
            said = output.read_text("utf-8", "replace")[-2_000:]
            raise SideFailed(f"{count} of {jobs} jobs were done:\n{said}")
        sleep(LOOK_S)
    return Timed(jobs - first, perf_counter() - started, used() - used_s)


def end(worker: subprocess.Popen[bytes]) -> None:
    """End a worker with all its processes; its figures are in."""
    with suppress(ProcessLookupError):
        os.killpg(worker.pid, signal.SIGKILL)
    worker.wait(END_S)
