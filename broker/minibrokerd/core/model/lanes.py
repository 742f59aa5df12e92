"""What is ready in a queue, in the order in which it is handed out.

A lane has the messages of one key; those without a key share the default lane. Within a lane order is
(ready_at_ms, sequence): fresh spans arrive in that order and wait in a deque, what came back waits in a heap
beside it. Lanes take turns, so one busy key cannot keep the others waiting.

The fresh spans of the default lane are the fast path: nothing else is kept of them. All others are in the index.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, groupby, islice
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from minibrokerd.core.model.ages import Ages, oldest_of
from minibrokerd.core.model.cold import ColdRun
from minibrokerd.core.model.index import Index
from minibrokerd.core.model.lane import NO_SPANS, KeyLane, Lane, first_of, fit
from minibrokerd.core.model.messages import NO_TERMS, Block, Item, Message, Span
from minibrokerd.core.model.standing import Standing
from minibrokerd.core.model.turn import Member, Turn, oldest_ms_of

if TYPE_CHECKING:
    from minibrokerd.core.model.keys import Keys
    from minibrokerd.core.model.queues import Queue


class Lanes:
    """All lanes of a queue whose messages have one priority, and the turn they take.

    `lined`: `standing.lines` knows of them. No message of the default line stands in a batch before `oldest`.
    """

    __slots__ = (
        "_home",
        "_keyed",
        "_turn",
        "ages",
        "default",
        "index",
        "keys",
        "lined",
        "oldest",
        "queue",
        "ready",
        "standing",
    )

    def __init__(self, home: int, standing: Standing, queue: Queue | None) -> None:
        """`home` is the origin of what is published to the queue, or of what dies in its source.

        `queue` is whose lanes these are; None: of no queue any more.
        """
        self._home = home
        self.queue = queue
        self.standing = standing
        self.lined = False
        self.oldest = 0
        self.index = Index(home, standing, queue)
        self.default = Lane("", self.index)
        # The lane of each key that has something; or its only span, which has waited alone since it came.
        self._keyed: dict[str, Member] = {}
        self.keys: Keys | None = None  # which of them may hand out; None: all
        self._turn = Turn()  # of those that have something and may hand out
        self.ready = 0  # messages in all lanes
        self.ages: Ages | None = None  # of the keys in turn, where their wait is bounded

    @property
    def levels(self) -> Sequence[Lanes]:
        """The lanes of each priority, the highest first; these have one."""
        return (self,)

    @property
    def foremost(self) -> Lanes:
        """Those of `levels` that give what comes next."""
        return self

    def leave(self) -> None:
        """They are out of use: nothing that they have is to be copied any more."""
        self.queue = self.index.queue = None
        if self.lined:
            self.standing.lines.pop(self, None)
            self.standing.lines_left.pop(self, None)

    def another(self) -> Lanes:
        """Return lanes of the same queue, for messages of another priority."""
        lanes = Lanes(self._home, self.standing, self.queue)
        lanes.keys = self.keys
        if self.ages is not None:
            lanes.use_ages()
        return lanes

    def use_ages(self) -> Iterator[int]:
        """Know from now on which key in turn waits for the longest; return the work of noting what is there."""
        self.ages = Ages(self._turn)
        return self._fill_ages()

    def _fill_ages(self) -> Iterator[int]:
        for member in list(self._turn):
            if member in self._turn:
                self._came(member)
            yield 1

    def has_any(self) -> bool:
        """Whether the default lane has anything."""
        return bool(self.default)

    def line_up(self) -> None:
        """Have copying forward know that the default line may have something."""
        if not self.lined:
            self.lined = True
            self.standing.lines[self] = None

    def enter(self, span: Span) -> None:
        """Append a fresh span to its lane."""
        lane = self.default
        if lane.fresh and self.lined and not (span.key or lane.cold):
            last = lane.fresh[-1]
            if last.first < span.first and last.ready_at_ms <= span.ready_at_ms:  # as nearly always
                lane.fresh.append(span)
                self.ready += span.stop - span.first
                return
        if span.key and self.ages is None and span.key not in self._keyed:
            self._keyed[span.key] = span
            span.before = span.behind = None
            self._has_something(span)
            self.index.add(span)
            self.ready += span.stop - span.first
            return
        lane = self._lane(span.key)
        if not lane:
            self._has_something(lane)
        if not (self.lined or span.key):
            self.line_up()
        lane.enter(span)
        self.ready += span.stop - span.first
        if self.ages is not None:
            self._came(lane)

    def _came(self, lane: Member) -> None:
        """Note how long something waits that came to the lane of a key, or that stands in turn again."""
        if self.ages is not None and lane.key and lane in self._turn:
            self.ages.came(self._lane(lane.key))

    def enter_cold(self, run: ColdRun) -> None:
        """Append a run of messages that are not in memory; a start finds them in order."""
        lane = self.default
        if not lane:
            self._turn.append(lane)
        for span in lane.late:  # they came from a segment without an index, between two with one
            lane.put_back(span)
        lane.late = NO_SPANS
        if not lane.cold:
            lane.cold = deque()
        lane.cold.append(run)
        self.line_up()
        self.ready += run.left

    def leave_if_empty(self, lane: Lane) -> None:
        """Take a lane out of the turn when the last it had was taken out or set aside, not delivered."""
        if not lane:
            self._turn.leave(lane)
            self._keyed.pop(lane.key, None)

    def put_back(self, item: Item) -> None:
        """Put what came back to its place in its lane."""
        lane = self._lane(item.key)
        if not lane:
            self._has_something(lane)
        lane.put_back(item)
        self.ready += item.stop - item.first
        if self.keys is not None:
            self.keys.waits(item)
        if self.ages is not None:
            self._came(lane)

    def untake(self, item: Item) -> None:
        """Put back what `take` returned, and was not delivered."""
        self.put_back(item)
        if self.keys is not None and item.key:
            self.keys.untook(item)

    def put_all_back(self, messages: Sequence[Message]) -> None:
        """Put messages that came back to their places in their lanes."""
        for key, group in groupby(messages, key=attrgetter("key")):
            lane = self._lane(key)
            if not lane:
                self._has_something(lane)
            lane.put_all_back(list(group))
            if self.ages is not None:
                self._came(lane)
        self.ready += len(messages)
        if self.keys is not None:
            for message in messages:
                self.keys.waits(message)

    def _has_something(self, lane: Member) -> None:
        """Let a lane stand in turn that gets its first message, unless its key is closed."""
        if self.keys is None or not lane.key or self.keys.is_open(lane.key, self):
            self._turn.append(lane)

    def put_in_turn(self, key: str, *, is_open: bool) -> bool:
        """Let the lane of a key stand in turn, or out of it; return whether it may hand out now, and could not."""
        lane = self._keyed.get(key)
        if lane is None or not is_open:
            if lane is not None:
                self._turn.leave(lane)
            return False
        if lane.behind is not None or not lane:
            return False  # it stands in turn, or has nothing
        self._turn.append(lane)
        if self.ages is not None:
            self._came(lane)
        return True

    def has_key(self, key: str) -> bool:
        """Whether something of a key is ready here."""
        return key in self._keyed

    def has(self, item: Item | ColdRun) -> bool:
        """Whether an item, or a run, that `find` returned is here."""
        if isinstance(item, ColdRun):
            return item in self.default.cold
        return self.find(item.block.origin, item.first) is item

    def put_all_in_turn(self) -> Iterator[int]:
        """Let each lane of a key stand where it should; it may be left at each step."""
        for lane in list(self._keyed.values()):
            if self._keyed.get(lane.key) is lane:
                is_open = self.keys is None or self.keys.is_open(lane.key, self)
                self.put_in_turn(lane.key, is_open=is_open)
            yield 1

    def take(self, most: int, most_bytes: int) -> list[Item]:
        """Remove and return what comes next: at most `most` messages, and about `most_bytes`.

        At least one message is returned, whatever its size, unless what comes next is not in memory, or all of it
        is of closed keys; `ready` must not be 0. All have the same terms of their own, or none.
        """
        turn, keys = self._turn, self.keys
        if keys is not None and keys.is_counting:
            return []
        items: list[Item] = []
        singles: list[Span] = []  # those of `items` that leave the index together
        if keys is None and turn.count > 1:
            most_bytes = self._take_round(singles, most, most_bytes)
            items += singles
            most -= len(items)
        terms = items[-1].block.terms if items else NO_TERMS  # of the last one
        while most and turn.count:
            lane = turn.behind
            kind = type(lane)
            # Of a key of which nothing came back one message goes, as it is or not: of nearly all that take turns.
            if kind is not Lane and not (kind is KeyLane and lane.returned):
                span = lane if kind is Span else lane.fresh[0]
                if span.stop - span.first == 1:
                    block = span.block
                    is_even = block.starts is None  # all of one size, as of most publishes
                    size = block.size if is_even else block.bytes_of(span.first, span.stop)
                    is_other = block.terms is not terms and terms.differ(block.terms)
                    if items and (is_other or size > most_bytes):
                        break
                    terms = block.terms
                    singles.append(span)
                    items.append(span)
                    most_bytes, most = most_bytes - size, most - 1
                    self._go_on(lane, span, has_more=kind is KeyLane and lane.drop_first())
                    continue
                lane = self._lane(lane.key) if kind is Span else lane
            if lane.cold and lane.is_waiting:
                if turn.count == 1:
                    break
                turn.rotate()  # there is one such lane at the most
                continue
            # Alone, a lane gives whole spans; with others it gives one message and the turn goes on.
            if keys is None or not lane.key:
                item = lane.take(most if turn.count == 1 else 1)
            else:
                item = self._take_of_key(lane, most)
            block, count = item.block, item.stop - item.first
            if items and block.terms is not terms and terms.differ(block.terms):
                lane.put_back(item)
                break
            terms = block.terms
            is_even = block.starts is None
            size = block.size * count if is_even else block.bytes_of(item.first, item.stop)
            if size > most_bytes and (items or item.stop - item.first > 1):
                fitting = fit(lane, item, most_bytes, first=not items)
                if fitting is None:
                    break
                item, most, count = fitting, 0, fitting.stop - fitting.first
            items.append(item)
            most_bytes -= size
            self.ready -= count
            most = most - count if most > count else 0
            if keys is not None or not (lane.fresh or lane):
                self._go_on(lane, item, has_more=bool(lane))
            elif turn.count > 1:
                turn.rotate()
        if singles:
            self.ready -= len(singles)
            self.index.discard_all(singles)
        return items

    def _take_round(self, singles: list[Span], most: int, most_bytes: int) -> int:
        """Take what keys give in turn that have no limits; return how many bytes more may go."""
        gone, most_bytes = self._turn.give_round(singles, most, most_bytes)
        for lane in gone:
            del self._keyed[lane.key]
        return most_bytes

    def _take_of_key(self, lane: Lane, most: int) -> Item:
        """Take what comes next of a key that is limited: that which holds its place, if any does."""
        keys = self.keys
        assert keys is not None, "else none is limited"
        first, most = keys.turn_of(lane.key, most, alone=self._turn.count == 1)
        return lane.take(most) if first is None else lane.take_one(first, first.sequence)

    def _go_on(self, lane: Member, item: Item, *, has_more: bool) -> None:
        """Let the turn go on, where a key may give several messages in its turn, or none any more."""
        keys, turn = self.keys, self._turn
        if not has_more:
            turn.leave(lane)
            if lane.key:
                del self._keyed[lane.key]
        if keys is None or not lane.key:
            if has_more:
                turn.rotate()
            return
        is_open = keys.took(item, self)
        if has_more and not is_open:
            turn.leave(lane)
        elif has_more and not keys.keeps_turn(lane.key, item.stop - item.first):
            turn.rotate()  # it is the first one still

    def take_by_age(self, upto_ms: int, most: int, most_bytes: int) -> list[Item]:
        """As `take`: of one priority nothing goes before its order."""
        return self.take(most, most_bytes)

    def first_by_age(self, upto_ms: int) -> Lanes:
        """Return those of `levels` that give what comes next, as `foremost`."""
        return self

    def take_any(self, most: int) -> list[Item]:
        """Remove and return up to `most` messages that are not delivered, in turn; closed keys go, too.

        Nothing is returned while what comes next is not in memory.
        """
        keys = self.keys
        if keys is None:
            return self.take(most, 2**62)
        closed = [key for key, lane in islice(self._keyed.items(), most) if lane not in self._turn]
        for key in closed:
            self._turn.append(self._keyed[key])
        self.keys = None
        items = self.take(most, 2**62)
        self.keys = keys
        for key in closed:
            if key in self._keyed:
                self._turn.leave(self._keyed[key])
        for item in items:
            keys.left(item)
        return items

    def take_one(self, origin: int, sequence: int) -> Item | None:
        """Remove and return a message as an item of its own; None: it is not here, or not in memory."""
        item = self.index.find(origin, sequence)
        if item is not None:
            lane = self._lane(item.key)
            single = lane.take_one(item, sequence)
        else:
            lane = self.default
            found = lane.span_of(sequence) if origin == self._home else None
            if found is None:
                return None
            line, at = found
            span = line[at]
            del line[at]
            single = lane.cut_out(span, sequence)
        self.ready -= 1
        self.leave_if_empty(lane)
        if self.keys is not None:
            self.keys.left(single)
        return single

    def items_of(self, block: Block) -> list[Item]:
        """Return what is ready of a block, in memory."""
        found = self.index.items_of(block)
        if block.origin == self._home:
            found += self.default.spans_in(block)
        return found

    def take_out(self, item: Item) -> None:
        """Remove an item that is here, as it is."""
        lane = self._lane(item.key)
        if self.index.has(item):
            lane.take_out(item)
        else:
            found = lane.span_of(item.first)
            assert found is not None, "it is here"
            line, at = found
            del line[at]
        self.ready -= item.stop - item.first
        self.leave_if_empty(lane)
        if self.keys is not None:
            self.keys.left(item)

    def find(self, origin: int, sequence: int) -> Item | ColdRun | None:
        """Return what has a message that is ready: an item, or the run of places that it is in."""
        item = self.index.find(origin, sequence)
        if item is not None or origin != self._home:
            return item
        found = self.default.span_of(sequence)
        return found[0][found[1]] if found is not None else self.default.run_of(sequence)

    def oldest_ms(self, most: int) -> int | None:
        """Return since when the one that is ready for the longest is (log time); None: nothing is ready.

        Of very many lanes with a key `most` are looked at, those whose turn comes first.
        """
        if self._turn.count == 1 and self.keys is None:
            return oldest_ms_of(self._turn.behind)
        lanes = self._turn if self.keys is None else chain(self._turn, self._keyed.values())
        times = [oldest_ms_of(lane) for lane in islice(lanes, most)]
        return min((time for time in times if time is not None), default=None)

    @property
    def oldest_in_turn_ms(self) -> int | None:
        """Since when the one is ready (log time) that waits for the longest of those that may go now."""
        return oldest_of(
            self.default.oldest_ms, None if self.ages is None else self.ages.oldest_ms()
        )

    @property
    def next_count(self) -> int:
        """How many messages go next together, all ready since the same instant."""
        return self.default.next_count if self._turn.count == 1 and self.default else 1

    @property
    def turns(self) -> int:
        """How many lanes have something and may hand out."""
        return self._turn.count

    def in_order(self, sequence: int) -> Iterator[Span | ColdRun]:
        """Yield what has no entry in the index and has messages from `sequence` on, in the order of ids."""
        lane = self.default
        lines: list[Any] = [lane.fresh, lane.cold, lane.late]
        for line in lines:
            at = bisect_right(line, sequence, key=first_of)
            for each in islice(line, max(at - 1, 0), None):
                if each.stop > sequence:
                    yield each

    def free_some(self, most: int, drop: Callable[[Item | ColdRun], object]) -> bool:
        """Take up to about `most` items out of lanes that are out of use, and `drop` them; True: nothing is left.

        A million objects freed at once would stop the loop for a tenth of a second.
        """
        while most > 0 and (self.default or self._keyed):
            lane = self.default or self._keyed.popitem()[1]
            self._turn.leave(lane)  # its links keep it, and it others
            if isinstance(lane, Span):
                lane = KeyLane.of(lane, self.index)
            most -= 1 + lane.free_some(most, drop)
            if lane and lane.key:
                self._keyed[lane.key] = lane
        return not self.default and not self._keyed

    def items(self) -> Iterator[Item]:
        """Yield everything that is ready, lane by lane."""
        yield from self.default.items()
        for lane in self._keyed.values():
            if isinstance(lane, Span):
                yield lane
            else:
                yield from lane.items()

    def _lane(self, key: str) -> Lane:
        if not key:
            return self.default
        lane = self._keyed.get(key)
        if lane is None:
            lane = self._keyed[key] = KeyLane(key, self.index)
        elif isinstance(lane, Span):
            alone, lane = lane, KeyLane.of(lane, self.index)
            self._keyed[key] = lane
            self._turn.replace(alone, lane)
        return lane
