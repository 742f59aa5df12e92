"""A queue while its records are read: the messages that have not ended so far.

Messages without a history are blocks in the order of their sequences, with what has ended crossed out, so that a
million of them cost little; the others are kept one by one. Unknown ids are ignored: a copy may have outlived
what it is a copy of, and records may speak of messages that ended in a segment that was freed.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import TypeVar

from minibroker.settings import Settings
from minibrokerd.core.messages import Message, Span, key_in
from minibrokerd.core.queues import Queue
from minibrokerd.core.records import BeginMeta

Value = TypeVar("Value")


class Live:
    """What is left of a block: its spans, less what is crossed out."""

    __slots__ = ("gone", "left", "spans")

    def __init__(self, spans: list[Span], count: int) -> None:
        self.spans = spans
        self.left = count
        self.gone: set[int] | None = None

    def cross_out(self, sequence: int) -> Span | None:
        """Cross out one message and return the span it was in; None if it was crossed out before."""
        if self.gone is not None and sequence in self.gone:
            return None
        for span in self.spans:
            if span.first <= sequence < span.stop:
                break
        else:
            return None
        if self.gone is None:
            self.gone = set()
        self.gone.add(sequence)
        self.left -= 1
        if not self.left:
            self.spans = []
        return span

    def split(self, at: int) -> Live:
        """Keep the messages below `at` and return the others."""
        below = [span for span in self.spans if span.first < at]
        above = [span for span in self.spans if span.first >= at]
        if below and below[-1].stop > at:
            above.insert(0, below[-1].cut(at))
        rest = Live(above, 0)
        rest.gone = {sequence for sequence in self.gone or () if sequence >= at} or None
        self.gone = {sequence for sequence in self.gone or () if sequence < at} or None
        self.spans = below
        for each in (self, rest):
            each.left = sum(s.stop - s.first for s in each.spans) - len(each.gone or ())
        return rest

    def live(self) -> Iterator[Span]:
        """Yield what is left as spans."""
        for span in self.spans:
            for sequence in sorted(s for s in self.gone or () if span.first <= s < span.stop):
                if sequence > span.first:
                    rest = span.cut(sequence)
                    yield span
                    span = rest
                span.first = sequence + 1
            if span.first < span.stop:
                yield span


class Survivors:
    """A queue while its records are read."""

    __slots__ = ("firsts", "leases", "lives", "messages", "queue", "waits")

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.firsts: list[int] = []
        self.lives: list[Live] = []
        self.messages: dict[int, Message] = {}
        self.leases: dict[int, BeginMeta] = {}  # the newest of each begun message, by key
        self.waits: dict[
            int, tuple[int, int]
        ] = {}  # (written unix_ms, duration) of a delay, by key

    def add(self, first: int, spans: list[Span], count: int) -> None:
        """Add a block whose sequences are above all earlier ones."""
        self.firsts.append(first)
        self.lives.append(Live(spans, count))
        if len(self.lives) > 1_000 and not self.lives[len(self.lives) // 2].left:
            self._drop_ended()

    def replace(self, first: int, spans: list[Span], count: int) -> None:
        """Put a run in the place of what is known of its messages; it is part of one block, or of none."""
        stop = first + count
        self._split(first)
        self._split(stop)
        low, high = bisect_left(self.firsts, first), bisect_left(self.firsts, stop)
        self.firsts[low:high] = [first]
        self.lives[low:high] = [Live(spans, count)]

    def _split(self, at: int) -> None:
        index = bisect_right(self.firsts, at) - 1
        if index >= 0 and self.firsts[index] < at:
            rest = self.lives[index].split(at)
            if rest.spans:
                self.firsts.insert(index + 1, at)
                self.lives.insert(index + 1, rest)

    def rename(self, name: str, home: int, settings: Settings) -> None:
        """Learn who this is: until now only the number was known."""
        queue = self.queue
        queue.name, queue.home, queue.settings = name, home, settings
        if home != queue.number:
            self.messages = self._keyed_anew(self.messages)
            self.leases = self._keyed_anew(self.leases)
            self.waits = self._keyed_anew(self.waits)

    def _keyed_anew(self, values: dict[int, Value]) -> dict[int, Value]:
        """Return values by their keys under the true home; they were keyed as if it were this queue."""
        home, number = self.queue.home, self.queue.number
        return {
            key_in(home, key >> 64 or number, key & (2**64 - 1)): value
            for key, value in values.items()
        }

    def end_run(self, origin: int, first: int, count: int) -> None:
        """Cross out a run of messages."""
        if origin == self.queue.home:
            live = self._find(first)
            # The common case costs one look-up: a run that is all of what is left of a block.
            if (
                live is not None
                and live.gone is None
                and live.left == count
                and live.spans[0].first == first
            ):
                live.left, live.spans = 0, []
                return
        for sequence in range(first, first + count):
            self.take(origin, sequence)

    def take(self, origin: int, sequence: int) -> Message | None:
        """Remove one message and return it as one of its own."""
        key = key_in(self.queue.home, origin, sequence)
        message = self.messages.pop(key, None)
        if message is not None:
            self.waits.pop(key, None)
            self.leases.pop(key, None)
        if message is not None or origin != self.queue.home:
            return message
        live = self._find(sequence)
        span = live.cross_out(sequence) if live is not None else None
        return None if span is None else Message.of(span, sequence)

    def put(self, message: Message) -> int:
        """Add one message and return its key."""
        key = key_in(self.queue.home, message.block.origin, message.sequence)
        self.messages[key] = message
        return key

    def clear(self) -> None:
        """Forget every message: a purge."""
        self.firsts, self.lives = [], []
        self.messages, self.waits, self.leases = {}, {}, {}

    def _find(self, sequence: int) -> Live | None:
        index = bisect_right(self.firsts, sequence) - 1
        return self.lives[index] if index >= 0 else None

    def _drop_ended(self) -> None:
        kept = [(f, live) for f, live in zip(self.firsts, self.lives, strict=True) if live.left]
        self.firsts = [first for first, _ in kept]
        self.lives = [live for _, live in kept]
