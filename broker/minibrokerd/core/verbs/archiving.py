"""The archiver: the one consumer of a retained log, which has its messages appended to the files of the log.

It takes what comes next in the order of offsets, whatever the lanes of keys are, some at a time: after a stall of
the files very much may wait. What it has taken is HELD, as what a worker has: it is copied forward while the files
are slow, and ready again after a start. The ack waits for nobody: what comes to the files a second time is known
there by its offset.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from minibroker.contract.wire import pack_strings
from minibrokerd.core.durable.paging import read_next
from minibrokerd.core.model.cold import ColdRun
from minibrokerd.core.model.columns import read_columns, spans_of
from minibrokerd.core.model.deliveries import Delivery, Run
from minibrokerd.core.model.inputs import Archived, LogHas
from minibrokerd.core.model.lanes import Lanes
from minibrokerd.core.model.messages import LAZY, Block, Item, Message, Span, State
from minibrokerd.core.model.noting import write_ended
from minibrokerd.core.model.places import Place, waiting_from
from minibrokerd.core.model.queues import Queue
from minibrokerd.core.model.retained import NOTHING, Archive, Extension, Forget, Piece, RetainedLog
from minibrokerd.core.model.state import Store
from minibrokerd.core.model.transitions import end_held
from minibrokerd.core.verbs.reading import wake_readers

# That are on their way into the files together, about: spans of a publish, or single messages; and their bytes.
MOST_ITEMS: Final = 1_000
MOST_BYTES: Final = 4 * 1024 * 1024


def archive(store: Store, log: RetainedLog) -> None:
    """Have what comes next appended, some of it, unless some is on its way."""
    if log.is_archiving or not log.queue.group.lanes.ready:
        return
    items = _in_order(store, log.queue)
    if not items:
        return
    _hold(store, log, items)
    log.is_archiving = True
    spans = sorted(_held(log), key=lambda span: span.first)
    store.effects.ask(Archive(log.queue.number, list(_pieces(spans))))


def _in_order(store: Store, queue: Queue) -> list[Item]:
    """Take what comes next in the order of offsets: keys take turns, so it is looked for where there are some."""
    lanes = queue.group.lanes
    assert isinstance(lanes, Lanes), "a log has no priorities"
    items: list[Item] = []
    size = 0
    if lanes.turns == 1 and not lanes.index:
        # Of those that were published many at once more than `MOST_ITEMS`: a sync of the files has all that came
        # during the one before.
        while len(items) < MOST_ITEMS and size < MOST_BYTES and lanes.ready:
            some = lanes.take(max(lanes.next_count, MOST_ITEMS), MOST_BYTES - size)
            if not some:
                break
            items += some
            size += sum(item.block.bytes_of(item.first, item.stop) for item in some)
        if not items and lanes.default.cold:
            read_next(store, queue, lanes)
        return items
    while len(items) < MOST_ITEMS and size < MOST_BYTES and lanes.ready:
        found, _ = waiting_from(queue, Place(0, queue.home, 0), State.READY)
        for _, item in found:
            if isinstance(item, ColdRun):
                read_next(store, queue, lanes)
                return items
            lanes.take_out(item)
            items.append(item)
            size += item.block.bytes_of(item.first, item.stop)
            if size >= MOST_BYTES:
                break
    return items


def _hold(store: Store, log: RetainedLog, items: Sequence[Item]) -> None:
    group, token = log.queue.group, store.next_token()
    delivery = Delivery(token, log.queue.number, log.queue.home, 0, 0, None, 0)
    for item in items:
        assert item.block.origin == log.queue.home, "nobody moves a message to a log"
        delivery.add(item if isinstance(item, Span) else _as_span(item))
        group.held += item.stop - item.first
    if store.standing.took_old:
        store.standing.add_delivery(delivery)
    store.deliveries[token] = group.deliveries[token] = delivery
    log.tokens.append(token)


def _as_span(message: Message) -> Span:
    """Return what a message is to the files, which keep no history; a record may say that it came back."""
    span = Span(
        message.block, message.sequence, message.sequence + 1, message.key, message.ready_at_ms
    )
    span.batch = message.batch
    return span


def _held(log: RetainedLog) -> Iterator[Span]:
    for token in log.tokens:
        delivery = log.queue.group.deliveries.get(token)
        if delivery is not None:  # else it was purged
            yield from delivery.spans.values()


def cut(piece: Piece, first: int, stop: int) -> Piece:
    """Return what a piece has from `first` up to `stop`, with bodies and columns of its own."""
    at, end = max(piece.first, first), min(piece.first + piece.count, stop)
    extent = piece.extent
    columns = read_columns(piece, extent.columns(), piece.count)
    encodings, sizes = columns.get("encoding"), extent.sizes(piece.count)
    block = Block(
        *(0, piece.first, piece.count, extent, sizes, piece.encoding, encodings),
        *(LAZY, 0, piece.unix_ms, 0, 0),
    )
    spans = spans_of(block, 0, piece.key, columns)
    spans = [span for span in spans if span.first < end and span.stop > at]
    spans[0].first, spans[-1].stop = max(spans[0].first, at), min(spans[-1].stop, end)
    return _piece(block, spans)


def only(piece: Piece, start: int, upto: int, key: str) -> list[Piece]:
    """Return what a piece has from `start` on: below `upto` the messages of one key, behind it all."""
    first, stop = max(piece.first, start), piece.first + piece.count
    end = max(min(stop, upto), first)
    keys = read_columns(piece, piece.extent.columns(), piece.count).get("key")
    runs: list[tuple[int, int]] = []
    for offset in range(first, end):
        if (piece.key if keys is None else keys[offset - piece.first]) != key:
            continue
        if runs and runs[-1][1] == offset:
            runs[-1] = runs[-1][0], offset + 1
        else:
            runs.append((offset, offset + 1))
    if end < stop:
        runs.append((end, stop))
    return [cut(piece, *run) for run in runs]


def _pieces(spans: Sequence[Span]) -> Iterator[Piece]:
    """Yield spans, in order, as the files have them: neighbours of one publish are one piece."""
    start = 0
    for at in range(1, len(spans) + 1):
        if (
            at == len(spans)
            or spans[at].block is not spans[start].block
            or (spans[at].first != spans[at - 1].stop)
        ):
            yield _piece(spans[start].block, spans[start:at])
            start = at


def _piece(block: Block, spans: Sequence[Span]) -> Piece:
    first, stop, key = spans[0].first, spans[-1].stop, spans[0].key
    columns, names = b"", list[str]()
    if any(span.key != key for span in spans):
        keys = [span.key.encode() for span in spans for _ in range(span.stop - span.first)]
        columns, key = pack_strings(keys), ""
        names.append("key")
    if block.encodings is not None:
        columns += block.encodings[first - block.first : stop - block.first]
        names.append("encoding")
    extent = block.extent
    if stop - first < block.count or extent.columns() != columns:
        extent = block.part(first, stop, columns)
    return Piece(first, stop - first, block.unix_ms, key, block.encoding, names, extent)


def archived(store: Store, command: Archived) -> None:
    """What was on its way is in the files: its messages end here, and are there for all who read the log."""
    log = store.retained.logs.get(command.log)
    if log is None:
        return  # it was deleted meanwhile
    queue, group = log.queue, log.queue.group
    wakes = store.effects.wake
    if command.has.stop > log.stop:
        log.stop = command.has.stop
        log.write(store)
    ended: list[Run] = []
    for token in log.tokens:
        delivery = group.deliveries.get(token)
        if delivery is None:
            continue
        spans = list(delivery.spans.values())
        count = sum(span.stop - span.first for span in spans)
        delivery.spans.clear()
        end_held(store, group, delivery, spans, count)
        for span in spans:
            queue.count_out(span.block, span.first, span.stop)
            ended.append((0, queue.number, span.first, span.stop - span.first))
        store.forget_delivery(queue, token)
        group.counters["acked"] += count
    log.tokens = []
    log.is_archiving = False
    write_ended(store, queue, _joined(ended))
    store.effects.wake = wakes
    has(store, log, command.has)
    store.touch(group)


def _joined(runs: list[Run]) -> list[Run]:
    """Return runs with those that follow each other as one."""
    joined: list[Run] = []
    for run in sorted(runs):
        last = joined[-1] if joined else None
        if last is not None and last[2] + last[3] == run[2]:
            joined[-1] = (0, run[1], last[2], last[3] + run[3])
        else:
            joined.append(run)
    return joined


def log_has(store: Store, command: LogHas) -> None:
    """The files of a log have more, or less, than they had."""
    log = store.retained.logs.get(command.log)
    if log is not None:
        if log.has is NOTHING:
            _look_for_loss(store, log, command.has)
        has(store, log, command.has)
        store.touch(log.queue.group)  # a start may have found what was not archived yet


def _look_for_loss(store: Store, log: RetainedLog, found: Extension) -> None:
    """A start found them: tell if they end before what they had, and do a purge that a crash came before."""
    if found.first < log.floor:
        store.effects.ask(Forget(log.queue.number, log.floor, 0))
    start = max(found.stop, log.floor)
    if start < log.stop:
        name = log.queue.name
        store.effects.note("log_damaged", queue=name, messages=log.stop - start, before=log.stop)


def has(store: Store, log: RetainedLog, extension: Extension) -> None:
    """Note what the files have; whoever waits for more is told if there is."""
    grown = extension.stop > log.has.stop
    log.has = extension
    if not grown:
        return
    for feeder in log.feeders.values():
        feeder.is_at_end = False
        store.touch(feeder.queue.group)
    wake_readers(store, log)
