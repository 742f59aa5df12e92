"""Refusals that come again and again: the first has its line, the others are counted."""

from __future__ import annotations

from minibrokerd.net.refusals import MAX_KINDS, Refusals


def counts(refusals: Refusals, from_s: float, to_s: float, every_s: float) -> list[int]:
    """Refuse one peer every so often, look once a second; return what was told, 0 for a line of its own."""
    told: list[int] = []
    at = from_s
    for second in range(int(from_s), int(to_s)):
        while at < second + 1:
            if refusals.is_first("kind", {"host": "h"}, at):
                told.append(0)
            at += every_s
        told += [fields["count"] for fields in refusals.due(second + 1)]
    return told


def test_many_a_second_are_told_after_one_two_four_seconds_and_then_once_a_minute() -> None:
    told = counts(Refusals(), 0, 300, 0.125)
    assert told[:5] == [0, 7, 16, 32, 64]
    assert set(told[8:]) == {480}
    assert len(told) < 13


def test_a_probe_every_ten_seconds_has_a_line_a_minute() -> None:
    told = counts(Refusals(), 0, 600, 10)
    assert told[0] == 0
    assert sum(told) >= 50
    assert set(told[-5:]) == {6}


def test_one_that_comes_once_in_a_while_has_its_own_line() -> None:
    """Nobody remembers the one before."""
    assert counts(Refusals(), 0, 1_000, 200) == [0] * 5


def test_kinds_are_told_apart_and_bounded() -> None:
    """A scan from many hosts is one line a second at most, in the end."""
    refusals = Refusals()
    first = [refusals.is_first(host, {"host": host}, 0.0) for host in range(1_000)]
    assert first.count(True) == MAX_KINDS
    assert [fields["count"] for fields in refusals.due(1.0)] == [1_000 - MAX_KINDS]
    assert not list(refusals.due(2.0))


def test_the_rest_is_told_at_the_end() -> None:
    refusals = Refusals()
    for _ in range(3):
        refusals.is_first("kind", {"host": "h"}, 0.0)
    assert list(refusals.rest()) == [{"host": "h", "count": 2}]
    assert not list(refusals.rest())
