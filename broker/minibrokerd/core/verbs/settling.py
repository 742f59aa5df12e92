"""The settlements: what a session does with what it holds; what ends nothing is in going_on.py.

Every verb gets runs of (token, origin, first, count). What is no longer under its token is lost: it is named
in the answer and nothing is changed for it. The table of attempts is in protocol.md, section 5.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from minibroker.contract import limits
from minibroker.contract.ends import Outcome
from minibroker.contract.wire import RUN, pack_runs
from minibrokerd.core.model.chains import write
from minibrokerd.core.model.circuits import ended as attempts_ended
from minibrokerd.core.model.claims import Claims
from minibrokerd.core.model.deliveries import BegunSpan, Delivery, Run
from minibrokerd.core.model.group import Group
from minibrokerd.core.model.inputs import Frame, Slice
from minibrokerd.core.model.key_times import note_ended
from minibrokerd.core.model.messages import BEGUN, HELD, MEMORY, Item, Message, Span, singles_of
from minibrokerd.core.model.noting import bytes_of_ends, note_one
from minibrokerd.core.model.queues import Queue
from minibrokerd.core.model.records import AckMeta
from minibrokerd.core.model.refusals import Broken, Refused
from minibrokerd.core.model.sessions import Connection, Result, Session
from minibrokerd.core.model.state import Store
from minibrokerd.core.model.times import times_of
from minibrokerd.core.model.transitions import change, state_in, wait
from minibrokerd.core.verbs.attempts import drop_delivery, end_attempt, not_begun
from minibrokerd.core.verbs.keying import back_off
from minibrokerd.core.verbs.moving import dead_letter, is_used_up, retry_delay_ms
from minibrokerd.core.verbs.recalling import given_back
from minibrokerd.core.verbs.runs import read_errors, read_runs, read_values
from minibrokerd.core.verbs.taking import take_begun, take_spans, take_start, take_together

# From the second release on, so that two workers do not play ping-pong.
RELEASE_DELAY_MS: Final = 1_000
_MOST_BYTES: Final = {"result": limits.MAX_RESULT_BYTES, "note": limits.MAX_NOTE_BYTES}


class Settlement:
    """One settle part while it is applied: its queue, its runs, and what became of them."""

    __slots__ = (
        "began_unix_ms",
        "column",
        "durability",
        "errors",
        "frame",
        "group",
        "lost",
        "part",
        "queue",
        "runs",
        "sent_unix_ms",
        "store",
        "values",
    )

    def __init__(
        self, store: Store, frame: Frame, part: Any, queue: Queue, runs: list[Run]
    ) -> None:
        self.store = store
        self.frame = frame
        self.part = part
        self.queue = queue
        self.group = queue.group
        self.runs = runs
        self.column = memoryview(b"")  # the runs as they came
        # (class, text) for each run of a nack or reject
        self.errors: Iterable[tuple[str, str]] = ()
        # What each run of a `complete` came to, or what is said of it in a `progress`; None: another part.
        self.values: list[bytes] | None = None
        self.lost: list[Run] = []
        self.durability = MEMORY  # the safest of what was settled
        # When the newest of these was begun, or published, if it was settled without a begin; 0: none was.
        self.began_unix_ms = self.sent_unix_ms = 0

    def take(self, run: Run) -> bool:
        """End a run that is the start of a held span, whole spans, or begun messages: how nearly all acks are.

        The general way, `found`, does the same message by message; False: it has to.
        """
        token, origin, first, count = run
        delivery = self.delivery_of(token)
        if delivery is None or origin != delivery.home:
            return False
        span = delivery.spans.get(first)
        if delivery.begun:
            some = take_together(self.store, self.queue, delivery, first, count)
            if not some:
                return False
            self._note_all(some)
            last = some[-1]
            if isinstance(last, Span):
                self.sent_unix_ms = last.block.unix_ms
            else:
                self.began_unix_ms = last.started_unix_ms
        elif span is None:
            begun = take_begun(self.store, self.queue, delivery, first, count)
            if not begun:
                return False
            self._note_all(begun)
            self.began_unix_ms = begun[-1].started_unix_ms
        else:
            if span.stop - first < count:
                held = take_spans(self.store, self.queue, delivery, first, count)
                if not held:
                    return False
                span = held[-1]
                self._note_all(held)
            else:
                take_start(self.store, self.queue, delivery, span, count)
                if span.block.durability < self.durability:
                    self.durability = span.block.durability
                self.sent_unix_ms = span.block.unix_ms
                return True
            self.sent_unix_ms = span.block.unix_ms
        if not delivery:
            drop_delivery(self.store, self.queue, delivery)
        return True

    def _note_all(self, items: Sequence[Item | BegunSpan]) -> None:
        """Take note of how safe it is to be that these, of consecutive ids, are settled."""
        is_one = items[0].block is items[-1].block  # then all are of it, too
        for item in items[:1] if is_one else items:
            if item.block.durability < self.durability:
                self.durability = item.block.durability

    def found(self, run: Run) -> Iterator[tuple[Delivery, Item]]:
        """Take the messages of a run out of their delivery; note those that are lost."""
        token, origin, first, count = run
        delivery = self.delivery_of(token)
        if delivery is None:
            self.lost.append(run)
            return
        for item in delivery.take(origin, first, count):
            if isinstance(item, int):
                self._lose(token, origin, item)
                continue
            self._note(item)
            yield delivery, item
        if not delivery:
            drop_delivery(self.store, self.queue, delivery)

    def holds(self, run: Run) -> bool:
        """Whether all of a run is under its token."""
        token, origin, first, count = run
        delivery = self.delivery_of(token)
        return delivery is not None and delivery.holds(origin, first, count)

    def singles(self, run: Run) -> Iterator[Message]:
        """Yield each message of a run as one of its own, left in its delivery; note those that are lost."""
        token, origin, first, count = run
        delivery = self.delivery_of(token)
        if delivery is None:
            self.lost.append(run)
            return
        for sequence in range(first, first + count):
            message = delivery.single(origin, sequence)
            if message is None:
                self._lose(token, origin, sequence)
            else:
                yield message

    def delivery_of(self, token: int) -> Delivery | None:
        """Return what is held under a token, by the session that says so; None: nothing is."""
        delivery = self.group.deliveries.get(token)
        if delivery is None or delivery.queue_number != self.queue.number:
            return None
        # A token is no secret: only the session that it was given to may settle under it.
        session = self.store.connections[self.frame.connection].session
        return delivery if delivery.session == session.id else None

    def _note(self, item: Item) -> None:
        """Take note of what is settled: since when it was worked on, and how safe it is to be."""
        if isinstance(item, Message) and item.state is BEGUN:
            self.began_unix_ms = item.started_unix_ms
        if item.block.durability < self.durability:
            self.durability = item.block.durability

    def _lose(self, token: int, origin: int, sequence: int) -> None:
        last = self.lost[-1] if self.lost else None
        if last is not None and last[:2] == (token, origin) and last[2] + last[3] == sequence:
            self.lost[-1] = (token, origin, last[2], last[3] + 1)
        else:
            self.lost.append((token, origin, sequence, 1))


# -- the verbs ----------------------------------------------------------------------------------


def ack(work: Settlement) -> None:
    """Done: the messages end."""
    store = work.store
    ended: list[Run] = []
    keys = work.group.keys
    by_key = work.group.key_times is not None
    if keys is not None and keys.circuits is not None:
        by_key = by_key or keys.circuits.any_failed
    for run in work.runs:
        if not by_key and work.take(run):
            ended.append(run)
            continue
        for delivery, item in work.found(run):
            if by_key:
                _note_key(work, item)
            ended.append((delivery.token, run[1], item.first, item.stop - item.first))
            change(store, work.group, (item,), state_in(item, delivery), None, delivery)
            work.queue.count_out(item.block, item.first, item.stop)
    if not ended:
        return
    count = sum(run[3] for run in ended)
    work.group.counters["acked"] += count
    session = store.connections[work.frame.connection].session
    session.acked += count
    if work.group.circuit is not None:
        attempts_ended(store, work.queue, max(run[0] for run in ended), failed=0, count=count)
    if work.began_unix_ms:
        note_ran(store, work.group, work.began_unix_ms, count)
    elif work.sent_unix_ms:
        note_waited(store, work.group, work.sent_unix_ms, count)
    if (
        work.values is not None
        or work.queue.settings["result_ms"]
        or store.results.waiting
        or store.chains.ids
    ):
        _keep_results(work, ended)
    # Only what really ended may stand in the log: a lost run names messages that live.
    tail = pack_runs(ended) if work.lost else bytes(work.column)
    store.endings.remember(work.queue.name, "acked", session.client, store.unix_ms, tail)
    if work.durability == MEMORY:
        return
    most = store.sizes.runs_bytes
    while len(tail) > most:  # a frame as large as a segment, or many gaps in one run
        store.emit(AckMeta(work.queue.number, 0, 0, 0, 0, 0, 0), tail[:most])
        tail = tail[most:]
    frame = work.frame
    # One ack that lost nothing, in one record: that has the outcome of its frame.
    if (
        frame.sequence is not None
        and len(frame.parts) == 1
        and not work.lost
        and len(frame.columns) <= most
    ):
        store.emit(record_of_ack(store, work.queue, frame, session), tail)
    else:
        store.emit(AckMeta(work.queue.number, 0, 0, 0, 0, 0, 0), tail)
    work.queue.last_batch = work.store.open_batch


def note_ran(store: Store, group: Group, began_unix_ms: int, count: int) -> None:
    """Note how long the handlers of messages ran that are done."""
    ran_ms = store.unix_ms - began_unix_ms
    store.sums.runs_ms.note(ran_ms, count)
    times_of(store, group).runs.add(ran_ms, count)


def note_waited(store: Store, group: Group, sent_unix_ms: int, count: int) -> None:
    """Note how long messages waited that were begun and done in one turn of their client's loop."""
    waited_ms = store.unix_ms - sent_unix_ms
    store.sums.waits_ms.note(waited_ms, count)
    store.sums.runs_ms.counts[0] += count
    times = times_of(store, group)
    times.waits.add(waited_ms, count)
    times.runs.add(0, count)


