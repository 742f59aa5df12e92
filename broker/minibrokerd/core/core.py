"""The core as one value that the shell steps: a command and two times in, effects out.

    core = Core(bodies)
    for batch in log.recover(): core.replay(batch)
    core.opened(log.epoch, now_ms, unix_ms, clean=log.clean)
    effects = core.apply(command, now_ms, unix_ms)

The shell appends `effects.records` to the open batch and calls `close_batch` when it takes that batch away to
be written; `apply(Synced(n))` tells that batches up to n are safe.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from minibroker.contract import limits
from minibroker.contract.settings import DURABILITIES
from minibrokerd.core.durable import forwarding, paging
from minibrokerd.core.model import circuits
from minibrokerd.core.model.deliveries import BegunSpan
from minibrokerd.core.model.effects import Effects, ReadBack
from minibrokerd.core.model.extents import Bodies
from minibrokerd.core.model.group import Group
from minibrokerd.core.model.inputs import (
    Archived,
    Attach,
    Command,
    Disconnected,
    Fetched,
    Flow,
    Forward,
    Frame,
    Freeze,
    Hello,
    Loaded,
    LogHas,
    Resume,
    Space,
    Synced,
    Tick,
)
from minibrokerd.core.model.kept import RESULT
from minibrokerd.core.model.lifetimes import Lifetime
from minibrokerd.core.model.messages import Message
from minibrokerd.core.model.queues import Queue
from minibrokerd.core.model.refusals import Broken, Refused
from minibrokerd.core.model.scheduled import CalendarOf, no_calendars
from minibrokerd.core.model.sessions import Connection, Outcome, Result
from minibrokerd.core.model.state import HOLD_FOR_EVER_MS, Store
from minibrokerd.core.model.transitions import delay_over
from minibrokerd.core.replay import Replay
from minibrokerd.core.verbs import (
    archiving,
    chaining,
    feeding,
    logins,
    pausing,
    policing,
    redriving,
    unused,
    withdrawing,
)
from minibrokerd.core.verbs.attempts import lease_over, leases_over, note_waits
from minibrokerd.core.verbs.dispatching import dispatch, line_up_all, refill_later
from minibrokerd.core.verbs.expiring import expire_some
from minibrokerd.core.verbs.farewells import end_connection
from minibrokerd.core.verbs.firing import bytes_of, watch
from minibrokerd.core.verbs.operations import NAMELESS, SEQUENCE
from minibrokerd.core.verbs.parts import apply_parts, confirm, confirm_with_others
from minibrokerd.core.verbs.publishing import enter
from minibrokerd.core.verbs.takers import note_consumers, wait_no_longer
from minibrokerd.log.seam import Batch, Digested
from minibrokerd.log.sizes import LARGEST, Sizes

# Of memory, for results: half of what may always be in use (FREE_SHARE), so that these alone refuse no publish.
RESULTS_SHARE: Final = 32
TIMERS_PER_APPLY: Final = 500  # what fires in one apply, 2 to 8 ms; the rest fires in the next ones


class Core:
    """Queues, sessions and leases; see the head of this module for the order of calls."""

    def __init__(
        self,
        bodies: Bodies,
        *,
        auto_create: bool = True,
        max_queues: int = limits.MAX_QUEUES,
        sizes: Sizes = LARGEST,
        calendar_of: CalendarOf = no_calendars,
        secret: bytes = b"",
        told: Sequence[str] = DURABILITIES,
    ) -> None:
        """`bodies` makes extents, `calendar_of` calendars of schedules; `sizes` are those of the log.

        `secret` is random, up to 64 bytes: nobody guesses the names that it gives to queues. `told` is what
        confirms call each durability.
        """

        def make_store() -> Store:
            store = Store(
                bodies,
                auto_create=auto_create,
                max_queues=max_queues,
                sizes=sizes,
                calendar_of=calendar_of,
                told=told,
            )
            store.chains.go_on = chaining.go_on
            store.policies.carry_out = policing.carry_out
            store.owners.secret = secret
            return store

        self._make_store = make_store
        self.store = make_store()
        self._replay: Replay | None = Replay(self.store)

    def begin_again(self) -> None:
        """Forget what was replayed so far; before `opened`."""
        assert self._replay is not None, "replay ends with opened()"
        refused = self.store.retained.refused
        self.store = self._make_store()
        self.store.retained.refused = refused
        self._replay = Replay(self.store)

    def tidy(self, unix_ms: int) -> None:
        """Forget what is over, in a replay that goes on for long; see `Replay.tidy`."""
        if self._replay is not None:
            self._replay.tidy(unix_ms)

    def replay(self, batch: Batch | Digested) -> None:
        """Apply the records of a batch read from the log, or what a digest says instead, before `opened`."""
        assert self._replay is not None, "replay ends with opened()"
        if isinstance(batch, Digested):
            self._replay.digested(batch)
        else:
            self._replay.batch(batch)

    def cool(self, hot_bytes: int) -> None:
        """Have bodies leave memory if a replay took more of them than may be hot, before `opened`."""
        assert self._replay is not None, "replay ends with opened()"
        self._replay.cool_beyond(hot_bytes)

    def opened(
        self, epoch: int, now_ms: int, unix_ms: int, *, clean: bool, next_batch: int = 1
    ) -> None:
        """End the replay: the log is appendable under `epoch`, and the port opens now.

        `next_batch` is the number of the first batch that `close_batch` returns.
        """
        assert self._replay is not None, "opened() is called once"
        self.store.open_batch, self.store.synced = next_batch, next_batch - 1
        self._replay.finish(epoch, now_ms, unix_ms, clean=clean)
        watch(self.store)
        redriving.go_on(self.store)
        chaining.look(self.store)
        circuits.go_on(self.store)
        pausing.watch(self.store)
        unused.watch_all(self.store)
        self._replay = None

    def apply(self, command: Command, now_ms: int, unix_ms: int) -> Effects:
        """Step: change the state and return what the shell owes for it.

        `now_ms` is log time and never goes back; `unix_ms` is the wall clock, which may.
        """
        store = self.store
        # A step of the system's clock must not turn time round; the loop may also fire a timer early.
        if now_ms > store.now_ms:
            store.now_ms = now_ms
        store.unix_ms = unix_ms
        effects = store.effects = Effects()
        try:
            _COMMANDS[type(command)](store, command)
        except Broken as error:
            assert isinstance(command, Frame | Resume), (
                "only what a peer sent can break the protocol"
            )
            _cut_off(
                store, command.connection, error_header("protocol_error", str(error), None, None)
            )
        except Refused as error:
            assert isinstance(command, Hello | Resume | Attach), (
                "others are refused where they are taken"
            )
            header = error_header(error.code, str(error), error.retry_ms, None)
            _cut_off(store, command.connection, header | {"retryable": bool(error.retryable)})
        while store.dirty:
            group = store.dirty.pop()
            group.dirty = False
            if store.hands_out(group):
                dispatch(store, group)
            else:
                store.held_back[group] = None
        return effects

    def close_batch(self) -> int:
        """Return the number of the open batch; later records go to the next one."""
        number = self.store.open_batch
        self.store.open_batch += 1
        return number

    def news(self) -> list[tuple[bool, Queue]]:
        """Return which queues were made (True) or ended since the last call."""
        news = list(self.store.news)
        self.store.news.clear()
        return news

    def hold(self) -> None:
        """Hand nothing out any more: the server is stopping."""
        self.store.hold_until_ms = HOLD_FOR_EVER_MS
        self.store.absent.clear()

    def knows(self, frame: Frame) -> bool:
        """Whether a sequenced frame came before, so that it changes nothing now; its outcome may be forgotten."""
        connection = self.store.connections.get(frame.connection)
        if connection is None or frame.sequence is None:
            return False
        session = connection.session
        return frame.sequence in session.window or frame.sequence < session.answered_below

    def due_bytes(self, unix_ms: int) -> int:
        """Return what the next job of a schedule takes of a batch; `Tick` says if it has room. 0: none is due."""
        schedule = self.store.schedules.next_due(unix_ms)
        return 0 if schedule is None else bytes_of(schedule)

    @property
    def synced(self) -> int:
        """The newest batch that is known to be safe."""
        return self.store.synced

    @property
    def clear_below(self) -> int:
        """No record of a batch before this one is needed, once all batches so far are synced."""
        return self.store.clear_below

    def wanted(self) -> Iterator[ReadBack]:
        """Yield what should be read back before the port opens; each is answered by `Loaded`.

        Stop at any time: what was not yielded is asked for when it is needed.
        """
        return paging.wanted(self.store)

    @property
    def is_reading(self) -> bool:
        """Whether the last `Forward` waits for something to be read back."""
        return self.store.forward_waits

    def limit_memory(self, limit_bytes: int) -> None:
        """Keep no more results than a share of the memory that the process may have."""
        self.store.kept.limit(RESULT, limit_bytes // RESULTS_SHARE)

    def hot_bytes(self) -> int:
        """Return about how many bytes the messages take of memory."""
        return self.store.sums.hot_bytes

    def held_bytes(self) -> int:
        """Return how many bytes the bodies take of memory: a frame as long as one message of it is there."""
        return self.store.sums.held_bytes

    def memory_bytes(self) -> int:
        """Return about how many bytes all that it knows takes of memory."""
        store = self.store
        sessions = len(store.sessions) + len(store.connections)
        used_bytes = store.sums.used_bytes(len(store.queues), sessions, len(store.deliveries))
        used_bytes += store.exchanges.memory_bytes
        return used_bytes + store.chains.size()

    def live_bytes(self) -> int:
        """Return about how many bytes of the log are still needed."""
        return self.store.live_bytes()

    def next_deadline_ms(self) -> int | None:
        """Return when (log time) to apply `Tick` next; None: nothing waits for time."""
        if self.store.jobs or self.store.sums.lifetimes.overdue:
            return self.store.now_ms
        deadline = self.store.wheel.next_deadline_ms()
        if self.store.hold_until_ms:  # also when it is over: the queues learn that from a tick
            deadline = min(deadline or self.store.hold_until_ms, self.store.hold_until_ms)
        return deadline


def _frame(store: Store, frame: Frame) -> None:
    connection = store.connections.get(frame.connection)
    if connection is None:
        return  # its session was resumed elsewhere while these bytes were on their way
    store.jitter = frame.jitter
    if store.policies.done is not None:
        policing.catch_up(store, frame)
    if connection.silent:
        connection.silent = False
        line_up_all(store, connection)
    try:
        if frame.sequence is not None:
            _sequenced(store, connection, frame, frame.sequence)
            return
        if frame.waits is not None:
            note_waits(store, connection, frame.waits)
        if frame.parts[0].row.alone:
            _request(store, frame)
        else:
            _unsequenced(store, frame)
    except Refused as error:
        # A frame without a name wants no answer, and an error without one would end the connection.
        if frame.sequence is not None or frame.request is not None:
            header = error_header(error.code, str(error), error.retry_ms, frame)
            if error.retryable is not None:
                header["retryable"] = error.retryable
            # That a queue is gone may be said when its end is safe.
            rests_on = store.nowhere.last_batch if error.code == "unknown_queue" else 0
            store.send(frame.connection, rests_on, header)


def _cut_off(store: Store, connection: int, header: dict[str, Any]) -> None:
    """End a connection whose peer broke the protocol, or may not log in, with what it held."""
    store.send(connection, 0, header)
    store.effects.closes += (connection,)
    end_connection(store, connection)


def _request(store: Store, frame: Frame) -> None:
    part = frame.parts[0]
    row = part.row
    if len(frame.parts) > 1:
        raise Broken(f"{row.op} must be the only part of its frame")
    if frame.request is None and not row.named & NAMELESS:
        raise Broken(f"{row.op} needs a request number")
    if frame.columns and not row.columns:
        raise Broken(f"{row.op} has no columns, but {len(frame.columns)} bytes of them came")
    if frame.request is not None:
        connection = store.connections[frame.connection]
        if connection.opened or frame.request in connection.session.received:
            withdrawing.reuse(store, connection, frame.request)
    if row.owned and store.owners.session_of:
        session = store.connections[frame.connection].session
        store.owners.check(store, getattr(part, row.owned), session.id)
    row.request(store, frame, part)


def _sequenced(store: Store, connection: Connection, frame: Frame, sequence: int) -> None:
    session = connection.session
    outcome = session.window.get(sequence)
    if outcome is not None:
        if outcome.checksum != frame.checksum:
            raise Refused(
                "id_conflict",
                f"frame {sequence} came before with other bytes; the first one stands",
            )
        confirm(store, frame, outcome.results, outcome.lost, outcome.batch)
        return
    if sequence < session.answered_below:
        raise Refused(
            "outcome_unknown", f"frame {sequence} was answered, and its outcome is forgotten"
        )
    if frame.answered_below > sequence:
        raise Broken(
            f"answered_below is {frame.answered_below}, above the frame's own sequence {sequence}"
        )
    store.sums.outcomes -= session.forget_below(frame.answered_below)
    if session.over_limit(sequence):
        raise Broken(
            f"frame {sequence} is too far ahead of {session.answered_below}, the oldest unanswered"
        )
    results, lost, rests_on = apply_parts(store, frame)
    # A message in memory is gone after a restart: its frame, when it comes again, must not be taken for known.
    recorded = bool(store.effects.records or (lost and _names_what_stands(results))) and (
        results[0].get("durability") != "memory"
        or any(each.get("durability") != "memory" for each in results)
    )
    # What no segment can hold is forgotten by a start: then the frame is judged as one that was never seen.
    if lost:
        recorded = recorded and len(lost) <= store.sizes.apply_bytes // 2
    outcome = Outcome(
        frame.checksum, frame.size, results, lost, rests_on, store.open_batch if recorded else 0
    )
    session.remember(sequence, outcome)
    store.sums.outcomes += outcome.weight
    if session.stands < 0 and recorded:
        store.note_outcomes(session, store.open_batch)
    session.seen_ms = store.now_ms
    if recorded and not store.effects.has_outcome:
        store.emit(session.record_of(sequence, store.unix_ms), lost)
    if frame.waits is not None:  # not said by what is refused, nor again by what comes twice
        note_waits(store, connection, frame.waits)
    if connection.confirms_many and not lost and rests_on > store.synced:
        confirm_with_others(store, connection, sequence, results, rests_on)
    else:
        confirm(store, frame, results, lost, rests_on)


def _names_what_stands(results: list[Result]) -> bool:
    """Whether some messages were there already: judged anew, when those have ended, theirs would be stored."""
    return any("known" in each for each in results)


def _unsequenced(store: Store, frame: Frame) -> None:
    for part in frame.parts:
        if part.row.named == SEQUENCE:
            raise Broken(f"{part.row.op} needs a sequence")
    if frame.request is None and not all(part.row.named & NAMELESS for part in frame.parts):
        raise Broken("only a frame of begin parts may have neither sequence nor request")
    results, lost, rests_on = apply_parts(store, frame)
    if frame.request is not None:
        confirm(store, frame, results, lost, rests_on)


def error_header(code: str, text: str, retry_ms: int | None, frame: Frame | None) -> dict[str, Any]:
    """Return the header of an error frame, which answers `frame` by its name, if it has one."""
    header: dict[str, Any] = {
        "op": "error",
        "code": code,
        "text": text,
        "retryable": code in _RETRYABLE,
    }
    if retry_ms is not None:
        header["retry_ms"] = retry_ms
    if frame is not None and frame.sequence is not None:
        header["sequence"] = frame.sequence
    elif frame is not None and frame.request is not None:
        header["request"] = frame.request
    return header


def _synced(store: Store, command: Synced) -> None:
    store.synced = max(command.batch, store.synced)
    while store.lazy and store.lazy[0][0] <= command.batch:
        store.lazy_bytes -= store.lazy.popleft()[1]
    while store.entering and store.entering[0][0] <= command.batch:
        _, queue, _, spans, count = store.entering.popleft()
        queue.group.entering -= count
        enter(store, queue, spans)
    while store.brimful and store.brimful[0][0] <= command.batch:
        refill_later(store, store.brimful.popleft()[1])
    while store.copied and store.copied[0][0] <= command.batch:
        _, queue = store.copied.popleft()
        if store.by_number.get(queue.number) is queue:
            store.touch(queue.group)  # it may have waited for this
    if store.retained.full:
        store.retained.look_again(store)


def _tick(store: Store, command: Tick) -> None:
    store.jitter, store.has_room = command.jitter, command.has_room
    if store.hold_until_ms and store.now_ms >= store.hold_until_ms:
        wait_no_longer(store)
    ended: list[Message] = []  # leases: those of one delivery end together
    due = 0  # messages of sheaves, and of those that were begun together, which have one timer for many
    timers = store.wheel.advance(store.now_ms, TIMERS_PER_APPLY)
    # Before anybody looks at single messages, each of which gets its lease from that of all.
    for together in [each.item for each in timers if isinstance(each.item, BegunSpan)]:
        due += lease_over(store, together, TIMERS_PER_APPLY - due)
    for timer in timers:
        item = timer.item
        if isinstance(item, Message):
            ended.append(item)
        elif isinstance(item, Group):
            due += delay_over(store, item, timer, TIMERS_PER_APPLY - due)
        elif isinstance(timer, Lifetime):
            store.sums.lifetimes.overdue.append(timer)
        elif not isinstance(item, BegunSpan):
            handler, argument = item
            handler(store, timer, argument)
    leases_over(store, ended)
    if store.sums.lifetimes.overdue:
        expire_some(store)
    if store.jobs:
        job = store.jobs.popleft()
        if not job():
            store.jobs.append(job)


def _space(store: Store, command: Space) -> None:
    was_short = store.short
    store.short, store.paused = command.short, command.pause
    if was_short and not store.short:
        note_consumers(store)
    if not store.paused:
        store.go_on()


_RETRYABLE: Final = frozenset({"busy", "disk_full", "shutting_down"})
_COMMANDS: Final[dict[type, Callable[[Store, Any], None]]] = {
    Frame: _frame,
    Hello: logins.hello,
    Resume: logins.resume,
    Attach: logins.attach,
    Disconnected: logins.disconnected,
    Flow: logins.flow,
    Synced: _synced,
    Tick: _tick,
    Space: _space,
    Forward: forwarding.forward,
    Freeze: paging.freeze,
    Loaded: paging.loaded,
    Archived: archiving.archived,
    Fetched: feeding.fetched,
    LogHas: archiving.log_has,
}
