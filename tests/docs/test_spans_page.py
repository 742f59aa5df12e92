"""`make profile` says where the time of a message goes, all of it: no stamp is passed over unseen."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from benchmarks.spans import measuring
from benchmarks.spans.joining import NotMet, shares, trips
from benchmarks.spans.stamps import Stamps
from benchmarks.spans.table import CALLED, HANDLED, ROWS, Row

SKIPPED, MESSAGES = 40, 80
LONE = ROWS[0]


def wholes(row: Row, noted: Any) -> list[int]:
    """Return how long each message took by the workload's own clock, the n-th begin with the n-th end."""
    if row.name == "lone":
        return [end - begin for begin, end, _ in noted["producer"][CALLED]]
    seen = [begin for begin, *_ in noted["consumer"][HANDLED]]
    if row.name == "handler":
        begun = [begin for begin, *_ in noted["producer"][CALLED]]
        return [end - begin for begin, end in zip(begun, seen, strict=True)]
    return [after - before for before, after in pairwise(seen)]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.title)
def test_the_spans_of_a_real_message_are_all_of_its_time(row: Row, tmp_path: Path) -> None:
    """Every stamp of the table is met, in its order, or this raises."""
    written, used = measuring.run(row, SKIPPED + MESSAGES, tmp_path)
    noted = measuring.noted_in(written)
    assert set(used) == {"server", *row.clients}
    if row.points:
        found = trips(row, noted, SKIPPED)
        took = wholes(row, noted)
        assert all(len(trip) == len(row.points) and min(trip) >= 0 for trip in found)
        assert {sum(trip) for trip in found} <= set(took)
        return
    profile = measuring.cycle(row, noted, SKIPPED)
    for process in {span.process for span in profile.spans}:
        total_us = sum(span.us for span in profile.spans if span.process == process)
        assert total_us == pytest.approx(profile.whole_us)


def test_a_stamp_for_a_function_that_is_gone_is_an_error() -> None:
    with pytest.raises(AttributeError, match="no_longer"):
        Stamps().put("minibrokerd.net.connection:ServerConnection.no_longer")


def passed(*, without: str = "") -> Any:
    """Return calls of two lone publishes, each of whose points is 10 ns behind the one before."""
    noted: dict[str, dict[str, list[tuple[int, int, int]]]] = {"producer": {}, "server": {}}
    for start in (0, 10_000):
        for number, point in enumerate(LONE.points[:-1]):
            name, at = point.names[-1], start + 10 * (number + 1)
            if name == without:
                continue
            calls = noted[point.process].setdefault(name, [])
            began_before = point.is_end and calls and calls[-1][1] == at - 10
            calls.append((calls.pop()[0] if began_before else at, at, 1))
        end = start + 10 * len(LONE.points)
        noted["producer"].setdefault(CALLED, []).append((start, end, 1))
    return noted


def test_points_are_joined_in_their_order() -> None:
    assert trips(LONE, passed(), 0) == [[10] * len(LONE.points)] * 2


@pytest.mark.parametrize("point", LONE.points[:-1], ids=lambda point: point.span)
def test_a_point_that_is_not_passed_is_an_error(point: Any) -> None:
    with pytest.raises(NotMet):
        trips(LONE, passed(without=point.names[-1]), 0)


def test_time_is_divided_among_the_innermost_functions() -> None:
    """20 of 100 before all, 10 in a call within another one, 30 behind that."""
    calls = {"outer": [(20, 70, 1)], "inner": [(40, 50, 1)], "late": [(95, 120, 1)]}
    (found,) = shares(calls, 0, 100).values()
    assert found == {"": (50, 0), "outer": (40, 1), "inner": (10, 1)}
