"""The delayed messages of one publish as one object: some 10 bytes for each, where a span of its own takes 400.

A sheaf has when each of them is ready, and one timer, for the next of them. A span is made of some only when they
leave it: their time has come, or somebody takes one out by its id. Who looks gets a span that nobody keeps, with
what a span of its own would say; it can be taken out (transitions.py) as such a one can.

In a sheaf are fresh messages alone: what has a history is an item of its own. What has left it never comes back.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from typing import Any, Final

from minibrokerd.core.model.footprints import SHEAF_OBJECT_BYTES, SHEAVED_BYTES, SHEAVED_KEY_BYTES
from minibrokerd.core.model.messages import Block, Span
from minibrokerd.core.model.wheel import Timer

NEVER_MS: Final = 2**62


class Sheaf:
    """Messages from `first` up to but not including `stop`, less those that left; `left` is how many are here.

    It stands in `Group.delayed` under its `timer`, and in `Group.later`. `block` has all that are here, `batch` is
    what a delivery of them rests on.
    """

    __slots__ = (
        "_delays", "_keys", "_order", "_since_ms", "_there",
        "batch", "block", "first", "left", "memory_bytes", "stop", "timer",
    )  # fmt: skip
    ready_at_ms: Final = NEVER_MS  # the whole of it never is

    def __init__(
        self, block: Block, first: int, since_ms: int, delays: array[int], keys: str | Sequence[str]
    ) -> None:
        """`delays` count from `since_ms` (log time) on. `keys` is one for all, or one for each."""
        self.block = block
        self.first = first
        self.left = len(delays)
        self.stop = first + self.left
        self.batch = 0
        self.timer = Timer(None)
        self._since_ms = since_ms
        self._delays = delays
        self._keys = keys
        each = SHEAVED_BYTES if isinstance(keys, str) else SHEAVED_BYTES + SHEAVED_KEY_BYTES
        self.memory_bytes = SHEAF_OBJECT_BYTES + each * self.left
        self._there = bytearray(b"\1") * self.left  # 0 where one has left
        # Places by their time, the next one last; None: nobody asked yet which is the next but one.
        self._order: array[int] | None = None

    @classmethod
    def published(
        cls, block: Block, delay_ms: int, key: str, columns: dict[str, Any]
    ) -> Sheaf | None:
        """Return the messages of a publish with these columns; None: they are a span or none is delayed."""
        delays, keys = columns.get("delay_ms"), columns.get("key")
        if delays is None:
            if not delay_ms or keys is None:
                return None
            delays = array("Q", (delay_ms,)) * block.count
        if block.count == 1 or not any(delays):
            return None
        return cls(block, block.first, block.ready_at_ms, delays, keys if keys is not None else key)

    @classmethod
    def of(cls, spans: Sequence[Span]) -> Sheaf:
        """Return fresh spans of one block as a sheaf; they ascend, and something may stand between two of them."""
        first, last = spans[0], spans[-1]
        since_ms = min([span.ready_at_ms for span in spans])
        count = last.stop - first.first
        delays, keys, there = array("Q", bytes(8 * count)), [""] * count, bytearray(count)
        for span in spans:
            low, high = span.first - first.first, span.stop - first.first
            delays[low:high] = array("Q", (span.ready_at_ms - since_ms,)) * (high - low)
            keys[low:high] = [span.key] * (high - low)
            there[low:high] = b"\1" * (high - low)
        is_one = all(span.key == first.key for span in spans)
        sheaf = cls(first.block, first.first, since_ms, delays, first.key if is_one else keys)
        sheaf._there, sheaf.left, sheaf.batch = there, sum(there), first.batch
        return sheaf

    @property
    def next_ms(self) -> int:
        """When the next of those that are here is ready, or was (log time); not asked of an empty one."""
        if self._order is None:
            return self._since_ms + min(self._delays)  # it may have left: then one looks too early
        return self._since_ms + self._delays[self._next_in(self._order)]

    def due(self, upto_ms: int, most: int) -> list[Span]:
        """Take out and return what is ready at a time (log time), by ids: up to `most` messages, the next ones."""
        if self.next_ms > upto_ms:
            return []
        order = self._sorted()
        found: list[int] = []
        while self.left and len(found) < most:
            at = self._next_in(order)
            if self._since_ms + self._delays[at] > upto_ms:
                break
            order.pop()
            self._there[at] = 0
            self.left -= 1
            found.append(at)
        found.sort()
        return list(self._spans_of(found))

    def spans(self, sequence: int = 0) -> Iterator[Span]:
        """Yield what is here from a message on as spans, by ids; some may leave meanwhile."""
        at = max(sequence - self.first, 0)
        while (at := self._there.find(1, at)) >= 0:
            stop = at + 1
            while stop < len(self._there) and self._there[stop] and self._are_alike(at, stop):
                stop += 1
            yield self._shown(at, stop)
            at = stop

    def find(self, sequence: int) -> Span | None:
        """Return one message as a span; None: it left."""
        at = sequence - self.first
        return self._shown(at, at + 1) if self._there[at] else None

    def cross_out(self, span: Span) -> None:
        """Let messages leave that are here."""
        low, high = span.first - self.first, span.stop - self.first
        self.left -= sum(self._there[low:high])
        self._there[low:high] = bytes(high - low)

    def _sorted(self) -> array[int]:
        if self._order is None:
            # Of those that are ready together the first one is the next: a sort leaves them as they stand.
            places = range(len(self._delays) - 1, -1, -1)
            self._order = array("H", sorted(places, key=self._delays.__getitem__, reverse=True))
        return self._order

    def _next_in(self, order: array[int]) -> int:
        while not self._there[order[-1]]:
            order.pop()
        return order[-1]

    def _spans_of(self, places: list[int]) -> Iterator[Span]:
        start = 0
        for index in range(1, len(places) + 1):
            at, last = places[start], places[index - 1]
            follows = index < len(places) and places[index] == last + 1
            if follows and self._are_alike(at, last + 1):
                continue
            yield self._span(at, last + 1)
            start = index

    def _are_alike(self, at: int, other: int) -> bool:
        if self._delays[at] != self._delays[other]:
            return False
        return isinstance(self._keys, str) or self._keys[at] == self._keys[other]

    def _span(self, at: int, stop: int) -> Span:
        key = self._keys if isinstance(self._keys, str) else self._keys[at]
        ready_at_ms = self._since_ms + self._delays[at]
        span = Span(self.block, self.first + at, self.first + stop, key, ready_at_ms)
        span.batch = self.batch
        return span

    def _shown(self, at: int, stop: int) -> Span:
        """Return messages that are here as a span that can be taken out."""
        span = self._span(at, stop)
        span.timer = self.timer
        return span
