"""A histogram of integers with three significant digits, in the layout of HdrHistogram.

Up to 2,047 each value has a counter of its own. Above, each doubling of the value is cut into 1,024 counters, so a
counter is never wider than a thousandth of its values: the same relative precision for microseconds and for
minutes, in a list of some ten thousand numbers. Two of them are merged by adding counters, which averaging
percentiles could not do. The hdrhistogram package of PyPI has no wheels for ARM, and would need a compiler there.
"""

from __future__ import annotations

from itertools import accumulate, zip_longest
from typing import Final

_BITS: Final = 10  # 2**10 counters for each doubling: at least three digits


class Histogram:
    """Counts integers from 0 up; `max` and `count` are exact."""

    __slots__ = ("_counters", "count", "max")

    def __init__(self) -> None:
        self.count = 0
        self.max = 0
        self._counters: list[int] = []

    def record(self, value: int) -> None:
        """Count one value, which must not be negative."""
        shift = max(value.bit_length() - _BITS - 1, 0)
        index = (shift << _BITS) + (value >> shift)
        try:
            self._counters[index] += 1
        except IndexError:
            self._counters += [0] * (index + 1 - len(self._counters))
            self._counters[index] = 1
        self.count += 1
        if value > self.max:
            self.max = value

    def add(self, other: Histogram) -> None:
        """Count everything that `other` has counted, too."""
        pairs = zip_longest(self._counters, other._counters, fillvalue=0)
        self._counters = [mine + theirs for mine, theirs in pairs]
        self.count += other.count
        self.max = max(self.max, other.max)

    def percentile(self, percent: float) -> int:
        """Return the value that `percent` of all values do not exceed; 0 if nothing was counted.

        It is the highest value of its counter, so it may be a thousandth too high and never too low.
        """
        rank = max(1, -int(-self.count * percent // 100))  # rounded up
        for index, below in enumerate(accumulate(self._counters)):
            if below >= rank:
                return min(_highest(index), self.max)
        return self.max


def _highest(index: int) -> int:
    """Return the highest value that is counted at `index`."""
    shift = max((index >> _BITS) - 1, 0)
    return ((index - (shift << _BITS) + 1) << shift) - 1
