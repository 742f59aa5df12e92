"""From the records of a log back to the state of the core.

While records are read, a queue is what survives of it (survivors.py). `finish` turns that into lanes, waits
and leases.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Final, TypeVar

from minibroker.contract import limits
from minibroker.contract.wire import RUN
from minibrokerd.core.durable import blocks, digest
from minibrokerd.core.durable.cooling import FRAME_OBJECTS_BYTES, cool
from minibrokerd.core.durable.digest import Outcomes, cost_of, stands_alone
from minibrokerd.core.durable.survivors import Live, Survivors, lease_of
from minibrokerd.core.model import chains, key_settings
from minibrokerd.core.model.cold import ColdRun
from minibrokerd.core.model.extents import BadTail
from minibrokerd.core.model.kept import ENDED
from minibrokerd.core.model.messages import Message, Span, State
from minibrokerd.core.model.queues import DEFAULTS, Queue
from minibrokerd.core.model.records import (
    AckMeta,
    BeginMeta,
    CopyMeta,
    DamagedMeta,
    DropMeta,
    EndMeta,
    ExtendMeta,
    FrameMeta,
    Meta,
    MoveMeta,
    PublishMeta,
    PurgeMeta,
    QueueMeta,
    ReserveMeta,
    ReturnMeta,
    StateMeta,
    UnknownRecord,
    decode,
)
from minibrokerd.core.model.refusals import Broken, Refused
from minibrokerd.core.model.sessions import Outcome, Result
from minibrokerd.core.model.state import Store
from minibrokerd.core.model.wheel import TICK_MS, Wheel
from minibrokerd.core.returning import finish_sessions, hold_back
from minibrokerd.core.surviving import LEASE_GRACE_MS, finish_queue, session_of
from minibrokerd.core.verbs.publishing import result_of
from minibrokerd.log.seam import Batch, Digested, Record

MOST_SEQUENCES: Final = 2**64 - 1
# Raised by what reads a record whose checksum holds and whose parts do not fit each other: no damage makes one.
INCONSISTENT: Final = (
    BadTail, Broken, Refused, struct.error, LookupError, ValueError, OverflowError, TypeError,
)  # fmt: skip

APPLY: Final[dict[type[Meta], Callable[[Replay, Any, Record], None]]] = {}
Apply = TypeVar("Apply", bound=Callable[..., None])


def _applies(*metas: type[Meta]) -> Callable[[Apply], Apply]:
    """Let the decorated method apply records of these types."""

    def enter(method: Apply) -> Apply:
        APPLY.update(dict.fromkeys(metas, method))
        return method

    return enter


class Replay:
    """Applies records, or digests of them, to a store that is not open yet."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._bodies = store.bodies
        self._place: Any = None  # of the record that is applied
        self._outcomes: dict[int, list[tuple[Outcomes, int]]] = {}  # of digests, with their batch
        self._last_read: tuple[Any, list[Span]] = (None, [])
        self._queues: dict[int, Survivors] = {}
        self._homes: dict[int, list[Survivors]] = {}  # a queue and its DLQ, by number of the queue
        self._nameless: dict[int, Survivors] = {}  # those of which no record of settings came yet
        self.messages = 0
        self._taken_bytes = 0  # of bodies, since others left memory
        self._stayed_bytes = 0  # of those that could not
        self._number = 0  # of the batch whose records are applied

    def batch(self, batch: Batch) -> None:
        """Apply one batch.

        Raises:
            UnknownRecord: a record is of a newer version, or its parts do not fit each other.
        """
        self._number = batch.number
        for record, place in zip(batch.records, self._bodies.places(batch), strict=True):
            self._place = place
            record.says = meta = decode(record)
            self._apply(meta, record)

    def digested(self, part: Digested) -> None:
        """Apply what a digest says.

        Raises:
            UnknownRecord: it has a record of a newer version, or its parts do not fit each other.
        """
        self._number = part.number
        try:
            self._digested(part)
        except INCONSISTENT as error:
            raise _misfit(str(part), error) from error

    def _digested(self, part: Digested) -> None:
        for kind, content in digest.items(part.payload):
            if kind == digest.RUNS:
                run = digest.read_run(content, part, self._bodies)
                self._at(run.queue).replace(run.first, run.stop, run)
            elif kind == digest.OUTCOMES:
                outcomes = digest.read_outcomes(content)
                self._outcomes.setdefault(outcomes.session, []).append((outcomes, part.number))
            elif kind == digest.ACKS:
                number, intervals = digest.read_acks(content)
                waiting = self._at(number)
                for origin, first, stop in intervals:
                    waiting.end_run(origin, first, stop - first)
            else:
                self._digested_record(part, kind, content)

    def _digested_record(self, part: Digested, kind: int, content: bytes) -> None:
        if kind == digest.PLACED:
            _, place = digest.read_placed(content)
            self._place = self._bodies.place_of(part, place)
            record = self._bodies.read(self._place)
        else:
            record = digest.read_record(content)
        self._apply(decode(record), record)

    def _apply(self, meta: Meta, record: Record) -> None:
        try:
            APPLY[type(meta)](self, meta, record)
        except INCONSISTENT as error:
            raise _misfit(
                f"a record of type {record.type} in batch {self._number}", error
            ) from error

    def tidy(self, unix_ms: int) -> None:
        """Forget what is over by this wall time, in a replay that goes on for long, of a log without digests.

        Whoever leads forgets it too, and not all of that is in a record.
        """
        store = self._store
        for session in [each for each in store.sessions.values() if not each.is_worth_keeping]:
            del store.sessions[session.id]
        for entry in [each for each in store.kept if 0 < each.expires_unix_ms <= unix_ms]:
            store.kept.forget(entry.kind, entry.key)
        for waiting in self._queues.values():
            waiting.drop_ended()

    def cool_beyond(self, hot_bytes: int) -> None:
        """Let bodies leave memory, if more were taken than may be there.

        What has to stay is looked at again when as much has come once more: that bounds the work.
        """
        if self._taken_bytes > max(hot_bytes, self._stayed_bytes):
            self._taken_bytes = 0
            self._stayed_bytes = cool(self._queues.values(), self._bodies)

    def finish(self, epoch: int, now_ms: int, unix_ms: int, *, clean: bool) -> None:
        """Make lanes, waits and leases of what is left; see Core.opened.

        Raises:
            UnknownRecord: something that a record says makes no sense.
        """
        try:
            self._finish(epoch, now_ms, unix_ms, clean=clean)
        except INCONSISTENT as error:
            raise _misfit("what the records come to", error) from error
        # They know this replay, too: the process does not collect circles at its start (it takes a second).
        self._queues, self._homes, self._outcomes = {}, {}, {}

    def _finish(self, epoch: int, now_ms: int, unix_ms: int, *, clean: bool) -> None:
        store = self._store
        store.epoch, store.now_ms, store.unix_ms = epoch, now_ms, unix_ms
        store.wheel = Wheel(now_ms)
        store.grace_until_ms = now_ms + LEASE_GRACE_MS + 2 * TICK_MS
        store.policies.opened(store)
        for waiting in self._queues.values():
            queue = waiting.queue
            if not queue.name:
                raise UnknownRecord(
                    f"the log has records of queue {queue.number}, and nothing names it"
                )
            queue.next_sequence = queue.reserved_until
            self.messages += finish_queue(store, waiting)
        self._finish_outcomes()
        store.kept.opened(store)
        chains.opened(store)
        key_settings.opened(store)
        store.schedules.opened(store)
        store.pauses.opened(store)
        store.exchanges.opened(store)
        store.owners.opened(store)
        store.retained.opened(store)
        store.schemas.opened(store)
        finish_sessions(store)
        hold_back(store)
        store.dirty.clear()
        store.news.clear()
        for queue in store.queues.values():
            queue.group.dirty = False
            store.note_records(queue)

    def _finish_outcomes(self) -> None:
        """Take from the digests what can still be asked about; of most sessions that is in the last one."""
        for number, parts in self._outcomes.items():
            session = session_of(self._store, number)
            below = max(session.answered_below, *(part.answered_below for part, _ in parts))
            newer = session.window
            session.window = {}
            for part, batch in parts:
                session.seen_unix_ms = max(session.seen_unix_ms, part.seen_unix_ms)
                if part.highest < below:
                    continue
                for record in part.records():
                    meta = decode(record)
                    assert isinstance(meta, FrameMeta)
                    if meta.sequence >= below:
                        session.window[meta.sequence] = _outcome(
                            meta, meta.results, record.tail, batch
                        )
            session.window |= newer
            session.answered_below = below

    # -- one method for each record type ---------------------------------------------------------

    def _at(self, number: int) -> Survivors:
        """Return a queue by its number. Its record may come later: the segment that had it first was freed."""
        waiting = self._queues.get(number)
        if waiting is None:
            waiting = self._queues[number] = Survivors(
                Queue(number, "", number, DEFAULTS, self._store.sums), self._spans_of
            )
            self._nameless[number] = waiting
            self._homes.setdefault(number, []).append(waiting)
        return waiting

    @_applies(QueueMeta)
    def _queue(self, meta: QueueMeta, record: Record) -> None:
        waiting = self._at(meta.number)
        queue = waiting.queue
        queue.record_batch = self._number
        if queue.name:
            queue.restore(meta.settings, meta.chosen)
            return
        self._nameless.pop(queue.number, None)
        if queue.home != meta.home:
            self._homes[queue.home].remove(waiting)
            self._homes.setdefault(meta.home, []).append(waiting)
        waiting.rename(meta.name, meta.home, meta.settings, meta.chosen)
        self._store.add_queue(queue)

    @_applies(ReserveMeta)
    def _reserve(self, meta: ReserveMeta, record: Record) -> None:
        store = self._store
        if not meta.queue:
            store.next_queue_number = max(store.next_queue_number, meta.until)
            store.dropped_batch = self._number
            return
        queue = self._at(meta.queue).queue
        queue.reserved_until = max(queue.reserved_until, meta.until)
        queue.reserve_batch = self._number

    @_applies(PublishMeta)
    def _publish(self, meta: PublishMeta, record: Record) -> None:
        if not self._add_cold(meta, len(record.tail)):
            for number, block, spans in blocks.published(
                self._bodies, meta, record, self._number, self._place
            ):
                self._taken_bytes += block.extent.size + FRAME_OBJECTS_BYTES
                self._at(number).add(block.first, Live(spans, meta.count), meta.count)
        if meta.session:
            result = result_of(*meta.targets[-1], meta.durability, self._store.told)
            self._remember(meta, [result], b"")

    def _add_cold(self, meta: PublishMeta, tail_bytes: int) -> bool:
        """Whether messages come behind many cold ones: then they are cold, too, and no object was made of them."""
        if len(meta.targets) > 1 or meta.columns or stands_alone(meta):
            return False
        ((number, first),) = meta.targets
        waiting = self._queues.get(number)
        run = waiting.tail if waiting is not None else None
        if waiting is None or run is None:
            return False
        cost = cost_of(tail_bytes, meta.count)
        if not run.take(first, meta.count, cost, self._place):
            run = ColdRun(number, self._bodies.shelf(), 0, first, meta.ready_at_ms)
            run.take(first, meta.count, cost, self._place)
            waiting.go_on(run)
        run.batch = self._number
        return True

    @_applies(BeginMeta, ExtendMeta)
    def _begin(self, meta: BeginMeta, record: Record) -> None:
        waiting = self._at(meta.queue)
        _require_run(meta.first, meta.count, limits.MAX_RUNS_PER_FRAME)
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
        waiting = self._at(meta.queue)
        for _, origin, first, count in RUN.iter_unpack(record.tail):
            _require_run(first, count, MOST_SEQUENCES)
            waiting.end_run(origin, first, count)
        if meta.session:
            self._remember(meta, [{"lost": 0}], b"")

    @_applies(ReturnMeta)
    def _return(self, meta: ReturnMeta, record: Record) -> None:
        waiting = self._at(meta.queue)
        _require_run(meta.sequence, meta.count, limits.MAX_RUNS_PER_FRAME)
        for sequence in range(meta.sequence, meta.sequence + meta.count):
            message = waiting.take(meta.origin, sequence)
            if message is None:
                continue
            message.state, message.started_unix_ms = State.READY, 0
            message.ended_token, message.ready_at_ms = meta.token, meta.ready_at_ms
            message.attempts, message.releases = meta.attempts, meta.releases
            message.marked, message.dead = meta.marked, meta.dead
            if meta.entry is not None:
                message.add_history(meta.entry)
                message.batch = self._number
            key = waiting.put(message)
            if meta.delay_ms:
                waiting.waits[key] = (meta.unix_ms, meta.delay_ms)
            else:
                waiting.waits.pop(key, None)

    @_applies(MoveMeta)
    def _move(self, meta: MoveMeta, record: Record) -> None:
        message = self._at(meta.queue).take(meta.origin, meta.sequence)
        if message is None:
            return
        message.state, message.started_unix_ms = State.READY, 0
        message.ended_token = meta.token
        message.ready_at_ms = meta.ready_at_ms
        message.attempts, message.redriven = meta.attempts, meta.redriven
        message.marked, message.releases, message.dead = False, 0, False
        if meta.entry is not None:
            message.add_history(meta.entry)
            message.batch = self._number
        self._at(meta.target).put(message)

    @_applies(PurgeMeta)
    def _purge(self, meta: PurgeMeta, record: Record) -> None:
        self._at(meta.queue).clear()

    @_applies(DropMeta)
    def _drop(self, meta: DropMeta, record: Record) -> None:
        waiting = self._at(meta.queue)
        del self._queues[meta.queue]
        self._nameless.pop(meta.queue, None)
        self._homes[waiting.queue.home].remove(waiting)
        if waiting.queue.name:
            self._store.remove_queue(waiting.queue)
        self._store.next_queue_number = max(self._store.next_queue_number, meta.queue + 1)
        self._store.dropped_batch = self._number
        self._store.retained.ended.add(meta.queue)

    @_applies(FrameMeta)
    def _frame(self, meta: FrameMeta, record: Record) -> None:
        self._remember(meta, meta.results, bytes(record.tail))

    def _remember(
        self, meta: FrameMeta | PublishMeta | AckMeta, results: list[Result], lost: bytes
    ) -> None:
        session = session_of(self._store, meta.session)
        session.forget_below(meta.answered_below)
        session.remember(meta.sequence, _outcome(meta, results, lost, self._number))
        session.seen_unix_ms = max(session.seen_unix_ms, meta.unix_ms)

    @_applies(EndMeta)
    def _end(self, meta: EndMeta, record: Record) -> None:
        value = meta.answered_below, int(meta.silent)
        self._state(StateMeta(ENDED.number, (meta.session,), value, 0), record)

    @_applies(StateMeta)
    def _state(self, meta: StateMeta, record: Record) -> None:
        kind = self._store.kept.replayed(meta, self._number)
        if kind is ENDED and meta.value is not None:
            (session,), (answered_below, _) = meta.key, meta.value
            assert isinstance(session, int)
            assert isinstance(answered_below, int)
            session_of(self._store, session).forget_below(answered_below)

    @_applies(CopyMeta)
    def _copy(self, meta: CopyMeta, record: Record) -> None:
        for waiting in self._places(meta.origin):  # a known id replaces its place, never adds
            waiting.take(meta.origin, meta.sequence)
        block = blocks.copied(self._bodies, meta, record, self._number, self._place)
        message = Message(block, meta.sequence, meta.key, meta.ready_at_ms)
        message.attempts, message.releases, message.marked = (
            meta.attempts,
            meta.releases,
            meta.marked,
        )
        message.redriven, message.history = meta.redriven, tuple(meta.history)
        message.dropped, message.ended_token = meta.attempts_dropped, meta.token
        message.dead = meta.dead
        waiting = self._at(meta.queue)
        key = waiting.put(message)
        if meta.lease_token:
            message.token, message.state = meta.lease_token, State.BEGUN
            message.started_unix_ms = meta.started_unix_ms
            waiting.leases[key] = lease_of(meta)
        elif meta.wait_ms:
            waiting.waits[key] = (meta.unix_ms, meta.wait_ms)

    def _places(self, origin: int) -> list[Survivors]:
        """Return the queues that can have messages of `origin`: it, its DLQ, and those not named yet."""
        return [*self._homes.get(origin, ()), *self._nameless.values()]

    @_applies(*blocks.COPIED_RUNS)
    def _copy_run(self, meta: blocks.CopiedRun, record: Record) -> None:
        block, spans = blocks.copied_run(self._bodies, meta, record, self._number, self._place)
        self._taken_bytes += block.extent.size + FRAME_OBJECTS_BYTES
        wait = (meta.wrote_unix_ms, meta.wait_ms) if meta.wrote_unix_ms else None
        waiting = self._at(meta.queue)
        for some in blocks.apart(meta, spans):
            first, stop = some[0].first, some[-1].stop
            waiting.forget_messages(first, stop)
            waiting.replace(first, stop, Live(some, stop - first, wait))

    @_applies(DamagedMeta)
    def _damaged(self, meta: DamagedMeta, record: Record) -> None:
        _require_run(meta.first, meta.count, MOST_SEQUENCES)
        self._at(meta.queue).end_run(meta.queue, meta.first, meta.count)

    def _spans_of(self, run: ColdRun, sequence: int) -> list[Span]:
        """Read back the frame of a run that has a message."""
        place = run.shelf.place(run.index_of(sequence))
        wanted = place, run.queue  # a routed publish has messages of several queues
        if self._last_read[0] != wanted:
            record = self._bodies.read(place)
            spans = blocks.spans_at(self._bodies, record, run.queue, run.batch, place)
            self._last_read = wanted, spans
        return self._last_read[1]


def _outcome(
    meta: FrameMeta | PublishMeta | AckMeta,
    results: list[Result],
    lost: bytes | memoryview,
    batch: int,
) -> Outcome:
    return Outcome(meta.checksum, meta.size, results, bytes(lost), 0, batch)


def _require_run(first: int, count: int, most: int) -> None:
    if not (0 < count <= most and 0 <= first <= MOST_SEQUENCES - count):
        raise ValueError(f"{count} messages from {first} on")


def _misfit(what: str, error: Exception) -> UnknownRecord:
    return UnknownRecord(
        f"{what} cannot be understood, though the checksums hold: {type(error).__name__}: {error!s:.200}"
    )
