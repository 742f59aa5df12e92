"""After the records of a log are read: lanes, waits and leases of what is left of each queue.

A wait or a lease has what is left of it by the wall clock, and never more than all of it. A lease has at least
`LEASE_GRACE_MS`, so that whoever works under it can come back; a time to live has no such grace.
"""

from __future__ import annotations

from typing import Final

from minibrokerd.core.durable.blocks import may_be_part
from minibrokerd.core.durable.survivors import Survivors
from minibrokerd.core.model.arranging import arrange
from minibrokerd.core.model.cold import ColdRun
from minibrokerd.core.model.deliveries import Delivery
from minibrokerd.core.model.lifetimes import limit_again
from minibrokerd.core.model.messages import Block, Message, Span, State
from minibrokerd.core.model.queues import DEFAULTS, Queue
from minibrokerd.core.model.records import BeginMeta
from minibrokerd.core.model.retained import RetainedLog
from minibrokerd.core.model.sessions import Session
from minibrokerd.core.model.sheaf import Sheaf
from minibrokerd.core.model.state import Store
from minibrokerd.core.model.transitions import change, wait, wait_together
from minibrokerd.core.verbs.dooming import doom
from minibrokerd.core.verbs.publishing import enter
from minibrokerd.log.sizes import GROWTH_BYTES

# A recovered lease has at least min(lease, this) from when the port opens.
LEASE_GRACE_MS: Final = 60_000


def finish_queue(store: Store, waiting: Survivors) -> int:
    """Let what is left of a queue wait, or be worked on; return how many messages that is."""
    queue, messages = waiting.queue, 0
    if queue.settings is not DEFAULTS:  # those have nothing arranged, and there may be very many
        arrange(store, queue)
    later: list[Span] = []  # of one block, and nothing else between them
    for live in waiting.lives:
        if isinstance(live, ColdRun):
            messages += _finish_run(store, queue, live)
            continue
        for span in live.live():
            delay_ms = span.ready_at_ms - span.block.ready_at_ms
            waits = live.wait or (span.block.unix_ms, delay_ms)
            span.ready_at_ms = _still_waits(store, span.ready_at_ms, *waits)
            messages += span.stop - span.first
            _count_in(store, queue, span.block, span.first, span.stop)
            if later and later[-1].block is not span.block:
                later = _wait_together(store, queue, later)
            if span.ready_at_ms > store.now_ms and may_be_part(span):
                later.append(span)
            elif delay_ms:  # its place is by the end of its delay, not where it was published
                wait(store, queue.group, span)
            else:
                enter(store, queue, [span])
    _wait_together(store, queue, later)
    for key, message in waiting.messages.items():
        messages += 1
        _count_in(store, queue, message.block, message.first, message.stop)
        if message.history and message.batch >= message.block.batch:
            store.sums.grown_bytes += GROWTH_BYTES * len(message.history)
        if message.state is State.BEGUN:
            _lease(store, queue, message, waiting.leases[key])
            continue
        if message.dead:
            doom(store, queue, message)
            continue
        written_ms, delay_ms = waiting.waits.get(key, (0, 0))
        message.ready_at_ms = _still_waits(store, message.ready_at_ms, written_ms, delay_ms)
        if isinstance(queue.group.retained, RetainedLog):
            message.ready_at_ms = 0  # it keeps its order, though a record says another time
        wait(store, queue.group, message)
    return messages


def _wait_together(store: Store, queue: Queue, later: list[Span]) -> list[Span]:
    """Let delayed messages of one block wait as a sheaf, and return that there are no others."""
    if len(later) > 1:
        wait_together(store, queue.group, Sheaf.of(later))
    elif later:
        wait(store, queue.group, later[0])
    return []


def session_of(store: Store, number: int) -> Session:
    """Return a session that a record names."""
    session = store.sessions.get(number)
    if session is None:
        session = store.sessions[number] = Session(number, "")
    return session


def _count_in(store: Store, queue: Queue, block: Block, first: int, stop: int) -> None:
    queue.count_in(block, first, stop)
    if block.terms.ttl_ms:
        limit_again(store, queue, block)


def _finish_run(store: Store, queue: Queue, run: ColdRun) -> int:
    if not run.left:
        return 0
    queue.count_run(run)
    queue.group.enter_cold(run)
    store.touch(queue.group)
    return run.left


def _still_waits(store: Store, ready_at_ms: int, written_unix_ms: int, delay_ms: int) -> int:
    """Return the log time from which an item is ready: never longer than its delay from now."""
    if not delay_ms:
        return min(ready_at_ms, store.now_ms)
    left = min(max(written_unix_ms + delay_ms - store.unix_ms, 0), delay_ms)
    return store.now_ms + left if left else min(ready_at_ms, store.now_ms)


def _lease(store: Store, queue: Queue, message: Message, meta: BeginMeta) -> None:
    session = session_of(store, meta.session)
    delivery = store.deliveries.get(meta.token)
    if delivery is None:
        delivery = Delivery(
            meta.token, queue.number, queue.home, session.id, 0, None, meta.lease_ms
        )
        queue.group.wake()
        store.deliveries[meta.token] = queue.group.deliveries[meta.token] = delivery
        session.deliveries.add(meta.token)
        if meta.request is not None:
            session.note_answer(meta.request, delivery)
    left = min(max(meta.unix_ms + meta.lease_ms - store.unix_ms, 0), meta.lease_ms)
    left = max(left, min(meta.lease_ms, LEASE_GRACE_MS))
    delivery.add(message)
    # Log time stands still while the server is down: what was begun is not to wait for its delay again.
    message.ready_at_ms = min(message.ready_at_ms, store.now_ms)
    message.lease_ms = meta.lease_ms
    until_ms = store.now_ms + left
    change(store, queue.group, (message,), None, State.BEGUN, until_ms=until_ms)
