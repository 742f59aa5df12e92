"""Counts by powers of two: what a hot path can afford, an index and two additions for many messages at a time."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from minibrokerd.core.model.times import Spread

BUCKETS: Final = 65  # of numbers up to 2**64


class Histogram:
    """How often whole numbers came, in buckets: that of index k has those of k bits, below 2**k."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * BUCKETS
        self.total = 0  # of all numbers

    def note(self, number: int, times: int = 1) -> None:
        """Count a number; one below zero, as of a clock that was set back, as zero."""
        if number > 0:
            self.counts[number.bit_length()] += times
            self.total += number * times
        else:
            self.counts[0] += times

    def note_all(self, numbers: Sequence[int]) -> None:
        """Count many numbers, none below zero; as `note`, but in a few calls for all of them."""
        for exponent, count in Counter(map(int.bit_length, numbers)).items():
            self.counts[exponent] += count
        self.total += sum(numbers)

    def add(self, spread: Spread) -> None:
        """Count all that a spread has."""
        for exponent, count in spread.counts.items():
            self.counts[exponent] += count
        self.total += spread.total_ms

    def up_to(self, exponents: Sequence[int]) -> Iterator[int]:
        """Yield for each of these ascending exponents how many numbers were below two to its power."""
        counted = below = 0
        for exponent in exponents:
            counted += sum(self.counts[below : exponent + 1])
            below = exponent + 1
            yield counted

    @property
    def count(self) -> int:
        """How many numbers came."""
        return sum(self.counts)


def quantile(
    counts: Sequence[int], share: float, least: float = 0.0, most: float = math.inf
) -> float:
    """Return the number below which a share of those lie that were counted by powers of two; 0: there are none.

    Within a bucket they are taken to lie evenly, as Prometheus does; but none outside of `least` to `most`, the
    smallest and the greatest that came, where those are known.
    """
    wanted, seen = share * sum(counts), 0
    for exponent, count in enumerate(counts):
        if count and seen + count >= wanted:
            low = max(2.0 ** (exponent - 1) if exponent else 0.0, least)
            return low + (min(2.0**exponent, most) - low) * (wanted - seen) / count
        seen += count
    return 0.0
