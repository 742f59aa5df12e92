"""Metrics of time, of the queues that have some of their own (core/model/timed.py), and of all others together."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from minibrokerd.core.model.group import Group
from minibrokerd.core.model.histogram import Histogram
from minibrokerd.core.model.key_times import MOST_OF_QUEUE, MOST_OF_SERVER
from minibrokerd.core.model.timed import MOST_TIMED
from minibrokerd.core.model.times import TARGET_MS, handlers_for
from minibrokerd.http.family import Family, Labels, Samples
from minibrokerd.http.subject import Subject
from minibrokerd.http.talkers import OTHERS

EXPONENTS: Final = range(0, 28, 2)  # bounds from a millisecond to 19 hours
Found = Callable[[Subject], Iterable[tuple[Labels, Histogram]]]
_OF: Final = f"by queue, of the first {MOST_TIMED} in which something was begun, and of all `others` together."

_OF_GROUPS: Final = (
    f"by group of keys, where the setting times_by says what that is: of the first {MOST_OF_QUEUE} of a queue and "
    f"{MOST_OF_SERVER} of the server, and of all `others` of a queue together."
)


def _labels(group: Group | None) -> Labels:
    return (("queue", OTHERS if group is None else group.queue.name),)


def _labelled(
    found: Iterable[tuple[Group | None, Histogram]],
) -> Iterable[tuple[Labels, Histogram]]:
    return ((_labels(group), histogram) for group, histogram in found)


def _waits(subject: Subject) -> Iterable[tuple[Labels, Histogram]]:
    sums = subject.store.sums
    return _labelled(sums.timed.waits(sums.waits_ms))


def _runs(subject: Subject) -> Iterable[tuple[Labels, Histogram]]:
    sums = subject.store.sums
    return _labelled(sums.timed.runs(sums.runs_ms))


def _consumers(subject: Subject, name: str) -> Samples:
    """Yield what consumers of each queue come to, those that have left too, in seconds."""
    if subject.talkers is None:
        return
    timed, there = subject.store.sums.timed, dict(getattr(subject.talkers, name))
    for group, lasting in timed.shown.items():
        ms = getattr(lasting, name) + there.pop(group.queue.number, 0)
        yield _labels(group), ms / 1_000
    yield _labels(None), (getattr(timed.others, name) + sum(there.values())) / 1_000


def _handlers(subject: Subject) -> Samples:
    now_ms = subject.engine.clock.now_ms()
    for group in subject.store.sums.timed.shown:
        if group.times is None:
            continue
        said = group.times.said(now_ms, group.counters["published"])
        handlers = handlers_for(said, group.backlog(), TARGET_MS)
        if handlers is not None:
            yield _labels(group), handlers


def _of_groups(subject: Subject, name: str) -> Iterable[tuple[Labels, Histogram]]:
    for group in subject.store.sums.by_key_group:
        for key_group, found in group.key_times.groups.items() if group.key_times else ():
            labels = (("queue", group.queue.name), ("group", key_group))
            yield labels, found.since_start(name)


def _histogram(name: str, meaning: str, labels: tuple[str, ...], found: Found) -> Family:
    """Return a row of times in ms, told in seconds."""
    return Family(
        name,
        "histogram",
        meaning,
        labels=labels,
        histograms=found,
        exponents=EXPONENTS,
        scale=1_000,
    )


TIMED_FAMILIES: Final = (
    _histogram(
        "minibroker_queue_wait_seconds", f"As minibroker_wait_seconds, {_OF}", ("queue",), _waits
    ),
    _histogram(
        "minibroker_queue_run_seconds", f"As minibroker_run_seconds, {_OF}", ("queue",), _runs
    ),
    _histogram(
        "minibroker_key_group_wait_seconds",
        f"As minibroker_queue_wait_seconds, {_OF_GROUPS}",
        ("queue", "group"),
        lambda subject: _of_groups(subject, "waits"),
    ),
    _histogram(
        "minibroker_key_group_run_seconds",
        f"As minibroker_queue_run_seconds, {_OF_GROUPS}",
        ("queue", "group"),
        lambda subject: _of_groups(subject, "runs"),
    ),
    Family(
        "minibroker_queue_consumer_seconds",
        "counter",
        f"For how long consumers were there, each second of each of them, {_OF}",
        lambda subject: _consumers(subject, "there_ms"),
        labels=("queue",),
    ),
    Family(
        "minibroker_queue_consumer_idle_seconds",
        "counter",
        f"And had nothing at all, not even in advance, {_OF}",
        lambda subject: _consumers(subject, "idle_ms"),
        labels=("queue",),
    ),
    Family(
        "minibroker_queue_handlers_wanted",
        "gauge",
        f"How many handlers at once would work off what waits within {TARGET_MS // 60_000} minutes, and what "
        "comes meanwhile; of queues with a wait and a run histogram, while something has run in the last minutes.",
        _handlers,
        labels=("queue",),
    ),
    Family(
        "minibroker_queues_without_times",
        "gauge",
        "Queues in which something was begun in the last minutes, and whose times stand in `others`.",
        lambda subject: (((), subject.store.sums.timed.left_out),),
    ),
)
