"""The histogram against sorted lists: what it keeps of a value is three digits, whatever the scale."""

from __future__ import annotations

from math import ceil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minibrokerd.load.histogram import Histogram

VALUES = st.lists(st.integers(0, 2**40), min_size=1, max_size=100)
PERCENTS = st.sampled_from([0, 1, 50, 90, 99, 99.9, 100])


def histogram_of(values: list[int]) -> Histogram:
    """Return a histogram that has counted these values."""
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    return histogram


@given(VALUES, PERCENTS)
def test_a_percentile_is_that_of_the_sorted_list_to_a_thousandth(
    values: list[int], percent: float
) -> None:
    """Never below it, and never above the largest value."""
    exact = sorted(values)[max(ceil(percent * len(values) / 100), 1) - 1]
    found = histogram_of(values).percentile(percent)
    assert exact <= found <= min(exact * 1.001, max(values))


@settings(max_examples=30)
@given(VALUES, VALUES, PERCENTS)
def test_two_merged_are_as_one_that_counted_everything(
    some: list[int], others: list[int], percent: float
) -> None:
    """Whichever of them has the longer list of counters."""
    merged, whole = histogram_of(some), histogram_of(some + others)
    merged.add(histogram_of(others))
    assert (merged.count, merged.max) == (whole.count, whole.max)
    assert merged.percentile(percent) == whole.percentile(percent)


@pytest.mark.parametrize("value", [0, 1, 1_023, 1_024, 2_047, 2_048, 2_049, 4_095, 4_096, 2**40])
def test_the_edges_of_the_counters(value: int) -> None:
    """Up to 2,048 a counter has one value; above, the maximum is exact all the same."""
    histogram = histogram_of([value])
    assert (histogram.count, histogram.max, histogram.percentile(50)) == (1, value, value)


def test_nothing_counted_is_nothing_measured() -> None:
    """A report has a row of zeros, not an error."""
    assert (Histogram().count, Histogram().max, Histogram().percentile(99)) == (0, 0, 0)
