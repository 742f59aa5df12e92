"""The broker as dicts: what the core must agree with, message by message, after every step.

A message is READY, DELAYED, HELD, BEGUN or ENTERING (published, not yet synced). `logged` is what the
records of a message say of it: that, as it was when a batch was closed, is what a crash leaves.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass, field, replace

from core_client import Delivered
from model_circuits import Circuits
from model_kept import Kept
from modelled import Id, Logged, Modelled

from minibroker.contract.settings import Settings, default_settings
from minibrokerd.core.model.records import CopyMeta, CopyRunMeta

GRACE_MS = 60_000
EPOCH_BITS = 40
# Counters of how messages ended.
ENDED = ("acked", "purged", "cancelled", "expired", "replaced", "dropped")


@dataclass(slots=True)
class Durable:
    """What a log holds up to the end of a batch."""

    messages: dict[Id, Modelled] = field(default_factory=dict)
    frames: set[tuple[int, int]] = field(default_factory=set)
    circuits: dict[str, int] = field(default_factory=dict)
    kept: Kept = field(default_factory=Kept)


class Model:
    """All messages of `q` and of its DLQ; times are those of the world, as of each call."""

    def __init__(self) -> None:
        self.messages: dict[Id, Modelled] = {}
        self.settings: dict[str, Settings] = {
            "q": default_settings(),
            "q.dlq": default_settings(),
        }
        self.dlq_exists = False
        self.frames: set[tuple[int, int]] = set()  # (session, sequence) that the log has
        self.kept = Kept()
        self.epoch = 1
        self.opened_ms = 0
        self.now_ms = self.awaited_ms = 0  # of now, and when a queue was last seen to wait
        self.unix_ms = 0
        self.connected: dict[int, int] = {}  # connection -> session
        self.awaits: set[str] = (
            set()
        )  # queues that wait after a start: nothing leaves them by itself
        self.counters = dict.fromkeys(("published", *ENDED), 0)
        self.cancelled: set[Id] = set()  # ever
        self.circuits = Circuits(self)

    def durable(self) -> Durable:
        """Return a copy of what the records so far say."""
        kept = {id: m for id, m in self.messages.items() if m.logged is not None}
        frames, circuits = set(self.frames), self.circuits.logged()
        return Durable(deepcopy(kept), frames, circuits, self.kept.logged())

    def of(self, queue: str) -> list[Modelled]:
        """Return the messages of a queue."""
        return [message for message in self.messages.values() if message.queue == queue]

    # -- what clients do ------------------------------------------------------------------------

    def entered(self, ids: list[Id]) -> None:
        """The batch of a publish is safe."""
        for id in ids:
            message = self.messages.get(id)
            if message is not None and message.state == "ENTERING":
                self.wait(message)

    def holds(self, session: int, queue: str, token: int, id: Id) -> Modelled | None:
        """Return a message if it is held or begun under this token by this session."""
        message = self.messages.get(id)
        if message is None or message.state not in ("HELD", "BEGUN"):
            return None
        same = (message.token, message.session, message.queue) == (token, session, queue)
        return message if same else None

    def holds_all(self, session: int, queue: str, messages: Iterable[Delivered]) -> bool:
        """Return whether all of them are held or begun by this session."""
        return all(self.holds(session, queue, each.token, each.id) for each in messages)

    def first_of_lane(self, message: Modelled) -> Modelled:
        """Return the message that is to be handed out first of those with its key, of what is next."""
        ready = [other for other in self.of(message.queue) if self.may_go(other)]
        first = self._next_priority(message.queue, ready)
        lane = [other for other in ready if (other.key, other.priority) == (message.key, first)]
        return min(lane, key=lambda other: (other.ready_at_ms, other.id), default=ready[0])

    def _next_priority(self, queue: str, ready: list[Modelled]) -> int:
        """Return the highest priority, or that of the one that waited the longest, if that was too long."""
        max_wait_ms = self.setting(queue, "max_wait_ms")
        # What stands behind one that came back has waited, too: its key is open again.
        waited = [other for other in self.of(queue) if other in ready or self._follows(other)]
        oldest = min(waited, key=lambda other: (other.ready_at_ms, -other.priority))
        if max_wait_ms and oldest.ready_at_ms + max_wait_ms <= self.now_ms:
            return oldest.priority
        return max(other.priority for other in ready)

    def holder(self, queue: str, key: str) -> Modelled | None:
        """Return the message that came back and goes before all others of its key, where order is strict."""
        if not key or self.setting(queue, "key_concurrency") != 1:
            return None
        back = [
            message
            for message in self.of(queue)
            if message.key == key and message.state in ("READY", "DELAYED")
            if (message.charged or message.releases) and not message.dead
        ]
        return min(back, key=lambda message: message.id, default=None)

    def _follows(self, message: Modelled) -> bool:
        """Whether a message is ready behind one of its key and priority that came back, and may go."""
        before = self.holder(message.queue, message.key)
        if before is None or message.state != "READY" or before.priority != message.priority:
            return False
        return self.may_go(before)

    def may_go(self, message: Modelled) -> bool:
        """Whether a message is ready, and neither its key nor one before it of that keeps it."""
        of_key = [m for m in self.of(message.queue) if m.key == message.key]
        most = self.setting(message.queue, "key_concurrency") if message.key else 0
        is_open = not most or sum(m.state in ("HELD", "BEGUN") for m in of_key) < most
        holder = self.holder(message.queue, message.key)
        is_open = is_open and not self.circuits.keeps(message)
        return message.state == "READY" and is_open and holder in (None, message)

    def hand_out(
        self,
        message: Modelled,
        token: int,
        connection: int,
        lease_ms: int,
        *,
        begun: bool,
        handed: bool,
    ) -> None:
        """A delivery was made; no consumer of the model asks for a lease."""
        assert lease_ms == self.lease_ms_of(message)
        message.lease_ms = lease_ms
        message.state, message.token = "HELD", token
        message.handed = begun and handed
        message.connection, message.session = connection, self.connected[connection]
        self.circuits.gave(message)
        if begun:
            self.begin(message)

    def begin(self, message: Modelled, lease_ms: int = 0, *, renew: bool = False) -> None:
        """The lease runs; `renew` starts it anew if it runs already."""
        if message.state == "BEGUN" and not renew:
            return
        lease_ms = lease_ms or message.lease_ms
        message.state, message.deadline_ms = "BEGUN", self.now_ms + lease_ms
        if message.logged is not None:
            message.logged = replace(
                message.logged,
                begun=True,
                token=message.token,
                session=message.session,
                lease_ms=lease_ms,
                written_unix_ms=self.unix_ms,
                wait_ms=0,
            )

    def ack(self, message: Modelled) -> None:
        """The message ends."""
        self.circuits.acked(message)
        del self.messages[message.id]
        self.counters["acked"] += 1

    def fail(self, message: Modelled, delay_ms: int | None) -> None:
        """A nack."""
        self.circuits.charge(message, failed=True)
        self.circuits.failed(message)
        if self._is_last(message):
            self.dead_letter(message)
            return
        if delay_ms is None:
            delay_ms = self._retry_ms(message, message.failed)
        message.marked = False
        self._return(message, delay_ms)

    def reject(self, message: Modelled) -> None:
        """To the DLQ now."""
        self.circuits.charge(message, failed=True)
        self.dead_letter(message)

    def dead_letter(self, message: Modelled) -> None:
        """Move a message, unless its DLQ is full or it is in one."""
        if message.queue == "q":
            self.dlq_exists = True
        most = self.setting("q.dlq", "max_messages")
        full = most and len(self.of("q.dlq")) >= most
        if message.queue == "q" and full:
            message.dead = True
            self._return(message, 0, at_end=False)
            return
        if message.queue == "q.dlq":
            self._return(message, self._retry_ms(message, max(message.charged, 1)))
            return
        self.move(message, "q.dlq")

    def has_moved(self, message: Modelled, ready_at_ms: int) -> None:
        """There was room for a dead message that waited for it."""
        message.dead = False
        self.move(message, "q.dlq")
        message.ready_at_ms = ready_at_ms
        if message.logged is not None:
            message.logged.ready_at_ms = ready_at_ms

    def release(self, message: Modelled, *, recalled: bool = False) -> None:
        """Back to its place, later from the second time on; `recalled`: uncounted if no handler saw it."""
        begun, delay_ms = message.state == "BEGUN", 0
        message.unseen = recalled and (message.handed or not begun)
        if not message.unseen:
            message.releases += 1
            delay_ms = 1_000 if message.releases > 1 else 0
        if begun:
            message.ended = message.token
        self._return(message, delay_ms, logged=begun, at_end=bool(delay_ms))

    def unseen(self, session: int, connection: int) -> None:
        """What was begun as it was handed out, and not named by the resume of this session, goes back."""
        for message in self.messages.values():
            is_its = message.session == session and message.connection != connection
            if message.state == "BEGUN" and message.handed and is_its:
                message.ended, message.unseen = message.token, True
                self._return(message, 0, logged=True, at_end=False)

    def redrive(self, message: Modelled) -> None:
        """Back from the DLQ."""
        message.charged = message.failed = 0
        message.redriven = True
        self.move(message, "q")

    def retime(self, message: Modelled, delay_ms: int) -> None:
        """It waits anew; one that is ready, and is to be so now, keeps its place."""
        if delay_ms or message.state == "DELAYED":
            self._return(message, delay_ms)

    def cancel(self, message: Modelled) -> None:
        """It ends, wherever it is."""
        del self.messages[message.id]
        self.cancelled.add(message.id)
        self.counters["cancelled"] += 1

    def purge(self, queue: str) -> int:
        """End everything in a queue."""
        gone = self.of(queue)
        for message in gone:
            del self.messages[message.id]
        self.counters["purged"] += len(gone)
        return len(gone)

    def connection_ends(self, connection: int, *, marked: bool) -> None:
        """What it held goes back; `connected` is the caller's."""
        for message in self.messages.values():
            if message.state == "HELD" and message.connection == connection:
                self.circuits.waits(message)
                message.marked = message.marked or marked
                message.state = "READY"

    def resume(self, session: int, connection: int, token: int, id: Id, lease_ms: int) -> bool:
        """Whether a resumed session keeps a message; it is begun then, with this lease."""
        message = self.messages.get(id)
        if message is None:
            return False
        if message.state == "BEGUN" and (message.token, message.session) == (token, session):
            message.connection = connection
            return True
        if message.state != "READY" or token <= message.ended:
            return False
        crashed = message.token < token < self.epoch << EPOCH_BITS
        if token < message.epoch << EPOCH_BITS or not (token == message.token or crashed):
            return False
        message.token, message.session, message.connection = token, session, connection
        message.state, message.lease_ms, message.handed = "HELD", lease_ms, False
        self.begin(message)
        return True

    # -- what time does -------------------------------------------------------------------------

    def delay_over(self, message: Modelled) -> None:
        """A delay ended."""
        message.state = "READY"

    def lease_over(self, message: Modelled) -> None:
        """A lease ended without a settlement."""
        message.ended = message.token
        message.marked = True
        recovered = message.token >> EPOCH_BITS < self.epoch
        gone = message.session not in self.connected.values()
        charged = not (gone and recovered and self.now_ms <= self.opened_ms + GRACE_MS + 16)
        if charged:
            self.circuits.charge(message, failed=False)
            self.circuits.failed(message)
        if self._is_last(message):
            self.dead_letter(message)
        else:
            self._return(message, 0, at_end=False)

    def may_expire(self, message: Modelled) -> bool:
        """Whether its time to live ends it, if it is over."""
        may = message.state in ("READY", "DELAYED", "HELD") and message.queue == "q"
        return bool(message.ttl_ms) and may and not (message.dead or message.redriven)

    def expire(self, message: Modelled) -> None:
        """Its time to live is over."""
        if self.settings["q"]["on_expired"] == "drop":
            del self.messages[message.id]
            self.counters["expired"] += 1
        else:
            self.dead_letter(message)

    # -- restarts -------------------------------------------------------------------------------

    def restart(self, durable: Durable, epoch: int, now_ms: int, unix_ms: int) -> None:
        """Start from what a log says."""
        self.epoch, self.opened_ms, self.now_ms, self.unix_ms = epoch, now_ms, now_ms, unix_ms
        self.messages = durable.messages
        self.frames, self.kept = durable.frames, durable.kept
        self.connected.clear()
        for message in self.messages.values():
            assert message.logged is not None
            self._recover(message, message.logged)
        self.circuits.restart(durable.circuits)
        self.counters = dict.fromkeys(ENDED, 0) | {"published": len(self.messages)}

    def _recover(self, message: Modelled, logged: Logged) -> None:
        message.queue = logged.queue
        message.charged, message.failed = logged.charged, logged.failed
        message.marked, message.releases = logged.marked, logged.releases
        message.token, message.ended = logged.token, logged.ended
        message.session, message.connection, message.handed = logged.session, 0, False
        message.dead, message.redriven = logged.dead, logged.redriven
        left = message.published_unix_ms + message.ttl_ms - self.unix_ms
        message.expires_ms = self.now_ms + min(max(left, 0), message.ttl_ms)
        if logged.begun:
            left = logged.written_unix_ms + logged.lease_ms - self.unix_ms
            left = min(max(left, 0), logged.lease_ms)
            left = max(left, min(logged.lease_ms, GRACE_MS))
            message.state, message.deadline_ms = "BEGUN", self.now_ms + left
            message.ready_at_ms = min(logged.ready_at_ms, self.now_ms)
            return
        left = logged.written_unix_ms + logged.wait_ms - self.unix_ms
        left = min(max(left, 0), logged.wait_ms)
        if message.dead:
            self.wait(message)
            return
        message.ready_at_ms = self.now_ms + left if left else min(logged.ready_at_ms, self.now_ms)
        self.wait(message)

    # -- helpers --------------------------------------------------------------------------------

    def _is_last(self, message: Modelled) -> bool:
        most = message.own_max_attempts or self.setting("q", "max_attempts")
        return message.queue == "q" and message.charged >= most

    def lease_ms_of(self, message: Modelled) -> int:
        """Return the lease of a message where no consumer asks for one."""
        return message.own_lease_ms or self.setting(message.queue, "lease_ms")

    def setting(self, queue: str, name: str) -> int:
        """Return a setting that is an integer."""
        return int(self.settings[queue][name])

    def _retry_ms(self, message: Modelled, failures: int) -> int:
        return min(
            self.setting(message.queue, "retry_delay_ms") * 2 ** max(failures - 1, 0), 300_000
        )

    def wait(self, message: Modelled) -> None:
        """Let a message wait, ready or not yet."""
        self.circuits.waits(message)
        waits = message.dead or message.ready_at_ms > self.now_ms
        message.state = "DELAYED" if waits else "READY"

    def _return(
        self, message: Modelled, delay_ms: int, *, logged: bool = True, at_end: bool = True
    ) -> None:
        if at_end:
            message.ready_at_ms = self.now_ms + delay_ms
        if logged:
            self._log(message, delay_ms)
        self.wait(message)

    def move(self, message: Modelled, queue: str) -> None:
        """Let a message be ready in another queue."""
        message.queue, message.ready_at_ms = queue, self.now_ms
        message.marked, message.releases = False, 0
        self._log(message, 0)
        message.state = "READY"

    def copied(self, copy: CopyMeta) -> None:
        """The log says anew, and all, of one message; it must be what is true of it."""
        message = self.messages[copy.origin, copy.sequence]
        assert message.logged is not None
        assert bool(copy.lease_token) == (message.state == "BEGUN")
        assert (sum(copy.attempts), copy.attempts[0]) == (message.charged, message.failed)
        assert (copy.dead, copy.unique_key) == (message.dead, message.unique)
        self._check_terms(message, copy)
        assert (copy.marked, copy.releases) == (message.marked, message.releases)
        assert (copy.key, copy.ready_at_ms) == (message.key, message.ready_at_ms)
        begun = bool(copy.lease_token)
        assert not begun or (copy.lease_token, copy.session) == (message.token, message.session)
        message.logged = Logged(
            message.queue,
            begun,
            copy.ready_at_ms,
            0 if begun else copy.wait_ms,
            copy.unix_ms + (copy.wait_ms - copy.lease_ms if begun else 0),
            message.charged,
            message.failed,
            copy.marked,
            copy.releases,
            copy.lease_token or message.logged.token,
            copy.token,
            copy.session,
            copy.lease_ms,
            copy.dead,
            bool(copy.redriven),
        )

    def run_copied(self, copy: CopyRunMeta) -> None:
        """The log says anew when messages without a history were published, and that is all."""
        for sequence in range(copy.first, copy.first + copy.count):
            message = self.messages[copy.queue, sequence]
            assert message.logged is not None
            assert (message.charged, message.key) == (0, copy.key)
            self._check_terms(message, copy)
            ready_at_ms = copy.ready_at_ms + copy.delay_ms
            wait = (copy.delay_ms, copy.unix_ms)
            if copy.wrote_unix_ms:
                wait = (copy.wait_ms, copy.wrote_unix_ms)
            message.logged = Logged(message.queue, False, ready_at_ms, *wait)

    @staticmethod
    def _check_terms(message: Modelled, copy: CopyMeta | CopyRunMeta) -> None:
        says = (copy.own_max_attempts, copy.own_lease_ms, copy.own_priority, copy.own_ttl_ms)
        own = (message.own_max_attempts, message.own_lease_ms, message.priority, message.ttl_ms)
        assert says == own

    def _log(self, message: Modelled, delay_ms: int) -> None:
        if message.logged is not None:
            message.logged = Logged(
                message.queue,
                False,
                message.ready_at_ms,
                delay_ms,
                self.unix_ms,
                message.charged,
                message.failed,
                message.marked,
                message.releases,
                message.logged.token,
                message.ended,
                dead=message.dead,
                redriven=message.redriven,
            )
