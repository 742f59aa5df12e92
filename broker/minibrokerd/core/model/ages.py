"""Since when the oldest message is ready that a key in turn has, of one priority: where a queue bounds that time.

A heap has an entry for each lane in turn, with a time that is not later than that of its oldest message. What is
taken makes an entry too early; it is mended when it comes to the top, so nothing is done here when something is
taken. A queue without the setting `max_wait_ms` has none of this, and the lane of those without a key needs none:
its oldest message is its first.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush, heapreplace
from typing import Final

from minibrokerd.core.model.lane import Lane
from minibrokerd.core.model.turn import Turn

SPARE: Final = 1_000  # entries beyond twice the lanes in turn: then the dead ones are swept out


class Ages:
    """The lanes in turn of one priority by their oldest message; `turn` is that of their `Lanes`."""

    __slots__ = ("_count", "_heap", "_since", "_turn")

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._heap: list[tuple[int, int, Lane]] = []
        self._since: dict[Lane, int] = {}  # the time of the entry that counts, by lane
        self._count = 0  # so that entries of one time differ

    def __len__(self) -> int:
        return len(self._heap)

    def came(self, lane: Lane) -> None:
        """Note that a lane has got something, or stands in turn again."""
        since_ms, known_ms = lane.oldest_ms, self._since.get(lane)
        if since_ms is None or (known_ms is not None and known_ms <= since_ms):
            return
        self._since[lane] = since_ms
        self._count += 1
        heappush(self._heap, (since_ms, self._count, lane))
        if len(self._heap) > 2 * len(self._turn) + SPARE:
            self._sweep()

    def oldest_ms(self) -> int | None:
        """Return since when the oldest message of the lanes in turn is ready (log time); None: there is none."""
        heap, since = self._heap, self._since
        while heap:
            known_ms, count, lane = heap[0]
            if since.get(lane) != known_ms:
                heappop(heap)  # another entry of it counts
                continue
            since_ms = lane.oldest_ms if lane in self._turn else None
            if since_ms == known_ms:
                return known_ms
            if since_ms is None:
                heappop(heap)
                del since[lane]
            else:
                since[lane] = since_ms
                heapreplace(heap, (since_ms, count, lane))
        return None

    def _sweep(self) -> None:
        self._heap = [
            entry
            for entry in self._heap
            if entry[2] in self._turn and self._since[entry[2]] == entry[0]
        ]
        self._since = {lane: since_ms for since_ms, _, lane in self._heap}
        heapify(self._heap)


def oldest_of(*times: int | None) -> int | None:
    """Return the earliest of times; None: there is none."""
    return min((time for time in times if time is not None), default=None)
