"""What is ready in a queue whose messages have several priorities: lanes for each that was in use.

The highest that has something gives what comes next. A queue is given these when its first message with a priority
comes in; until then it has plain `Lanes`, and pays nothing. Both answer to the same names.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Final

from minibrokerd.core.model.cold import ColdRun
from minibrokerd.core.model.lane import Lane
from minibrokerd.core.model.lanes import Lanes
from minibrokerd.core.model.messages import Item, Message, Span

_PRIORITY: Final = attrgetter("block.terms.priority")


class PriorityLanes:
    """Lanes by priority. They stay as long as the queue has messages: most will be used again."""

    __slots__ = ("_of", "_order", "levels")

    def __init__(self, plain: Lanes) -> None:
        """`plain` are the lanes of the queue so far: of those without a priority."""
        self._of = {0: plain}
        self._order = [0]  # the negated priorities that have lanes, ascending
        self.levels: list[Lanes] = [plain]

    def _level(self, priority: int) -> Lanes:
        lanes = self._of.get(priority)
        if lanes is None:
            lanes = self._of[priority] = self._of[0].another()
            insort(self._order, -priority)
            self.levels.insert(self._order.index(-priority), lanes)
        return lanes

    @property
    def ready(self) -> int:
        """Messages in all lanes."""
        return sum([lanes.ready for lanes in self.levels])

    @property
    def foremost(self) -> Lanes:
        """Those of `levels` that give what comes next."""
        return next((lanes for lanes in self.levels if lanes.turns), self.levels[-1])

    @property
    def default(self) -> Lane:
        """The lane of those without a key, of the lanes that give what comes next."""
        return self.foremost.default

    @property
    def turns(self) -> int:
        """How many lanes have something."""
        return sum([lanes.turns for lanes in self.levels])

    def has_any(self) -> bool:
        """Whether a lane of those without a key has anything, be it dead."""
        return any(lanes.has_any() for lanes in self.levels)

    def leave(self) -> None:
        """They are out of use: nothing that they have is to be copied any more."""
        for lanes in self.levels:
            lanes.leave()

    # -- what comes in --------------------------------------------------------------------------

    def enter(self, span: Span) -> None:
        """Append a fresh span to its lane."""
        self._level(span.block.terms.priority).enter(span)

    def enter_cold(self, run: ColdRun) -> None:
        """Append a run of messages that are not in memory; a start finds them in order."""
        self._level(0).enter_cold(run)

    def put_back(self, item: Item) -> None:
        """Put what came back to its place in its lane."""
        self._level(item.block.terms.priority).put_back(item)

    def put_all_back(self, messages: Sequence[Message]) -> None:
        """Put messages that came back to their places in their lanes."""
        for priority, group in groupby(messages, key=_PRIORITY):
            self._level(priority).put_all_back(list(group))

    # -- what goes out --------------------------------------------------------------------------

    def take(self, most: int, most_bytes: int) -> list[Item]:
        """Remove and return what comes next, as `Lanes.take` does; a lower priority behind all higher ones.

        Where the lanes of one priority do not give all that they have, nothing follows: it is to be read back, or
        goes into a delivery of its own.
        """
        items: list[Item] = []
        for lanes in self.levels:
            if not lanes.turns:
                continue  # it has nothing, or all of it is of closed keys
            more = lanes.take(most, most_bytes)
            size = sum([item.block.bytes_of(item.first, item.stop) for item in more])
            if (
                items
                and more
                and (size > most_bytes or items[-1].block.terms.differ(more[0].block.terms))
            ):
                for item in more:
                    lanes.untake(item)
                break
            items += more
            most -= sum([item.stop - item.first for item in more])
            most_bytes -= size
            if lanes.turns or most <= 0 or most_bytes <= 0:
                break
        return items

    def take_any(self, most: int) -> list[Item]:
        """Remove and return messages that are not delivered, as `Lanes.take_any` does, of one priority."""
        for lanes in self.levels:
            if lanes.ready:
                return lanes.take_any(most)
        return []

    def take_one(self, origin: int, sequence: int) -> Item | None:
        """Remove and return a message as an item of its own; None: it is not here, or not in memory."""
        for lanes in self.levels:
            item = lanes.take_one(origin, sequence)
            if item is not None:
                return item
        return None

    def free_some(self, most: int, drop: Callable[[Item], object]) -> bool:
        """Take items out of lanes that are out of use, as `Lanes.free_some` does, one priority at a time."""
        if self.levels and self.levels[-1].free_some(most, drop):
            self.levels.pop()
        return not self.levels

    # -- looks ----------------------------------------------------------------------------------

    def find(self, origin: int, sequence: int) -> Item | ColdRun | None:
        """Return what has a message that is ready: an item, or the run of places that it is in."""
        found = (lanes.find(origin, sequence) for lanes in self.levels)
        return next((item for item in found if item is not None), None)

    def oldest_ms(self, most: int) -> int | None:
        """Return since when the one that is ready for the longest is (log time); None: nothing is ready."""
        times = [lanes.oldest_ms(most) for lanes in self.levels]
        return min((time for time in times if time is not None), default=None)

    def items(self) -> Iterator[Item]:
        """Yield everything that is ready, lane by lane."""
        for lanes in self.levels:
            yield from lanes.items()
