"""The metrics table: every number that `stats` shows of a queue. Server, command line and docs read it.

To add a counter, add a row here and count it in the core with `queue.counters[name] += n`. A gauge also needs its
value in `Queue.statistics`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Metric:
    """One row; printed as one row of protocol.md, section `stats`."""

    name: str
    counter: bool  # counts events since the start of the server; else what is there now
    shown: bool  # in the table that `minibroker stats` prints for people
    meaning: str


METRICS: Final[Mapping[str, Metric]] = {
    row.name: row
    for row in (
        Metric("ready", False, True, "messages that wait for a consumer"),
        Metric("delayed", False, True, "messages that wait for their time"),
        Metric("held", False, True, "messages that a client has and has not begun"),
        Metric("begun", False, True, "messages that a handler works on"),
        Metric("consumers", False, True, "consumers, and receives that wait"),
        Metric(
            "dead_waiting", False, False, "of the delayed: dead ones that wait for room in the DLQ"
        ),
        Metric("published", True, True, "messages stored"),
        Metric("delivered", True, False, "messages handed to a client"),
        Metric("acked", True, True, "messages that ended as done"),
        Metric("failed", True, True, "attempts that a handler failed: nack"),
        Metric("rejected", True, True, "attempts that a handler ended as hopeless: reject"),
        Metric("expired", True, True, "attempts whose lease ended while their session lived"),
        Metric("worker_lost", True, True, "attempts whose lease ended after their session"),
        Metric(
            "broker_lost", True, False, "leases cut off by a restart of the server; not charged"
        ),
        Metric("released", True, False, "messages given back"),
        Metric("recalled", True, False, "messages that a busy client gave back for an idle one"),
        Metric("dead_lettered", True, True, "messages moved to the DLQ"),
        Metric("redriven", True, False, "messages sent back from this DLQ"),
        Metric("purged", True, False, "messages ended by purge"),
        Metric("ttl_expired", True, False, "messages whose time to live ended before they began"),
        Metric("cancelled", True, False, "messages that were cancelled, waiting or in work"),
        Metric("lost_settlements", True, True, "settlements that came too late, extends apart"),
        Metric(
            "damaged", True, True, "messages set aside: the disk did not give back what was written"
        ),
        Metric("dlq_full", True, False, "messages that stayed because their DLQ was full"),
        Metric(
            "overflow_refused",
            True,
            False,
            "messages refused because the queue was full, each time",
        ),
        Metric("overflow_dropped", True, False, "messages that ended to make room in a full queue"),
        Metric(
            "overflow_dead_lettered",
            True,
            False,
            "of the dead-lettered: messages that made room in a full queue",
        ),
        Metric(
            "duplicates",
            True,
            False,
            "messages not stored: their unique key or dedupe id was known",
        ),
        Metric(
            "dedupe_forgotten",
            True,
            False,
            "dedupe ids forgotten within their window: there were too many",
        ),
        Metric(
            "replaced",
            True,
            False,
            "messages that waited, and a later one of their unique key replaced",
        ),
    )
}
COUNTERS: Final = tuple(row.name for row in METRICS.values() if row.counter)
