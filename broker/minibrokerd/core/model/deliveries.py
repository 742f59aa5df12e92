"""Deliveries and consumers: who holds which messages under which token.

A delivery of N messages is one token. Its messages are spans as long as nothing happened to them, and single
messages once they are begun or came with a history. Many that are begun together stay a span, with one lease, as
long as all that comes is their end, or a longer lease. Who looks at single messages makes them such: `singles`.
Settling takes them out again, by runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from minibrokerd.core.model.messages import BEGUN, HELD, Block, Item, Message, Span, key_in
from minibrokerd.core.model.wheel import Timer

Run = tuple[int, int, int, int]  # token, origin, first sequence, count


class Consumer:
    """A place that takes messages: a `consume`, or a `receive` that waits for its answer."""

    __slots__ = (
        "active",
        "at_work",
        "batch",
        "connection",
        "delivered",
        "idle_ms",
        "idle_since_ms",
        "lease_ms",
        "number",
        "opened_by",
        "outstanding",
        "prefetch",
        "queue_number",
        "request",
        "session",
        "since_ms",
        "timer",
        "waiting",
    )

    def __init__(
        self,
        connection: int,
        session: int,
        number: int,
        queue_number: int,
        prefetch: int,
        lease_ms: int,
        request: int | None = None,
        now_ms: int = 0,
    ) -> None:
        self.since_ms = self.idle_since_ms = now_ms  # it is there; it had something
        self.idle_ms = 0  # for which it had nothing, before
        self.connection = connection
        self.session = session
        self.number = number
        self.queue_number = queue_number
        self.prefetch = prefetch
        self.lease_ms = lease_ms  # 0: as the queue says at the time of the delivery
        self.request = request  # of a receive, which takes one delivery and is done
        self.opened_by = request  # the request that made it
        self.timer: Timer | None = None  # the end of a receive's wait
        self.outstanding = 0
        self.delivered = 0  # messages, since it is there
        self.batch = 0  # the newest that a delivery to it rested on
        self.active = True
        # How many it worked on when it gave back what it had not begun: with so many it is busy. 0: it never did.
        self.at_work = 0
        self.waiting = False  # stands in the queue's line

    def credit(self) -> int:
        """Return how many messages more it may hold."""
        return self.prefetch - self.outstanding if self.active else 0

    def idle_for_ms(self, now_ms: int) -> int:
        """Return for how long it had nothing at all, since it is there."""
        return self.idle_ms + (0 if self.outstanding else now_ms - self.idle_since_ms)


class BegunSpan:
    """Messages of a span that were begun together: the attempt of each, said once."""

    __slots__ = ("delivery", "lease_ms", "span", "started_unix_ms", "timer")

    def __init__(
        self, delivery: Delivery, span: Span, started_unix_ms: int, lease_ms: int, timer: Timer
    ) -> None:
        self.delivery = delivery
        self.span = span
        self.started_unix_ms = started_unix_ms
        self.lease_ms = lease_ms
        self.timer = timer
        timer.item = self

    @property
    def block(self) -> Block:
        """Their publish, under the name that a span has for it."""
        return self.span.block

    @property
    def first(self) -> int:
        """Their first sequence, under the name that a span has for it."""
        return self.span.first

    @property
    def stop(self) -> int:
        """One behind their last sequence, under the name that a span has for it."""
        return self.span.stop

    def cut(self, sequence: int) -> BegunSpan:
        """Keep what is below `sequence` and return the rest, whose lease ends when this one does."""
        rest = self.span.cut(sequence)
        return BegunSpan(
            self.delivery, rest, self.started_unix_ms, self.lease_ms, self.timer.twin(None)
        )

    def apart(self) -> list[Message]:
        """Make each message one of its own, with a lease of its own that ends at the same time; return them."""
        delivery, span, twin = self.delivery, self.span, self.timer.twin
        messages = []
        for sequence in range(span.first, span.stop):
            message = Message.of(span, sequence)
            message.delivery, message.state = delivery, BEGUN
            message.started_unix_ms, message.lease_ms = self.started_unix_ms, self.lease_ms
            message.timer = twin(message)
            messages.append(message)
        return messages


_NONE: Final[dict[int, BegunSpan]] = {}  # of nearly all deliveries


class Delivery:
    """Messages under one token; it ends when the last one left it."""

    __slots__ = (
        "alone",
        "begun",
        "connection",
        "consumer",
        "handed",
        "home",
        "lease_ms",
        "queue_number",
        "request",
        "session",
        "spans",
        "token",
    )

    def __init__(
        self,
        token: int,
        queue_number: int,
        home: int,
        session: int,
        connection: int,
        consumer: Consumer | None,
        lease_ms: int,
    ) -> None:
        self.token = token
        self.queue_number = queue_number
        self.home = home
        self.session = session
        self.connection = connection  # the one that holds what is not begun
        self.consumer = consumer
        self.lease_ms = lease_ms
        self.handed = False  # it was begun as it was handed out, so its client may not have seen it
        # Of the receive that it answers, while that may be asked again.
        self.request: int | None = None
        self.spans: dict[int, Span] = {}  # held, by first sequence
        self.begun = _NONE  # together, by first sequence
        self.alone: dict[int, Message] = {}  # messages of their own, held or begun, by key

    @property
    def singles(self) -> dict[int, Message]:
        """All that is no span, as messages of their own: what was begun together is from now on."""
        if self.begun:
            for item in self.begun.values():
                self._part(item)
            self.begun = _NONE
        return self.alone

    def begin(self, item: BegunSpan) -> None:
        """Put what was begun together under this token."""
        if not self.begun:
            self.begun = {}
        self.begun[item.span.first] = item

    def part(self, item: BegunSpan) -> list[Message]:
        """Make the messages of what was begun together messages of their own; return them."""
        del self.begun[item.span.first]
        return self._part(item)

    def _part(self, item: BegunSpan) -> list[Message]:
        # They are from home, as all that is in a span: their key is their sequence.
        messages = item.apart()
        self.alone.update((message.sequence, message) for message in messages)
        item.timer.withdraw()
        return messages

    def add(self, item: Item) -> None:
        """Put an item under this token, HELD."""
        item.token = self.token
        if isinstance(item, Span):
            self.spans[item.first] = item
        else:
            item.delivery = self
            item.state = HELD
            self.singles[key_in(self.home, item.block.origin, item.sequence)] = item

    def single(self, origin: int, sequence: int) -> Message | None:
        """Return one message of the delivery as a message of its own; None if it is not here."""
        key = key_in(self.home, origin, sequence)
        message = self.alone.get(key)
        if message is not None or origin != self.home:
            return message
        span = self.take_from_spans(sequence, sequence + 1)
        if span is None:
            return self.singles.get(key)
        message = Message.of(span, sequence)
        self.add(message)
        return message

    def all_singles(self) -> list[Message]:
        """Make each message that it has one of its own, HELD; return them."""
        spans, singles = self.spans, self.alone
        for span in spans.values():
            for sequence in range(span.first, span.stop):
                message = singles[sequence] = Message.of(span, sequence)
                message.delivery = self
                message.state = HELD
        spans.clear()
        return [*singles.values()]

    def take(self, origin: int, first: int, count: int) -> Iterator[Item | int]:
        """Remove a run of messages: yield spans and messages, and the sequence of each that is not here.

        Runs mostly are what was delivered, in order, so the first look-up hits; a settlement in the middle of
        a span splits it.
        """
        at, stop = first, first + count
        while at < stop:
            span = self.take_from_spans(at, stop) if origin == self.home else None
            if span is not None:
                at = span.stop
                yield span
                continue
            key = key_in(self.home, origin, at)
            message = self.alone.pop(key, None) or self.singles.pop(key, None)
            yield at if message is None else message
            at += 1

    def holds(self, origin: int, first: int, count: int) -> bool:
        """Whether all of a run is here."""
        at, stop = first, first + count
        while at < stop:
            if origin == self.home:
                spans = self.spans.values()
                span = next((each for each in spans if each.first <= at < each.stop), None)
                if span is not None:
                    at = span.stop
                    continue
            if key_in(self.home, origin, at) not in self.singles:
                return False
            at += 1
        return True

    def count(self) -> int:
        """Return the messages that it still has, held and begun."""
        spans = [*self.spans.values(), *(item.span for item in self.begun.values())]
        return sum(span.stop - span.first for span in spans) + len(self.alone)

    def items(self) -> Iterator[Item]:
        """Yield all that it still has; it must not change meanwhile."""
        yield from self.spans.values()
        yield from self.singles.values()

    def __bool__(self) -> bool:
        return bool(self.spans or self.alone or self.begun)

    def take_from_spans(self, at: int, stop: int) -> Span | None:
        """Remove what is held from `at` on, below `stop`, as far as one span goes; None: nothing is held there."""
        spans = self.spans
        span = spans.pop(at, None)
        if span is None:
            span = next((held for held in spans.values() if held.first < at < held.stop), None)
            if span is None:
                return None
            span = span.cut(at)
        if span.stop > stop:
            spans[stop] = span.cut(stop)
        return span
