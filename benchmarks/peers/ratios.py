"""How many times better: ratios of pairs, each taken within its pair.

The machine has slow minutes. Two figures of one pair were measured within seconds of each other, so
their quotient says more than that of two medians.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.peers.works import BYTES, RATE


@dataclass(frozen=True, slots=True)
class Comparison:
    """Both medians, and how many times better the first side was: lowest, median, highest pair."""

    ours: float
    theirs: float
    ratio_min: float
    ratio_median: float
    ratio_max: float
    pairs: int


def compare(pairs: Sequence[tuple[float, float]], unit: str) -> Comparison:
    """Compare pairs of (ours, theirs). More is better for a rate, less for every other unit."""
    ratios = sorted(better(ours, theirs, unit) for ours, theirs in pairs)
    return Comparison(
        ours=shortened(median(ours for ours, _ in pairs)),
        theirs=shortened(median(theirs for _, theirs in pairs)),
        ratio_min=shortened(ratios[0]),
        ratio_median=shortened(median(ratios)),
        ratio_max=shortened(ratios[-1]),
        pairs=len(pairs),
    )


def better(ours: float, theirs: float, unit: str) -> float:
    """Return how many times better ours is; a cost too small to be measured counts as the least one."""
    above, below = (ours, theirs) if unit == RATE else (theirs, ours)
    # A server may even give memory back while its queue grows.
    least = 1.0 if unit == BYTES else 1e-3
    return max(above, least) / max(below, least)


def shortened(value: float) -> float:
    """Return the value with three significant digits, whole from 100 on."""
    return float(round(value)) if abs(value) >= 100 else float(f"{value:.3g}")
