"""What the core knows, and the few things that every part of it does: emit a record, send a frame, find a
queue, take back a message. The commands themselves are in the modules beside this one.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from minibroker.contract import limits
from minibroker.contract.settings import DURABILITIES, Settings
from minibrokerd.core.model.absent import Absent
from minibrokerd.core.model.arranging import arrange
from minibrokerd.core.model.chains import Chains
from minibrokerd.core.model.deliveries import Delivery
from minibrokerd.core.model.effects import Effects, Outgoing
from minibrokerd.core.model.endings import Endings
from minibrokerd.core.model.exchanges import Exchanges
from minibrokerd.core.model.extents import Bodies, Extent
from minibrokerd.core.model.group import Group
from minibrokerd.core.model.kept import UNUSED, Kept
from minibrokerd.core.model.key_times import forget_key_times
from minibrokerd.core.model.messages import LAZY, MEMORY, Block, Message, Span, runs_of, same_lease
from minibrokerd.core.model.owners import Owners
from minibrokerd.core.model.pauses import Pauses
from minibrokerd.core.model.policies import Policies
from minibrokerd.core.model.queues import DEFAULTS, RESERVE_STEP, Queue
from minibrokerd.core.model.records import (
    TYPE_OF,
    AttemptMeta,
    BeginMeta,
    ExtendMeta,
    FrameMeta,
    Meta,
    ReserveMeta,
    ReturnMeta,
    StateMeta,
    encode,
)
from minibrokerd.core.model.refusals import Refused, check_new_name, no_group, no_queue, was_unused
from minibrokerd.core.model.resting import rest
from minibrokerd.core.model.results import Results
from minibrokerd.core.model.retained import Retained
from minibrokerd.core.model.scheduled import CalendarOf, Schedules, no_calendars
from minibrokerd.core.model.schemas import Schemas
from minibrokerd.core.model.sessions import Connection, Session
from minibrokerd.core.model.sums import Sums
from minibrokerd.core.model.wheel import Timer, Wheel
from minibrokerd.log.seam import Record
from minibrokerd.log.sizes import LARGEST, Sizes

COUNTER_BITS: Final = 40  # tokens and session ids are epoch << 40 | counter
LAZY_UNSYNCED_BYTES: Final = 8 * 1024 * 1024  # lazy confirms wait while more of them is not synced
HOLD_FOR_EVER_MS: Final = 2**62
REST_MS: Final = 1_000  # a queue that was used a moment ago keeps what it will need again
GO_ON_GROUPS: Final = 200  # dispatched in one step, after a time in which none was
MOST_NEWS: Final = 10_000
STARTS_NO_SYNC: Final = frozenset({BeginMeta, ExtendMeta, FrameMeta, StateMeta})

Handler = Callable[["Store", Timer, Any], None]


class Store:
    """The state of the core. `effects` collects what the present apply owes the shell."""

    # Slots: the interpreter reads attributes slower from the 30th of an instance on.
    __slots__ = (
        "_counter", "_numbers", "absent", "auto_create", "bodies", "brimful", "by_number", "calendar_of", "chains",
        "clear_below", "connections", "copied", "deliveries", "dirty", "dropped_batch", "effects", "endings",
        "entering", "epoch", "exchanges", "forward_waits", "grace_until_ms", "has_room", "held_back",
        "hold_until_ms", "idle", "jitter", "jobs", "kept", "lazy", "lazy_bytes", "looks_left", "max_queues",
        "news", "next_queue_number", "now_ms", "nowhere", "open_batch", "owners", "paused", "pauses", "policies",
        "queues", "results", "retained", "room_bytes", "schedules", "schemas", "sessions", "short", "sizes",
        "standing", "sums", "synced", "told", "unix_ms", "wheel",
    )  # fmt: skip

    def __init__(
        self,
        bodies: Bodies,
        *,
        auto_create: bool,
        max_queues: int = limits.MAX_QUEUES,
        sizes: Sizes = LARGEST,
        calendar_of: CalendarOf = no_calendars,
        told: Sequence[str] = DURABILITIES,
    ) -> None:
        self.calendar_of, self.bodies = calendar_of, bodies
        self.told = told  # what confirms call each durability
        self.sizes = sizes
        self.room_bytes = sizes.apply_bytes  # of records in the open batch, for one apply
        self.epoch = 0
        self.auto_create, self.max_queues = auto_create, max_queues
        self.now_ms = 0
        self.unix_ms = 0
        self.jitter = 0.0
        self.hold_until_ms = 0  # nothing is handed out before (log time)
        self.short = self.paused = False  # of space on the disk: acks need what is left of it
        # Recovered leases that end before, without their session, are uncharged.
        self.grace_until_ms = 0
        self.open_batch = 1
        self.synced = 0
        self.effects = Effects()
        self.sums = Sums()
        self.endings = Endings()
        self.standing = self.sums.standing
        self.kept = Kept(self.sums)
        self.schedules = Schedules()
        self.pauses = Pauses()
        self.results = Results()
        self.chains = Chains()
        self.exchanges, self.policies, self.owners = Exchanges(), Policies(), Owners()
        self.retained, self.schemas = Retained(), Schemas()
        self.has_room = True  # for what the server itself publishes
        self.wheel = Wheel(0)
        self.queues: dict[str, Queue] = {}
        self.by_number: dict[int, Queue] = {}
        self._numbers: list[int] = []  # of all queues, ascending
        self.next_queue_number = 1
        # Made (True) or ended, for the shell.
        self.news: deque[tuple[bool, Queue]] = deque(maxlen=MOST_NEWS)
        self.dropped_batch = 0  # has the newest record that a deleted queue's number was used
        # (batch, queue) of what is cold and was written again: it can be read once that is synced.
        self.copied: deque[tuple[int, Queue]] = deque()
        self.forward_waits = False  # the last Forward asked for something to be read back
        self.clear_below = 0  # nothing that lives needs a record of a batch before this one
        # Where settlements of a deleted queue go: nothing is under their tokens, and the rest of a frame counts.
        self.nowhere = Queue(0, "", 0, DEFAULTS)
        self.sessions: dict[int, Session] = {}
        self.connections: dict[int, Connection] = {}
        self.absent = Absent()  # sessions that hand-outs wait for after a start
        self.deliveries: dict[int, Delivery] = {}
        # (batch, queue, block, spans, messages in them) of what was published, and is not synced
        self.entering: deque[tuple[int, Queue, Block, list[Span], int]] = deque()
        # (batch, bytes of its lazy frames) of what was confirmed, or may be, before its sync; and the sum
        self.lazy: deque[tuple[int, int]] = deque()
        self.lazy_bytes = 0
        self.dirty: list[Group] = []
        self.held_back: dict[Group, None] = {}  # were dirty while nothing was handed out
        self.idle: list[Group] = []  # to be looked at by `rest`
        # Long work in steps; a step returns True at the end.
        self.jobs: deque[Callable[[], bool]] = deque()
        self.looks_left = 5_000  # of requests that look at much (walks.py), before others do
        # (batch, connection) of those that may get no more before a batch is synced: their deliveries wait for it
        self.brimful: deque[tuple[int, Connection]] = deque()
        self._counter = 0

    # -- identities -----------------------------------------------------------------------------

    def next_token(self) -> int:
        """Return a number above every earlier one, over restarts too: a token, or a session id."""
        self._counter += 1
        assert self._counter >> COUNTER_BITS == 0, "2^40 tokens in one epoch"
        return self.epoch << COUNTER_BITS | self._counter

    def unix_ms_at(self, log_ms: int) -> int:
        """Return a log time by the wall clock as it goes now."""
        return self.unix_ms + log_ms - self.now_ms

    def hands_out(self, group: Group) -> bool:
        """Whether messages of a group may be delivered now."""
        if self.paused:
            return False
        return self.now_ms >= self.hold_until_ms or self.absent.lets_go(group)

    @property
    def is_stopping(self) -> bool:
        """Whether nothing is handed out any more, for the server stops."""
        return self.hold_until_ms == HOLD_FOR_EVER_MS

    # -- records and frames ---------------------------------------------------------------------

    def emit(
        self,
        meta: Meta,
        tail: bytes | memoryview = b"",
        extent: Extent | None = None,
    ) -> Record:
        """Add a record to the open batch, or to the next one where this apply has filled it; return it.

        Bodies come as an `extent`, what else follows the fields of a record as its `tail`.
        """
        effects = self.effects
        kind = type(meta)
        record = Record(TYPE_OF[kind], encode(meta), tail, None, meta, extent)
        size_bytes = record.size_bytes
        total_bytes = effects.record_bytes + size_bytes
        if total_bytes > self.room_bytes and effects.records:
            effects.ended += ((self.open_batch, effects.records, effects.record_bytes),)
            effects.records, total_bytes = [], size_bytes
            self.open_batch, self.room_bytes = self.open_batch + 1, self.sizes.apply_bytes
        effects.records.append(record)
        effects.record_bytes = total_bytes
        if kind not in STARTS_NO_SYNC:
            effects.wake = True
        return record

    def keep_together(self, size_bytes: int) -> None:
        """See to it that the next records, of so many bytes, stand in one batch."""
        effects = self.effects
        if effects.records and effects.record_bytes + size_bytes > self.sizes.apply_bytes:
            effects.ended += ((self.open_batch, effects.records, effects.record_bytes),)
            effects.records, effects.record_bytes = [], 0
            self.open_batch += 1

    def rests_on(self, durability: int, size_bytes: int) -> int:
        """Return the batch that a confirm of a frame of this size, whose records are emitted now, rests on."""
        if durability == MEMORY:
            return 0
        if durability != LAZY:
            return self.open_batch
        self.effects.lazy = True
        if self.lazy and self.lazy[-1][0] == self.open_batch:
            before = self.lazy.pop()[1]
            self.lazy_bytes -= before
            size_bytes += before
        self.lazy.append((self.open_batch, size_bytes))
        self.lazy_bytes += size_bytes
        # While the disk stalls, this is how much of what was confirmed a crash of the machine may take.
        return self.lazy[0][0] if self.lazy_bytes > LAZY_UNSYNCED_BYTES else 0

    def send(
        self,
        connection: int,
        rests_on: int,
        header: dict[str, Any],
        columns: bytes = b"",
        bodies: list[tuple[Block, int, int]] | tuple[()] = (),
    ) -> None:
        """Queue one frame for a connection, to leave when batch `rests_on` is synced."""
        if rests_on <= self.synced:
            rests_on = 0
        self.effects.outgoing.append(Outgoing(connection, rests_on, header, columns, bodies))

    def reply(
        self, connection: int, request: int | None, rests_on: int, value: dict[str, Any]
    ) -> None:
        """Answer a request."""
        self.send(connection, rests_on, {"op": "reply", "request": request, "value": value})

    # -- queues ---------------------------------------------------------------------------------

    def queue(self, name: str) -> Queue:
        """Return an existing queue, or what the DLQ of an existing one is before its first message: empty.

        Raises:
            Refused: `unknown_queue`.
        """
        queue = self.queues.get(name)
        if queue is not None:
            return queue
        source = self.source_of(name)
        if source is not None:
            empty = Queue(0, name, source.number, {"durability": source.settings["durability"]})
            empty.take(self.policies.decide(empty))
            empty.last_batch = source.last_batch
            return empty
        raise no_queue(name, auto_create=self.auto_create)

    def queue_or_new(self, name: str) -> Queue:
        """Return a queue, made with defaults if need be; the DLQ of a queue is made with it.

        Raises:
            Refused: `bad_name`, `limit_reached`; `unknown_queue`, it is not made by use, or was temporary.
        """
        queue = self.queues.get(name)
        if queue is not None:
            return queue
        source_name = name.removesuffix(limits.DLQ_SUFFIX)
        if source_name != name and not source_name.endswith(limits.DLQ_SUFFIX):
            return self.dlq_of(self.queue_or_new(source_name))
        self.check_new_queue(name)
        return self.create_queue(name, DEFAULTS)

    def check_new_queue(self, name: str, claimed: int = 0) -> None:
        """Check that the use of a name may make its queue, beside so many that are claimed already.

        Raises:
            Refused: as `queue_or_new`.
        """
        if limits.GROUP_MARK in name:
            raise no_group(name)
        check_new_name(name)
        if (ended := self.kept.get(self, UNUSED, (name,))) is not None:
            raise was_unused(name, ended, self.unix_ms)
        if not self.auto_create:
            raise Refused(
                "unknown_queue",
                f"there is no queue {name!r}, and this server makes none on use; `minibroker queue set` does",
            )
        self.check_room_for_queue(claimed)

    def source_of(self, name: str) -> Queue | None:
        """Return the queue whose DLQ has this name; None: there is no such queue, or it is no name of a DLQ."""
        source_name = name.removesuffix(limits.DLQ_SUFFIX)
        has_one = not source_name.endswith(limits.DLQ_SUFFIX)  # a DLQ has no DLQ
        return self.queues.get(source_name) if source_name != name and has_one else None

    def check_room_for_queue(self, claimed: int = 0) -> None:
        """Check that a client may make one more queue; a DLQ is made for its messages, however many there are.

        `claimed` are about to be made.

        Raises:
            Refused: `limit_reached`.
        """
        if len(self.queues) + claimed >= self.max_queues:
            raise Refused(
                "limit_reached",
                f"this server has {len(self.queues)} queues, as many as `serve --max-queues` allows; "
                "delete some, or use keys instead of queues",
            )

    def create_queue(self, name: str, settings: Settings, home: int | None = None) -> Queue:
        """Make a queue, with DEFAULTS if nobody chose any; a DLQ has the number of its source as `home`."""
        number = self.next_queue_number
        self.next_queue_number += 1
        queue = self.add_queue(Queue(number, name, home or number, settings, self.sums))
        queue.chosen = settings if home is None and settings is not DEFAULTS else None
        arrange(self, queue)
        self.write_queue(queue)
        self.kept.end(self, UNUSED, (name,))
        self.reserve_ahead(queue)
        if self.policies:
            self.policies.carry_out(self, queue)
        return queue

    def reserve(self, queue: Queue) -> None:
        """Reserve sequences behind those that are in use; what shows one of them rests on this record."""
        queue.reserved_until = queue.next_sequence + RESERVE_STEP
        self.emit(ReserveMeta(queue.number, queue.reserved_until))
        queue.reserve_batch = queue.last_batch = self.open_batch

    def reserve_ahead(self, queue: Queue) -> None:
        """Let the first publish to a queue in memory not wait for a reservation."""
        if queue.durability == MEMORY and queue.next_sequence >= queue.reserved_until:
            self.reserve(queue)

    def add_queue(self, queue: Queue) -> Queue:
        """Enter a queue into the indexes."""
        self.queues[queue.name] = queue
        self.by_number[queue.number] = queue
        insort(self._numbers, queue.number)
        self.news.append((True, queue))
        self.next_queue_number = max(self.next_queue_number, queue.number + 1)
        return queue

    def remove_queue(self, queue: Queue) -> None:
        """Take a queue out of the indexes; `next_queue_number` stays, so that no id is ever used twice."""
        del self.queues[queue.name]
        del self.by_number[queue.number]
        self.sums.timed.forget(queue.group)
        self.sums.full.discard(queue)
        forget_key_times(self, queue.group)
        if queue.stands >= 0:
            self.standing.drop(queue.stands, queue)
        del self._numbers[bisect_left(self._numbers, queue.number)]
        self.news.append((False, queue))

    def numbers_after(self, number: int, most: int) -> list[int]:
        """Return up to `most` numbers of queues above `number`, in order."""
        at = bisect_right(self._numbers, number)
        return self._numbers[at : at + most]

    def write_queue(self, queue: Queue) -> None:
        """Record the settings of a queue as they are now."""
        self.emit(queue.record())
        queue.last_batch = queue.record_batch = self.open_batch
        if queue.stands < 0:
            self.note_records(queue)

    def note_records(self, queue: Queue) -> None:
        """Have the settings and the reservation of a queue found when they are old."""
        queue.stands = queue.record_batch
        if queue.reserved_until:
            queue.stands = min(queue.stands, queue.reserve_batch)
        self.standing.put(queue.stands, queue, None)

    def note_outcomes(self, session: Session, oldest: int) -> None:
        """Have the outcomes of a session found when they are old; no record of one is before batch `oldest`."""
        session.stands = oldest
        self.standing.put(session.stands, session, None)

    def dlq_of(self, queue: Queue) -> Queue:
        """Return the dead-letter queue of a queue, made now if this is its first dead message."""
        dlq = self.queues.get(queue.name + limits.DLQ_SUFFIX)
        if dlq is None:
            settings = {"durability": queue.settings["durability"]}
            dlq = self.create_queue(queue.name + limits.DLQ_SUFFIX, settings, home=queue.number)
        return dlq

    def live_bytes(self) -> int:
        """Return about how many bytes of the log are still needed."""
        return self.sums.needed_bytes(len(self.queues))

    def touch(self, group: Group) -> None:
        """Let the group be dispatched at the end of this apply."""
        if not group.dirty:
            group.dirty = True
            self.dirty.append(group)

    def go_on(self) -> None:
        """Dispatch, some at a time, the groups that would have been while nothing was handed out."""
        waiting, self.held_back = self.held_back, {}

        def step() -> bool:
            for _ in range(min(GO_ON_GROUPS, len(waiting))):
                self.touch(waiting.popitem()[0])  # it is held back again if it still has to be
            return not waiting

        if not step():
            self.jobs.append(step)

    def queue_of(self, delivery: Delivery) -> Queue | None:
        """Return the queue of a delivery; None: it was purged or deleted since, so nothing of it counts."""
        queue = self.by_number.get(delivery.queue_number)
        live = queue is not None and queue.group.deliveries.get(delivery.token) is delivery
        return queue if live else None

    def forget_delivery(self, queue: Queue, token: int) -> None:
        """Take a delivery out of the indexes."""
        group = queue.group
        del self.deliveries[token]
        del group.deliveries[token]
        if not (group.deliveries or group.idle):
            self.rest_later(group)
        if self.sums.singles and group.single is not None and not group.deliveries:
            self.touch(group)  # the turn may pass

    def rest_later(self, group: Group) -> None:
        """Let the group give back what it does not need, if it still has nothing after a while."""
        group.idle = True
        if not self.idle:
            self.set_timer(rest, None, self.now_ms + REST_MS)
        self.idle.append(group)

    # -- messages that come back ----------------------------------------------------------------

    def set_timer(self, handler: Handler, argument: object, deadline_ms: int) -> Timer:
        """Call `handler(store, timer, argument)` at `deadline_ms`."""
        timer = Timer((handler, argument))
        self.wheel.schedule(timer, deadline_ms)
        return timer

    def write_return(
        self, queue: Queue, run: Sequence[Message], delay_ms: int, entry: AttemptMeta | None
    ) -> None:
        """Record that consecutive messages wait again; a delivery of them rests on this record.

        All that a record says is the same of each, but for the sequence.
        """
        first = run[0]
        if first.block.durability == MEMORY:
            return
        self.emit(
            ReturnMeta(
                queue.number,
                first.block.origin,
                first.sequence,
                first.ended_token,
                first.ready_at_ms,
                delay_ms,
                self.unix_ms,
                first.attempts,
                first.releases,
                first.marked,
                entry,
                first.dead,
                len(run),
            )
        )
        queue.last_batch = self.open_batch
        for message in run:
            message.batch = self.open_batch

    def write_leases(
        self, kind: type[BeginMeta], queue: Queue, messages: Sequence[Message]
    ) -> None:
        """Record that the leases of messages of one delivery run (BeginMeta) or are new (ExtendMeta)."""
        if self.short:
            return  # a crash takes back a begin that is not logged, as one that was not synced
        for run in (messages,) if len(messages) == 1 else runs_of(messages, same_lease):
            first, delivery = run[0], run[0].delivery
            assert delivery is not None
            if first.block.durability == MEMORY:
                continue
            self.emit(
                kind(
                    queue.number,
                    delivery.token,
                    delivery.session,
                    first.block.origin,
                    first.sequence,
                    len(run),
                    first.lease_ms,
                    self.unix_ms,
                    delivery.request,
                )
            )
