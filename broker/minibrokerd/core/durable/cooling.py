"""A replay keeps memory bounded: what waits in full becomes a run of places, as a side index would name it.

That is for a log that is read record by record: by a start without side indexes, or by who stands by for weeks.
Behind many that are cold, what comes is cold from the start, and no object is made of it (`Survivors.tail`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from minibrokerd.core.durable.survivors import Live, Survivors
from minibrokerd.core.model.cold import ColdRun
from minibrokerd.core.model.extents import Bodies
from minibrokerd.core.model.messages import Span

# Of a frame in a replay beside its bytes, about: frames may be of one message.
FRAME_OBJECTS_BYTES: Final = 800


def cool(queues: Iterable[Survivors], bodies: Bodies) -> int:
    """Turn the blocks of some queues into runs where that can be; return the bytes of those that stay."""
    return sum(_cool_queue(waiting, bodies) for waiting in queues)


def _cool_queue(waiting: Survivors, bodies: Bodies) -> int:
    firsts: list[int] = []
    lives: list[Live | ColdRun] = []
    left_bytes = 0
    run: ColdRun | None = None  # the one that is appended to
    for first, live in zip(waiting.firsts, waiting.lives, strict=True):
        if isinstance(live, Live):
            span = _whole(live)
            if span is None:
                if live.left:
                    firsts.append(first)
                    lives.append(live)
                    left_bytes += live.spans[0].block.extent.size + FRAME_OBJECTS_BYTES
                run = None
                continue
            if run is None or not run.joins(span.first, span.block.extent):
                run = ColdRun(waiting.queue.number, bodies.shelf(), 0, span.first, span.ready_at_ms)
                firsts.append(first)
                lives.append(run)
            _append(run, live, span)
        elif live.left:
            run = live
            firsts.append(first)
            lives.append(live)
    waiting.keep(firsts, lives)
    return left_bytes


def _whole(live: Live) -> Span | None:
    """Return the one span of a block of which the record says all there is to know, less what has ended."""
    if len(live.spans) != 1:
        return None
    (span,) = live.spans
    block = span.block
    is_whole = (
        block.extent.is_stored
        and (span.first, span.stop) == (block.first, block.first + block.count)
        and span.ready_at_ms == block.ready_at_ms
        and not (span.key or block.terms.priority or block.terms.ttl_ms)
        and block.uniques is None
    )
    return span if is_whole else None


def _append(run: ColdRun, live: Live, span: Span) -> None:
    block = span.block
    run.shelf.append(block.extent)
    run.append(block.count, block.cost(span.first, span.stop))
    run.batch = max(run.batch, block.batch)
    for sequence in sorted(live.gone or ()):
        run.end(sequence, sequence + 1)