def record_of_ack(store: Store, queue: Queue, frame: Frame, session: Session) -> AckMeta:
    """Return the fields of a record that has the outcome of its frame, beside what ended."""
    store.effects.has_outcome = True
    return AckMeta(
        queue.number,
        session.id,
        frame.sequence or 0,
        session.answered_below,
        frame.checksum,
        store.unix_ms,
        frame.size,
    )


def _note_key(work: Settlement, item: Item) -> None:
    """Note an ack of a key, where its circuit or its times ask for that."""
    circuits, times = work.group.key_circuits, work.group.key_times
    if circuits is not None:
        circuits.acked(item)
    if times is not None:
        note_ended(work.store, times, item)


def _keep_results(work: Settlement, ended: list[Run]) -> None:
    """Keep what messages that ended as done came to, if somebody asked for it, and tell those who wait."""
    kept_ms, values = work.queue.setting("result_ms"), dict[tuple[int, int, int], bytes]()
    if work.values is not None:
        kept_ms = work.part.kept_ms or kept_ms
        for (token, origin, first, count), value in zip(work.runs, work.values, strict=True):
            values |= {(token, origin, first + at): value for at in range(count)}
    store, is_logged = work.store, work.durability != MEMORY
    # A worker sends no results where none are kept, so that there is none is nothing to be told.
    outcome = Outcome.DONE if kept_ms or work.values is not None else Outcome.ACKED
    if store.chains.ids:
        store.keep_together(bytes_of_ends(store, ended))
    elif not (kept_ms or store.results.waiting):
        return
    for token, origin, first, count in ended:
        for sequence in range(first, first + count):
            value = values.get((token, origin, sequence), b"")
            id = origin, sequence
            note_one(store, work.queue, id, outcome, value, kept_ms, logged=is_logged)
    write(store)


