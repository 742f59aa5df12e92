"""The table of checks, and how bounds are typed and judged."""

from __future__ import annotations

import pytest

from minibrokerd.monitoring.checks import (
    CHECKS,
    Bounds,
    Level,
    bounds_text,
    level_of,
    parse_bounds,
    value_text,
)

OLDEST, DISK, DEAD = CHECKS["oldest-ready"], CHECKS["disk-free"], CHECKS["dead-letters"]


@pytest.mark.parametrize("name", CHECKS)
def test_the_bounds_of_the_table_are_typed_as_they_are_shown(name: str) -> None:
    """And they are in order: a warning comes first."""
    check = CHECKS[name]
    bounds = parse_bounds(check, check.bounds)
    assert bounds_text(check, bounds) == check.bounds
    assert None not in (bounds.warning, bounds.critical)


def test_either_bound_may_be_left_out_and_off_is_neither() -> None:
    """In the units of the check."""
    assert parse_bounds(OLDEST, "1h30m") == Bounds(5_400, None)
    assert parse_bounds(OLDEST, ",250ms") == Bounds(None, 0.25)
    assert parse_bounds(DISK, "10, 5%") == Bounds(10, 5)
    assert parse_bounds(DEAD, "off") == Bounds()


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("oldest-ready", "", "WARNING,CRITICAL"),
        ("oldest-ready", "1,2,3", "WARNING,CRITICAL"),
        ("oldest-ready", "soon", "no duration"),
        ("oldest-ready", "2m,1m", "must be more"),
        ("disk-free", "5%,10%", "must be less"),
        ("memory", "nan", "no percentage"),
        ("dead-letters", "-1", "no number"),
        ("dead-letters", "inf", "no number"),
    ],
)
def test_what_means_no_bounds_is_refused(name: str, text: str, says: str) -> None:
    """With what it should look like."""
    with pytest.raises(ValueError, match=says):
        parse_bounds(CHECKS[name], text)


def test_a_bound_counts_from_itself_on() -> None:
    """Upwards, or downwards where less is worse; the graver one wins."""
    bounds = parse_bounds(OLDEST, "5m,30m")
    levels = [level_of(OLDEST, bounds, value) for value in (299.9, 300, 1_799, 1_800)]
    assert levels == [Level.OK, Level.WARNING, Level.WARNING, Level.CRITICAL]
    free = parse_bounds(DISK, "10,5")
    levels = [level_of(DISK, free, value) for value in (10.1, 10, 5.1, 5)]
    assert levels == [Level.OK, Level.WARNING, Level.WARNING, Level.CRITICAL]
    assert level_of(DEAD, Bounds(), 10**6) is Level.OK


def test_values_are_short() -> None:
    """For a line that a person reads at night."""
    assert [value_text(OLDEST, value) for value in (0, 0.00405, 1.419, 61.7, 7_320)] == [
        "0s",
        "4.05ms",
        "1.4s",
        "1m2s",
        "2h2m",
    ]
    assert (value_text(DISK, 20.67), value_text(DEAD, 12_345)) == ("20.67%", "12,345")
