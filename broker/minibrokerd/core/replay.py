"""From the records of a log back to the state of the core.

While records are read, a queue is a list of blocks in order of their sequences, with what has ended crossed
out, and a map of the messages that have a history of their own. `finish` turns that into lanes, waits and
leases. Unknown ids are ignored: a copy may have outlived what it is a copy of.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

from minibroker import limits
from minibroker.wire import RUN
from minibrokerd.core.deliveries import Delivery
from minibrokerd.core.logins import await_return
from minibrokerd.core.messages import Block, Message, Span, State, key_in
from minibrokerd.core.publishing import enter, read_columns, result_of, spans_of
from minibrokerd.core.queues import Queue
from minibrokerd.core.records import (
    AckMeta,
    BeginMeta,
    CopyMeta,
    DropMeta,
    ExtendMeta,
    FrameMeta,
    Meta,
    MoveMeta,
    PublishMeta,
    PurgeMeta,
    QueueMeta,
    ReserveMeta,
    ReturnMeta,
    decode,
)
from minibrokerd.core.sessions import Outcome, Result, Session
from minibrokerd.core.settling import lease_over
from minibrokerd.core.state import Store
from minibrokerd.core.tails import split_bins
from minibrokerd.core.wheel import TICK_MS, Wheel
from minibrokerd.log.seam import Batch, Record

LEASE_GRACE_MS: Final = (
    60_000  # a recovered lease has at least min(lease, this) from when the port opens
)


class _Live:
    """What is left of a block: its spans, less what is crossed out."""

    __slots__ = ("gone", "left", "spans")

    def __init__(self, spans: list[Span], count: int) -> None:
        self.spans = spans
        self.left = count
        self.gone: set[int] | None = None

    def cross_out(self, sequence: int) -> Span | None:
        """Cross out one message and return the span it was in; None if it was crossed out before."""
        if self.gone is not None and sequence in self.gone:
            return None
        for span in self.spans:
            if span.first <= sequence < span.stop:
                break
        else:
            return None
        if self.gone is None:
            self.gone = set()
        self.gone.add(sequence)
        self.left -= 1
        if not self.left:
            self.spans = []
        return span

    def live(self) -> Iterator[Span]:
        """Yield what is left as spans."""
        for span in self.spans:
            for sequence in sorted(s for s in self.gone or () if span.first <= s < span.stop):
                if sequence > span.first:
                    rest = span.cut(sequence)
                    yield span
                    span = rest
                span.first = sequence + 1
            if span.first < span.stop:
                yield span


class _Waiting:
    """A queue while its records are read."""

    __slots__ = ("firsts", "leases", "lives", "messages", "queue", "waits")

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.firsts: list[int] = []
        self.lives: list[_Live] = []
        self.messages: dict[int, Message] = {}
        self.leases: dict[int, BeginMeta] = {}  # the newest of each begun message, by key
        self.waits: dict[
            int, tuple[int, int]
        ] = {}  # (written unix_ms, duration) of a delay, by key

    def add(self, first: int, spans: list[Span], count: int) -> None:
        self.firsts.append(first)
        self.lives.append(_Live(spans, count))
        if len(self.lives) > 1_000 and not self.lives[len(self.lives) // 2].left:
            self._drop_ended()

    def end_run(self, origin: int, first: int, count: int) -> None:
        """Cross out a run of messages."""
        if origin == self.queue.home:
            live = self._find(first)
            # The common case costs one look-up: a run that is all of what is left of a block.
            if (
                live is not None
                and live.gone is None
                and live.left == count
                and live.spans[0].first == first
            ):
                live.left, live.spans = 0, []
                return
        for sequence in range(first, first + count):
            self.take(origin, sequence)

    def take(self, origin: int, sequence: int) -> Message | None:
        """Remove one message and return it as one of its own."""
        key = key_in(self.queue.home, origin, sequence)
        message = self.messages.pop(key, None)
        if message is not None:
            self.waits.pop(key, None)
            self.leases.pop(key, None)
        if message is not None or origin != self.queue.home:
            return message
        live = self._find(sequence)
        span = live.cross_out(sequence) if live is not None else None
        return None if span is None else Message.of(span, sequence)

    def put(self, message: Message) -> int:
        """Add one message and return its key."""
        key = key_in(self.queue.home, message.block.origin, message.sequence)
        self.messages[key] = message
        return key

    def clear(self) -> None:
        self.firsts, self.lives = [], []
        self.messages, self.waits, self.leases = {}, {}, {}

    def _find(self, sequence: int) -> _Live | None:
        index = bisect_right(self.firsts, sequence) - 1
        return self.lives[index] if index >= 0 else None

    def _drop_ended(self) -> None:
        kept = [(f, live) for f, live in zip(self.firsts, self.lives, strict=True) if live.left]
        self.firsts = [first for first, _ in kept]
        self.lives = [live for _, live in kept]


APPLY: Final[dict[type[Meta], Callable[[Replay, Any, Record], None]]] = {}
Apply = TypeVar("Apply", bound=Callable[..., None])


def _applies(*metas: type[Meta]) -> Callable[[Apply], Apply]:
    """Let the decorated method apply records of these types."""

    def enter(method: Apply) -> Apply:
        APPLY.update(dict.fromkeys(metas, method))
        return method

    return enter


class Replay:
    """Applies records to a store that is not open yet."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._queues: dict[int, _Waiting] = {}
        self._homes: dict[int, list[_Waiting]] = {}  # a queue and its DLQ, by number of the queue
        self.messages = 0

    def batch(self, batch: Batch) -> None:
        """Apply one batch.

        Raises:
            UnknownRecord: a record is of a newer version.
        """
        for record in batch.records:
            meta = decode(record)
            APPLY[type(meta)](self, meta, record)

    def finish(self, epoch: int, now_ms: int, unix_ms: int, *, clean: bool) -> None:
        """Make lanes, waits and leases of what is left; see Core.opened."""
        store = self._store
        store.epoch, store.now_ms, store.unix_ms = epoch, now_ms, unix_ms
        store.wheel = Wheel(now_ms)
        store.grace_until_ms = now_ms + LEASE_GRACE_MS + 2 * TICK_MS
        for waiting in self._queues.values():
            queue = waiting.queue
            queue.next_sequence = queue.reserved_until
            self._finish_queue(waiting)
        for session in list(store.sessions.values()):
            age_ms = max(unix_ms - session.seen_unix_ms, 0)
            session.seen_ms = now_ms - age_ms
            if age_ms > limits.FRAME_OUTCOME_MS:
                session.forget_all()
            await_return(store, session)
        if self.messages and not clean:
            store.hold_until_ms = now_ms + limits.RESUME_WAIT_MS
        store.dirty.clear()
        for queue in store.queues.values():
            queue.dirty = False

    def _finish_queue(self, waiting: _Waiting) -> None:
        store, queue = self._store, waiting.queue
        for live in waiting.lives:
            for span in live.live():
                delay_ms = span.ready_at_ms - span.block.ready_at_ms
                span.ready_at_ms = self._still_waits(span.ready_at_ms, span.block.unix_ms, delay_ms)
                self.messages += span.stop - span.first
                enter(store, queue, [span])
        for key, message in waiting.messages.items():
            self.messages += 1
            if message.state is State.BEGUN:
                self._lease(queue, message, waiting.leases[key])
                continue
            written_ms, delay_ms = waiting.waits.get(key, (0, 0))
            message.ready_at_ms = self._still_waits(message.ready_at_ms, written_ms, delay_ms)
            store.wait_or_ready(queue, message)

    def _still_waits(self, ready_at_ms: int, written_unix_ms: int, delay_ms: int) -> int:
        """Return the log time from which an item is ready: never longer than its delay from now."""
        store = self._store
        if not delay_ms:
            return min(ready_at_ms, store.now_ms)
        left = min(max(written_unix_ms + delay_ms - store.unix_ms, 0), delay_ms)
        return store.now_ms + left if left else min(ready_at_ms, store.now_ms)

    def _lease(self, queue: Queue, message: Message, meta: BeginMeta) -> None:
        store = self._store
        session = store.sessions.get(meta.session)
        if session is None:
            session = store.sessions[meta.session] = Session(meta.session, "")
        delivery = store.deliveries.get(meta.token)
        if delivery is None:
            delivery = Delivery(
                meta.token, queue.number, queue.home, session.id, 0, None, meta.lease_ms
            )
            store.deliveries[meta.token] = queue.deliveries[meta.token] = delivery
            session.deliveries.add(meta.token)
        left = min(max(meta.unix_ms + meta.lease_ms - store.unix_ms, 0), meta.lease_ms)
        left = max(left, min(meta.lease_ms, LEASE_GRACE_MS))
        delivery.add(message)
        # Log time stands still while the server is down: what was begun is not to wait for its delay again.
        message.ready_at_ms = min(message.ready_at_ms, store.now_ms)
        message.state = State.BEGUN
        message.lease_ms = meta.lease_ms
        message.timer = store.set_timer(lease_over, message, store.now_ms + left)
        queue.begun += 1

    # -- one method for each record type ---------------------------------------------------------

    @_applies(QueueMeta)
    def _queue(self, meta: QueueMeta, record: Record) -> None:
        known = self._queues.get(meta.number)
        if known is None:
            queue = self._store.add_queue(Queue(meta.number, meta.name, meta.home, meta.settings))
            waiting = self._queues[meta.number] = _Waiting(queue)
            self._homes.setdefault(meta.home, []).append(waiting)
        else:
            known.queue.settings = known.queue.settings | meta.settings

    @_applies(ReserveMeta)
    def _reserve(self, meta: ReserveMeta, record: Record) -> None:
        queue = self._queues[meta.queue].queue
        queue.reserved_until = max(queue.reserved_until, meta.until)

    @_applies(PublishMeta)
    def _publish(self, meta: PublishMeta, record: Record) -> None:
        tail = bytes(record.tail)
        columns, lengths, _ = split_bins(memoryview(tail), 3)
        named = read_columns(meta, columns, meta.count)
        for number, first in meta.targets:
            block = Block(
                number,
                first,
                meta.count,
                tail,
                lengths,
                meta.encoding,
                named.get("encoding"),
                meta.durability,
                meta.epoch,
                meta.unix_ms,
                meta.ready_at_ms,
            )
            spans = spans_of(block, meta.delay_ms, meta.key, named)
            self._queues[number].add(first, spans, meta.count)
            self._remember(meta, [result_of(block)], b"")

    @_applies(BeginMeta, ExtendMeta)
    def _begin(self, meta: BeginMeta, record: Record) -> None:
        waiting = self._queues[meta.queue]
        for sequence in range(meta.first, meta.first + meta.count):
            message = waiting.take(meta.origin, sequence)
            if message is None:
                continue
            if message.token != meta.token:
                message.started_unix_ms = meta.unix_ms
            message.token, message.state = meta.token, State.BEGUN
            waiting.leases[waiting.put(message)] = meta

    @_applies(AckMeta)
    def _ack(self, meta: AckMeta, record: Record) -> None:
        waiting = self._queues[meta.queue]
        for _, origin, first, count in RUN.iter_unpack(record.tail):
            waiting.end_run(origin, first, count)
        if meta.session:
            self._remember(meta, [{"lost": 0}], b"")

    @_applies(ReturnMeta)
    def _return(self, meta: ReturnMeta, record: Record) -> None:
        waiting = self._queues[meta.queue]
        message = waiting.take(meta.origin, meta.sequence)
        if message is None:
            return
        message.state, message.started_unix_ms = State.READY, 0
        message.ended_token = meta.token
        message.ready_at_ms = meta.ready_at_ms
        message.attempts, message.releases, message.marked = (
            meta.attempts,
            meta.releases,
            meta.marked,
        )
        if meta.entry is not None:
            message.add_history(meta.entry)
        key = waiting.put(message)
        if meta.delay_ms:
            waiting.waits[key] = (meta.unix_ms, meta.delay_ms)

    @_applies(MoveMeta)
    def _move(self, meta: MoveMeta, record: Record) -> None:
        message = self._queues[meta.queue].take(meta.origin, meta.sequence)
        if message is None:
            return
        message.state, message.started_unix_ms = State.READY, 0
        message.ended_token = meta.token
        message.ready_at_ms = meta.ready_at_ms
        message.attempts, message.redriven = meta.attempts, meta.redriven
        message.marked, message.releases = False, 0
        if meta.entry is not None:
            message.add_history(meta.entry)
        self._queues[meta.target].put(message)

    @_applies(PurgeMeta)
    def _purge(self, meta: PurgeMeta, record: Record) -> None:
        self._queues[meta.queue].clear()

    @_applies(DropMeta)
    def _drop(self, meta: DropMeta, record: Record) -> None:
        waiting = self._queues.pop(meta.queue)
        self._homes[waiting.queue.home].remove(waiting)
        self._store.remove_queue(waiting.queue)

    @_applies(FrameMeta)
    def _frame(self, meta: FrameMeta, record: Record) -> None:
        self._remember(meta, meta.results, bytes(record.tail))

    def _remember(
        self, meta: FrameMeta | PublishMeta | AckMeta, results: list[Result], lost: bytes
    ) -> None:
        sessions = self._store.sessions
        session = sessions.get(meta.session)
        if session is None:
            session = sessions[meta.session] = Session(meta.session, "")
        session.forget_below(meta.answered_below)
        session.remember(meta.sequence, Outcome(meta.checksum, meta.size, results, lost, 0))
        session.seen_unix_ms = max(session.seen_unix_ms, meta.unix_ms)

    @_applies(CopyMeta)
    def _copy(self, meta: CopyMeta, record: Record) -> None:
        for waiting in self._homes[meta.origin]:  # a known id replaces its place, never adds
            waiting.take(meta.origin, meta.sequence)
        tail = bytes(record.tail)
        _, lengths, _ = split_bins(memoryview(tail), 3)
        block = Block(
            meta.origin,
            meta.sequence,
            1,
            tail,
            lengths,
            meta.encoding,
            None,
            meta.durability,
            meta.epoch,
            meta.publish_unix_ms,
            meta.ready_at_ms,
        )
        message = Message(block, meta.sequence, meta.key, meta.ready_at_ms)
        message.attempts, message.releases, message.marked = (
            meta.attempts,
            meta.releases,
            meta.marked,
        )
        message.redriven, message.history = meta.redriven, list(meta.history)
        message.dropped, message.ended_token = meta.attempts_dropped, meta.token
        waiting = self._queues[meta.queue]
        key = waiting.put(message)
        if meta.lease_token:
            message.token, message.state = meta.lease_token, State.BEGUN
            message.started_unix_ms = meta.started_unix_ms
            waiting.leases[key] = _lease_of(meta)
        elif meta.wait_ms:
            waiting.waits[key] = (meta.unix_ms, meta.wait_ms)


def _lease_of(meta: CopyMeta) -> BeginMeta:
    """Return the BEGIN that a copy carries, as if written when it ends as it will."""
    return BeginMeta(
        meta.queue,
        meta.lease_token,
        meta.session,
        meta.origin,
        meta.sequence,
        1,
        meta.lease_ms,
        meta.unix_ms + meta.wait_ms - meta.lease_ms,
    )
