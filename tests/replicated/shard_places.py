"""Where groups of queues are: what a name says, what a log says, and what a client has heard. Decision 83.

Nothing here knows a broker or a stream. A log is a row of items, each with a batch of the core, a statement about
the log or a group, or both; `Book` is what they come to, for whoever leads and for whoever follows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from hashlib import blake2b
from typing import Final

from minibrokerd.core.model.records import QueueMeta, decode
from minibrokerd.log.seam import Batch, Place, Record

MOST_SHARDS: Final = 64
RANGE_BITS: Final = 26  # queue numbers of one shard, of 32


def group_of(queue: str) -> str:
    """Return the group of a queue or an exchange: its name up to the first dot."""
    return queue.partition(".")[0]


def born_at(group: str, shards: Sequence[int]) -> int:
    """Return the shard of a group that was never moved, by rendezvous hashing."""
    return max(shards, key=lambda shard: blake2b(b"%s/%d" % (group.encode(), shard)).digest())


# -- what a log says --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Claim:
    """A broker leads."""


@dataclass(frozen=True, slots=True)
class Frozen:
    """A group is about to go to another shard, in the attempt of this name."""

    group: str
    version: int
    target: int
    attempt: int


@dataclass(frozen=True, slots=True)
class Thawed:
    """It stays after all."""

    group: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Moved:
    """It is gone; the batch beside this ends its queues."""

    group: str
    version: int
    target: int
    attempt: int


@dataclass(frozen=True, slots=True)
class Coming:
    """Copies, which are no messages yet. The first of an attempt forgets those that came before."""

    group: str
    attempt: int
    records: tuple[Record, ...]
    is_first: bool


@dataclass(frozen=True, slots=True)
class Complete:
    """That was all of an attempt: the copies know of no epoch above this one."""

    group: str
    version: int
    attempt: int
    source: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Here:
    """The copies of an attempt are messages from now on."""

    group: str
    version: int
    attempt: int


Statement = Claim | Frozen | Thawed | Moved | Coming | Complete | Here


@dataclass(frozen=True, slots=True)
class Item:
    """One append to a log."""

    says: Statement | None = None
    records: tuple[Record, ...] = ()
    now_ms: int = 0
    unix_ms: int = 0


class Is(Enum):
    """How a log has a group."""

    HERE = "here"
    FROZEN = "frozen"
    ELSEWHERE = "elsewhere"


@dataclass(frozen=True, slots=True)
class Entry:
    """What a log says of one group: `shard` is where it is, or where it shall go.

    `version` counts its moves; while it is frozen, those before this one.
    """

    state: Is
    version: int
    shard: int
    attempt: int = 0  # of FROZEN


@dataclass
class Arrival:
    """What a log has of a group that comes: of one attempt."""

    attempt: int
    records: list[Record] = field(default_factory=list)
    complete: Complete | None = None


class Book:
    """What the items of one log come to; `batches` are for the core, with copies where they become messages."""

    def __init__(self, shard: int, shards: Sequence[int]) -> None:
        self.shard = shard
        self.shards = shards
        self.epoch = shard
        self.batches: list[Batch] = []
        self.entries: dict[str, Entry] = {}
        self.arrivals: dict[str, Arrival] = {}
        self.next_number = self.first_number
        self.thawed: set[int] = set()  # attempts
        self.moved: set[int] = set()

    @property
    def first_number(self) -> int:
        """The first queue number of the log's own range."""
        return (self.shard << RANGE_BITS) + 1

    def where(self, group: str) -> Entry:
        """Return where a group is, as far as this log can tell."""
        known = self.entries.get(group)
        if known is not None:
            return known
        shard = born_at(group, self.shards)
        return Entry(Is.HERE if shard == self.shard else Is.ELSEWHERE, 0, shard)

    def read(self, item: Item) -> None:
        """Read on."""
        if item.says is not None:
            self._say(item.says)
        if item.now_ms:  # also without a record: the time of a log goes on where its last batch was
            self._batch(item.records, item.now_ms, item.unix_ms)
        if isinstance(item.says, Here):
            records = self.arrivals.pop(item.says.group).records
            self._batch(records, item.now_ms, item.unix_ms)

    def _batch(self, records: Iterable[Record], now_ms: int, unix_ms: int) -> None:
        number = len(self.batches) + 1
        batch = Batch(number, list(records), now_ms, unix_ms)
        batch.place = Place(number, 88)
        self.batches.append(batch)
        for record in batch.records:
            says = decode(record)
            if isinstance(says, QueueMeta) and says.number >> RANGE_BITS == self.shard:
                self.next_number = max(self.next_number, says.number + 1)

    def _say(self, says: Statement) -> None:
        if isinstance(says, Claim):
            self.epoch += MOST_SHARDS
        elif isinstance(says, Frozen):
            entry = Entry(Is.FROZEN, says.version - 1, says.target, says.attempt)
            self.entries[says.group] = entry
        elif isinstance(says, Thawed):
            self.thawed.add(says.attempt)
            version = self.entries[says.group].version
            self.entries[says.group] = Entry(Is.HERE, version, self.shard)
        elif isinstance(says, Moved):
            self.moved.add(says.attempt)
            self.entries[says.group] = Entry(Is.ELSEWHERE, says.version, says.target)
        elif isinstance(says, Coming):
            if says.is_first:
                self.arrivals[says.group] = Arrival(says.attempt)
            self.arrivals[says.group].records += says.records
        elif isinstance(says, Complete):
            self.arrivals[says.group].complete = says
        else:
            self._open(says)

    def _open(self, says: Here) -> None:
        complete = self.arrivals[says.group].complete
        self.entries[says.group] = Entry(Is.HERE, says.version, self.shard)
        # Tokens say which lease is newer, so those of here must be above those of the copies.
        while complete is not None and self.epoch <= complete.epoch:
            self.epoch += MOST_SHARDS
        self.epoch += MOST_SHARDS


# -- what a client has heard ------------------------------------------------------------------------


class Map:
    """Where a client thinks that groups are."""

    def __init__(self, shards: Sequence[int]) -> None:
        self._shards = shards
        self._heard: dict[str, tuple[int, int]] = {}  # version and shard

    def where(self, group: str) -> tuple[int, int]:
        """Return the version of a group, and its shard."""
        return self._heard.get(group) or (0, born_at(group, self._shards))

    def learn(self, group: str, version: int, shard: int) -> None:
        """Believe what is newer than what was heard before."""
        if version > self._heard.get(group, (0, 0))[0]:
            self._heard[group] = version, shard
