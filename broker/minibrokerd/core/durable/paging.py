"""Messages leave memory and come back: what waits for long yet is a place in the log meanwhile.

`freeze` turns spans at the far end of a queue into runs of places (cold.py). `read_ahead` asks the shell for the
next stretch of a run before the spans in front of it are used up, and `loaded` makes spans of it again. A frame
that does not verify any more is set aside: a record says so, and it is never delivered.

Only what is ready, has no key, no unique key and no history leaves memory. Nothing is ever thrown away for want
of memory: at its hard limit the shell refuses publishes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain, islice, pairwise
from typing import Final

from minibroker.contract.ends import Outcome
from minibrokerd.core.durable.blocks import COPIED_RUNS, spans_at
from minibrokerd.core.durable.filling import filling
from minibrokerd.core.durable.parts import joined, pieces_of, write_piece
from minibrokerd.core.model.cold import ColdRun
from minibrokerd.core.model.effects import Effects, ReadBack
from minibrokerd.core.model.extents import BadTail
from minibrokerd.core.model.inputs import Freeze, Loaded
from minibrokerd.core.model.lane import Lane
from minibrokerd.core.model.lanes import Lanes
from minibrokerd.core.model.messages import NEVER, Span
from minibrokerd.core.model.noting import note_ended
from minibrokerd.core.model.paces import Pace
from minibrokerd.core.model.queues import Queue
from minibrokerd.core.model.records import (
    TYPE_OF,
    CopySomeMeta,
    DamagedMeta,
    PublishMeta,
    UnknownRecord,
)
from minibrokerd.core.model.state import Store
from minibrokerd.core.model.walks import ReadForWalk
from minibrokerd.log.seam import Record

# Read back before they are needed: four deliveries of the largest size.
AHEAD_MESSAGES: Final = 4_096
AHEAD_BYTES: Final = 4 * 1024 * 1024
AHEAD_SPANS: Final = 512  # of these so many are looked at
_SOME: Final = TYPE_OF[CopySomeMeta]
_WITH_BODIES: Final = [TYPE_OF[kind] for kind in (PublishMeta, *COPIED_RUNS)]
COPY_RUN_BYTES: Final = 100  # a copy of a span beside its bodies, about
LOOKS: Final = 20_000  # spans that one apply turns into places, about 15 ms
EASY_LOOKS: Final = 2_000  # the same where nothing is short
# Then nothing leaves behind more of them that come next: each step looks at those.
NEAR_SPANS: Final = 2_000
# To read a frame back takes about 15 us, however large it is: where nothing is short, one that has less stays.
SMALL_BYTES: Final = 4 * 1024
# And what is ready for less than this stays: who publishes a burst and then consumes it gets it out of memory.
YOUNG_MS: Final = 2_000
# Spans in a row that cannot leave: for the sake of those behind them they are put aside.
FEW: Final = 16


def read_ahead(store: Store, queue: Queue, lanes: Lanes) -> None:
    """Ask for the next stretch of what is cold in lanes that give next, unless enough is in memory before it."""
    lane = lanes.default
    if lane.reading:
        return
    run, fresh = lane.cold[0], lane.fresh
    if run.ahead and len(fresh) >= run.ahead:
        return
    # Counted from the end, where nothing comes before the next stretch does: once is enough, not at each hand-out.
    run.ahead = _spans_ahead(fresh)
    if not run.ahead:
        read_next(store, queue, lanes)


def read_next(store: Store, queue: Queue, lanes: Lanes) -> None:
    """Ask for the next stretch of what is cold in some lanes, if it can be read now, and is not already."""
    lane = lanes.default
    if not lane.reading and lane.cold[0].batch <= store.synced:
        ask(store, queue, lanes, lane.cold[0])


def wanted(store: Store) -> Iterator[ReadBack]:
    """Yield what is to be read back before any queue is asked: a stretch of each, then the next ones."""
    queues = [queue for queue in store.queues.values() if queue.group.lanes.default.cold]
    while queues:
        more = []
        for queue in queues:
            store.effects = Effects()  # those of the last apply were routed
            if queue.group.lanes.default.cold:
                read_ahead(store, queue, queue.group.lanes.foremost)
            if store.effects.reads:
                more.append(queue)
                yield from store.effects.reads
        queues = more


def ask(store: Store, queue: Queue, lanes: Lanes, run: ColdRun, forward_bytes: int = 0) -> None:
    """Ask the shell for the next frames of a run; with `forward_bytes`, in order to write them again."""
    lanes.default.reading = True
    store.effects.read(ReadBack(queue, lanes, run, forward_bytes))


def absorb(lane: Lane, run: ColdRun, upto: int) -> None:
    """Let a run that stands in batches up to `upto` have those behind it that are read together with it.

    Each batch of copies made one of its own. What is read together may become one record again.
    """
    behind = lane.cold.index(run) + 1
    while behind < len(lane.cold) and lane.cold[behind].batch <= upto:
        if not run.absorb(lane.cold[behind]):
            break
        del lane.cold[behind]


def _spans_ahead(fresh: deque[Span]) -> int:
    """Return how many of the last spans are enough to have in memory; 0: all of them are not."""
    if len(fresh) >= AHEAD_MESSAGES:
        return AHEAD_MESSAGES
    return _enough(islice(reversed(fresh), AHEAD_SPANS)) or 0


def _enough(spans: Iterable[Span], soon: int = 0) -> int | None:
    """Return how many of the first spans are enough to have in memory, and have so many messages.

    None: all of them are not.
    """
    messages = size = 0
    for count, span in enumerate(spans, 1):
        messages += span.stop - span.first
        size += span.block.bytes_of(span.first, span.stop)
        if messages >= soon and (messages >= AHEAD_MESSAGES or size >= AHEAD_BYTES):
            return count
    return None


def freeze(store: Store, command: Freeze) -> None:
    """Turn spans into places, from the queues with most in memory on."""
    is_easy = command.is_easy
    bytes_left, looks_left = command.most_bytes, EASY_LOOKS if is_easy else LOOKS
    large = store.sums.large
    for queue in sorted(large, key=lambda queue: -queue.hot_bytes):
        if queue.hot_bytes <= store.sums.large_bytes:
            del large[queue]
            continue
        if bytes_left <= 0 or looks_left <= 0:
            return
        soon = _soon(store, queue) if is_easy else 0
        if soon is None:
            continue
        for lanes in reversed(queue.group.lanes.levels):  # a low priority waits for the longest
            lane = lanes.default
            if not _part(store, lane, soon, is_easy):
                continue
            frozen, looked = _freeze_lane(store, queue, lane, bytes_left, looks_left, is_easy)
            bytes_left, looks_left = bytes_left - frozen, looks_left - looked


def _soon(store: Store, queue: Queue) -> int | None:
    """Return how many messages of a queue will be handed out soon; None: it is not known yet."""
    group, large = queue.group, store.sums.large
    delivered = group.counters["delivered"]
    pace = large[queue]
    if pace is None:
        pace = large[queue] = Pace(store.now_ms, delivered)
    soon = pace.soon(store.now_ms, delivered)
    return 0 if soon is None and not group.consumer_count else soon


def _part(store: Store, lane: Lane, soon: int, is_easy: bool) -> bool:
    """Part what comes next in a lane from what may leave; return whether anything may."""
    if not lane.cold:
        _keep_near(store, lane, soon, is_easy)
        return bool(lane.late)
    before = sum(span.stop - span.first for span in islice(lane.fresh, AHEAD_SPANS))
    return before + sum(run.left for run in lane.cold) >= soon


def _freeze_lane(
    store: Store, queue: Queue, lane: Lane, most_bytes: int, looks: int, is_easy: bool
) -> tuple[int, int]:
    """Freeze what stands far back in a lane; return (bytes, spans looked at)."""
    frozen = looked = 0
    late = lane.late
    while late and frozen < most_bytes and looked < looks:
        if store.synced < late[0].block.batch < NEVER:
            break  # its record is not safe yet, and no record behind it is
        if is_easy and not _leaves_easily(store, late):
            break
        span = late.popleft()
        looked += 1
        if _is_whole(span):
            frozen += _append(store, queue, lane, span)
        else:
            lane.put_back(span)
    queue.count_cold(frozen)
    lane.close_up()
    return frozen, looked


def _leaves_easily(store: Store, late: Iterable[Span]) -> bool:
    """Whether the first span that may leave is worth it; others stand before it, but only a few."""
    for span in islice(late, FEW):
        if _is_whole(span):
            is_young = store.now_ms - span.ready_at_ms < YOUNG_MS
            return not is_young and span.block.cost(span.first, span.stop) >= SMALL_BYTES
    return False


def _keep_near(store: Store, lane: Lane, soon: int, is_easy: bool) -> None:
    """Part the spans that come next, and those of so many messages, from those that may leave.

    Where nothing is short none is moved before it is known that some will leave.
    """
    fresh = lane.fresh
    count = _enough(islice(fresh, NEAR_SPANS) if is_easy else fresh, soon)
    if count is None or (is_easy and not _leaves_easily(store, islice(fresh, count, count + FEW))):
        return
    near = deque(fresh.popleft() for _ in range(count))
    lane.fresh, lane.late = near, fresh


def _is_whole(span: Span) -> bool:
    """Whether its record says all there is to know of a span."""
    block = span.block
    return (
        block.extent.is_stored
        and (span.first, span.stop) == (block.first, block.first + block.count)
        and not (span.token or span.releases or span.marked or block.terms.ttl_ms)
        and block.uniques is None
    )


def _append(store: Store, queue: Queue, lane: Lane, span: Span) -> int:
    block = span.block
    run = lane.cold[-1] if lane.cold else None
    if run is None or not run.joins(span.first, block.extent):
        shelf = store.bodies.shelf()
        run = ColdRun(queue.number, shelf, block.batch, span.first, span.ready_at_ms)
        if not lane.cold:
            lane.cold = deque()
        lane.cold.append(run)
    cost = block.cost(span.first, span.stop)
    run.shelf.append(block.extent)
    store.sums.let_go(span)
    run.append(block.count, cost)
    run.batch = max(run.batch, block.batch)
    return cost


def loaded(store: Store, command: Loaded) -> None:
    """Go on with frames that were read back: hand them to the lane, or write them again.

    Raises:
        WrongRecord: a record that verifies is not the one that was asked for.
    """
    asked = command.asked
    if isinstance(asked, ReadForWalk):
        asked.walk.got(command.records)
        return
    queue, lanes, run = asked.queue, asked.lanes, asked.run
    lane = lanes.default
    lane.reading = False
    if asked.is_void:
        return
    assert run.at == asked.low, "one stretch of a lane is read at a time"
    frames: list[list[Span]] = []
    bytes_left, high = asked.forward_bytes, asked.low
    for record in command.records:
        living = None if record is None else _living(store, run, high, record)
        both = joined(frames[-1], living) if asked.forward_bytes and frames and living else None
        # Parts of a frame take a record each, so copies may take more than it did.
        if asked.forward_bytes and bytes_left <= 0 and both is None:
            break
        if living is None:
            _set_aside(store, queue, lanes, run, high)
        elif both is not None:
            frames[-1] = both
        elif living:
            frames.append(living)
        high += 1
        if asked.forward_bytes:
            bytes_left -= sum(map(_copy_bytes, living or ()))
    run.ahead = 0
    share = run.read_back(high)
    queue.count_run_out(share)
    position = lane.cold.index(run)
    if run.at == len(run.firsts):
        del lane.cold[position]
    if asked.forward_bytes:
        with filling(store, command.rest_bytes):
            _write_again(store, queue, lane, position, frames)
    else:
        assert not position, "what comes first is read back first"
        for span in chain.from_iterable(frames):
            queue.count_in(span.block, span.first, span.stop)
            lane.fresh.append(span)
    lane.close_up()
    lanes.leave_if_empty(lane)
    store.touch(queue.group)


def _copy_bytes(span: Span) -> int:
    return COPY_RUN_BYTES + span.block.bytes_of(span.first, span.stop)


class WrongRecord(Exception):
    """A place names a record that is not the one of these messages: memory or log are not to be trusted."""


def _living(store: Store, run: ColdRun, index: int, record: Record) -> list[Span] | None:
    """Return the messages of a frame that have not ended, as spans; None if it cannot be understood.

    Records of 0.1.0 do not cover their type, so one that verifies may still be of a wrong one.
    """
    first, stop = run.bounds(index)
    place = run.shelf.place(index)
    if record.type not in _WITH_BODIES:
        return None
    try:
        spans = spans_at(store.bodies, record, run.queue, run.batch, place)
    except UnknownRecord:
        return None
    except (BadTail, ValueError) as error:
        where = store.bodies.told(place)
        raise WrongRecord(f"queue {run.queue}: what stands at {where}: {error}") from error
    is_one = len(spans) == 1 or record.type == _SOME
    if not is_one or (spans[0].first, spans[-1].stop) != (first, stop):
        where = store.bodies.told(place)
        raise WrongRecord(f"queue {run.queue}: {first} to {stop} do not stand at {where}")
    span = spans[0]
    if len(spans) == 1 and not run.gone and span.ready_at_ms <= store.now_ms:  # as nearly always
        return spans
    ready_at_ms = min(span.ready_at_ms, store.now_ms)
    return [Span(span.block, low, high, "", ready_at_ms) for low, high in run.live(first, stop)]


def _set_aside(store: Store, queue: Queue, lanes: Lanes, run: ColdRun, index: int) -> None:
    """End the messages of a damaged frame by a record that names its place."""
    for first, stop in run.live(*run.bounds(index)):
        where = store.bodies.told(run.shelf.place(index))
        runs = [(0, queue.home, first, stop - first)]
        note_ended(store, queue, Outcome.DAMAGED, runs, runs)
        meta = DamagedMeta(queue.number, first, stop - first, *where, store.unix_ms)
        store.emit(meta)
        queue.group.counters["damaged"] += stop - first
        lanes.ready -= stop - first
        queue.last_batch = store.open_batch


def _write_again(
    store: Store, queue: Queue, lane: Lane, position: int, frames: list[list[Span]]
) -> None:
    """Copy frames forward, of each what lives; they are cold again, where their copies will stand."""
    runs: list[ColdRun] = []
    for piece in chain.from_iterable(pieces_of(store, spans) for spans in frames):
        record, extent = write_piece(store, queue, piece)
        first = piece[0].first
        # What is read together stands together: one batch is always in one segment, two may not be.
        if not runs or (runs[-1].stop, runs[-1].batch) != (first, store.open_batch):
            shelf, batch = store.bodies.shelf(), store.open_batch
            runs.append(ColdRun(queue.number, shelf, batch, first, piece[0].ready_at_ms))
            store.copied.append((batch, queue))
        run = runs[-1]
        record.extent = run.shelf.expect(extent)
        cost = sum(span.block.cost(span.first, span.stop) for span in piece)
        run.append(piece[-1].stop - first, cost)
        for span, behind in pairwise(piece):
            run.lack(span.stop, behind.first)
    for run in reversed(runs):
        lane.cold.insert(position, run)
        queue.count_run(run)
