"""The feeder of a group: what comes next of its log is published to its queue, as long as not much is in that.

The record of what is fed and the entry with the new position stand in one batch, so that a crash neither skips nor
repeats anything that was confirmed.
"""

from __future__ import annotations

from collections import deque
from itertools import chain
from typing import Final

from minibrokerd.core.durable.filling import undivided
from minibrokerd.core.model.columns import read_columns, spans_of
from minibrokerd.core.model.inputs import Fetched
from minibrokerd.core.model.lifetimes import limit
from minibrokerd.core.model.messages import SYNC, Block, terms
from minibrokerd.core.model.records import PublishMeta
from minibrokerd.core.model.retained import Feeder, Fetch, Piece
from minibrokerd.core.model.state import Store
from minibrokerd.core.verbs.archiving import cut, only
from minibrokerd.core.verbs.publishing import enter
from minibrokerd.core.verbs.reading import answer
from minibrokerd.log.sizes import PUBLISH_OVERHEAD_BYTES

WINDOW_MESSAGES: Final = 10_000  # of a group that have not ended: below it more are fetched
WINDOW_BYTES: Final = 16 * 1024 * 1024
FETCH_BYTES: Final = 1024 * 1024


def feed(store: Store, feeder: Feeder) -> None:
    """Ask for what comes next, if it is wanted and not asked for already."""
    queue = feeder.queue
    if feeder.is_fetching or feeder.is_at_end:
        return
    if queue.count() >= WINDOW_MESSAGES or queue.live_bytes >= WINDOW_BYTES:
        store.retained.full[feeder] = None
        return
    number, most_bytes = feeder.log.queue.number, min(FETCH_BYTES, _most_bytes(store))
    asked = Fetch(number, feeder.position, feeder.since_unix_ms, most_bytes)
    asked.group, asked.generation = queue.number, feeder.generation
    feeder.is_fetching = True
    store.effects.ask(asked)


def fetched(store: Store, command: Fetched) -> None:
    """What was read of a log is there: for a group, or for a reader."""
    asked = command.asked
    if not asked.group:
        answer(store, command)
        return
    queue = store.by_number.get(asked.group)
    feeder = queue.group.retained if queue is not None else None
    if not isinstance(feeder, Feeder) or feeder.generation != asked.generation:
        return  # it was deleted, or moved elsewhere, meanwhile
    feeder.is_fetching = False
    waiting = feeder.log.queue.count()  # on its way into the files
    feeder.behind, feeder.behind_at = command.behind + waiting, feeder.log.queue.next_sequence
    feeder.is_at_end = command.is_at_end and feeder.log.has.stop <= command.next_offset
    _tell_missed(store, feeder, command)
    if command.pieces or feeder.since_unix_ms or command.start > feeder.position:
        _publish(store, feeder, command)
    store.touch(feeder.queue.group)


def _tell_missed(store: Store, feeder: Feeder, command: Fetched) -> None:
    has_start = feeder.position and not feeder.since_unix_ms
    if has_start and command.start > feeder.position and command.start == command.has.first:
        missed = command.start - feeder.position
        store.effects.note(
            "group_missed", queue=feeder.queue.name, messages=missed, first=command.start
        )
    if command.damaged:
        log = feeder.log.queue.name
        store.effects.note(
            "log_damaged", queue=log, messages=command.damaged, before=command.next_offset
        )


def _publish(store: Store, feeder: Feeder, command: Fetched) -> None:
    start = command.start if feeder.since_unix_ms else max(feeder.position, command.start)
    if feeder.since_unix_ms and 0 < feeder.upto < start:
        # The time is behind what it has not ended yet: that comes first.
        feeder.since_unix_ms, feeder.position, feeder.is_at_end = 0, feeder.upto, False
        feeder.write(store)
        return
    start = max(start, feeder.log.floor)  # it may have been purged since it was read
    feeder.since_unix_ms = 0
    left = deque(command.pieces)
    if start < feeder.upto:
        some = [only(piece, start, feeder.upto, feeder.only_key) for piece in command.pieces]
        left = deque(chain.from_iterable(some))
    pieces, size = _take(left, start, _most_bytes(store))
    position = max(command.next_offset, start)
    if left:  # what is larger than that is asked for again
        position, feeder.is_at_end = left[0].first, False
        assert feeder.behind is not None, "it was counted"
        feeder.behind += sum(piece.count for piece in left)
    if pieces or position != feeder.position:
        with undivided(store, size + PUBLISH_OVERHEAD_BYTES):
            for piece in pieces:
                _publish_piece(store, feeder, piece)
            feeder.position = position
            feeder.write(store)


def _most_bytes(store: Store) -> int:
    """Return how much is fed at once: a batch has it with the position behind it, also in very small segments."""
    return store.sizes.apply_bytes // 2


def _take(left: deque[Piece], start: int, most_bytes: int) -> tuple[list[Piece], int]:
    """Take from `left` what stands behind `start` and fits; return it, one message at least, and what it takes."""
    taken: list[Piece] = []
    total = 0
    while left:
        piece = left.popleft()
        stop = piece.first + piece.count
        if stop <= start:
            continue
        if piece.first < start:
            piece = cut(piece, start, stop)
        size = piece.extent.size + PUBLISH_OVERHEAD_BYTES
        if size > most_bytes and piece.count > 1:
            middle = piece.first + piece.count // 2
            left.extendleft((cut(piece, middle, stop), cut(piece, piece.first, middle)))
        elif taken and total + size > most_bytes:
            left.appendleft(piece)
            break
        else:
            taken.append(piece)
            total += size
    return taken, total


def _publish_piece(store: Store, feeder: Feeder, piece: Piece) -> None:
    queue, extent = feeder.queue, piece.extent
    sizes = extent.sizes(piece.count)
    columns = read_columns(piece, extent.columns(), piece.count)
    first = feeder.sequence_of(piece.first)
    queue.next_sequence = first + piece.count
    if queue.next_sequence > queue.reserved_until:
        store.reserve(queue)
    ttl_ms = queue.setting("message_ttl_ms")
    block = Block(
        queue.number,
        first,
        piece.count,
        extent,
        sizes,
        piece.encoding,
        columns.get("encoding"),
        queue.durability,
        store.epoch,
        piece.unix_ms,
        store.now_ms,
        store.open_batch,
        terms(0, 0, 0, ttl_ms),
    )
    if ttl_ms:
        limit(store, block, store.now_ms + ttl_ms, (queue.number,))
    spans = spans_of(block, 0, piece.key, columns)
    store.emit(_meta(store, feeder, piece, block, ttl_ms), extent=extent)
    block.batch = queue.last_batch = store.open_batch
    queue.group.counters["published"] += piece.count
    queue.count_in(block, first, first + piece.count)
    if queue.durability == SYNC:
        queue.group.entering += piece.count
        store.entering.append((store.open_batch, queue, block, spans, piece.count))
        return
    store.rests_on(queue.durability, extent.size)
    for span in spans:
        span.batch = queue.reserve_batch
    enter(store, queue, spans)


def _meta(store: Store, feeder: Feeder, piece: Piece, block: Block, ttl_ms: int) -> PublishMeta:
    return PublishMeta(
        [(feeder.queue.number, block.first)],
        piece.count,
        piece.unix_ms,
        store.now_ms,
        store.epoch,
        block.durability,
        0,
        piece.key,
        piece.encoding,
        piece.columns,
        0,
        0,
        0,
        0,
        0,
        own_ttl_ms=ttl_ms,
    )