def nack(work: Settlement) -> None:
    """Failed: back after the queue's retry policy or the call's own delay; to the DLQ after the last one."""
    own_delay_ms = work.part.delay_ms
    for run, (name, text) in zip(work.runs, work.errors, strict=True):
        for delivery, item in work.found(run):
            for message in held_singles(delivery, item):
                _fail(work, delivery, message, own_delay_ms, name, text)
                if work.part.key_delay_ms:
                    client = work.store.connections[work.frame.connection].session.client
                    back_off(work.store, work.queue, message.key, work.part.key_delay_ms, client)


def reject(work: Settlement) -> None:
    """Can never succeed: to the DLQ now."""
    for run, (name, text) in zip(work.runs, work.errors, strict=True):
        for delivery, item in work.found(run):
            for message in held_singles(delivery, item):
                work.group.counters["rejected"] += 1
                entry = end_attempt(work.store, delivery, message, "rejected", name, text)
                dead_letter(work.store, work.queue, message, entry)


def release(work: Settlement) -> None:
    """Not done, not failed: back to its place, uncharged."""
    store, queue = work.store, work.queue
    recalled = bool(work.part.recalled)
    for run in work.runs:
        for delivery, item in _each(work, run):
            if recalled and state_in(item, delivery) is HELD:
                queue.group.counters["recalled"] += item.stop - item.first
                wait(store, work.group, item, delivery)
                given_back(work.group, delivery.consumer)
                continue
            queue.group.counters["released"] += item.stop - item.first
            delay_ms = 0
            if not (recalled and delivery.handed):  # else no handler saw it
                item.releases += 1
                delay_ms = RELEASE_DELAY_MS if item.releases > 1 else 0
            if delay_ms:
                item.ready_at_ms = store.now_ms + delay_ms
            if isinstance(item, Message) and item.state is BEGUN:
                not_begun(store, queue, item, delay_ms)
            wait(store, work.group, item, delivery)
    _note_silence(store, store.connections[work.frame.connection])


