"""A group of a queue: what waits in it, who holds what, who waits for more, and what was counted.

A queue has one. There may be very many queues that have nothing. What only messages and consumers need
is made when they come, and given back some time after they went (`Store.rest_later`): then a queue costs less than
a KiB.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, NoReturn

from minibrokerd.core.model.cold import ColdRun
from minibrokerd.core.model.deliveries import Consumer, Delivery
from minibrokerd.core.model.lanes import Lanes
from minibrokerd.core.model.later import NO_LATER, Later
from minibrokerd.core.model.messages import NO_TERMS, Item, Message, Span, State
from minibrokerd.core.model.no_lanes import NO_LANES
from minibrokerd.core.model.priorities import PriorityLanes
from minibrokerd.core.model.sheaf import Sheaf
from minibrokerd.core.model.wheel import Timer

if TYPE_CHECKING:
    from minibrokerd.core.model.circuits import Circuit
    from minibrokerd.core.model.key_circuits import KeyCircuits
    from minibrokerd.core.model.key_times import KeyTimes
    from minibrokerd.core.model.keys import Keys
    from minibrokerd.core.model.queues import Queue
    from minibrokerd.core.model.recalls import Recall
    from minibrokerd.core.model.retained import Feeder, RetainedLog
    from minibrokerd.core.model.single import Single
    from minibrokerd.core.model.times import Times


class _Nothing(dict[Any, Any]):
    """What a queue at rest has, shared by all of them: it stays empty."""

    def __setitem__(self, key: object, value: object) -> NoReturn:
        raise AssertionError("a queue at rest was given a message")


NOTHING: Final = _Nothing()


class Group:
    """The messages of a queue as one set of consumers sees them; the core changes it, nobody else."""

    __slots__ = (
        "begun",
        "circuit",
        "consumer_count",
        "consumers",
        "counters",
        "delayed",
        "delayed_count",
        "deliveries",
        "dirty",
        "doomed",
        "entering",
        "held",
        "idle",
        "key_times",
        "keys",
        "lanes",
        "later",
        "max_wait_ms",
        "paused",
        "queue",
        "recall",
        "retained",
        "times",
    )

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.lanes: Lanes | PriorityLanes = NO_LANES
        self.keys: Keys | None = None  # where the settings limit them
        self.delayed: dict[Timer, Item | Sheaf] = NOTHING
        self.later = NO_LATER  # the delayed ones by their ids
        self.delayed_count = 0
        # The delayed ones that wait for room in the DLQ.
        self.doomed: dict[Timer, Message] | None = None
        self.deliveries: dict[int, Delivery] = NOTHING
        self.held = 0
        self.begun = 0
        self.entering = 0  # published, not yet synced
        self.consumer_count = 0
        # Those that can take something now, in line. Each can leave from any place in it at no cost.
        self.consumers: OrderedDict[Consumer, None] | None = None
        self.paused = False  # hands nothing out, as somebody wants it
        self.dirty = False  # waits for a dispatch at the end of the apply
        self.max_wait_ms = 0  # for so long something waits behind higher priorities; 0: for ever
        self.circuit: Circuit | None = None  # where the settings want one
        self.recall: Recall | None = None  # while somebody waits, and others hold something
        self.times: Times | None = None  # of what was begun or done of late
        self.key_times: KeyTimes | None = None  # the same by groups of keys, where wanted
        # Of a retained log, or of a group of one (retained.py); None: it is a work queue.
        self.retained: RetainedLog | Feeder | None = None
        self.idle = False  # waits to be looked at: it may be at rest soon
        self.counters: defaultdict[str, int] = defaultdict(int)  # those of COUNTERS that are not 0

    def wake(self) -> None:
        """Make what messages need, before the first one comes."""
        if self.lanes is NO_LANES:
            queue = self.queue
            standing = queue.sums.standing
            self.lanes = Lanes(queue.home, standing, queue)
            self.lanes.keys = self.keys
            if self.max_wait_ms:
                self.lanes.use_ages()
            self.later = Later(queue.home, standing, queue)
            self.delayed, self.deliveries = {}, {}

    def use_keys(self, keys: Keys | None) -> None:
        """Let its lanes ask this which keys are open; None: all are."""
        self.keys = keys
        if self.lanes is not NO_LANES:
            for lanes in self.lanes.levels:
                lanes.keys = keys

    def rest(self) -> None:
        """Give back what is not needed now."""
        if not self.count() and not (self.delayed or self.deliveries or self.lanes.has_any()):
            self.lanes.leave()
            self.lanes, self.delayed, self.deliveries = NO_LANES, NOTHING, NOTHING
            self.later = NO_LATER
        if not self.consumer_count:
            self.consumers = None

    def enter(self, span: Span) -> None:
        """Append a fresh span to its lane."""
        if self.lanes is NO_LANES:
            self.wake()
        if span.block.terms is not NO_TERMS:
            self._rank(span)
        self.lanes.enter(span)

    def enter_cold(self, run: ColdRun) -> None:
        """Append a run of messages that are not in memory."""
        self.wake()
        self.lanes.enter_cold(run)

    def put_back(self, item: Item) -> None:
        """Put what came back to its place in its lane."""
        if self.lanes is NO_LANES:
            self.wake()
        if item.block.terms is not NO_TERMS:
            self._rank(item)
        self.lanes.put_back(item)

    def put_all_back(self, messages: Sequence[Message]) -> None:
        """Put messages that came back to their places in their lanes."""
        if self.lanes is NO_LANES:
            self.wake()
        for message in messages:
            if message.block.terms is not NO_TERMS:
                self._rank(message)
        self.lanes.put_all_back(messages)

    def _rank(self, item: Item) -> None:
        """Have lanes for each priority, where an item comes in that has one."""
        if item.block.terms.priority and isinstance(self.lanes, Lanes):
            self.lanes = PriorityLanes(self.lanes)

    def has_some_to_hand_out(self) -> bool:
        """Whether something is ready, and not kept by its closed key, a rate, or a pause of the queue."""
        if self.circuit is not None and self.circuit.state:
            return False  # nothing, or one at a time
        if self.paused or not self.lanes.turns:
            return False
        return self.keys is None or self.keys.queue_room(1) > 0

    @property
    def key_circuits(self) -> KeyCircuits | None:
        """The circuits of its keys; None: its settings want none."""
        return self.keys.circuits if self.keys is not None else None

    @property
    def single(self) -> Single | None:
        """Whose turn it is, where one consumer at a time takes from it; few queues have that, and room for it."""
        return self.queue.sums.singles.get(self)

    def stand_in_line(self, consumer: Consumer) -> None:
        """Let a consumer have its turn."""
        if self.queue.sums.singles and self.single is not None and not self.single.admits(consumer):
            return
        consumer.waiting = True
        if self.consumers is None:
            self.consumers = OrderedDict()
        self.consumers[consumer] = None

    def leave_line(self, consumer: Consumer) -> None:
        """Take a consumer out of the line, if it stands there."""
        single = self.single if self.queue.sums.singles else None
        if single is not None and single.leave(consumer):
            return
        if consumer.waiting and self.consumers is not None:
            consumer.waiting = False
            del self.consumers[consumer]
        self.consumers = self.consumers or None

    def count(self) -> int:
        """Return the messages that have not ended, in every state."""
        return self.lanes.ready + self.delayed_count + self.held + self.begun + self.entering

    def backlog(self) -> int:
        """Return how many messages wait to be begun, held ones too; not those that wait for their time."""
        return self.lanes.ready + self.entering + self.held

    def delay(self, timer: Timer, item: Item) -> None:
        """Enter an item among the delayed ones, under its timer."""
        self.wake()
        self.delayed[timer] = item
        self.later.add(item)
        if self.keys is not None:
            self.keys.waits(item)

    def delay_sheaf(self, sheaf: Sheaf) -> None:
        """Enter a sheaf among the delayed ones; limits of keys are of none in it, for those have no history."""
        self.wake()
        self.delayed[sheaf.timer] = sheaf
        self.later.add_sheaf(sheaf)

    def undelay_sheaf(self, sheaf: Sheaf) -> None:
        """Take out a sheaf."""
        del self.delayed[sheaf.timer]
        self.later.discard_sheaf(sheaf)

    def undelay(self, timer: Timer, item: Item) -> bool:
        """Take out an item that waits under `timer`; return whether nothing waits under that any more."""
        there = self.delayed[timer]
        if isinstance(there, Sheaf):
            assert isinstance(item, Span), "what is in a sheaf has no history"
            there.cross_out(item)
            if not there.left:
                self.undelay_sheaf(there)
            return not there.left
        del self.delayed[timer]
        self.later.discard(item)
        if self.doomed is not None:
            self.doomed.pop(timer, None)
        if self.keys is not None:
            self.keys.left(item)
        return True

    def items(self) -> Iterator[tuple[State, Item]]:
        """Yield everything that has not ended with its state: ready, delayed, then held and begun."""
        for item in self.lanes.items():
            yield State.READY, item
        yield from self.moved_items()

    def moved_items(self) -> Iterator[tuple[State, Item]]:
        """Yield what is not ready, with its state: delayed, then held and begun."""
        for item in self.delayed.values():
            for each in item.spans() if isinstance(item, Sheaf) else (item,):
                yield State.DELAYED, each
        for delivery in self.deliveries.values():
            for span in delivery.spans.values():
                yield State.HELD, span
            for message in delivery.singles.values():
                yield message.state, message

    def empty(self) -> Lanes | PriorityLanes:
        """Forget every message and return the old lanes, to be freed in steps."""
        old, self.lanes = self.lanes, NO_LANES
        old.leave()
        self.later.leave()
        self.delayed, self.deliveries, self.doomed = NOTHING, NOTHING, None
        self.later = NO_LATER
        self.delayed_count = self.held = self.begun = self.entering = 0
        if self.keys is not None:
            self.keys.forget_messages()
        return old
