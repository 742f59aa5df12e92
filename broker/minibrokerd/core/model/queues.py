"""A queue: its settings, what waits in it, who holds what, who waits for more.

There may be very many queues that have nothing. What only messages and consumers need is made when they come, and
given back some time after they went (`Store.rest_later`): then a queue costs less than a KiB.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, Final, NoReturn

from minibroker.contract.limits import DLQ_SUFFIX
from minibroker.contract.metrics import COUNTERS
from minibroker.contract.settings import DURABILITIES, Settings, default_settings
from minibrokerd.core.model.cold import ColdRun
from minibrokerd.core.model.deliveries import Consumer, Delivery
from minibrokerd.core.model.index import Index
from minibrokerd.core.model.lanes import NO_LANES, Lanes
from minibrokerd.core.model.messages import NEVER, Block, Item, Message, Span, State, key_in
from minibrokerd.core.model.sums import Sums
from minibrokerd.core.model.wheel import Timer

RESERVE_STEP: Final = 2**20  # sequences reserved by one record
DEFAULTS: Final = default_settings()  # shared by all queues that have no settings of their own


class _Nothing(dict[Any, Any]):
    """What a queue at rest has, shared by all of them: it stays empty."""

    def __setitem__(self, key: object, value: object) -> NoReturn:
        raise AssertionError("a queue at rest was given a message")


NOTHING: Final = _Nothing()


class Queue:
    """One queue; the core changes it, nobody else."""

    __slots__ = (
        "begun",
        "cold_bytes",
        "consumer_count",
        "consumers",
        "counters",
        "delayed",
        "delayed_count",
        "deliveries",
        "dirty",
        "doomed",
        "durability",
        "entering",
        "held",
        "home",
        "idle",
        "lanes",
        "last_batch",
        "later",
        "live_bytes",
        "max_messages",
        "memory_bytes",
        "name",
        "next_sequence",
        "number",
        "record_batch",
        "reserve_batch",
        "reserved_until",
        "settings",
        "stands",
        "sums",
    )

    def __init__(
        self, number: int, name: str, home: int, settings: Settings, sums: Sums | None = None
    ) -> None:
        """`sums` are those of all queues that this one is counted in."""
        self.sums = sums if sums is not None else Sums()
        self.number = number
        self.name = name
        self.home = home
        self.configure(settings)
        self.next_sequence = 0
        self.reserved_until = 0
        self.reserve_batch = 0  # the batch of the newest reservation: ids rest on it
        self.record_batch = 0  # the batch of the newest record of its settings
        self.stands = -1  # the batch under which its records are noted; -1: they are not
        self.live_bytes = 0  # of the log that its messages keep in use, about
        self.cold_bytes = 0  # of these, those of messages that left memory
        self.memory_bytes = 0  # of messages that are in no log
        self.last_batch = 0  # the newest batch that changed what this queue shows
        self.lanes = NO_LANES
        self.delayed: dict[Timer, Item] = NOTHING
        self.later = NO_LANES.index  # the delayed ones by their ids
        self.delayed_count = 0
        self.doomed: dict[Timer, Any] | None = (
            None  # the delayed ones that wait for room in the DLQ
        )
        self.deliveries: dict[int, Delivery] = NOTHING
        self.held = 0
        self.begun = 0
        self.entering = 0  # published, not yet synced
        self.consumer_count = 0
        # Those that can take something now, in line. Each can leave from any place in it at no cost.
        self.consumers: OrderedDict[Consumer, None] | None = None
        self.dirty = False  # waits for a dispatch at the end of the apply
        self.idle = False  # waits to be looked at: it may be at rest soon
        self.counters: defaultdict[str, int] = defaultdict(int)  # those of COUNTERS that are not 0

    @property
    def is_dlq(self) -> bool:
        """Whether this is the dead-letter queue of another queue."""
        return self.name.endswith(DLQ_SUFFIX)

    def setting(self, name: str) -> int:
        """Return an integer setting."""
        value = self.settings[name]
        assert isinstance(value, int), name
        return value

    def configure(self, settings: Settings) -> None:
        """Take other settings; they are never changed in place, for they may be shared.

        What each publish asks stands beside them: `durability`, an index of `DURABILITIES`, and `max_messages`.
        """
        if settings is not DEFAULTS:
            # Of a log that was written before a setting existed, that has its default.
            full = DEFAULTS | settings
            settings = DEFAULTS if full == DEFAULTS else full
        self.settings = settings
        self.durability = DURABILITIES.index(str(settings["durability"]))
        self.max_messages = self.setting("max_messages")

    def wake(self) -> None:
        """Make what messages need, before the first one comes."""
        if self.lanes is NO_LANES:
            standing = self.sums.standing
            self.lanes = Lanes(self.home, standing, self)
            self.later = Index(self.home, standing, self)
            self.delayed, self.deliveries = {}, {}

    def rest(self) -> None:
        """Give back what is not needed now."""
        if not self.count() and not (self.delayed or self.deliveries or self.lanes.default):
            self.lanes.leave()
            self.lanes, self.delayed, self.deliveries = NO_LANES, NOTHING, NOTHING
            self.later = NO_LANES.index
        if not self.consumer_count:
            self.consumers = None

    def enter(self, span: Span) -> None:
        """Append a fresh span to its lane."""
        if self.lanes is NO_LANES:
            self.wake()
        self.lanes.enter(span)

    def enter_cold(self, run: ColdRun) -> None:
        """Append a run of messages that are not in memory."""
        self.wake()
        self.lanes.enter_cold(run)

    def put_back(self, item: Item) -> None:
        """Put what came back to its place in its lane."""
        if self.lanes is NO_LANES:
            self.wake()
        self.lanes.put_back(item)

    def put_all_back(self, messages: Sequence[Message]) -> None:
        """Put messages that came back to their places in their lanes."""
        if self.lanes is NO_LANES:
            self.wake()
        self.lanes.put_all_back(messages)

    def stand_in_line(self, consumer: Consumer) -> None:
        """Let a consumer have its turn."""
        consumer.waiting = True
        if self.consumers is None:
            self.consumers = OrderedDict()
        self.consumers[consumer] = None

    def leave_line(self, consumer: Consumer) -> None:
        """Take a consumer out of the line, if it stands there."""
        if consumer.waiting and self.consumers is not None:
            consumer.waiting = False
            del self.consumers[consumer]
        self.consumers = self.consumers or None

    def count(self) -> int:
        """Return the messages that have not ended, in every state."""
        return self.lanes.ready + self.delayed_count + self.held + self.begun + self.entering

    @property
    def log_bytes(self) -> int:
        """About how many bytes its messages keep in use, of the log or of memory."""
        return self.live_bytes + self.memory_bytes

    @property
    def hot_bytes(self) -> int:
        """About how many bytes its messages take of memory."""
        return self.live_bytes + self.memory_bytes - self.cold_bytes

    def count_in(self, block: Block, first: int, stop: int) -> None:
        """Count the bytes of messages that are here now."""
        cost = block.cost(first, stop)
        if block.batch == NEVER:
            self.memory_bytes += cost
            self.sums.memory_bytes += cost
        else:
            self.live_bytes += cost
            self.sums.live_bytes += cost
        if cost + self.live_bytes + self.memory_bytes > self.sums.large_bytes:
            self.sums.large[self] = None

    def count_out(self, block: Block, first: int, stop: int) -> None:
        """Count the bytes of messages that are here no more."""
        cost = block.cost(first, stop)
        if block.batch == NEVER:
            self.memory_bytes -= cost
            self.sums.memory_bytes -= cost
        else:
            self.live_bytes -= cost
            self.sums.live_bytes -= cost

    def count_run(self, run: ColdRun) -> None:
        """Count the bytes of messages that are here now, and not in memory."""
        for each in (self, self.sums):
            each.live_bytes += run.cost
            each.cold_bytes += run.cost

    def count_run_out(self, cost: int) -> None:
        """Count so many bytes less of messages that are not in memory: they ended, or were read back."""
        for each in (self, self.sums):
            each.live_bytes -= cost
            each.cold_bytes -= cost

    def count_cold(self, cost: int) -> None:
        """Count the bytes of messages that are here as those of messages that left memory."""
        self.cold_bytes += cost
        self.sums.cold_bytes += cost

    def has_room(self, count: int = 1) -> bool:
        """Whether its settings allow so many messages more."""
        return not self.max_messages or self.count() + count <= self.max_messages

    def delay(self, timer: Timer, item: Item) -> None:
        """Count `item` as DELAYED under a timer that the caller arms."""
        self.wake()
        self.delayed[timer] = item
        item.timer = timer
        self.later.add(item)
        self.delayed_count += item.stop - item.first

    def undelay(self, timer: Timer) -> Item | None:
        """Take out what waits under `timer`; None if it left by another way."""
        item = self.delayed.pop(timer, None)
        if item is not None:
            self.delayed_count -= item.stop - item.first
            self.later.discard(item)
            if self.doomed is not None:
                self.doomed.pop(timer, None)
        return item

    def items(self) -> Iterator[tuple[State, Item]]:
        """Yield everything that has not ended with its state: ready, delayed, then held and begun."""
        for item in self.lanes.items():
            yield State.READY, item
        yield from self.moved_items()

    def moved_items(self) -> Iterator[tuple[State, Item]]:
        """Yield what is not ready, with its state: delayed, then held and begun."""
        for item in self.delayed.values():
            yield State.DELAYED, item
        for delivery in self.deliveries.values():
            for span in delivery.spans.values():
                yield State.HELD, span
            for message in delivery.singles.values():
                yield message.state, message

    def empty(self) -> Lanes:
        """Forget every message and return the old lanes, to be freed in steps."""
        old, self.lanes = self.lanes, NO_LANES
        old.leave()
        self.later.queue = None
        self.delayed, self.deliveries, self.doomed = NOTHING, NOTHING, None
        self.later = NO_LANES.index
        self.delayed_count = self.held = self.begun = self.entering = 0
        sums = self.sums
        sums.live_bytes -= self.live_bytes
        sums.cold_bytes -= self.cold_bytes
        sums.memory_bytes -= self.memory_bytes
        self.live_bytes = self.cold_bytes = self.memory_bytes = 0
        sums.large.pop(self, None)
        return old

    def key_of(self, origin: int, sequence: int) -> int:
        """Return the key of a message id inside this queue."""
        return key_in(self.home, origin, sequence)

    def statistics(self) -> dict[str, int]:
        """Return the value of every row of the metrics table."""
        return {
            "ready": self.lanes.ready + self.entering,
            "delayed": self.delayed_count,
            "held": self.held,
            "begun": self.begun,
            "consumers": self.consumer_count,
            "dead_waiting": len(self.doomed or ()),
            **{name: self.counters.get(name, 0) for name in COUNTERS},
        }
