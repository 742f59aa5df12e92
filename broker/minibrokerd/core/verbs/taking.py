"""How the messages of a run are begun, or taken out of their delivery, where nothing of it is lost: all at once.

A run is what a client says of consecutive ids: of several keys that took turns, or of messages that were begun one
by one. What is counted is counted once for all that are of one publish. Whatever is otherwise (the middle of a
span, a mix of those that were begun alone and others, something lost) goes the general way, `Settlement.found`.
"""

from __future__ import annotations

from collections.abc import Sequence

from minibrokerd.core.model.deliveries import BegunSpan, Delivery
from minibrokerd.core.model.messages import BEGUN, Item, Message, Span
from minibrokerd.core.model.queues import Queue
from minibrokerd.core.model.state import Store
from minibrokerd.core.model.transitions import end_begun, end_held, end_together
from minibrokerd.core.verbs.attempts import drop_delivery


def held_in(delivery: Delivery, first: int, count: int) -> Sequence[Span]:
    """Take a run of held messages out of a delivery, as spans; none: it is not, and nothing was changed."""
    spans, at, stop = delivery.spans, first, first + count
    starts = spans.get(at) or next(
        (each for each in spans.values() if each.first < at < each.stop), None
    )
    while True:
        if starts is None:
            return ()
        at = starts.stop
        if at >= stop:
            break
        starts = spans.get(at)
    found, at = [], first
    while at < stop:
        span = delivery.take_from_spans(at, stop)
        assert span is not None, "it was looked for"
        found.append(span)
        at = span.stop
    return found


def together(delivery: Delivery, first: int, count: int) -> Sequence[BegunSpan | Span]:
    """Return a run as what was begun together, and what is held, cut at its end; none: it is something else."""
    begun, spans, at, stop = delivery.begun, delivery.spans, first, first + count
    found: list[BegunSpan | Span] = []
    while at < stop:
        item = begun.get(at) or spans.get(at)
        if item is None:
            return ()
        found.append(item)
        at = item.stop
    if at > stop:
        rest = found[-1].cut(stop)
        if isinstance(rest, Span):
            spans[stop] = rest
        else:
            delivery.begin(rest)
    return found


def take_start(store: Store, queue: Queue, delivery: Delivery, span: Span, count: int) -> None:
    """End the first messages of a span that is held, and with the last one of it the delivery."""
    first, stop = span.first, span.first + count
    del delivery.spans[first]
    if span.stop > stop:
        delivery.spans[stop] = span.cut(stop)
    queue.count_out(span.block, first, stop)
    end_held(store, queue.group, delivery, (span,), count)
    if not delivery:
        drop_delivery(store, queue, delivery)


def take_together(
    store: Store, queue: Queue, delivery: Delivery, first: int, count: int
) -> Sequence[BegunSpan | Span]:
    """End a run of what was begun together, and of what is held; none: it is not, and nothing was changed."""
    found = together(delivery, first, count)
    if not found:
        return ()
    begun = [item for item in found if isinstance(item, BegunSpan)]
    held = [item for item in found if isinstance(item, Span)]
    for item in begun:
        del delivery.begun[item.span.first]
    for span in held:
        del delivery.spans[span.first]
    items = [item if isinstance(item, Span) else item.span for item in found]
    _count_out(queue, items, first, first + count)
    if begun:
        end_together(store, queue.group, delivery, begun)
    if held:
        end_held(store, queue.group, delivery, held, sum(span.stop - span.first for span in held))
    return found


def take_spans(
    store: Store, queue: Queue, delivery: Delivery, first: int, count: int
) -> Sequence[Span]:
    """End a run that is whole spans, held; none: it is not, and nothing was changed."""
    spans, at, stop = delivery.spans, first, first + count
    found = []
    while at < stop:
        span = spans.get(at)
        if span is None:
            return ()
        found.append(span)
        at = span.stop
    if at > stop:
        return ()
    for span in found:
        del spans[span.first]
    _count_out(queue, found, first, stop)
    end_held(store, queue.group, delivery, found, count)
    return found


def take_begun(
    store: Store, queue: Queue, delivery: Delivery, first: int, count: int
) -> Sequence[Message]:
    """End a run of begun messages; none: it is not, and nothing was changed."""
    singles, found = delivery.alone, []
    for sequence in range(first, first + count):
        message = singles.get(sequence)
        if message is None or message.state is not BEGUN:
            return ()
        found.append(message)
    for sequence in range(first, first + count):
        del singles[sequence]
    _count_out(queue, found, first, first + count)
    end_begun(store, queue.group, delivery, found)
    return found


def _count_out(queue: Queue, items: Sequence[Item], first: int, stop: int) -> None:
    """Count out consecutive items, once for those of one block."""
    block = items[0].block
    if items[-1].block is not block:  # else all are of it: a block has consecutive ids
        for item in items:
            if item.block is not block:
                queue.count_out(block, first, item.first)
                block, first = item.block, item.first
    queue.count_out(block, first, stop)