def _each(work: Settlement, run: Run) -> Iterator[tuple[Delivery, Item]]:
    """Yield what is given back; each by itself of what has a key, for it may hold the place of it (keys.py)."""
    for delivery, item in work.found(run):
        if item.key:
            yield from ((delivery, message) for message in held_singles(delivery, item))
        else:
            yield delivery, item


def _note_silence(store: Store, connection: Connection) -> None:
    """A release over the attached connection: the loop that should work stands still.

    What it gave back must not go to it again, so its main connection gets nothing until it says something.
    """
    main = connection.session.connection
    if not connection.main and main is not None:
        store.connections[main].silent = True


def held_singles(delivery: Delivery, item: Item) -> Iterator[Message]:
    """Yield each message of an item that was taken out of a delivery as one of its own, as it was there."""
    for message in singles_of(item):
        if message.delivery is None:
            message.delivery, message.state = delivery, HELD
        yield message


def _fail(
    work: Settlement,
    delivery: Delivery,
    message: Message,
    own_delay_ms: int | None,
    name: str,
    text: str,
) -> None:
    store, queue = work.store, work.queue
    queue.group.counters["failed"] += 1
    entry = end_attempt(store, delivery, message, "failed", name, text)
    if is_used_up(queue, message):
        dead_letter(store, queue, message, entry)
        return
    delay_ms = own_delay_ms
    if delay_ms is None:
        delay_ms = retry_delay_ms(queue, message.attempts[0], store.jitter)
    message.marked = False
    message.ready_at_ms = store.now_ms + delay_ms
    store.write_return(queue, [message], delay_ms, entry)
    wait(store, work.group, message, delivery)


def check_settlement(
    store: Store, frame: Frame, part: Any, own: Slice, claims: Claims | None
) -> Settlement:
    """Return what one begin or settle part comes to; nothing is changed. `claims` are of a frame of several parts.

    Raises:
        Broken: the columns do not hold what the part says.
        Refused: `lease_lost`, in a step: something is not held any more.
    """
    queue = store.queues.get(part.queue, store.nowhere)
    data, size = own.columns, part.runs * RUN.size
    # The errors first: whether their columns are whole costs nothing.
    errors, more = read_errors(data[size:], part.runs) if part.row.errors else ((), 0)
    work = Settlement(store, frame, part, queue, read_runs(data, part.runs))
    if part.row.texts == 1:
        work.values, more = read_values(data[size:], part.runs, _MOST_BYTES[part.row.columns[1]])
    work.column, work.errors = data[:size], errors
    if size + more != len(data):
        raise Broken(f"the columns have {len(data)} bytes, {size + more} are accounted for")
    if claims is not None and claims.is_step:
        for run in work.runs:
            if not claims.settle(run):
                raise Broken("a step names a message twice")
            if not work.holds(run):
                raise Refused(
                    "lease_lost",
                    f"messages of {part.queue!r:.200} are not held any more; nothing of the frame was done",
                )
    return work


def settle(work: Settlement) -> tuple[Result, Sequence[Run], int]:
    """Apply a settlement that was checked: return its result, what was lost, and the batch that it rests on."""
    row = work.part.row
    row.settle(work)
    rests_on = 0
    if work.lost:
        if row.counts_lost:
            work.group.counters["lost_settlements"] += sum(run[3] for run in work.lost)
        rests_on = work.queue.last_batch
    # What left no record (a release of what was only held) rests on nothing that could ever be synced.
    if work.durability != MEMORY and work.store.effects.records:
        rests_on = max(rests_on, work.store.rests_on(work.durability, work.frame.size))
    return {"lost": len(work.lost)}, work.lost, rests_on
