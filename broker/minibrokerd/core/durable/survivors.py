"""A queue while its records are read: the messages that have not ended so far.

Messages without a history are blocks in the order of their sequences, with what has ended crossed out, so that a
million of them cost little; the others are kept one by one. Unknown ids are ignored: a copy may have outlived
what it is a copy of, and records may speak of messages that ended in a segment that was freed.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from typing import Final, TypeVar

from minibroker.contract.settings import Settings
from minibrokerd.core.model.cold import ColdRun
from minibrokerd.core.model.messages import Message, Span, key_in
from minibrokerd.core.model.queues import Queue
from minibrokerd.core.model.records import BeginMeta, CopyMeta

Value = TypeVar("Value")
ReadSpans = Callable[[ColdRun, int], list[Span]]
# A message behind so many cold ones is cold from the start. Behind fewer it may soon be begun, and a replay that
# comes to that would read it back.
MANY_COLD: Final = 10_000


class Live:
    """What is left of a block: its spans, less what is crossed out.

    `wait` is (written unix_ms, duration) of the delay of a copy; None: it counts from the publish.
    """

    __slots__ = ("gone", "left", "spans", "wait")

    def __init__(self, spans: list[Span], count: int, wait: tuple[int, int] | None = None) -> None:
        self.wait = wait
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

    def end(self, first: int, stop: int) -> None:
        """Cross out the messages from `first` up to `stop` that are here."""
        if not self.spans:
            return
        low, high = max(first, self.spans[0].first), min(stop, self.spans[-1].stop)
        # The common case: a run that has all of what is left.
        if low == self.spans[0].first and high == self.spans[-1].stop:
            self.left, self.spans = 0, []
            return
        for sequence in range(low, high):
            self.cross_out(sequence)

    def split(self, at: int) -> Live:
        """Keep the messages below `at` and return the others."""
        below = [span for span in self.spans if span.first < at]
        above = [span for span in self.spans if span.first >= at]
        if below and below[-1].stop > at:
            above.insert(0, below[-1].cut(at))
        rest = Live(above, 0, self.wait)
        rest.gone = {sequence for sequence in self.gone or () if sequence >= at} or None
        self.gone = {sequence for sequence in self.gone or () if sequence < at} or None
        self.spans = below
        for each in (self, rest):
            if not each.spans:
                each.gone = None  # all of it has ended, and so has what was crossed out
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

    __slots__ = ("_read", "firsts", "leases", "lives", "messages", "queue", "tail", "waits")

    def __init__(self, queue: Queue, read: ReadSpans) -> None:
        """`read` returns the spans of the frame of a run that has a message."""
        self.queue = queue
        self._read = read
        self.tail: ColdRun | None = None  # the last of `lives`, if what comes behind it is cold
        self.firsts: list[int] = []
        self.lives: list[Live | ColdRun] = []
        self.messages: dict[int, Message] = {}
        self.leases: dict[int, BeginMeta] = {}  # the newest of each begun message, by key
        self.waits: dict[
            int, tuple[int, int]
        ] = {}  # (written unix_ms, duration) of a delay, by key

    def add(self, first: int, live: Live, count: int) -> None:
        """Add a block; its sequences mostly are above all earlier ones, and what is known of others gives way."""
        self.tail = None
        if self.firsts and first <= self.firsts[-1]:
            self.replace(first, first + count, live)
            return
        self.firsts.append(first)
        self.lives.append(live)
        if len(self.lives) > 1_000 and not self.lives[len(self.lives) // 2].left:
            self.drop_ended()

    def keep(self, firsts: list[int], lives: list[Live | ColdRun]) -> None:
        """Take these in the place of what is here; see whether what comes next is behind so many cold ones."""
        self.firsts, self.lives = firsts, lives
        last = lives[-1] if lives else None
        cold = sum(live.left for live in lives if isinstance(live, ColdRun))
        self.tail = last if isinstance(last, ColdRun) and cold >= MANY_COLD else None

    def go_on(self, run: ColdRun) -> None:
        """Add a run behind `tail`, as the next one."""
        self.firsts.append(run.first)
        self.lives.append(run)
        self.drop_ended()

    def replace(self, first: int, stop: int, live: Live | ColdRun) -> None:
        """Put messages in the place of what is known of them."""
        self.tail = None
        if not self.firsts:  # there may be very many queues with one run each
            self.firsts.append(first)
            self.lives.append(live)
            return
        self._split(first)
        self._split(stop)
        low, high = bisect_left(self.firsts, first), bisect_left(self.firsts, stop)
        self.firsts[low:high] = [first]
        self.lives[low:high] = [live]

    def _split(self, at: int) -> None:
        index = bisect_right(self.firsts, at) - 1
        if index >= 0 and self.firsts[index] < at:
            live = self.lives[index]
            if isinstance(live, ColdRun) and at >= live.stop:
                return
            rest = live.split(at)
            if rest.left:
                self.firsts.insert(index + 1, at)
                self.lives.insert(index + 1, rest)

    def rename(self, name: str, home: int, settings: Settings, chosen: list[str] | None) -> None:
        """Learn who this is: until now only the number was known."""
        queue = self.queue
        queue.name, queue.home = name, home
        queue.restore(settings, chosen)
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
        stop = first + count
        if self.messages:
            self._end_messages(origin, first, stop)
        if origin != self.queue.home:
            return
        index = max(bisect_right(self.firsts, first) - 1, 0)
        while index < len(self.lives) and self.firsts[index] < stop:
            self.lives[index].end(first, stop)
            index += 1

    def forget_messages(self, first: int, stop: int) -> None:
        """Forget what is known one by one of messages that a copy of a run has.

        Nothing but one that kept the time of what it replaced: a record says so, and it still is part of a span.
        """
        if self.messages:
            self._end_messages(self.queue.home, first, stop)

    def _end_messages(self, origin: int, first: int, stop: int) -> None:
        low, high = (key_in(self.queue.home, origin, sequence) for sequence in (first, stop))
        keys = range(low, high)
        known = [key for key in self.messages if key in keys] if len(keys) > 1_000 else keys
        for key in known:
            if self.messages.pop(key, None) is not None:
                self.waits.pop(key, None)
                self.leases.pop(key, None)

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
        if isinstance(live, ColdRun):
            return self._take_cold(live, sequence)
        span = live.cross_out(sequence) if live is not None else None
        return None if span is None else Message.of(span, sequence)

    def _take_cold(self, run: ColdRun, sequence: int) -> Message | None:
        if not run.has(sequence):
            return None
        spans = self._read(run, sequence)
        run.end(sequence, sequence + 1)
        return Message.of(
            next(span for span in spans if span.first <= sequence < span.stop), sequence
        )

    def put(self, message: Message) -> int:
        """Add one message and return its key."""
        key = key_in(self.queue.home, message.block.origin, message.sequence)
        self.messages[key] = message
        return key

    def clear(self) -> None:
        """Forget every message: a purge."""
        self.tail = None
        self.firsts, self.lives = [], []
        self.messages, self.waits, self.leases = {}, {}, {}

    def _find(self, sequence: int) -> Live | ColdRun | None:
        index = bisect_right(self.firsts, sequence) - 1
        return self.lives[index] if index >= 0 else None

    def drop_ended(self) -> None:
        """Forget what has ended: a replay may go on for long."""
        kept = [(f, live) for f, live in zip(self.firsts, self.lives, strict=True) if live.left]
        self.keep([first for first, _ in kept], [live for _, live in kept])


def lease_of(meta: CopyMeta) -> BeginMeta:
    """Return the BEGIN that a copy carries, as if written when it ends as it will."""
    return BeginMeta(
        meta.queue,
        meta.lease_token,
        meta.session,
        meta.origin,
        meta.sequence,
        1,
        meta.lease_ms,
        meta.unix_ms + meta.wait_ms - meta.lease_ms,
        meta.request,
    )
