"""What the core knows of messages: blocks as they were published, spans and single messages of them.

A block is the messages of one publish; it never changes. What waits or is held is a `Span` of a block as long
as its messages have no history of their own (the fast path: one object for thousands), and a `Message`
for each one that was begun, nacked, delayed on its own, or moved. Both answer to the same names, so lanes
and deliveries treat them alike: `first`, `stop`, `ready_at_ms`, `token`, `batch`, `marked`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from enum import IntEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from minibroker.contract import limits
from minibrokerd.core.model.extents import Extent, Sizes
from minibrokerd.core.model.footprints import MESSAGE_OBJECT_BYTES, SPAN_OBJECT_BYTES
from minibrokerd.core.model.records import AttemptMeta
from minibrokerd.core.model.wheel import Timer

if TYPE_CHECKING:
    from minibrokerd.core.model.deliveries import Delivery

# Where `attempts` counts each charged cause: failed, expired, worker_lost. A reject is a failure that is final.
CAUSES: Final = {"failed": 0, "rejected": 0, "expired": 1, "worker_lost": 2}
MEMORY: Final = 2  # index of the durability in minibroker.contract.settings.DURABILITIES
LAZY: Final = 1
SYNC: Final = 0
NEVER: Final = 2**62  # the batch of what is in no log
MESSAGE_BYTES: Final = 48  # what a message costs the log beside its bytes, about
FRAME_BYTES: Final = 120  # what the frame costs in which it was published, about


class State(IntEnum):
    """Where a message that has not ended stands."""

    READY = 0
    DELAYED = 1
    HELD = 2
    BEGUN = 3


# For hot paths: the interpreter looks up a member of an enumeration ten times as long as a global name.
READY, DELAYED, HELD, BEGUN = State


class Terms(NamedTuple):
    """What the publisher of messages asked for instead of the settings of the queue; 0: nothing, those hold."""

    max_attempts: int
    lease_ms: int
    priority: int
    ttl_ms: int

    def differ(self, other: Terms) -> bool:
        """Whether messages of these terms may not be in one delivery: it says once what holds for all of it."""
        return self[:2] != other[:2]


NO_TERMS: Final = Terms(0, 0, 0, 0)  # of nearly all messages: this one object
# Those of many publishes are alike, and share one object.
_known_terms: Final = lru_cache(1_000)(Terms)


def terms(max_attempts: int, lease_ms: int, priority: int, ttl_ms: int) -> Terms:
    """Return terms; `NO_TERMS` itself if they ask for nothing."""
    if max_attempts or lease_ms or priority or ttl_ms:
        return _known_terms(max_attempts, lease_ms, priority, ttl_ms)
    return NO_TERMS


class Block:
    """The messages of one publish: `count` consecutive sequences of the queue `origin`.

    `extent` has their bytes, `batch` the record that they stand in; `size` and `starts` are its `Sizes`. `uniques`
    are the unique keys, one for each message, empty for none; None: nobody has one.
    """

    __slots__ = (
        "batch",
        "count",
        "durability",
        "encoding",
        "encodings",
        "epoch",
        "extent",
        "first",
        "origin",
        "ready_at_ms",
        "size",
        "starts",
        "terms",
        "uniques",
        "unix_ms",
    )

    def __init__(
        self,
        origin: int,
        first: int,
        count: int,
        extent: Extent,
        sizes: Sizes,
        encoding: int,
        encodings: bytes | None,
        durability: int,
        epoch: int,
        unix_ms: int,
        ready_at_ms: int,
        batch: int,
        terms: Terms = NO_TERMS,
        uniques: list[str] | None = None,
    ) -> None:
        self.terms = terms
        self.uniques = uniques
        self.batch = batch if durability != MEMORY else NEVER
        self.origin = origin
        self.first = first
        self.count = count
        self.extent = extent
        self.size, self.starts = sizes
        self.encoding = encoding
        self.encodings = encodings
        self.durability = durability
        self.epoch = epoch
        self.unix_ms = unix_ms
        self.ready_at_ms = ready_at_ms

    def bytes_of(self, first: int, stop: int) -> int:
        """Return the bytes of headers and bodies of the messages with these sequences."""
        if self.starts is None:
            return self.size * (stop - first)
        return self.starts[stop - self.first] - self.starts[first - self.first]

    def part(self, first: int, stop: int, columns: bytes = b"") -> Extent:
        """Return the bytes of some of its messages as an extent of their own."""
        low, start = first - self.first, self.bytes_of(self.first, first)
        size = self.bytes_of(first, stop)
        return self.extent.part(low, stop - self.first, start, start + size, columns)

    def parts(self, spans: Sequence[Span], columns: bytes = b"") -> Extent:
        """As `part`, for ascending spans of this block; messages between two of them have no bytes there."""
        first = self.first
        pieces = []
        for span in spans:
            start = self.bytes_of(first, span.first)
            stop = start + self.bytes_of(span.first, span.stop)
            pieces.append((span.first - first, span.stop - first, start, stop))
        return self.extent.parts(pieces, columns)

    def cost(self, first: int, stop: int) -> int:
        """Return about how many bytes these messages keep in use, of the log and of memory."""
        each = MESSAGE_BYTES + FRAME_BYTES // self.count
        if self.starts is None:
            return (self.size + each) * (stop - first)
        return self.bytes_of(first, stop) + each * (stop - first)

    def encoding_of(self, sequence: int) -> int:
        """Return the body encoding of one message."""
        return self.encoding if self.encodings is None else self.encodings[sequence - self.first]


class Span:
    """Consecutive messages of a block, `first` up to but not including `stop`, none with a history."""

    __slots__ = (
        "batch",
        "before",
        "behind",
        "block",
        "first",
        "key",
        "marked",
        "ready_at_ms",
        "releases",
        "stop",
        "timer",
        "token",
    )
    memory_bytes: Final = SPAN_OBJECT_BYTES
    timer: Timer  # only while it is DELAYED: most spans never are
    before: Any  # only while it waits alone for its key (turn.py)
    behind: Any

    def __init__(self, block: Block, first: int, stop: int, key: str, ready_at_ms: int) -> None:
        self.block = block
        self.first = first
        self.stop = stop
        self.key = key
        self.ready_at_ms = ready_at_ms
        self.releases = 0
        self.marked = False
        self.token = 0  # of the last delivery
        self.batch = 0  # a delivery rests on this batch; 0: on nothing

    def __lt__(self, other: Item) -> bool:
        """Two entries of one place in a heap are as good as each other."""
        return False

    def cut(self, sequence: int) -> Span:
        """Keep what is below `sequence` and return the rest as a span of its own."""
        rest = Span(self.block, sequence, self.stop, self.key, self.ready_at_ms)
        rest.releases, rest.marked = self.releases, self.marked
        rest.token, rest.batch = self.token, self.batch
        self.stop = sequence
        return rest

    @property
    def charged(self) -> int:
        """Attempts counted so far: none, by definition of a span."""
        return 0


class Message:
    """One message with a history of its own.

    `attempts` counts by cause (failed, expired, worker_lost). `ended_token` is the highest token that was
    ended on it. `delivery` is set while it is HELD or BEGUN, `timer` while a lease or a delay runs.
    """

    memory_bytes: Final = MESSAGE_OBJECT_BYTES
    __slots__ = (
        "attempts",
        "batch",
        "block",
        "dead",
        "delivery",
        "dropped",
        "ended_token",
        "history",
        "key",
        "lease_ms",
        "marked",
        "ready_at_ms",
        "redriven",
        "releases",
        "sequence",
        "started_unix_ms",
        "state",
        "timer",
        "token",
    )

    def __init__(self, block: Block, sequence: int, key: str, ready_at_ms: int) -> None:
        self.block = block
        self.sequence = sequence
        self.key = key
        self.ready_at_ms = ready_at_ms
        self.state = READY
        self.attempts = (0, 0, 0)
        self.releases = 0
        self.redriven = 0
        self.marked = False
        self.dead = False  # its last attempt is over; it waits for room in the DLQ
        self.token = 0
        self.ended_token = 0
        self.batch = 0
        self.history: tuple[AttemptMeta, ...] = ()
        self.dropped = 0  # attempts left out of the middle of the history
        self.delivery: Delivery | None = None
        self.timer: Timer | None = None
        self.lease_ms = 0
        self.started_unix_ms = 0

    def __lt__(self, other: Item) -> bool:
        """As that of a span."""
        return False

    @classmethod
    def of(cls, span: Span, sequence: int) -> Message:
        """Return the message of a span as one of its own; the caller takes it out of the span."""
        message = cls(span.block, sequence, span.key, span.ready_at_ms)
        message.releases = span.releases
        message.marked = span.marked
        message.token = span.token
        message.batch = span.batch
        return message

    @property
    def first(self) -> int:
        """The sequence, under the name that a span has for it."""
        return self.sequence

    @property
    def stop(self) -> int:
        """One behind the sequence, under the name that a span has for it."""
        return self.sequence + 1

    @property
    def charged(self) -> int:
        """Attempts counted so far, over all causes."""
        return sum(self.attempts)

    def add_history(self, entry: AttemptMeta) -> None:
        """Append one attempt; keeps the first and the last five and bounds the error texts."""
        history = (*self.history, entry)
        if len(history) > limits.HISTORY_FIRST + limits.HISTORY_LAST:
            history = history[: limits.HISTORY_FIRST] + history[-limits.HISTORY_LAST :]
            self.dropped += 1
        self.history = history


Item = Span | Message


def is_dead(item: Item | None) -> bool:
    """Return whether an item is dead, and waits for room in its DLQ."""
    return isinstance(item, Message) and item.dead


def singles_of(item: Item) -> Iterator[Message]:
    """Yield the messages of an item, each as one of its own; the caller has taken the item out of its queue."""
    if isinstance(item, Message):
        yield item
    else:
        for sequence in range(item.first, item.stop):
            yield Message.of(item, sequence)


def runs_of(
    messages: Sequence[Message], share: Callable[[Message, Message], bool]
) -> Iterator[Sequence[Message]]:
    """Yield runs of consecutive messages for one record each: neighbours `share` what it says."""
    start = 0
    for at in range(1, len(messages) + 1):
        if at < len(messages):
            one, next = messages[at - 1], messages[at]
            if (
                next.sequence == one.sequence + 1
                and next.block.origin == one.block.origin
                and (next.block.durability == MEMORY) == (one.block.durability == MEMORY)
                and share(one, next)
            ):
                continue
        if at > start:
            yield messages[start:at]
        start = at


def same_lease(one: Message, next: Message) -> bool:
    """Whether the leases of two messages of a delivery are as long, so that one record may say both."""
    return next.lease_ms == one.lease_ms


def alike(block: Block, item: Item) -> list[tuple[int, int, int]]:
    """Return (first, stop, encoding) of the parts of an item with one encoding."""
    if block.encodings is None or not isinstance(item, Span):
        return [(item.first, item.stop, block.encoding_of(item.first))]
    parts = []
    first = at = item.first
    for at in range(item.first + 1, item.stop + 1):
        if at == item.stop or block.encoding_of(at) != block.encoding_of(first):
            parts.append((first, at, block.encoding_of(first)))
            first = at
    return parts


def key_in(home: int, origin: int, sequence: int) -> int:
    """Return the key of a message inside a queue whose messages come from `home`.

    It is the sequence, so that keys of a publish are consecutive. A DLQ can also hold messages of an
    earlier queue of the same name; theirs are larger than any sequence.
    """
    return sequence if origin == home else origin << 64 | sequence
