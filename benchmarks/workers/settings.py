"""The workers of `make bench-workers`: each as it comes, and at what its documentation says is fast."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

MINIBROKER: Final = "minibroker"


@dataclass(frozen=True, slots=True)
class Setting:
    """One way to start the worker of a framework. `jobs` is how many it gets in a repetition: some seconds' worth.

    `command` stands behind the folder of the Python that runs. `source`: where its documentation says so.
    """

    name: str
    framework: str
    distributions: Sequence[str]
    how: str
    command: Sequence[str]
    jobs: int
    environment: Mapping[str, str] = field(default_factory=dict)
    source: str = ""

    @property
    def module(self) -> str:
        """The module that has the job."""
        return f"benchmarks.workers.jobs.{self.framework}_jobs"


OUR_COMMAND: Final = ("minibroker", "worker", "benchmarks.workers.jobs.minibroker_jobs:app")
CELERY: Final = ("celery", "-A", "benchmarks.workers.jobs.celery_jobs", "worker")
LEAN_CELERY: Final = ("--without-gossip", "--without-mingle", "--without-heartbeat")
DRAMATIQ: Final = ("dramatiq", "benchmarks.workers.jobs.dramatiq_jobs")
TASKIQ: Final = ("taskiq", "worker", "benchmarks.workers.jobs.taskiq_jobs:broker")
RQ: Final = ("rq",)
OF_CELERY: Final = ("celery", "redis")
OF_TASKIQ: Final = ("taskiq", "taskiq-redis")
LARGE: Final = {"BENCH_CONCURRENCY": "100"}

SETTINGS: Final[Sequence[Setting]] = (
    Setting(
        "minibroker",
        MINIBROKER,
        (MINIBROKER,),
        "as it comes: one job at a time, a line for each success",
        OUR_COMMAND,
        40_000,
    ),
    Setting(
        "minibroker-100",
        MINIBROKER,
        (MINIBROKER,),
        "concurrency=100, a line for each success",
        OUR_COMMAND,
        200_000,
        LARGE,
    ),
    Setting(
        "minibroker-100-quiet",
        MINIBROKER,
        (MINIBROKER,),
        "concurrency=100, --log-level warning",
        (*OUR_COMMAND, "--log-level", "warning"),
        200_000,
        LARGE,
    ),
    Setting(
        "minibroker-2x100",
        MINIBROKER,
        (MINIBROKER,),
        "concurrency=100, --processes 2, --log-level warning",
        (*OUR_COMMAND, "--log-level", "warning", "--processes", "2"),
        200_000,
        LARGE,
    ),
    Setting(
        "celery",
        "celery",
        OF_CELERY,
        "as it comes: prefork, a process for each core, prefetch 4 for each",
        CELERY,
        6_000,
    ),
    Setting(
        "celery-prefetch",
        "celery",
        OF_CELERY,
        "prefork, worker_prefetch_multiplier=128, without gossip, mingle and heartbeat",
        (*CELERY, *LEAN_CELERY),
        6_000,
        {"BENCH_PREFETCH": "128"},
        "User Guide, Optimizing: prefetch limits",
    ),
    Setting(
        "celery-gevent",
        "celery",
        OF_CELERY,
        "gevent, concurrency 100, worker_prefetch_multiplier=10, without gossip, mingle and heartbeat",
        (*CELERY, *LEAN_CELERY, "-P", "gevent", "-c", "100"),
        6_000,
        {"BENCH_PREFETCH": "10"},
        "User Guide, Concurrency: gevent",
    ),
    Setting(
        "dramatiq",
        "dramatiq",
        ("dramatiq", "redis"),
        "as it comes: a process for each core, 8 threads each",
        DRAMATIQ,
        8_000,
    ),
    Setting(
        "dramatiq-prefetch",
        "dramatiq",
        ("dramatiq", "redis"),
        "a process for each core, 8 threads each, dramatiq_queue_prefetch=1000",
        DRAMATIQ,
        8_000,
        {"dramatiq_queue_prefetch": "1000"},
        "Advanced Topics, Prefetch limits",
    ),
    Setting(
        "dramatiq-async",
        "dramatiq",
        ("dramatiq", "redis"),
        "the same with async def and the AsyncIO middleware",
        DRAMATIQ,
        6_000,
        {"BENCH_ASYNC": "1", "dramatiq_queue_prefetch": "1000"},
        "Cookbook, asyncio",
    ),
    Setting(
        "taskiq",
        "taskiq",
        OF_TASKIQ,
        "as it comes: RedisStreamBroker, 2 processes, 100 at a time each, a line for each job",
        TASKIQ,
        6_000,
    ),
    Setting(
        "taskiq-tuned",
        "taskiq",
        OF_TASKIQ,
        "RedisStreamBroker, --no-parse, --max-prefetch 100, --ack-type when_received, --log-level WARNING",
        (*TASKIQ, "--no-parse", "--max-prefetch", "100", "--ack-type", "when_received", "--log-level", "WARNING"),
        8_000,
        {},
        "CLI, worker",
    ),
    Setting(
        "taskiq-list",
        "taskiq",
        OF_TASKIQ,
        "ListQueueBroker (no ack), --no-parse, --max-prefetch 100, --log-level WARNING",
        (*TASKIQ, "--no-parse", "--max-prefetch", "100", "--log-level", "WARNING"),
        8_000,
        {"BENCH_LIST": "1"},
        "Available brokers, Redis",
    ),
    Setting(
        "rq",
        "rq",
        ("rq", "redis"),
        "as it comes: a process is forked for each job",
        (*RQ, "worker", "--url", "{url}"),
        500,
    ),
    Setting(
        "rq-simple",
        "rq",
        ("rq", "redis"),
        "worker-pool of 2 SimpleWorkers, quiet: no fork",
        (*RQ, "worker-pool", "-n", "2", "--url", "{url}", "-w", "rq.worker.SimpleWorker", "-q"),
        3_000,
        {},
        "Docs, Workers: worker pool, performance notes",
    ),
)  # fmt: skip


def chosen(names: Sequence[str]) -> list[Setting]:
    """Return the settings with these names or of these frameworks; all without names.

    Raises:
        ValueError: nothing is called so.
    """
    known = {each.name for each in SETTINGS} | {each.framework for each in SETTINGS}
    if unknown := set(names) - known:
        raise ValueError(f"no worker is called {', '.join(sorted(unknown))}")
    return [each for each in SETTINGS if not names or {each.name, each.framework} & set(names)]
