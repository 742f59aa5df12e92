"""Stamps of several processes as spans: trips of single messages, and the time of busy threads divided."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Final

from benchmarks.spans.stamps import Call
from benchmarks.spans.table import Point, Row

Noted = Mapping[str, Mapping[str, Sequence[Call]]]  # by process, then by function
LEAST_MET: Final = (
    0.5  # of the trips: beside others a machine is late, and the next message begins meanwhile
)

_NEVER: Final = 2**63


class NotMet(Exception):
    """A stamp was not met where it should have been: the table does not say what the code does."""


def moments(point: Point, noted: Noted) -> list[int]:
    """Return when a point was passed, in order; NotMet if it never was."""
    calls = [call for name in point.names for call in noted[point.process].get(name, ())]
    if not calls:
        raise NotMet(f"{point.process}: {' or '.join(point.names)}")
    return sorted(call[point.is_end] for call in calls)


def trips(row: Row, noted: Noted, skip: int) -> list[list[int]]:
    """Return for each message but the first ones how long each of its spans took, in ns.

    Raises:
        NotMet: too many messages did not pass all points.
    """
    starts = moments(row.start, noted)
    times = [moments(point, noted) for point in row.points]
    ends = times[-1]
    if (row.points[-1].names, row.points[-1].is_end) == (row.start.names, row.start.is_end):
        ends = ends[1:]  # the end of one is the begin of the next
    found, missed = [], row.points[-1]
    for start, end, limit in list(zip(starts, ends, [*starts[1:], _NEVER], strict=False))[skip:]:
        passed = _follow(row.points, times, start, limit)
        if isinstance(passed, Point):
            missed = passed
        elif passed[-1] == end:  # else two were on their way at a time
            found.append([after - before for before, after in pairwise([start, *passed])])
    if len(found) < LEAST_MET * (len(ends) - skip):
        raise NotMet(
            f"{row.title}: {len(found)} of {len(ends) - skip} passed {missed.process} {missed.names}"
        )
    return found


def _follow(
    points: Sequence[Point], times: Sequence[Sequence[int]], start: int, limit: int
) -> list[int] | Point:
    """Return when one trip passed each point; or the point that it did not pass."""
    passed, at = [], start
    for point, each in zip(points, times, strict=True):
        index = bisect_left(each, at)
        if point.is_last:
            passed.append(at)  # until the next point is known
            continue
        if index == len(each) or each[index] > limit:
            return point
        at = each[index]
        passed.append(at)
    for index in reversed(range(len(points))):
        if points[index].is_last:
            last = bisect_right(times[index], passed[index + 1]) - 1
            before = passed[index - 1]
            if last < 0 or times[index][last] < before:
                return points[index]
            passed[index] = times[index][last]
    return passed


Shares = dict[str, tuple[float, float]]  # by function: ns, calls


def shares(calls: Mapping[str, Sequence[Call]], begin: int, end: int) -> dict[int, Shares]:
    """Divide the time of each thread among the functions that it is in, the innermost one each time.

    What is in none of them stands under an empty name, so that the shares of a thread are all of its time.
    """
    threads: dict[int, list[tuple[int, int, str]]] = {}
    for name, each in calls.items():
        for first, last, thread in each:
            if begin <= first and last <= end:
                threads.setdefault(thread, []).append((first, last, name))
    return {thread: _divided(entries, begin, end) for thread, entries in threads.items()}


def _divided(entries: list[tuple[int, int, str]], begin: int, end: int) -> Shares:
    took = dict.fromkeys((name for *_, name in entries), 0)
    took[""] = 0
    counts = dict.fromkeys(took, 0)
    inside: list[tuple[str, int]] = [("", end)]  # the names that it is in, and until when
    at = begin
    for first, last, name in sorted(entries, key=lambda entry: (entry[0], -entry[1])):
        at = _close(inside, took, at, first)
        took[inside[-1][0]] += first - at
        at = first
        inside.append((name, last))
        counts[name] += 1
    at = _close(inside, took, at, end)
    took[""] += end - at
    return {name: (took[name], counts[name]) for name in took}


def _close(inside: list[tuple[str, int]], took: dict[str, int], at: int, until: int) -> int:
    """Leave what ended by then; return up to where the time is divided."""
    while len(inside) > 1 and inside[-1][1] <= until:
        name, last = inside.pop()
        took[name] += last - at
        at = last
    return at


def spans_of(found: Sequence[Sequence[int]]) -> Iterator[tuple[int, ...]]:
    """Yield for each span how long it took, trip by trip."""
    return zip(*found, strict=True)
