"""Who takes part: how server, worker and scheduler of each are started, and what its users write or run for it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import gettempdir
from typing import Final

from benchmarks.peers.servers import MinibrokerServer, RabbitServer, RedisServer, Server

HERE: Final = Path(__file__).parent
TOOLS: Final = (
    Path(gettempdir()) / "minibroker-tenants"
)  # what npm and go make, kept from run to run
BULLMQ: Final = ("bullmq@6.7.0", "ioredis@6.0.0")
FAKTORY: Final = "1.9.3"


@dataclass(frozen=True, slots=True)
class Side:
    """One peer; `program` runs with `work`, `add NAME` or `schedule`. `needs` is by the part of the story."""

    name: str
    server: Callable[[Path], Server]
    program: Callable[[], Sequence[str]]
    version: Callable[[], str]
    needs: Mapping[str, str]
    lacks: Mapping[str, str]  # parts that it has nothing for, and what its users do
    scheduler: bool = False  # its schedule needs a process of its own
    path: str = ""  # behind the address of the server


class FaktoryServer(Server):
    """Faktory, which starts a Redis of its own."""

    scheme = "tcp"

    def executable(self) -> list[str]:
        """Return the program, which is built at the first run."""
        return [str(faktory())]

    def command(self) -> list[str]:
        """Return ports and folder."""
        return ["-b", f"127.0.0.1:{self.port}", "-w", "127.0.0.1:0", "-e", "development"]

    def environment(self) -> dict[str, str]:
        """Return where its files are: below its home in this mode."""
        return {"HOME": str(self.folder)}


@cache
def faktory() -> Path:
    """Return the path of Faktory's server, built by Go where it is not there yet."""
    folder, program = TOOLS / f"faktory-{FAKTORY}", TOOLS / f"faktory-{FAKTORY}" / "faktory"
    if not program.exists():
        folder.mkdir(parents=True, exist_ok=True)
        module = "github.com/contribsys/faktory"
        (folder / "go.mod").write_text(f"module tenants\ngo 1.22\nrequire {module} v{FAKTORY}\n")
        (folder / "tools.go").write_text(
            f'//go:build tools\npackage tenants\nimport _ "{module}/cli"\nimport _ "{module}/webui"\n'
        )
        command = ["go", "build", "-mod=mod", "-o", str(program), f"{module}/cmd/faktory"]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return program


@cache
def bullmq() -> Sequence[str]:
    """Return the command of BullMQ's side; its packages are installed at the first run."""
    folder = TOOLS / "-".join(BULLMQ).replace("@", "-")
    if not (folder / "node_modules" / "bullmq").exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "package.json").write_text(json.dumps({"private": True, "type": "module"}))
        subprocess.run(["npm", "install", "--silent", *BULLMQ], cwd=folder, check=True)
    shutil.copy(HERE / "bullmq_side.mjs", folder)
    return ["node", str(folder / "bullmq_side.mjs")]


def _script(name: str) -> Callable[[], Sequence[str]]:
    return lambda: [sys.executable, str(HERE / name)]


def _python(module: str) -> Callable[[], str]:
    from importlib.metadata import version

    return lambda: version(module)


def _redis(folder: Path) -> Server:
    return RedisServer(folder, "everysec")


SIDES: Final = (
    Side(
        "minibroker",
        lambda folder: MinibrokerServer(folder, ""),
        _script("minibroker_side.py"),
        _python("minibroker"),
        {
            "fair": "`key=` the tenant; one queue",
            "rate": "the setting `key_rate=10` of the queue",
            "priority": "`priority=9`",
            "unique": "`unique_key=`",
            "cron": "`broker.schedules.set`",
        },
        {},
    ),
    Side(
        "BullMQ, free edition",
        _redis,
        bullmq,
        lambda: BULLMQ[0].partition("@")[2],
        {
            "fair": "a queue and a Worker for each tenant: each has slots of its own",
            "rate": "a queue for each tenant with a `limiter`",
            "priority": "a number at every job: those without one come first",
            "unique": "`deduplication: {id}`",
            "cron": "`upsertJobScheduler`",
        },
        {},
    ),
    Side(
        "Faktory, free edition",
        lambda folder: FaktoryServer(folder, ""),
        _script("faktory_side.py"),
        lambda: FAKTORY,
        {
            "fair": "a queue for each tenant, and workers that shuffle the queues at each fetch",
            "priority": "a queue for each priority",
        },
        {
            "rate": "nothing",
            "unique": "`unique_for` is taken and does nothing (Enterprise)",
            "cron": "Enterprise; else the cron of a machine",
        },
    ),
    Side(
        "RabbitMQ",
        lambda folder: RabbitServer(folder, ""),
        _script("rabbitmq_side.py"),
        lambda: RabbitServer.version(RabbitServer.__new__(RabbitServer)),
        {
            "fair": "a queue for each tenant, and workers that consume all of them with one `global` prefetch",
            "priority": "`x-max-priority` on a classic queue (3.10: not on a quorum queue)",
        },
        {
            "rate": "nothing",
            "unique": "nothing; a key in another store",
            "cron": "nothing; the cron of a machine",
        },
        path="/",
    ),
    Side(
        "Celery on Redis",
        _redis,
        _script("celery_side.py"),
        _python("celery"),
        {
            "fair": "a queue for each tenant, named to each worker; `round_robin`, prefetch 1, `acks_late`",
            "rate": "a task name for each rate; the rate is that of each worker process",
            "priority": "`priority_steps`, prefetch 1; 0 is the highest",
            "cron": "`celery beat`, one process that must run once",
        },
        {"unique": "nothing; a key in another store"},
        scheduler=True,
    ),
)
