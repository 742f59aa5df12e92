"""Metrics of retained logs and their groups: a bounded number of lines of single ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final

from minibrokerd.core.model.retained import Feeder, RetainedLog
from minibrokerd.http.family import Family, Samples
from minibrokerd.http.subject import Subject

MOST_LOGS: Final = 100
MOST_GROUPS: Final = 1_000
_OF_LOGS: Final = f"of the {MOST_LOGS} oldest logs"
_OF_GROUPS: Final = f"of the first {MOST_GROUPS:,} groups"


def _feeders(subject: Subject) -> Iterator[Feeder]:
    for log in subject.store.retained.logs.values():
        yield from log.feeders.values()


def _of_logs(value: Callable[[RetainedLog], float]) -> Callable[[Subject], Samples]:
    def read(subject: Subject) -> Samples:
        for log in islice(subject.store.retained.logs.values(), MOST_LOGS):
            yield (("queue", log.queue.name),), value(log)

    return read


def _of_groups(value: Callable[[Feeder], float]) -> Callable[[Subject], Samples]:
    def read(subject: Subject) -> Samples:
        for feeder in islice(_feeders(subject), MOST_GROUPS):
            yield (("queue", feeder.queue.name),), value(feeder)

    return read


LOG_FAMILIES: Final = (
    Family(
        "minibroker_retained_messages",
        "gauge",
        f"Messages in the files of a retained log, {_OF_LOGS}.",
        _of_logs(lambda log: log.has.messages),
        labels=("queue",),
    ),
    Family(
        "minibroker_retained_bytes",
        "gauge",
        f"Bytes of the files of a retained log, {_OF_LOGS}.",
        _of_logs(lambda log: log.has.size_bytes),
        labels=("queue",),
    ),
    Family(
        "minibroker_retained_first_offset",
        "gauge",
        f"The first offset that a retained log still has, {_OF_LOGS}.",
        _of_logs(lambda log: log.has.first),
        labels=("queue",),
    ),
    Family(
        "minibroker_retained_next_offset",
        "gauge",
        f"The offset of the next message that is published to a retained log, {_OF_LOGS}.",
        _of_logs(lambda log: log.queue.next_sequence),
        labels=("queue",),
    ),
    Family(
        "minibroker_group_position",
        "gauge",
        f"The offset that a group is fed next, by its queue, {_OF_GROUPS}.",
        _of_groups(lambda feeder: feeder.position),
        labels=("queue",),
    ),
    Family(
        "minibroker_group_lag_messages",
        "gauge",
        f"Messages behind the position of a group, by its queue, {_OF_GROUPS}; those in front of it that have not "
        "ended are in minibroker_queue_messages.",
        _of_groups(lambda feeder: feeder.lag()),
        labels=("queue",),
    ),
)
