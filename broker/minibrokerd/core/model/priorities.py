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


class _Load:
    """What one delivery gets: at most so many messages and, about, so many bytes more."""

    __slots__ = ("items", "most", "most_bytes")

    def __init__(self, most: int, most_bytes: int) -> None:
        self.items: list[Item] = []
        self.most = most
        self.most_bytes = most_bytes

    def add(self, lanes: Lanes, most: int) -> bool:
        """Take up to `most` messages of one priority; False: nothing may follow them."""
        more = lanes.take(min(most, self.most), self.most_bytes)
        size = sum([item.block.bytes_of(item.first, item.stop) for item in more])
        if (
            self.items
            and more
            and (size > self.most_bytes or self.items[-1].block.terms.differ(more[0].block.terms))
        ):
            for item in more:
                lanes.untake(item)
            return False
        self.items += more
        self.most -= sum([item.stop - item.first for item in more])
        self.most_bytes -= size
        return bool(more) and self.most > 0 and self.most_bytes > 0


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
        load = _Load(most, most_bytes)
        self._fill(load)
        return load.items

    def take_by_age(self, upto_ms: int, most: int, most_bytes: int) -> list[Item]:
        """As `take`; but what was ready at `upto_ms` (log time) already goes before all that was ready later.

        It goes with its priority, which gives what is next in its own order until it has nothing so old.
        """
        load = _Load(most, most_bytes)
        while (lanes := self._aged(upto_ms)) is not None:
            if not load.add(lanes, lanes.next_count):
                return load.items
        self._fill(load)
        return load.items

    def first_by_age(self, upto_ms: int) -> Lanes:
        """Return those of `levels` that give what comes next by `take_by_age`."""
        return self._aged(upto_ms) or self.foremost

    def _aged(self, upto_ms: int) -> Lanes | None:
        """Return the lanes that go before all others, as theirs is the oldest message, and it is too old."""
        in_turn = [lanes for lanes in self.levels if lanes.turns]
        if len(in_turn) < 2:
            return None  # it has its own order
        found = None
        for lanes in in_turn:
            since_ms = lanes.oldest_in_turn_ms
            if since_ms is not None and since_ms <= upto_ms:
                found, upto_ms = lanes, since_ms - 1
        return found

    def _fill(self, load: _Load) -> None:
        for lanes in self.levels:
            if not lanes.turns:
                continue  # it has nothing, or all of it is of closed keys
            if not load.add(lanes, load.most) or lanes.turns:
                break

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

    def free_some(self, most: int, drop: Callable[[Item | ColdRun], object]) -> bool:
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
