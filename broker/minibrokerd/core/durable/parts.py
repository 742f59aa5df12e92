"""Messages without a history, written again: those of one publish as one record, whoever has them.

A record of its own for each piece would make copies larger than what they are copies of: a message of ten bytes
that ends between two others frees eighteen bytes, and a record more takes sixty. So pieces go together, and their
record says which of the messages between its first and its last one it has.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from operator import attrgetter
from typing import Any, Final

from minibroker.contract import limits
from minibrokerd.core.durable.blocks import columns_of, may_be_part, write_copy, write_part
from minibrokerd.core.model.budgets import Budget
from minibrokerd.core.model.extents import Extent
from minibrokerd.core.model.lifetimes import inherit
from minibrokerd.core.model.messages import Block, Span, alike
from minibrokerd.core.model.queues import Queue
from minibrokerd.core.model.state import Store
from minibrokerd.log.seam import Record

COPY_BYTES: Final = 200  # a copy beside its bodies, about
PART_BYTES: Final = 32  # a piece of a part of a publish, the same
LENGTHS_BYTES: Final = 8  # of a message, beside its bytes
HEAD_BYTES: Final = 128  # at most, of a record beside its messages and their key
LEAST_BYTES: Final = 512  # to fill a segment with: a record more costs some
# Ended messages between two that were read back: their lengths in one record cost as much as a record more.
MOST_GAP: Final = 8


class Part:
    """Spans of one block that are written again as one record; of one segment, or of two.

    They come in any order: in that of their ids, or the newest first. Until `write` they are as they were.
    """

    __slots__ = ("_budget", "_queue", "_spans", "_store")

    def __init__(self, store: Store, budget: Budget) -> None:
        self._store = store
        self._budget = budget
        self._queue: Queue | None = None
        self._spans: dict[Span, None] = {}

    def add(self, queue: Queue, span: Span) -> None:
        """Take one span, and write what was there if it does not go with that.

        A delivery may be looked at twice before anything is written; it is taken once.
        """
        budget = self._budget
        if span in self._spans:
            return
        if self._spans:
            last = next(reversed(self._spans))
            if last.block is not span.block or not (may_be_part(span) and may_be_part(last)):
                self.write()
        if not self._spans:
            budget.bytes_left -= COPY_BYTES
        else:
            budget.bytes_left -= PART_BYTES
        self._queue = queue
        self._spans[span] = None
        budget.bytes_left -= span.block.bytes_of(span.first, span.stop)

    def write(self) -> None:
        """Write what was taken."""
        if not self._spans or self._queue is None:
            return
        taken, self._spans = self._spans, {}
        spans = sorted(taken, key=attrgetter("first"))
        if len(spans) == 1:
            _copy_run(self._store, self._queue, spans[0])
        else:
            _copy_part(self._store, self._queue, spans)


def _copy_run(store: Store, queue: Queue, span: Span) -> None:
    """Copy the messages of a span; it goes on as they are in the log now."""
    old = span.block
    if old.uniques is not None:  # they have a column in their copy
        _copy_part(store, queue, [span])
        return
    # Parts of one span with different encodings need a record each, but stay one block here.
    parts = alike(old, span)
    if len(parts) == 1:
        pieces = _fitted(store, [span])
        first, _, encoding = parts[0]
        if len(pieces) > 1:
            middle = pieces[1][0].first
            parts = [(first, middle, encoding), (middle, span.stop, encoding)]
    span.block = part_of(store, old, span.first, span.stop)
    queue.count_out(old, span.first, span.stop)  # the frame's share of a message is another now
    queue.count_in(span.block, span.first, span.stop)
    if len(parts) == 1:
        write_copy(store, queue, span, parts[0], span.block.extent)
        span.block.batch = store.open_batch
    else:  # in one batch, or in two: it is copied again when the first of them is freed
        for part in parts:
            write_copy(store, queue, span, part, old.part(part[0], part[1]))


def _copy_part(store: Store, queue: Queue, spans: list[Span]) -> None:
    """Copy spans of one block, ascending; they go on as they are in the log now."""
    old, first, stop = spans[0].block, spans[0].first, spans[-1].stop
    pieces = _fitted(store, spans)
    columns = [
        columns_of(piece, _encodings(old, piece[0].first, piece[-1].stop)) for piece in pieces
    ]
    whole = old.parts(spans, b"".join(columns[0].values()) if len(pieces) == 1 else b"")
    new = _block(store, old, first, stop, whole)
    for span in spans:
        queue.count_out(old, span.first, span.stop)
    for span in spans:
        queue.count_in(new, span.first, span.stop)
    for piece, named in zip(pieces, columns, strict=True):
        extent = whole if len(pieces) == 1 else old.parts(piece, b"".join(named.values()))
        write_part(store, queue, piece, extent, list(named))
    if len(pieces) == 1:
        new.batch = store.open_batch
    for span in spans:
        span.block = new


def pieces_of(store: Store, spans: list[Span]) -> Iterator[list[Span]]:
    """Yield what of a frame that was read back goes into one record each; write each before the next is asked for.

    `spans` are what lives of it, ascending. What is far apart goes alone: no block needs to have both.
    """
    first = spans[0]
    if not may_be_part(first):
        for span in spans:
            yield from ([_piece(span, low, high)] for low, high, _ in alike(span.block, span))
        return
    near = [first]
    for span in spans[1:]:
        if span.first - near[-1].stop > MOST_GAP:
            yield from _fitted(store, near)
            near = []
        near.append(span)
    yield from _fitted(store, near)


def joined(spans: list[Span], behind: list[Span]) -> list[Span] | None:
    """Return two frames that were read back, one behind the other, as one; None: they are no parts of one publish.

    What does not fit into a segment is written in two. Would it stay so, each pass over the log left more records.
    """
    old, new = spans[0].block, behind[0].block
    count = old.count + new.count
    if old.first + old.count != new.first or count > limits.MAX_MESSAGES_PER_FRAME:
        return None
    if old.encodings is not None or new.encodings is not None or _terms(old) != _terms(new):
        return None
    extent = old.extent.joined(new.extent)
    block = Block(
        old.origin,
        old.first,
        count,
        extent,
        extent.sizes(count),
        old.encoding,
        None,
        old.durability,
        old.epoch,
        old.unix_ms,
        old.ready_at_ms,
        old.batch,
        old.terms,
    )
    both: list[Span] = []
    for span in (*spans, *behind):
        if both and both[-1].stop == span.first:
            both[-1].stop = span.stop
        else:
            both.append(Span(block, span.first, span.stop, span.key, span.ready_at_ms))
    return both


def _terms(block: Block) -> tuple[Any, ...]:
    return (
        block.origin,
        block.encoding,
        block.durability,
        block.epoch,
        block.unix_ms,
        block.ready_at_ms,
        block.terms,
    )


def write_piece(store: Store, queue: Queue, piece: list[Span]) -> tuple[Record, Extent]:
    """Write one of `pieces_of` again; return its record, and the bytes of its messages."""
    first, stop, block = piece[0].first, piece[-1].stop, piece[0].block
    parts = alike(block, piece[0])
    if len(piece) == len(parts) == 1:
        extent = block.part(first, stop)
        return write_copy(store, queue, piece[0], parts[0], extent), extent
    columns = columns_of(piece, _encodings(block, first, stop))
    extent = block.parts(piece, b"".join(columns.values()))
    return write_part(store, queue, piece, extent, list(columns)), extent


def _fitted(store: Store, spans: list[Span]) -> list[list[Span]]:
    """Return spans of one block, ascending, as they are: or what fits into the segment, and then the rest.

    In two pieces they are spans for these records alone; nobody waits in them.
    """
    room = store.room_bytes - store.effects.record_bytes
    block, last = spans[0].block, spans[-1]
    size = block.bytes_of(spans[0].first, last.stop)
    each = LENGTHS_BYTES
    if len(spans) > 1 or block.encodings is not None:  # columns: a delay, an encoding, a key
        each += 8 + 1 + 4 + max(len(span.key.encode()) for span in spans)
    if block.uniques is not None:
        each += 4 + max(len(key.encode()) for key in block.uniques)
    room -= HEAD_BYTES + len(spans[0].key.encode())
    if size + each * (last.stop - spans[0].first) <= room or room < LEAST_BYTES:
        return [spans]
    front: list[Span] = []
    at = spans[0].first
    for index, span in enumerate(spans):
        room -= each * (span.first - at)
        size = block.bytes_of(span.first, span.stop) + each * (span.stop - span.first)
        at = span.stop
        if size <= room:
            room -= size
            front.append(span)
            continue
        rest = spans[index:]
        many = _how_many(block, span, each, room)
        if many:
            front.append(_piece(span, span.first, span.first + many))
            rest = [_piece(span, span.first + many, span.stop), *rest[1:]]
        return [front, rest] if front else [spans]
    return [spans]


def _how_many(block: Block, span: Span, each: int, room: int) -> int:
    """Return how many of the first messages of a span take `room` bytes at the most, with `each` more for one."""
    counts = range(1, span.stop - span.first + 1)
    first = span.first
    return bisect_right(counts, room, key=lambda n: block.bytes_of(first, first + n) + each * n)


def _piece(span: Span, first: int, stop: int) -> Span:
    return Span(span.block, first, stop, span.key, span.ready_at_ms)


def part_of(store: Store, old: Block, first: int, stop: int) -> Block:
    """Return a block with some messages of another one, whose record will be in the open batch."""
    return _block(store, old, first, stop, old.part(first, stop))


def _block(store: Store, old: Block, first: int, stop: int, extent: Extent) -> Block:
    block = Block(
        old.origin,
        first,
        stop - first,
        extent,
        extent.sizes(stop - first),
        old.encoding,
        _encodings(old, first, stop),
        old.durability,
        old.epoch,
        old.unix_ms,
        old.ready_at_ms,
        store.open_batch,
        old.terms,
        old.uniques[first - old.first : stop - old.first] if old.uniques else None,
    )
    if old.terms.ttl_ms:
        inherit(store, old, block)
    return block


def _encodings(block: Block, first: int, stop: int) -> bytes | None:
    if block.encodings is None:
        return None
    return block.encodings[first - block.first : stop - block.first]
