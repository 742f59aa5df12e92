"""How an ack takes the messages of a run out of their delivery, where nothing of it is lost: all at once.

A run is what a client says of consecutive ids: of several keys that took turns, or of messages that were begun one
by one. What is counted is counted once for all that are of one publish. Whatever is otherwise (part of a span, of
which only the first may be, a mix of held and begun, something lost) goes the general way, `Settlement.found`.
"""

from __future__ import annotations

from collections.abc import Sequence

from minibrokerd.core.model.deliveries import Delivery
from minibrokerd.core.model.messages import BEGUN, Item, Message, Span
from minibrokerd.core.model.queues import Queue
from minibrokerd.core.model.state import Store
from minibrokerd.core.model.transitions import end_begun, end_held


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
    singles, found = delivery.singles, []
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
