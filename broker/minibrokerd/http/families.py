"""The table of all metrics that `/metrics` shows; exposition, documents and tests read these rows.

A family of queues has a line for each queue, so its value is a function of one queue that costs next to nothing:
with 10,000 queues it is called 10,000 times for each family. All others are read at once.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from minibroker.contract.metrics import METRICS
from minibrokerd import __version__, memory
from minibrokerd.core.queues import Queue
from minibrokerd.http.subject import Phase, Subject
from minibrokerd.log.seam import RESERVE_SEGMENTS

OLDEST_LANES: Final = 1_000  # keys that are looked at for the oldest message of a queue
STATES: Final = ("ready", "delayed", "held", "begun")

Labels = tuple[tuple[str, str], ...]
Samples = Iterable[tuple[Labels, float]]
OfQueue = Callable[[Queue, int], float]  # of a queue, and the log time in ms
NO_LABELS: Final[Labels] = ()


@dataclass(frozen=True, slots=True)
class Family:
    """One row; printed as one row of docs/operating.md. `name` has no `_total`, which the writer adds.

    Exactly one of these: `read` returns all samples, `of_queue` the value of one queue (by the labels that stand
    beside its name), `counter` names what is counted of each queue.
    """

    name: str
    kind: str  # gauge, counter or info
    meaning: str
    read: Callable[[Subject], Samples] | None = None
    of_queue: Mapping[str, OfQueue] | None = None  # by the end of the label set: `,state="ready"`
    counter: str = ""
    early: bool = False  # known while the broker recovers, too
    labels: tuple[str, ...] = ()

    @property
    def sample_name(self) -> str:
        """The name of its samples."""
        return self.name + {"counter": "_total", "info": "_info"}.get(self.kind, "")


def _one(value: Callable[[Subject], float]) -> Callable[[Subject], Samples]:
    return lambda subject: ((NO_LABELS, value(subject)),)


def _age_s(queue: Queue, now_ms: int) -> float:
    since_ms = queue.lanes.oldest_ms(OLDEST_LANES)
    return 0 if since_ms is None else max(0, now_ms - since_ms) / 1_000


def _in_state(name: str) -> OfQueue:
    return {
        "ready": lambda queue, now_ms: queue.lanes.ready + queue.entering,
        "delayed": lambda queue, now_ms: queue.delayed_count,
        "held": lambda queue, now_ms: queue.held,
        "begun": lambda queue, now_ms: queue.begun,
    }[name]


def _phases(subject: Subject) -> Samples:
    return [((("phase", phase.value),), float(phase is subject.phase)) for phase in Phase]


def _open_files(subject: Subject) -> Samples:
    try:
        return ((NO_LABELS, len(os.listdir("/proc/self/fd"))),)
    except OSError:  # no /proc here
        return ()


def _cpu_s(subject: Subject) -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _build(subject: Subject) -> Samples:
    return (((("version", __version__),), 1),)


def _recovered(subject: Subject) -> float:
    return subject.log.recovered_percent / 100 if subject.phase is Phase.RECOVERING else 1


def _segments(subject: Subject) -> float:
    return subject.log.disk_bytes / (subject.log.segment_bytes or 1)


_QUEUE_FAMILIES: Final = (
    Family(
        "minibroker_queue_messages",
        "gauge",
        "Messages that have not ended, by queue and state.",
        of_queue={f',state="{name}"': _in_state(name) for name in STATES},
        labels=("queue", "state"),
    ),
    Family(
        "minibroker_queue_oldest_ready_age_seconds",
        "gauge",
        "For how long the oldest ready message has been ready, while the broker ran; 0: none is. "
        f"Of more than {OLDEST_LANES:,} keys, those whose turn is next.",
        of_queue={"": _age_s},
        labels=("queue",),
    ),
    Family(
        "minibroker_queue_consumers",
        "gauge",
        "Consumers, and receives that wait.",
        of_queue={"": lambda queue, now_ms: queue.consumer_count},
        labels=("queue",),
    ),
    Family(
        "minibroker_queue_dead_waiting_messages",
        "gauge",
        "Of the delayed messages: dead ones that wait for room in the dead-letter queue.",
        of_queue={"": lambda queue, now_ms: len(queue.doomed or ())},
        labels=("queue",),
    ),
    Family(
        "minibroker_queue_live_bytes",
        "gauge",
        "Bytes of the log that messages of the queue keep in use.",
        of_queue={"": lambda queue, now_ms: queue.live_bytes},
        labels=("queue",),
    ),
    *(
        Family(
            f"minibroker_queue_{row.name}",
            "counter",
            f"Since the start of the broker: {row.meaning}.",
            counter=row.name,
            labels=("queue",),
        )
        for row in METRICS.values()
        if row.counter
    ),
)

_SERVER_FAMILIES: Final = (
    Family(
        "minibroker_build",
        "info",
        "The version of the broker.",
        _build,
        early=True,
        labels=("version",),
    ),
    Family(
        "minibroker_phase",
        "gauge",
        "1 for the phase that the broker is in, 0 for the others.",
        _phases,
        early=True,
        labels=("phase",),
    ),
    Family(
        "minibroker_recovery_ratio",
        "gauge",
        "How much of the log this start has read; 1: all of it.",
        _one(_recovered),
        early=True,
    ),
    Family(
        "minibroker_recovery_seconds",
        "gauge",
        "How long this start took from the first look at the log until clients could come; 0: it still goes on.",
        _one(lambda subject: subject.recovered_ms / 1_000),
        early=True,
    ),
    Family(
        "minibroker_start_time_seconds",
        "gauge",
        "Unix time of the start of the broker, from which on all of its counters count.",
        _one(lambda subject: subject.started_unix),
        early=True,
    ),
    Family(
        "minibroker_queues",
        "gauge",
        "Queues, dead-letter queues too.",
        _one(lambda subject: len(subject.store.queues)),
    ),
    Family(
        "minibroker_connections",
        "gauge",
        "Open connections, those of clients that are logging in too.",
        _one(lambda subject: len(subject.connections)),
    ),
    Family(
        "minibroker_connections_limit",
        "gauge",
        "How many connections the limit of open files allows.",
        _one(lambda subject: subject.connections.most),
    ),
    Family(
        "minibroker_sessions",
        "gauge",
        "Sessions that are kept: of connected clients, and of those that may come back.",
        _one(lambda subject: len(subject.store.sessions)),
    ),
    Family(
        "minibroker_memory_bytes",
        "gauge",
        "Bytes of memory that messages and what belongs to them take, about.",
        _one(lambda subject: subject.core.memory_bytes()),
    ),
    Family(
        "minibroker_memory_limit_bytes",
        "gauge",
        "Bytes of resident memory from which on publishes may be answered with `busy`.",
        _one(lambda subject: subject.memory_limit_bytes),
    ),
    Family(
        "minibroker_log_disk_bytes",
        "gauge",
        "Bytes of all segments of the log, the reserve apart.",
        _one(lambda subject: subject.log.disk_bytes),
    ),
    Family(
        "minibroker_log_live_bytes",
        "gauge",
        "Bytes of the log that are still needed, about.",
        _one(lambda subject: subject.store.live_bytes()),
    ),
    Family(
        "minibroker_log_segments",
        "gauge",
        "Segments of the log, the reserve apart.",
        _one(_segments),
    ),
    Family(
        "minibroker_log_reserve_segments",
        "gauge",
        f"Segments left that only acks may use; {RESERVE_SEGMENTS} when all is well.",
        _one(lambda subject: subject.log.reserve_segments),
    ),
    Family(
        "minibroker_log_lacks_space",
        "gauge",
        "1 while the reserve is not whole or the disk is full: publishes may be refused.",
        _one(lambda subject: float(subject.log.lacks_space)),
    ),
    Family(
        "minibroker_log_written_bytes",
        "counter",
        "Since the start of the broker: bytes of records for the log, copies that free segments apart.",
        _one(lambda subject: subject.engine.others_bytes),
    ),
)

_PROCESS_FAMILIES: Final = (
    Family(
        "process_cpu_seconds",
        "counter",
        "Time on the processor, of all threads, user and system.",
        _one(_cpu_s),
        early=True,
    ),
    Family(
        "process_resident_memory_bytes",
        "gauge",
        "Resident memory in bytes.",
        _one(lambda subject: memory.resident_bytes()),
        early=True,
    ),
    Family("process_open_fds", "gauge", "Open file descriptors.", _open_files, early=True),
    Family(
        "process_max_fds",
        "gauge",
        "Most open file descriptors.",
        _one(lambda subject: resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
        early=True,
    ),
)

FAMILIES: Final[Mapping[str, Family]] = {
    row.name: row for row in (*_SERVER_FAMILIES, *_QUEUE_FAMILIES, *_PROCESS_FAMILIES)
}
