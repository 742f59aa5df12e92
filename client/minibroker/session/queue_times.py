"""How long messages of a queue wait and run, and how many handlers would be enough: what `times` says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from minibroker.contract import limits
from minibroker.session.spans import Span, milliseconds
from minibroker.session.wishes import Wish


@dataclass(frozen=True, slots=True)
class Spread:
    """Of how many messages, and how long it took, in s.

    The shares are estimates: times are counted by powers of two of a ms, and taken to lie evenly between two of
    them, but never outside of the shortest and the longest that came.
    """

    count: int
    mean: float
    p50: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True)
class GroupTimes:
    """The times of a group of keys, as those of its queue; `others` are all that have none of their own."""

    group: str  # empty: of messages without a key
    waits: Spread
    runs: Spread


@dataclass(frozen=True, slots=True)
class QueueTimes:
    """The times of a queue in the last one to two minutes; all in s, rates in messages a second.

    `waits` are from publish to begin, `runs` from begin to the end of an attempt, whatever that was. `idle` is the
    share of their time (0 to 1) in which its consumers had nothing at all, each since it is there. `handlers`: how
    many at once would work off what waits within the target, and what comes meanwhile: mean run x (publishes a
    second + backlog / target); None while nothing has run. `groups` are those of the setting `times_by`.
    """

    window: float
    publish_rate: float
    done_rate: float
    waits: Spread
    runs: Spread
    oldest_ready: float  # for how long the oldest ready message is ready; 0: none is
    backlog: int  # messages that are ready or held
    at_work: int  # handlers that run
    consumers: int
    idle: float
    handlers: int | None
    groups: tuple[GroupTimes, ...] = ()


def times(queue: str, target: Span) -> Wish:
    """Return the wish for the times of a queue; BadValue for a target that is none."""
    target_ms = milliseconds("target", target, limits.MAX_DELAY_MS, 1)
    return "times", {"queue": queue, "target_ms": target_ms}, b""


def read_times(value: Mapping[str, Any]) -> QueueTimes:
    """Return the answer of the server."""
    window = value["window_ms"] / 1_000
    there_ms = value["consumers_ms"]
    return QueueTimes(
        window,
        value["published"] / window,
        value["runs"]["count"] / window,
        _spread(value["waits"]),
        _spread(value["runs"]),
        value["oldest_ready_ms"] / 1_000,
        value["backlog"],
        value["at_work"],
        value["consumers"],
        value["idle_ms"] / there_ms if there_ms else 0.0,
        value.get("handlers"),
        tuple(
            GroupTimes(str(each["group"]), _spread(each["waits"]), _spread(each["runs"]))
            for each in value.get("groups", ())
        ),
    )


def _spread(said: Mapping[str, int]) -> Spread:
    count = said["count"]
    mean = said["total_ms"] / count / 1_000 if count else 0.0
    return Spread(count, mean, *(said[name] / 1_000 for name in ("p50", "p95", "p99")))
