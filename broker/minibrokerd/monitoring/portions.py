"""What is looked at between two turns of the loop: so many of many."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, TypeVar

STEP: Final = 1_000
Each = TypeVar("Each")


def steps(all: Sequence[Each], step: int = STEP) -> Iterable[Sequence[Each]]:
    """Return queues, or their names, in lists of what may be looked at before the loop turns."""
    return (all[at : at + step] for at in range(0, len(all), step))
