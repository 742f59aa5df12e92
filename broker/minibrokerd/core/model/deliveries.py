"""Deliveries and consumers: who holds which messages under which token.

A delivery of N messages is one token. Its messages are spans as long as nothing happened to them, and single
messages once they are begun or came with a history. Settling takes them out again, by runs.
"""

from __future__ import annotations

from collections.abc import Iterator

from minibrokerd.core.model.messages import HELD, Item, Message, Span, key_in
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


class Delivery:
    """Messages under one token; it ends when the last one left it."""

    __slots__ = (
        "connection",
        "consumer",
        "home",
        "lease_ms",
        "queue_number",
        "request",
        "session",
        "singles",
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
        self.request: int | None = (
            None  # of the receive that it answers, while that may be asked again
        )
        self.spans: dict[int, Span] = {}  # held, by first sequence
        self.singles: dict[int, Message] = {}  # held or begun, by key

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
        message = self.singles.get(key_in(self.home, origin, sequence))
        if message is not None or origin != self.home:
            return message
        span = self._take_from_spans(sequence, sequence + 1)
        if span is None:
            return None
        message = Message.of(span, sequence)
        self.add(message)
        return message

    def all_singles(self) -> list[Message]:
        """Make each message that it has one of its own, HELD; return them."""
        spans, singles = self.spans, self.singles
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
            span = self._take_from_spans(at, stop) if origin == self.home else None
            if span is not None:
                at = span.stop
                yield span
                continue
            message = self.singles.pop(key_in(self.home, origin, at), None)
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
        return sum(span.stop - span.first for span in self.spans.values()) + len(self.singles)

    def items(self) -> Iterator[Item]:
        """Yield all that it still has; it must not change meanwhile."""
        yield from self.spans.values()
        yield from self.singles.values()

    def __bool__(self) -> bool:
        return bool(self.spans or self.singles)

    def _take_from_spans(self, at: int, stop: int) -> Span | None:
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
