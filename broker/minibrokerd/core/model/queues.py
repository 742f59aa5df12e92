"""A queue: its number and name, its settings, its sequences, its records, and how many bytes it has.

What waits in it, who holds what, and who waits for more is the matter of its group (group.py).
"""

from __future__ import annotations

from typing import Final

from minibroker.contract.limits import DLQ_SUFFIX
from minibroker.contract.metrics import COUNTERS
from minibroker.contract.settings import DURABILITIES, Settings, default_settings
from minibrokerd.core.model.cold import ColdRun
from minibrokerd.core.model.group import Group
from minibrokerd.core.model.lanes import Lanes
from minibrokerd.core.model.lifetimes import forget
from minibrokerd.core.model.messages import NEVER, Block, key_in
from minibrokerd.core.model.priorities import PriorityLanes
from minibrokerd.core.model.records import QueueMeta
from minibrokerd.core.model.sums import Sums
from minibrokerd.core.model.unique_keys import UniqueKeys

RESERVE_STEP: Final = 2**20  # sequences reserved by one record
DEFAULTS: Final = default_settings()  # shared by all queues that have no settings of their own


class Queue:
    """One queue; the core changes it, nobody else."""

    __slots__ = (
        "chosen",
        "cold_bytes",
        "durability",
        "group",
        "home",
        "is_limited",
        "last_batch",
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
        "unique",
    )

    def __init__(
        self, number: int, name: str, home: int, settings: Settings, sums: Sums | None = None
    ) -> None:
        """`sums` are those of all queues that this one is counted in."""
        self.sums = sums if sums is not None else Sums()
        self.group = Group(self)
        self.number = number
        self.name = name
        self.home = home
        self.configure(settings)
        # What somebody set or declared; None: nobody said how it is to be, it just came by its use.
        self.chosen: Settings | None = None
        self.next_sequence = 0
        self.reserved_until = 0
        self.reserve_batch = 0  # the batch of the newest reservation: ids rest on it
        self.record_batch = 0  # the batch of the newest record of its settings
        self.stands = -1  # the batch under which its records are noted; -1: they are not
        self.live_bytes = 0  # of the log that its messages keep in use, about
        self.cold_bytes = 0  # of these, those of messages that left memory
        self.memory_bytes = 0  # of messages that are in no log
        self.last_batch = 0  # the newest batch that changed what this queue shows
        self.unique: UniqueKeys | None = None  # those that its messages hold

    @property
    def is_dlq(self) -> bool:
        """Whether this is the dead-letter queue of another queue."""
        return self.name.endswith(DLQ_SUFFIX)

    @property
    def max_bytes(self) -> int:
        """The setting of this name; it is only asked for where there are limits."""
        return self.setting("max_bytes")

    def setting(self, name: str) -> int:
        """Return an integer setting."""
        value = self.settings[name]
        assert isinstance(value, int), name
        return value

    def configure(self, settings: Settings) -> None:
        """Have these settings, and the defaults of those that are not named."""
        # Of a log that was written before a setting existed, that has its default; of nearly all queues all have.
        if settings is not DEFAULTS:
            settings = DEFAULTS if settings.items() <= DEFAULTS.items() else DEFAULTS | settings
        self.take(settings)

    def take(self, settings: Settings) -> None:
        """Have these settings, which are all; they are never changed in place, for they may be shared.

        What each publish asks stands beside them: `durability`, an index of `DURABILITIES`, and limits.
        """
        self.settings = settings
        self.durability = DURABILITIES.index(str(settings["durability"]))
        self.max_messages = self.setting("max_messages")
        # A log, or a group of one: what is published to it is looked at, too.
        is_retained = self.group.retained is not None
        self.is_limited = is_retained or bool(self.max_messages or self.max_bytes)

    def own(self) -> Settings:
        """Return what it has whatever policies say: what was chosen; a DLQ has the durability of its source."""
        own, durability = self.chosen or {}, self.settings["durability"]
        if self.is_dlq and durability != own.get("durability", DEFAULTS["durability"]):
            own = own | {"durability": durability}
        return own

    def record(self) -> QueueMeta:
        """Return its record: its own settings, and with them the defaults of all others.

        If nobody chose any, it has what it must have. What policies say is in no record of a queue.
        """
        settings, chosen = {"durability": DEFAULTS["durability"]} | self.own(), None
        if self.chosen is not None:
            settings, chosen = DEFAULTS | settings, list(self.chosen)
        return QueueMeta(self.number, self.name, self.home, settings, chosen)

    def restore(self, settings: Settings, chosen: list[str] | None) -> None:
        """Take what a record of it has; `chosen` is None in one of an older version, which filled in the rest."""
        if settings.keys() > {"durability"}:
            if chosen is None:
                chosen = [name for name, value in settings.items() if value != DEFAULTS.get(name)]
            self.chosen = {name: settings[name] for name in chosen}
        elif self.settings is DEFAULTS and settings.items() <= DEFAULTS.items():
            return  # as nearly all
        self.configure(self.settings | settings)

    def count(self) -> int:
        """Return the messages that have not ended, in every state."""
        return self.group.count()

    @property
    def log_bytes(self) -> int:
        """About how many bytes its messages keep in use, of the log or of memory."""
        return self.live_bytes + self.memory_bytes

    @property
    def hot_bytes(self) -> int:
        """About how many bytes its messages take of memory."""
        return self.live_bytes + self.memory_bytes - self.cold_bytes

    def count_in(self, block: Block, first: int, stop: int) -> None:
        """Count the bytes of messages that are here now, in memory; they hold their unique keys."""
        if block.uniques is not None:
            if self.unique is None:
                self.unique = UniqueKeys(self.home, self.sums)
            self.unique.hold(block, first, stop)
        extent = block.extent
        if not extent.refs:
            self.sums.held_bytes += extent.size
        extent.refs += stop - first
        cost = block.cost(first, stop)
        if block.batch == NEVER:
            self.memory_bytes += cost
            self.sums.memory_bytes += cost
        else:
            self.live_bytes += cost
            self.sums.live_bytes += cost
        if cost + self.live_bytes + self.memory_bytes > self.sums.large_bytes:
            self.sums.large.setdefault(self)

    def count_out(self, block: Block, first: int, stop: int) -> None:
        """Count the bytes of messages that are here no more; they hold their unique keys no more."""
        if block.uniques is not None and self.unique is not None:
            self.unique.let_go(block, first, stop)
        extent = block.extent
        extent.refs -= stop - first
        if not extent.refs:
            self.sums.held_bytes -= extent.size
            if self.sums.lifetimes:
                forget(self.sums.lifetimes, block)
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
        if self.max_bytes and self.log_bytes > self.max_bytes:
            return False
        return not self.max_messages or self.count() + count <= self.max_messages

    def is_calm(self, percent: int) -> bool:
        """Whether not more than so much of its limits is used."""
        count, size = self.count() * 100, self.log_bytes * 100
        return (not self.max_messages or count <= self.max_messages * percent) and (
            not self.max_bytes or size <= self.max_bytes * percent
        )

    def empty(self) -> Lanes | PriorityLanes:
        """Forget every message and return the old lanes, to be freed in steps."""
        sums = self.sums
        sums.live_bytes -= self.live_bytes
        sums.cold_bytes -= self.cold_bytes
        sums.memory_bytes -= self.memory_bytes
        self.live_bytes = self.cold_bytes = self.memory_bytes = 0
        sums.large.pop(self, None)
        if self.unique is not None:
            self.unique.clear()
        return self.group.empty()

    def key_of(self, origin: int, sequence: int) -> int:
        """Return the key of a message id inside this queue."""
        return key_in(self.home, origin, sequence)

    def statistics(self) -> dict[str, int]:
        """Return the value of every row of the metrics table."""
        group = self.group
        return {
            "ready": group.lanes.ready + group.entering,
            "delayed": group.delayed_count,
            "held": group.held,
            "begun": group.begun,
            "consumers": group.consumer_count,
            "dead_waiting": len(group.doomed or ()),
            **{name: group.counters.get(name, 0) for name in COUNTERS},
        }
