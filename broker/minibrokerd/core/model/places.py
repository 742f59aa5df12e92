"""The messages of a queue one by one, in an order that lasts: what a listing goes by.

First those that wait, by their ids (ready and delayed ones alike, in memory or not); then those of deliveries, by
token and id. A message that waits all the time, or is under its token all the time, is met exactly once, whatever
comes and goes meanwhile. One that is handed out meanwhile may be met twice, one that comes back not at all.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from itertools import chain, islice
from typing import Final, NamedTuple

from minibrokerd.core.model.cold import ColdRun
from minibrokerd.core.model.index import Index
from minibrokerd.core.model.messages import Item, Message, State
from minibrokerd.core.model.queues import Queue

MOST: Final = 1_000  # items that are looked up together


class Place(NamedTuple):
    """Where a listing goes on: with this message, or the next one behind it. `token` is 0 of those that wait."""

    token: int
    origin: int
    sequence: int

    def pack(self) -> bytes:
        """Return it as a cursor."""
        return b"".join(
            (self.token.to_bytes(8), self.origin.to_bytes(4), self.sequence.to_bytes(8))
        )

    @classmethod
    def unpack(cls, cursor: bytes) -> Place:
        """Return the place of a cursor.

        Raises:
            ValueError: no listing gave it.
        """
        if len(cursor) != 20:
            raise ValueError("`after` is not from an answer of this server")
        parts = (cursor[:8], cursor[8:12], cursor[12:])
        return cls(*(int.from_bytes(part) for part in parts))


Found = tuple[State, Item | ColdRun]


def waiting_from(queue: Queue, place: Place, state: State | None) -> tuple[list[Found], int]:
    """Return what waits from a place on, some of it, in the order of ids; and how many were looked at."""
    home = queue.home
    sources: list[tuple[State, Iterator[Item | ColdRun]]] = []
    for lanes in queue.group.lanes.levels if state in (None, State.READY) else ():
        if place.origin == home:
            sources.append((State.READY, lanes.in_order(place.sequence)))
        sources.append((State.READY, _indexed(lanes.index, place)))
    if state in (None, State.DELAYED):
        sources += [(State.DELAYED, line) for line in _delayed(queue, place)]
    found = [(state, item) for state, items in sources for item in islice(items, MOST)]
    from_on = place.sequence if place.origin == home else 0
    found.sort(key=lambda each: _order(home, each[1], from_on))
    return found[:MOST], len(found)


def in_order_of_ids(queue: Queue) -> list[Iterator[Item | ColdRun]]:
    """Return what waits as several lines, each in the order of ids: to be merged, as far as is needed."""
    start = Place(0, queue.home, 0)
    lines: list[Iterator[Item | ColdRun]] = [*_delayed(queue, start)]
    for lanes in queue.group.lanes.levels:
        lines += [lanes.in_order(0), _indexed(lanes.index, start)]
    return lines


def _indexed(index: Index, place: Place) -> Iterator[Item]:
    return chain.from_iterable(index.after(place.origin, place.sequence))


def _delayed(queue: Queue, place: Place) -> Iterator[Iterator[Item]]:
    later = queue.group.later
    yield _indexed(later, place)
    yield chain.from_iterable(later.in_sheaves(place.origin, place.sequence))


def cold_from(run: ColdRun, sequence: int) -> int:
    """Return the first message of a run from this one on that waits there; what was read back stands before it.

    What was taken out of its middle and waits again stands in its place, in memory.
    """
    first = max(run.start, sequence)
    live = next(run.live(first, run.stop), None)
    return run.stop if live is None else live[0]


def _order(home: int, item: Item | ColdRun, from_on: int) -> tuple[bool, int, int]:
    if isinstance(item, ColdRun):
        return False, home, cold_from(item, from_on)
    return item.block.origin != home, item.block.origin, item.first


def delivered_from(queue: Queue, place: Place) -> Iterator[tuple[State, int, Item]]:
    """Yield (state, token, item) of what is held or begun from a place on."""
    tokens = sorted(queue.group.deliveries)
    for token in tokens[bisect_left(tokens, place.token) :]:
        delivery = queue.group.deliveries[token]
        items: list[Item] = [*delivery.spans.values(), *delivery.singles.values()]
        items.sort(key=lambda item: (item.block.origin, item.first))
        for item in items:
            last = item.block.origin, item.stop - 1
            if token > place.token or last >= (place.origin, place.sequence):
                yield item.state if isinstance(item, Message) else State.HELD, token, item
