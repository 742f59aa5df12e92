"""Acks as nearly all of them come: a frame with one run, which is the start of what is held of one publish, or one
message that was begun.

What a frame of 16 acks costs is hardly that of its messages: it is the many small steps that find out what it is
about. Here they are asked in one go, and the same is done as in `settling.ack`, which does all others. A test does
each ack both ways (tests/core/test_core_acking.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minibroker.contract.wire import RUN
from minibrokerd.core.model.claims import Claims
from minibrokerd.core.model.deliveries import Delivery, Run
from minibrokerd.core.model.inputs import Frame, Slice
from minibrokerd.core.model.messages import BEGUN, SYNC, Message, Span
from minibrokerd.core.model.queues import Queue
from minibrokerd.core.model.sessions import Result
from minibrokerd.core.model.state import Store
from minibrokerd.core.verbs.attempts import drop_delivery
from minibrokerd.core.verbs.settling import (
    Settlement,
    check_settlement,
    note_ran,
    note_waited,
    record_of_ack,
    settle,
)
from minibrokerd.core.verbs.taking import take_begun, take_start

# Store, frame, queue and delivery; and how many messages from the start of a span that is held are to end, or the
# one that was begun.
PlainAck = tuple[Store, Frame, Queue, Delivery, Span | Message, int]


def check_ack(
    store: Store, frame: Frame, part: Any, own: Slice, claims: Claims | None
) -> PlainAck | Settlement:
    """Return what an ack comes to; nothing is changed. Raises what `check_settlement` does."""
    plain = _plain(store, frame, part) if claims is None and part.runs == 1 else None
    return plain or check_settlement(store, frame, part, own, claims)


def _plain(store: Store, frame: Frame, part: Any) -> PlainAck | None:
    """Return the work of the only part of a frame, if nothing is concerned but the messages and their delivery."""
    queue = store.queues.get(part.queue)
    if queue is None or frame.sequence is None or len(frame.columns) != RUN.size:
        return None
    token, origin, first, count = RUN.unpack(frame.columns)
    group = queue.group
    delivery = group.deliveries.get(token)
    if (
        delivery is None
        or origin != delivery.home
        or delivery.queue_number != queue.number
        or delivery.session != store.connections[frame.connection].session.id
        or group.keys is not None
        or group.circuit is not None
        or group.key_times is not None
        or queue.settings["result_ms"]
        or store.results.waiting
        or store.chains.ids
    ):
        return None
    item: Span | Message | None = delivery.spans.get(first)
    if item is None:
        item = delivery.alone.get(first)
        if item is None or item.state is not BEGUN:
            return None
    if not 0 < count <= item.stop - first or item.block.durability != SYNC:
        return None
    return store, frame, queue, delivery, item, count


def apply_ack(work: PlainAck | Settlement) -> tuple[Result, Sequence[Run], int]:
    """Apply an ack that was checked: return its result, what was lost, and the batch that it rests on."""
    if isinstance(work, Settlement):
        return settle(work)
    store, frame, queue, delivery, item, count = work
    if isinstance(item, Span):
        take_start(store, queue, delivery, item, count)
        note_waited(store, queue.group, item.block.unix_ms, count)
    else:
        take_begun(store, queue, delivery, item.sequence, 1)
        if not delivery:
            drop_delivery(store, queue, delivery)
        if item.started_unix_ms:
            note_ran(store, queue.group, item.started_unix_ms, 1)
    queue.group.counters["acked"] += count
    session = store.connections[frame.connection].session
    session.acked += count
    runs = bytes(frame.columns)
    store.endings.remember(queue.name, "acked", session.client, store.unix_ms, runs)
    store.emit(record_of_ack(store, queue, frame, session), runs)
    queue.last_batch = store.open_batch
    return {"lost": 0}, (), store.open_batch
