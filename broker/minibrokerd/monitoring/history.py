"""What happened of late: how many messages died and how long syncs took, in slices of some seconds.

It is what makes "growing" a word with a meaning: the broker is asked what came within a window, and whoever asks
keeps no file. It begins anew with the broker. No clock and no loop here: times come in, in seconds of one clock.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

SLICE_S: Final = 10.0
KEPT_S: Final = 3_600.0
MOST_QUEUES: Final = 100  # of one slice, by name; what died in others is a sum


@dataclass(slots=True)
class Slice:
    """What came from `begin_s` on until the next slice began; `syncs` are the counts as they were at its begin."""

    begin_s: float
    syncs: array[int]
    dead: dict[str, int] = field(default_factory=dict)
    dead_elsewhere: int = 0


@dataclass(frozen=True, slots=True)
class Recent:
    """What came within a window: `covers_s` of it, as the broker may not have run for longer."""

    covers_s: float
    dead: Mapping[str, int]
    dead_elsewhere: int  # in queues that are not named
    dead_since_s: float | None  # when the first of them was seen
    syncs: Sequence[int]


class History:
    """The slices of the last hour."""

    def __init__(self, now_s: float, syncs: Sequence[int]) -> None:
        """`syncs` are the counts of the histogram of syncs at this moment, as in `note`."""
        self._slices = deque([Slice(now_s, array("Q", syncs))])

    def note(self, now_s: float, dead: Mapping[str, int], syncs: Sequence[int]) -> None:
        """Note what died since the note before, by queue."""
        if now_s - self._slices[-1].begin_s >= SLICE_S:
            self._slices.append(Slice(now_s, array("Q", syncs)))
            while self._slices[0].begin_s < now_s - KEPT_S - SLICE_S:
                self._slices.popleft()
        newest = self._slices[-1]
        for name, count in dead.items():
            if name in newest.dead or len(newest.dead) < MOST_QUEUES:
                newest.dead[name] = newest.dead.get(name, 0) + count
            else:
                newest.dead_elsewhere += count

    def within(
        self,
        window_s: float,
        now_s: float,
        syncs: Sequence[int],
        fits: Callable[[str], bool] = lambda name: True,
    ) -> Recent:
        """Return what came within a window that ends now, in queues whose name fits; up to a slice more."""
        slices = self._slices
        first = len(slices) - 1
        while first and slices[first].begin_s > now_s - window_s:
            first -= 1
        dead: dict[str, int] = {}
        elsewhere, since_s = 0, None
        for at in range(first, len(slices)):
            here = {name: count for name, count in slices[at].dead.items() if fits(name)}
            for name, count in here.items():
                dead[name] = dead.get(name, 0) + count
            elsewhere += slices[at].dead_elsewhere
            if since_s is None and (here or slices[at].dead_elsewhere):
                since_s = slices[at].begin_s
        before = slices[first].syncs
        new = [now - then for now, then in zip(syncs, before, strict=True)]
        return Recent(now_s - slices[first].begin_s, dead, elsewhere, since_s, new)
