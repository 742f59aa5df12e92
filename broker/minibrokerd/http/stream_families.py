"""Metrics of a log on several machines; where the log is in files they have no samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from minibrokerd.http.family import Family, Samples
from minibrokerd.http.subject import Subject
from minibrokerd.log.replication import Replication
from minibrokerd.monitoring.view import Phase


def _is(value: Callable[[Replication], float]) -> Callable[[Subject], Samples]:
    def read(subject: Subject) -> Samples:
        return () if subject.replication is None else (((), value(subject.replication())),)

    return read


def _by_who_leads(value: Callable[[Replication], float]) -> Callable[[Subject], Samples]:
    """Only whoever leads asks the servers: of others there would be zeros."""

    def read(subject: Subject) -> Samples:
        if subject.replication is None or subject.phase is not Phase.READY:
            return ()
        return (((), value(subject.replication())),)

    return read


def _leader(subject: Subject) -> Samples:
    if subject.replication is None or not (leader := subject.replication().leader):
        return ()
    return (((("server", leader),), 1),)


STREAM_FAMILIES: Final = (
    Family(
        "minibroker_stream_epoch",
        "gauge",
        "The newest epoch of the log in a stream that this broker knows of; the one that leads has claimed it.",
        _is(lambda found: found.epoch),
        early=True,
    ),
    Family(
        "minibroker_stream_lag_entries",
        "gauge",
        "Entries that the broker that leads had appended, and that have no part in the state of this one, which "
        "stands by; 0 for the one that leads.",
        _is(lambda found: found.lag_entries),
        early=True,
    ),
    Family(
        "minibroker_stream_lag_seconds",
        "gauge",
        "For how long the oldest of them has been there.",
        _is(lambda found: found.lag_s),
        early=True,
    ),
    Family(
        "minibroker_stream_stalled_seconds",
        "gauge",
        "For how long an append waits that the servers of NATS did not answer; 0: none does.",
        _is(lambda found: found.stalled_s),
        early=True,
    ),
    Family(
        "minibroker_stream_bytes",
        "gauge",
        "Bytes of the stream, as a server of NATS said of late.",
        _by_who_leads(lambda found: found.size_bytes),
    ),
    Family(
        "minibroker_stream_limit_bytes",
        "gauge",
        "What the stream may hold; 0: it has no limit.",
        _by_who_leads(lambda found: found.limit_bytes),
    ),
    Family(
        "minibroker_stream_leader",
        "gauge",
        "1 for the server of NATS that leads the stream.",
        _leader,
        labels=("server",),
    ),
    Family(
        "minibroker_stream_servers_behind",
        "gauge",
        "Servers of NATS that are away, or have not all of the stream.",
        _by_who_leads(lambda found: found.behind),
    ),
)
