"""The archiver: the one consumer of a retained log, which has its messages appended to the files of the log.

It takes all that is ready, so that what it hands on ascends, whatever the lanes of keys are. What it has taken is
HELD, as what a worker has: it is copied forward while the files are slow, and ready again after a start. The ack
waits for nobody: what comes to the files a second time is known there by its offset.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

from minibroker.contract import limits
from minibroker.contract.wire import pack_strings
from minibrokerd.core.durable.paging import read_next
from minibrokerd.core.model.columns import read_columns, spans_of
from minibrokerd.core.model.deliveries import Delivery, Run
from minibrokerd.core.model.inputs import Archived, LogHas
from minibrokerd.core.model.messages import LAZY, Block, Item, Span
from minibrokerd.core.model.noting import write_ended
from minibrokerd.core.model.retained import Archive, Extension, Piece, RetainedLog
from minibrokerd.core.model.state import Store
from minibrokerd.core.model.transitions import end_held
from minibrokerd.core.verbs.reading import wake_readers


def archive(store: Store, log: RetainedLog) -> None:
    """Have what is ready appended, unless some is on its way."""
    if log.is_archiving:
        return
    queue, group = log.queue, log.queue.group
    while group.lanes.ready:
        items = group.lanes.take(limits.MAX_MESSAGES_PER_FRAME, limits.DELIVERY_BYTES)
        if not items:
            if group.lanes.default.cold:
                read_next(store, queue, group.lanes.foremost)
            return  # with what is there already: it may have to go before that
        _hold(store, log, items)
    if not log.tokens:
        return
    log.is_archiving = True
    spans = sorted(_held(log), key=lambda span: span.first)
    store.effects.ask(Archive(queue.number, list(_pieces(spans))))


def _hold(store: Store, log: RetainedLog, items: Sequence[Item]) -> None:
    group, token = log.queue.group, store.next_token()
    delivery = Delivery(token, log.queue.number, log.queue.home, 0, 0, None, 0)
    for item in items:
        assert isinstance(item, Span), "nobody begins a message of a log, or moves one there"
        delivery.add(item)
        group.held += item.stop - item.first
    if store.standing.took_old:
        store.standing.add_delivery(delivery)
    store.deliveries[token] = group.deliveries[token] = delivery
    log.tokens.append(token)


def _held(log: RetainedLog) -> Iterator[Span]:
    for token in log.tokens:
        delivery = log.queue.group.deliveries.get(token)
        if delivery is not None:  # else it was purged
            yield from delivery.spans.values()


def cut(piece: Piece, first: int, stop: int) -> Piece:
    """Return what a piece has from `first` up to `stop`, with bodies and columns of its own."""
    at, end = max(piece.first, first), min(piece.first + piece.count, stop)
    extent = piece.extent
    named: Any = SimpleNamespace(columns=piece.columns)
    columns = read_columns(named, extent.columns(), piece.count)
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
    named: Any = SimpleNamespace(columns=piece.columns)
    keys = read_columns(named, piece.extent.columns(), piece.count).get("key")
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
    wakes = store.effects.wake
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
        has(store, log, command.has)


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
