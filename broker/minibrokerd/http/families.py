"""The table of all metrics that `/metrics` shows; exposition, documents and tests read these rows.

A family of queues has a line for each queue, so its values are taken of many queues at a time, in a comprehension
(portion.py); a call for each of 10,000 queues would be most of what a scrape costs. All others are read at once.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from minibroker.contract.metrics import METRICS
from minibrokerd import __version__
from minibrokerd.core.model.group import Group
from minibrokerd.core.model.kept import CIRCUIT
from minibrokerd.http.family import Family, Labels, OfQueues, Samples
from minibrokerd.http.log_families import LOG_FAMILIES
from minibrokerd.http.rest_families import REST_FAMILIES
from minibrokerd.http.stream_families import STREAM_FAMILIES
from minibrokerd.http.subject import Subject
from minibrokerd.http.talkers import (
    CONSUMER_LABELS,
    MOST_CONSUMERS,
    MOST_SESSIONS,
    SESSION_LABELS,
)
from minibrokerd.http.timed_families import TIMED_FAMILIES
from minibrokerd.log.reserve import reserve_of
from minibrokerd.log.seam import RESERVE_SEGMENTS
from minibrokerd.monitoring.ages import OLDEST_LANES
from minibrokerd.monitoring.view import Phase
from minibrokerd.process import memory

NO_LABELS: Final[Labels] = ()
_OF_SESSIONS: Final = (
    f"of the {MOST_SESSIONS} oldest, and of all `others` what they did between two scrapes."
)
_OF_CONSUMERS: Final = f"of the {MOST_CONSUMERS} oldest, and of all `others` together."


def _one(value: Callable[[Subject], float]) -> Callable[[Subject], Samples]:
    return lambda subject: ((NO_LABELS, value(subject)),)


def _ages_s(groups: Sequence[Group], now_ms: int) -> list[float]:
    return [
        (now_ms - since_ms) / 1_000
        if lanes.ready
        and (since_ms := lanes.oldest_ms(OLDEST_LANES)) is not None
        and since_ms < now_ms
        else 0
        for lanes in [group.lanes for group in groups]
    ]


def _open_circuits(subject: Subject) -> Samples:
    store = subject.store
    for entry in store.kept.of(CIRCUIT):
        queue = store.by_number.get(int(entry.key[0]))
        if queue is not None:
            yield (("queue", queue.name),), 1
    for circuits in store.sums.broken:
        yield (("queue", circuits.queue.name),), len(circuits.open)


_IN_STATE: Final[Mapping[str, OfQueues]] = {
    "ready": lambda groups, now_ms: [group.lanes.ready + group.entering for group in groups],
    "delayed": lambda groups, now_ms: [group.delayed_count for group in groups],
    "held": lambda groups, now_ms: [group.held for group in groups],
    "begun": lambda groups, now_ms: [group.begun for group in groups],
}


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


def _webhook_calls(subject: Subject) -> Samples:
    caller = subject.caller
    counts = (0, 0) if caller is None else (caller.sent, caller.dropped)
    return [
        ((("outcome", outcome),), count)
        for outcome, count in zip(("sent", "dropped"), counts, strict=True)
    ]


def _recovered(subject: Subject) -> float:
    return 1 if subject.is_open else subject.log.recovered_percent / 100


def _segments(subject: Subject) -> float:
    return subject.log.disk_bytes / (subject.log.segment_bytes or 1)


_QUEUE_FAMILIES: Final = (
    Family(
        "minibroker_queue_messages",
        "gauge",
        "Messages that have not ended, by queue and state.",
        of_queues={f',state="{name}"': values for name, values in _IN_STATE.items()},
        labels=("queue", "state"),
    ),
    Family(
        "minibroker_queue_oldest_ready_age_seconds",
        "gauge",
        "For how long the oldest ready message has been ready, while the broker ran; 0: none is. "
        f"Of more than {OLDEST_LANES:,} keys, those whose turn is next.",
        of_queues={"": _ages_s},
        labels=("queue",),
    ),
    Family(
        "minibroker_queue_consumers",
        "gauge",
        "Consumers, and receives that wait.",
        of_queues={"": lambda groups, now_ms: [group.consumer_count for group in groups]},
        labels=("queue",),
    ),
    Family(
        "minibroker_queue_dead_waiting_messages",
        "gauge",
        "Of the delayed messages: dead ones that wait for room in the dead-letter queue.",
        of_queues={"": lambda groups, now_ms: [len(group.doomed or ()) for group in groups]},
        labels=("queue",),
    ),
    Family(
        "minibroker_queue_live_bytes",
        "gauge",
        "Bytes of the log that messages of the queue keep in use.",
        of_queues={"": lambda groups, now_ms: [group.queue.live_bytes for group in groups]},
        labels=("queue",),
    ),
    Family(
        "minibroker_queue_circuits_open",
        "gauge",
        "Circuits that are not closed, of queues with any: 1 for that of the queue, or so many of its keys.",
        _open_circuits,
        labels=("queue",),
    ),
    *(
        Family(
            f"minibroker_queue_{row.name}",
            "counter",
            f"{row.meaning[0].upper()}{row.meaning[1:]}.",
            counter=row.name,
            rare=not row.shown,
            labels=("queue",),
        )
        for row in METRICS.values()
        if row.counter
    ),
)

_WEBHOOK_FAMILIES: Final = (
    Family(
        "minibroker_webhook_calls",
        "counter",
        "Calls of the webhook that it took, and that will not be made.",
        _webhook_calls,
        labels=("outcome",),
    ),
    Family(
        "minibroker_webhook_failures",
        "counter",
        "Attempts to call the webhook that failed.",
        _one(lambda subject: 0 if subject.caller is None else subject.caller.failed),
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
        "Unix time of the start of the broker, from which on those of its counters count that do not go on.",
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
        _one(lambda subject: reserve_of(subject.log).reserve_segments),
    ),
    Family(
        "minibroker_log_lacks_space",
        "gauge",
        "1 while the reserve is not whole or the disk is full: publishes may be refused.",
        _one(lambda subject: float(reserve_of(subject.log).lacks_space)),
    ),
    Family(
        "minibroker_starts",
        "counter",
        "Starts of the broker on this data directory; each raises the epoch, as salvage and restore do.",
        _one(lambda subject: subject.log.epoch),
        goes_on=True,
    ),
    Family(
        "minibroker_log_batches",
        "counter",
        "Batches that were written to this data directory; a start writes some of its own.",
        _one(lambda subject: subject.store.open_batch - 1),
        goes_on=True,
    ),
    Family(
        "minibroker_log_written_bytes",
        "counter",
        "Bytes of records for the log, copies that free segments apart.",
        _one(lambda subject: subject.engine.others_bytes),
    ),
)


def _session(name: str) -> Callable[[Subject], Samples]:
    return lambda subject: subject.talkers.sessions.of(name) if subject.talkers else ()


def _consumer(name: str) -> Callable[[Subject], Samples]:
    return lambda subject: subject.talkers.consumers.of(name) if subject.talkers else ()


_TALKER_FAMILIES: Final = (
    *(
        Family(
            f"minibroker_session_{name}",
            "counter",
            f"Messages {meaning}: {_OF_SESSIONS}",
            _session(name),
            labels=SESSION_LABELS,
        )
        for name, meaning in (
            ("published", "stored for a session"),
            ("delivered", "handed to a session"),
            ("acked", "that a session ended as done"),
        )
    ),
    Family(
        "minibroker_session_deliveries",
        "gauge",
        f"Deliveries of which a session has messages: {_OF_SESSIONS}",
        _session("holds"),
        labels=SESSION_LABELS,
    ),
    Family(
        "minibroker_sessions_left_out",
        "gauge",
        "Sessions that are summed up as `others`.",
        _one(lambda subject: subject.talkers.sessions.left_out if subject.talkers else 0),
    ),
    Family(
        "minibroker_consumer_delivered",
        "counter",
        f"Messages handed to a consumer since it is there: {_OF_CONSUMERS}",
        _consumer("delivered"),
        labels=CONSUMER_LABELS,
    ),
    Family(
        "minibroker_consumer_outstanding_messages",
        "gauge",
        f"Messages that a consumer has: {_OF_CONSUMERS}",
        _consumer("outstanding"),
        labels=CONSUMER_LABELS,
    ),
    Family(
        "minibroker_consumer_prefetch_messages",
        "gauge",
        f"Messages that a consumer may have: {_OF_CONSUMERS}",
        _consumer("prefetch"),
        labels=CONSUMER_LABELS,
    ),
    Family(
        "minibroker_consumers_left_out",
        "gauge",
        "Consumers that are summed up as `others`.",
        _one(lambda subject: subject.talkers.consumers.left_out if subject.talkers else 0),
    ),
)

_HISTOGRAMS: Final = (
    Family(
        "minibroker_wait_seconds",
        "histogram",
        "Time from publish to begin, delays and retries before it included; an ack without a begin is one. "
        "Messages that are begun or acked together count as one of them.",
        histogram=lambda subject: subject.store.sums.waits_ms,
        exponents=range(0, 28, 2),
        scale=1_000,
    ),
    Family(
        "minibroker_run_seconds",
        "histogram",
        "Time from begin to the end of the attempt, failed ones too; messages that are acked together count as "
        "one of them, and those that were begun and done in one turn of their client as zero.",
        histogram=lambda subject: subject.store.sums.runs_ms,
        exponents=range(0, 28, 2),
        scale=1_000,
    ),
    Family(
        "minibroker_log_sync_seconds",
        "histogram",
        "Time from handing a batch to the log until it is known to be safe.",
        histogram=lambda subject: subject.engine.pulse.syncs_us,
        exponents=range(6, 25),
        scale=1_000_000,
    ),
    Family(
        "minibroker_log_batch_bytes",
        "histogram",
        "Bytes of the records of a batch, which are synced together.",
        histogram=lambda subject: subject.engine.pulse.batch_bytes,
        exponents=range(6, 27, 2),
    ),
    Family(
        "minibroker_log_batch_records",
        "histogram",
        "Records of a batch.",
        histogram=lambda subject: subject.engine.pulse.batch_records,
        exponents=range(0, 17, 2),
    ),
    Family(
        "minibroker_loop_lag_seconds",
        "histogram",
        "By how much the event loop was late for what it does once a second.",
        histogram=lambda subject: subject.engine.pulse.lags_us,
        exponents=range(6, 25, 2),
        scale=1_000_000,
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
    row.name: row
    for row in (
        *_SERVER_FAMILIES,
        *_HISTOGRAMS,
        *TIMED_FAMILIES,
        *_QUEUE_FAMILIES,
        *_TALKER_FAMILIES,
        *REST_FAMILIES,
        *LOG_FAMILIES,
        *STREAM_FAMILIES,
        *_WEBHOOK_FAMILIES,
        *_PROCESS_FAMILIES,
    )
}
