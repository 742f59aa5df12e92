"""The engine joins the core and the log: it closes batches, and holds back what is not safe yet.

One batch is under way at a time; meanwhile the records of all commands gather in the open one, so a sync
serves everybody who waited for the one before (group commit). Whatever rests on a batch leaves when that batch
is synced; whatever rests on nothing leaves at once. Sessions talk to `submit` and are called back on their
`Sink`; there is no future and no coroutine for a message.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from minibrokerd.core.core import Core
from minibrokerd.core.durable.paging import WrongRecord
from minibrokerd.core.model.effects import Effects, Outgoing
from minibrokerd.core.model.inputs import NEEDS_ROOM, Command, Disconnected, Frame, Synced, Tick
from minibrokerd.engine.admission import Admission
from minibrokerd.engine.archivist import Archivist, Hand
from minibrokerd.engine.certainty import Certainty
from minibrokerd.engine.clock import Alarm, Clock
from minibrokerd.engine.forwarder import Forwarder
from minibrokerd.engine.indexer import Slices
from minibrokerd.engine.length import Length
from minibrokerd.engine.pager import Pager
from minibrokerd.engine.pulse import Pulse
from minibrokerd.engine.sinks import Sink, tell_why
from minibrokerd.log.seam import BATCH_HEADER_BYTES, Batch, Digested, Log, Record
from minibrokerd.process.logs import events
from minibrokerd.retained.shelf import Retained

LONE_WAIT_US: Final = 300  # how long the loop may wait for the sync of a single small frame
LONE_BYTES: Final = 16 * 1024
# Batches of settlements alone start at most this often: their senders go on without waiting, and a sync for each
# frame of 16 acks costs more than the rest of it (docs/decisions/0006).
SETTLE_PACE_S: Final = 0.001
LAZY_SYNC_S: Final = 0.05
CLOSED: Final = -1  # in the place of the batch under way: no other will be written
DEFAULT_MEMORY_BYTES: Final = 1024 * 1024 * 1024
IDLE_S: Final = 1.0  # after this without a batch, leases that ride are written, and a marker


class Engine:
    """One broker: a core, its log, and the sinks of the connections."""

    def __init__(
        self,
        core: Core,
        log: Log,
        loop: asyncio.AbstractEventLoop,
        on_failed: Callable[[BaseException], None],
        memory_limit_bytes: int = DEFAULT_MEMORY_BYTES,
        make_clock: Callable[[int], Clock] = Clock,
        random: Callable[[], float] = random.random,
        retained: Retained | None = None,
        hand: Hand | None = None,
    ) -> None:
        """`retained` are the files of retained logs, and `hand` works on them; None: in memory, in the loop."""
        self._core = core
        self._log = log
        self._loop = loop
        self._on_failed = on_failed
        self._make_clock = make_clock
        self.clock = make_clock(0)
        self.sinks: dict[int, Sink] = {}
        self.certainty = Certainty(log.leadership, self.sinks, loop.call_soon)
        self.describe: Callable[[int], dict[str, Any]] = lambda connection: {}  # for events
        self.before_tick: Callable[[], object] = lambda: None
        self._dirty: dict[int, None] = {}  # connections that have something to write, in order
        self._open: list[Record] = []
        self._open_bytes = 0
        self._wake = False  # the open batch has something that is to be synced now
        # Batches that wait for the one under way, each with the bytes of its records, and their sum.
        self._closed: deque[tuple[Batch, int]] = deque()
        self._closed_bytes = 0
        self._under_way = 0  # number of the batch that is being written; 0: none
        self._appended = 0  # of the last one that was handed to the log
        self._writing: tuple[Batch, int] | None = None  # that batch, and the bytes of its records
        self._held: dict[int, list[Outgoing]] = {}
        self._turn_due = False
        self._alarm = Alarm(loop, self._tick)
        self._late_timer: asyncio.TimerHandle | None = None
        self._urgent = False  # somebody waits for the open batch and does nothing else meanwhile
        self._begun_s = 0.0  # when the last batch was begun
        self._settled = False  # it was small, and had settlements alone
        self._pace_timer: asyncio.TimerHandle | None = None
        self._publishes = 0  # publish frames since the last batch was begun
        self._lone = 0  # batches in a row that served little
        self._marked = True
        self._idle_waiters: list[asyncio.Future[None]] = []
        self.others_bytes = 0  # that were ever applied, copies apart
        self.pulse = Pulse()
        self._slices = Slices(log.segments)
        self._forwarder = Forwarder(
            core,
            log,
            self._apply_copies,
            self._newest_batch,
            lambda: None if self._under_way or self._closed else self._open_bytes,
            lambda: self.others_bytes,
            lambda: self._length.freed_soon(),
        )
        rest_bytes = self._forwarder.rest_bytes
        self._pager = Pager(core, log, loop, self._apply_paged, rest_bytes, memory_limit_bytes)
        self._admission = Admission(core, log, self._forwarder, self._pager, self)
        self._length = Length(
            self._forwarder, self._admission, self.clock, self._apply, loop.call_soon
        )
        has_room, take = self._admission.has_room, self._apply_archived
        self._archivist = Archivist(core, retained, hand, loop, take, has_room, on_failed)
        self._random = random  # spreads retries, protects nothing

    def replay(self, part: Batch | Digested) -> None:
        """Have the core know what the log says; before `start`."""
        self._core.replay(part)
        self._slices.replayed(part)
        self._pager.replayed()

    def begin_again(self) -> None:
        """Have the core forget what was replayed; before `start`, and of a log without segments."""
        self._core.begin_again()

    def start(self, base_ms: int) -> None:
        """Make the log appendable and the core ready; blocks. `base_ms`: highest log time found."""
        self.clock = self._length.clock = self._make_clock(base_ms + 1)
        now_ms, unix_ms = self.clock.now_ms(), self.clock.unix_ms()
        self._log.lead(now_ms, unix_ms, self._on_synced, self._admission.go_on, self._on_failed)
        self._core.opened(
            self._log.epoch,
            now_ms,
            unix_ms,
            clean=self._log.clean,
            next_batch=self._log.next_number,
        )
        self._appended = self._log.next_number - 1
        self._admission.opened()
        self._slices.opened(self._log.last_place)
        self._pager.fill()
        self._archivist.start(self.clock.unix_ms)
        self._turn_soon()
        self._length.freed_soon()

    @property
    def core(self) -> Core:
        """What it steps; to be looked at."""
        return self._core

    def jitter(self) -> float:
        """Return a random number from -1 to 1."""
        return 2.0 * self._random() - 1.0

    def submit(self, command: Command) -> None:
        """Apply a command; its effects follow by themselves.

        What raises here has left the state in the middle of a step: nothing of that may be written or sent, and
        the caller, a connection whose loop would swallow the error, can do nothing about it.
        """
        try:
            if not self._admission.admits(command):
                return
            if isinstance(command, Frame) and command.needs == NEEDS_ROOM:
                self._publishes += 1
            self._apply(command)
        except Exception as error:
            self.stop_at(error)
            raise

    def stop_at(self, error: BaseException) -> None:
        """Fail-stop: write and send nothing more, and have the process ended."""
        self._under_way = CLOSED
        self.sinks.clear()
        self._alarm.stop()
        self._on_failed(error)

    def _apply(self, command: Command) -> None:
        self._route(self._core.apply(command, self.clock.now_ms(), self.clock.unix_ms()))
        self._turn_soon()

    def _apply_copies(self, command: Command) -> None:
        others_bytes = self.others_bytes
        self._apply(command)
        self.others_bytes = others_bytes

    def _apply_paged(self, command: Command) -> None:
        try:
            self._apply_copies(command)
        except WrongRecord as error:  # a start reads everything anew
            self._on_failed(error)
        self._length.bound_soon()  # it may have waited for what was read

    def _apply_archived(self, command: Command) -> None:
        if self._under_way != CLOSED:
            self._apply(command)

    def _route(self, effects: Effects) -> None:
        for number, records, size_bytes in effects.ended:
            self._gather(records, size_bytes)
            self._end_batch(number)
        if effects.records:
            self._gather(effects.records, effects.record_bytes)
            self._wake = self._wake or (effects.wake and not effects.lazy)
            if effects.lazy or not effects.wake:
                self._sync_later(LAZY_SYNC_S if effects.lazy else IDLE_S)
        for outgoing in effects.outgoing:
            if outgoing.rests_on:
                self._held.setdefault(outgoing.rests_on, []).append(outgoing)
                self._wake = True
                if self._publishes or outgoing.header["op"] != "confirm":
                    self._urgent = True
            else:
                self._send(outgoing)
        if effects.reads:
            self._pager.read(effects.reads)
        if effects.files is not None:
            self._archivist.ask(effects.files)
        for note in effects.notes:
            fields = note.fields
            if "connection" in fields:  # of whoever did it: the core knows no addresses
                fields = self.describe(int(fields["connection"])) | fields
            tell = events.warning if note.is_warning else events.info
            tell(note.event, **fields)
        for connection in effects.closes:
            sink = self.sinks.pop(connection, None)
            if sink is not None:
                tell_why(sink, connection, effects)
                sink.close()
        if self._open_bytes >= self._log.sizes.open_bytes:
            self._close_batch()

    def _gather(self, records: list[Record], size_bytes: int) -> None:
        self._open += records
        self._open_bytes += size_bytes
        self.others_bytes += size_bytes

    def _send(self, outgoing: Outgoing) -> None:
        sink = self.sinks.get(outgoing.connection)
        if sink is not None:
            sink.send(outgoing)
            self._dirty[outgoing.connection] = None

    def _send_all(self, answers: Sequence[Outgoing]) -> None:
        for outgoing in answers:
            self._send(outgoing)
        self._flush_sinks()

    # -- batches --------------------------------------------------------------------------------

    def _turn_soon(self) -> None:
        if not self._turn_due:
            self._turn_due = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        """The end of a turn of the loop: everything that came in it shares a batch and a write."""
        self._turn_due = False
        if self.certainty.leadership is not None:
            self.certainty.look()
        if self._open or self._closed:
            self._write()
        if self._dirty:
            self._flush_sinks()
        self._alarm.set(self._core.next_deadline_ms(), self.clock)

    def _write(self) -> None:
        while not self._under_way:
            if not self._closed:
                if not (self._open and self._wake) or self._is_early():
                    return
                self._end_batch(self._core.close_batch())
            batch, size_bytes = self._closed.popleft()
            self._closed_bytes -= size_bytes
            self._under_way, self._writing = batch.number, (batch, size_bytes)
            expected, self._appended = self._appended, batch.number
            wait_us = self._lone_wait_us(batch, size_bytes)
            if wait_us is None:
                self._log.append(batch, expected)
                return
            if self._dirty:
                self._flush_sinks()
            if not self._log.append(batch, expected, wait_us, self._answer_ahead, is_small=True):
                return
            self._after_sync(batch.number)

    def _is_early(self) -> bool:
        """Whether the open batch should gather more settlements first: there are some to come."""
        if self._urgent or not self._core.store.deliveries:
            return False
        wait_s = self._begun_s + SETTLE_PACE_S - self._loop.time()
        if wait_s > 0 and self._pace_timer is None:
            self._pace_timer = self._loop.call_later(wait_s, self._paced)
        return wait_s > 0

    def _paced(self) -> None:
        self._pace_timer = None
        self._urgent = True
        self._turn()

    def _answer_ahead(self) -> Callable[[], None] | None:
        """Encode the answer that waits for the writer thread while that wakes up; return what sends it."""
        (outgoing,) = self._held[self._under_way]
        sink = self.sinks.get(outgoing.connection)
        if sink is None or outgoing.header["op"] != "confirm":
            return None  # others are large, or get their last fields when they are sent
        return sink.ahead(outgoing)

    def _close_batch(self) -> None:
        if self._open:
            self._end_batch(self._core.close_batch())

    def _end_batch(self, number: int) -> None:
        store = self._core.store  # whose times are those of the last record
        batch = Batch(number, self._open, store.now_ms, store.unix_ms)
        self._closed.append((batch, self._open_bytes))
        self._closed_bytes += self._open_bytes
        self.others_bytes += BATCH_HEADER_BYTES
        self._open, self._open_bytes, self._wake, self._urgent = [], 0, False, False

    def _lone_wait_us(self, batch: Batch, size_bytes: int) -> int | None:
        """Note that a batch is begun; return for how long the loop may wait for its sync. None: the thread has it.

        Somebody is alone when three batches in a row served one client of each kind. A lone publisher should not
        pay for the way round the loop, which takes 60 us. Settlements are not waited for: their senders go on. And
        where the batch of a moment before had settlements alone, too, a backlog is worked off: more come in while
        the thread syncs, and a loop that did it would neither read these nor hand out what they make room for.
        """
        publishes, self._publishes = self._publishes, 0
        before_s, self._begun_s = self._begun_s, self._loop.time()
        held = self._held.get(batch.number, ())
        little = publishes <= 1 and len(held) <= 2 and not self._closed and size_bytes <= LONE_BYTES
        self._lone = self._lone + 1 if little else 0
        settled, self._settled = self._settled, little and not publishes
        for outgoing in held if self._settled else ():
            self._settled = self._settled and outgoing.header["op"] == "confirm"
        is_busy = settled and self._settled and self._begun_s - before_s < 2 * SETTLE_PACE_S
        if is_busy or self._lone <= 2:
            return None
        return LONE_WAIT_US if publishes and len(held) == 1 else 0

    def _on_synced(self, number: int) -> None:
        self._after_sync(number)
        self._turn()

    def _after_sync(self, number: int) -> None:
        if self._under_way == CLOSED:
            return  # it stopped in the middle of a step
        self._under_way = 0
        self._marked = False
        answers = self._held.pop(number, ())
        # The answers first: whoever waits for them should not wait for what the sync sets free. But where that is
        # one message that a consumer waits for, its handler is to start; the answer goes in the same turn.
        entering = self._core.store.entering
        is_awaited = self._lone > 2 and bool(entering and entering[0][1].group.consumers)
        # A delivery that is among them stands in front of what comes in; of what was sent ahead a part has left.
        for outgoing in answers:
            is_awaited = is_awaited and outgoing.header["op"] == "confirm" and not outgoing.pieces
        if not is_awaited:
            self._send_all(answers)
        self._note_places()
        self._route(self._core.apply(Synced(number), self.clock.now_ms(), self.clock.unix_ms()))
        if is_awaited:
            if not any(outgoing.connection in self._dirty for outgoing in answers):
                self._flush_sinks()  # else both go in one write
            self._send_all(answers)
        self._sync_later(IDLE_S)
        if self._archivist.ends:
            self._archivist.synced()
        self._length.bound()
        if self._pager.to_copy:
            self._pager.go_on()
        self._length.look_at_reserve()
        if self._idle_waiters and self.is_idle:
            for waiter in self._idle_waiters:
                waiter.set_result(None)
            self._idle_waiters.clear()

    def _note_places(self) -> None:
        """Tell the core where the records of the batch stand, and the log what a long stretch of it says."""
        place = self._log.last_place
        if self._writing is None or place is None:
            return
        batch, size_bytes = self._writing
        self.pulse.synced(self._loop.time() - self._begun_s, size_bytes, len(batch.records))
        self._slices.placed(batch.records, place)
        self._pager.wrote(size_bytes)
        self._forwarder.wrote(size_bytes)

    def _newest_batch(self) -> int:
        return self._core.store.open_batch - (not self._open)

    def _sync_later(self, delay_s: float) -> None:
        """See to it that what nobody waits for is written, and that an idle log gets its marker."""
        timer, due = self._late_timer, self._loop.time() + delay_s
        if timer is not None:
            if timer.when() <= due:
                return
            timer.cancel()
        self._late_timer = self._loop.call_at(due, self._late)

    def _late(self) -> None:
        self._late_timer = None
        if self._open:
            self._wake = self._urgent = True
            self._turn()
        elif not self._under_way and not self._marked:
            self._marked = True
            if self._log.segments is not None:
                self._log.segments.mark(self.clock.now_ms(), self.clock.unix_ms())

    # -- what admission asks for ----------------------------------------------------------------

    @property
    def pending_bytes(self) -> int:
        """The bytes of records that were applied and not appended yet."""
        return self._open_bytes + self._closed_bytes

    def answer(self, outgoing: Outgoing) -> None:
        """Send a frame that rests on nothing."""
        self._send(outgoing)
        self._turn_soon()

    def make_room(self) -> None:
        """Have the forwarder asked: somebody begins to wait for it, and it may have stopped for want of room."""
        self._length.bound_soon()

    def cut_off(self, connection: int, code: str, text: str) -> None:
        """End a connection."""
        sink = self.sinks.pop(connection, None)
        if sink is not None:
            sink.refused(code, text)
            sink.close()

    def limit_memory(self, limit_bytes: int) -> None:
        """Go by another memory limit from now on."""
        self._pager.limit(limit_bytes)

    def look_at_memory(self) -> None:
        """Compare what the process takes with its limit, and let go what is not needed; called once a second."""
        self._pager.look()
        self._pager.ease()
        if self.certainty.leadership is not None:
            self._length.bound_soon()  # who says only that it leads makes its log longer, and syncs nothing

    # -- time -----------------------------------------------------------------------------------

    def time_moved(self) -> None:
        """Do what is due by now: the clock jumped, and the alarm was set by what it said before."""
        self._alarm.forget()
        self._tick()

    def _tick(self) -> None:
        # Loops can fire a little early. Then nothing is due yet, and the turn arms the alarm for the rest.
        self.before_tick()
        due_bytes = self._core.due_bytes(self.clock.unix_ms())
        has_room = not due_bytes or self._admission.has_room(due_bytes)
        self._apply(Tick(self.jitter(), has_room))

    def _flush_sinks(self) -> None:
        for connection in self._dirty:
            sink = self.sinks.get(connection)
            if sink is not None:
                sink.flush()
        self._dirty.clear()

    # -- the end --------------------------------------------------------------------------------

    @property
    def is_idle(self) -> bool:
        """Whether everything applied so far is synced."""
        return not (self._under_way or self._closed or self._open)

    async def drain(self) -> None:
        """Return when everything applied so far is synced."""
        self._length.stays = True
        while not self.is_idle:
            self._wake = self._urgent = True
            waiter = self._loop.create_future()
            self._idle_waiters.append(waiter)
            self._turn_soon()
            await waiter
        self._flush_sinks()

    def close(self) -> None:
        """Write the footer of a clean stop; after `drain`. Blocks, and may be called in a thread of its own.

        What is applied later is not written any more: nothing of it leaves, so a client sends it again.
        """
        self._under_way = CLOSED
        self._alarm.stop()
        if self._late_timer is not None:
            self._late_timer.cancel()
        self._archivist.stop()  # the files, too, are another server's as soon as the log is
        self._slices.close()
        self._log.close(self.clock.now_ms(), self.clock.unix_ms())


__all__ = ["Clock", "Disconnected", "Engine", "Sink"]
