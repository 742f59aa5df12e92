"""What a session says of messages that go on: a handler starts, needs longer, or says how far it is.

Many that are begun at once stay a span with one lease (model/deliveries.py), and so they are renewed; a few are
messages of their own from then on, as most of those end one by one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from minibrokerd.core.model.deliveries import BegunSpan, Run
from minibrokerd.core.model.messages import BEGUN, Message
from minibrokerd.core.model.records import ExtendMeta
from minibrokerd.core.verbs.attempts import begin_messages, begin_spans, write_lease
from minibrokerd.core.verbs.results import progressed
from minibrokerd.core.verbs.settling import Settlement
from minibrokerd.core.verbs.taking import held_in, together

FEW: Final = 16  # messages that are begun at once


def begin(work: Settlement) -> None:
    """A handler starts: the lease clock runs, the attempt counts."""
    for run in work.runs:
        if run[3] <= FEW or not _begin_whole(work, run):
            begin_messages(work.store, work.queue, _not_begun(work.singles(run)))


def _begin_whole(work: Settlement, run: Run) -> bool:
    """Begin a run that is held as spans, each as one; False: it is not, or more is noted of each message."""
    token, origin, first, count = run
    delivery = work.delivery_of(token)
    if delivery is None or origin != delivery.home or work.group.key_times is not None:
        return False
    spans = held_in(delivery, first, count)
    if spans:
        begin_spans(work.store, work.queue, delivery, spans, count)
    return bool(spans)


def _not_begun(messages: Iterable[Message]) -> list[Message]:
    return [message for message in messages if message.state is not BEGUN]


def extend(work: Settlement) -> None:
    """Renew leases from now; what is still held begins, for its BEGIN may be overtaken by a renewal."""
    store = work.store
    for run in work.runs:
        if _extend_whole(work, run):
            continue
        messages = list(work.singles(run))
        begin_messages(store, work.queue, _not_begun(messages))
        for message in messages:
            assert message.timer is not None
            assert message.delivery is not None
            message.lease_ms = work.part.lease_ms or message.delivery.lease_ms
            store.wheel.schedule(message.timer, store.now_ms + message.lease_ms)
        store.write_leases(ExtendMeta, work.queue, messages)
    # A renewal that is lost in a crash is made good by the start: nobody waits.


def _extend_whole(work: Settlement, run: Run) -> bool:
    """Renew the leases of a run that was begun together; False: it was not, or not all of it."""
    token, origin, first, count = run
    delivery, store = work.delivery_of(token), work.store
    if delivery is None or not delivery.begun or origin != delivery.home:
        return False
    items = [item for item in together(delivery, first, count) if isinstance(item, BegunSpan)]
    if sum(item.span.stop - item.span.first for item in items) != count:
        return False
    lease_ms = work.part.lease_ms or delivery.lease_ms
    for item in items:
        item.lease_ms = lease_ms
        store.wheel.schedule(item.timer, store.now_ms + lease_ms)
    spans = [item.span for item in items]
    write_lease(store, ExtendMeta, work.queue, delivery, spans, lease_ms)
    return True


def progress(work: Settlement) -> None:
    """Say how far messages are; what is only held has begun."""
    assert work.values is not None, "it was checked"
    for run, note in zip(work.runs, work.values, strict=True):
        for message in work.singles(run):
            begin_messages(work.store, work.queue, _not_begun([message]))
            id = message.block.origin, message.sequence
            progressed(
                work.store, work.queue, id, work.part.permille, note.decode(errors="replace")
            )
