"""`manage.py minibroker_worker`: becomes a `minibroker worker` that runs the tasks of a backend."""

from __future__ import annotations

import json
import os
import sys
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError

from minibroker.contrib.django.backend import WANTED, MinibrokerBackend, wrong_name
from minibroker.contrib.django.interface import task_backends

# These go on to `minibroker worker`, which says what they mean, and judges them.
FLAGS: Final = "burst", "reload"
VALUES: Final = (
    "processes",
    "drain-timeout",
    "max-messages",
    "max-memory",
    "health-file",
    "health-port",
    "loop",
    "log-format",
    "log-level",
)


class Command(BaseCommand):
    """Runs tasks until SIGTERM or Ctrl-C; then it waits for those that run."""

    help = "Run tasks that were enqueued with a backend of minibroker, until SIGTERM or Ctrl-C."

    def add_arguments(self, parser: Any) -> None:
        """Declare the words of the command."""
        parser.add_argument("--backend", default="default", help="Which of TASKS.")
        parser.add_argument("--queues", help="These only, with commas between; else all QUEUES.")
        parser.add_argument("--concurrency", type=int, default=4, help="Tasks at once, of a queue.")
        for name in FLAGS:
            parser.add_argument(f"--{name}", action="store_true", help="as of minibroker worker")
        for name in VALUES:
            parser.add_argument(f"--{name}", metavar="VALUE", help="as of minibroker worker")

    def handle(self, *args: Any, **options: Any) -> None:
        """Replace this process by the worker: its signals, its exit codes."""
        alias = options["backend"]
        if alias not in task_backends:
            raise CommandError(f"TASKS has no {alias!r}")
        backend = task_backends[alias]
        if not isinstance(backend, MinibrokerBackend):
            raise CommandError(f"TASKS[{alias!r}] is not minibroker's")
        names = options["queues"]
        queues = sorted(backend.queues) if names is None else names.split(",")
        if not queues:
            raise CommandError("QUEUES is empty, which means any: say --queues")
        for name in queues:
            if backend.queues and name not in backend.queues:  # each of its tasks would be invalid
                raise CommandError(f"--queues: QUEUES of TASKS[{alias!r}] has no {name!r}")
            if why := wrong_name(name):
                raise CommandError(f"--queues: {why}")
        wanted = {"queues": queues} | {name: options[name] for name in ("backend", "concurrency")}
        words = [f"--{name}" for name in FLAGS if options[name]]
        for name in VALUES:
            value = options[name.replace("-", "_")]
            words += [] if value is None else [f"--{name}", value]
        # The worker is told what `manage.py` knows: where modules are.
        path = os.pathsep.join(each for each in sys.path if each)
        env = os.environ | {WANTED: json.dumps(wanted), "PYTHONPATH": path}
        command = [sys.executable, "-m", "minibrokerd", "worker"]
        command += ["minibroker.contrib.django.tasks_app:app", *words]
        sys.stdout.flush()
        os.execve(sys.executable, command, env)
