"""What is delayed, by when it is due: a page of it at a time.

They stand nowhere in that order: a wheel knows which is the next one only. So a page looks at all delayed messages
of the queue, in steps, and keeps those that come next: 100,000 of them are some tens of milliseconds of work, in
which everybody else has his turn.
"""

from __future__ import annotations

from heapq import nsmallest
from itertools import chain
from typing import Final, NamedTuple

from minibrokerd.core.model.messages import Item, State, is_dead
from minibrokerd.core.model.places import Place
from minibrokerd.core.model.queues import Queue
from minibrokerd.core.model.walks import GO_ON, Steps, Walk
from minibrokerd.core.verbs.showing import SHOW_LOOKS, Page, describe

KEPT: Final = 4_000  # that are gathered before the ones that come next are picked out


class _At(NamedTuple):
    """A delayed message by its place: when it is due (log time), then its id."""

    ready_at_ms: int
    origin: int
    sequence: int


class Due:
    """The walk of a peek in this order. Its cursor is the last message that was shown."""

    def __init__(self, walk: Walk, queue: Queue, page: Page) -> None:
        self._walk = walk
        self._queue = queue
        self._page = page

    def steps(self, place: Place, most: int) -> Steps:
        """Show up to `most` messages that come behind a place; each is shown as it is when it is its turn."""
        behind = _At(*place)
        found: list[_At] = []
        later, home = self._queue.group.later, self._queue.home
        for items in chain(later.after(home, 0), later.in_sheaves(home, 0)):
            for item in items:
                if not is_dead(item):  # one that waits for room in the DLQ is due at no time
                    found += (each for each in _places(item) if each > behind)
            if len(found) > most + KEPT:
                found = nsmallest(most + 1, found)
            if self._walk.is_used_up(sum(item.stop - item.first for item in items)):
                yield GO_ON
        yield from self._show(nsmallest(most + 1, found), most)

    def _show(self, found: list[_At], most: int) -> Steps:
        last: _At | None = None
        for at in found:
            item = self._queue.group.later.find(at.origin, at.sequence)
            if item is None or item.ready_at_ms != at.ready_at_ms:
                continue  # it was due, or another time was set, meanwhile
            info = describe(State.DELAYED, item, at.sequence, self._walk.store)
            if not self._page.add(info, item.block, at.sequence):
                break
            last = at
            if self._walk.is_used_up(SHOW_LOOKS):
                yield GO_ON
        else:
            last = found[most - 1] if len(found) > most else None
        self._page.send(self._walk, self._queue.last_batch, Place(*last) if last else None)


def _places(item: Item) -> list[_At]:
    origin, at_ms = item.block.origin, item.ready_at_ms
    return [_At(at_ms, origin, sequence) for sequence in range(item.first, item.stop)]
