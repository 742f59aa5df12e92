"""Metrics of calendars, pauses, results, policies and exchanges: a bounded number of lines of single ones."""

from __future__ import annotations

from itertools import islice
from typing import Final

from minibroker.contract import limits
from minibrokerd.core.model.kept import RESULT
from minibrokerd.core.model.pauses import QUEUE
from minibrokerd.core.model.scheduled import FUTURE, OUTCOMES, Schedule
from minibrokerd.http.family import Family, Samples
from minibrokerd.http.subject import Subject

MOST_SCHEDULES: Final = 100
MOST_PAUSED: Final = 100
MOST_EXCHANGES: Final = 100
ROUTED: Final = ("routed", "dropped", "refused")
_OF: Final = f"of the {MOST_SCHEDULES} that this run of the broker knows for the longest"
STATES: Final = ("on", "paused", "waiting")


def _states(subject: Subject) -> Samples:
    found = dict.fromkeys(STATES, 0)
    for each in list(subject.store.schedules.by_name.values()):
        found["paused" if each.paused else "waiting" if each.waits else "on"] += 1
    return [((("state", state),), count) for state, count in found.items()]


def _jobs(subject: Subject) -> Samples:
    counted = subject.store.schedules.counted
    return [((("outcome", outcome),), counted.get(outcome, 0)) for outcome in OUTCOMES]


def _shown(subject: Subject) -> list[Schedule]:
    return list(islice(subject.store.schedules.by_name.values(), MOST_SCHEDULES))


def _next(subject: Subject) -> Samples:
    for each in _shown(subject):
        if not each.paused and each.next_unix_ms < FUTURE:
            yield (("schedule", each.name),), each.next_unix_ms / 1_000


def _last(subject: Subject) -> Samples:
    for each in _shown(subject):
        if each.last_unix_ms:
            yield (("schedule", each.name),), each.last_unix_ms / 1_000


def _pauses(subject: Subject) -> Samples:
    queues = sum(each.key[0] == QUEUE for each in subject.store.pauses)
    return [
        ((("of", "queues"),), queues),
        ((("of", "workers"),), len(subject.store.pauses) - queues),
    ]


def _paused(subject: Subject) -> Samples:
    numbers = [each.key[1] for each in subject.store.pauses if each.key[0] == QUEUE]
    known = [subject.store.by_number.get(number) for number in numbers]
    return [((("queue", each.name),), 1) for each in known if each is not None][:MOST_PAUSED]


def _exchanges(subject: Subject) -> Samples:
    for each in list(islice(subject.store.exchanges.by_name.values(), MOST_EXCHANGES)):
        for outcome, count in zip(ROUTED, each.counts(), strict=True):
            yield (("exchange", each.name), ("outcome", outcome)), count


def _routed(subject: Subject) -> Samples:
    counts = subject.store.exchanges.counts()
    return [((("outcome", outcome),), n) for outcome, n in zip(ROUTED, counts, strict=True)]


def _policies(subject: Subject) -> Samples:
    found = dict.fromkeys(("policy", "limit", "set_aside"), 0)
    for each in list(subject.store.policies.by_key.values()):
        found["set_aside" if each.set_aside else "limit" if each.operator else "policy"] += 1
    return [((("kind", kind),), count) for kind, count in found.items()]


REST_FAMILIES: Final = (
    Family(
        "minibroker_policies",
        "gauge",
        "Policies, and limits of operators; `set_aside`: those of an older version that this one does not "
        "understand, which hold for no queue.",
        _policies,
        labels=("kind",),
    ),
    Family(
        "minibroker_schemas",
        "gauge",
        "Queues that have a schema.",
        lambda subject: (((), len(subject.store.schemas.by_queue)),),
    ),
    Family(
        "minibroker_exchanges",
        "gauge",
        "Exchanges.",
        lambda subject: (((), len(subject.store.exchanges.by_name)),),
    ),
    Family(
        "minibroker_bindings",
        "gauge",
        "Bindings of all exchanges.",
        lambda subject: (((), subject.store.exchanges.bindings),),
    ),
    Family(
        "minibroker_routed_messages",
        "counter",
        "Messages published to exchanges that found a queue (once, however many), or that none takes: dropped, "
        "or refused.",
        _routed,
        labels=("outcome",),
    ),
    Family(
        "minibroker_exchange_messages",
        "counter",
        f"The same by exchange, of the {MOST_EXCHANGES} that this run of the broker knows for the longest.",
        _exchanges,
        labels=("exchange", "outcome"),
    ),
    Family(
        "minibroker_schedules",
        "gauge",
        "Schedules; `waiting`: what is due cannot be published, as its queue takes nothing.",
        _states,
        labels=("state",),
    ),
    Family(
        "minibroker_schedule_jobs",
        "counter",
        "Times of schedules, by what became of them: a job was published, or none, as it was too late (`skipped`);"
        " and jobs that were published by hand.",
        _jobs,
        labels=("outcome",),
    ),
    Family(
        "minibroker_schedule_misfires",
        "counter",
        "How often a schedule had passed times that got no job of their own, as the broker was away or a "
        "queue full.",
        lambda subject: (((), subject.store.schedules.misfires),),
    ),
    Family(
        "minibroker_schedule_next_due_time_seconds",
        "gauge",
        f"Unix time at which a schedule is due next, {_OF}; none while it is paused.",
        _next,
        labels=("schedule",),
    ),
    Family(
        "minibroker_schedule_last_time_seconds",
        "gauge",
        f"Unix time that the newest job of a schedule was for, {_OF}.",
        _last,
        labels=("schedule",),
    ),
    Family(
        "minibroker_pauses",
        "gauge",
        "Queues that are paused, and pauses of workers.",
        _pauses,
        labels=("of",),
    ),
    Family(
        "minibroker_queue_paused",
        "gauge",
        f"1 for a queue that is paused; the first {MOST_PAUSED} of them.",
        _paused,
        labels=("queue",),
    ),
    Family(
        "minibroker_results",
        "gauge",
        f"What messages came to and is kept; of more than {limits.MAX_RESULTS:,} the oldest are forgotten.",
        lambda subject: (((), subject.store.kept.count(RESULT)),),
    ),
    Family(
        "minibroker_results_bytes",
        "gauge",
        f"About how much memory that takes; beyond {limits.MAX_RESULTS_BYTES >> 20} MiB the oldest are forgotten.",
        lambda subject: (((), subject.store.kept.bytes_of(RESULT)),),
    ),
    Family(
        "minibroker_results_awaited",
        "gauge",
        "Messages whose result somebody waits for.",
        lambda subject: (((), len(subject.store.results.waiting)),),
    ),
)
