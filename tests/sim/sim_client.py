"""A client of a world: the real session logic of the client library, and an application that misbehaves.

It publishes, works on what it gets, loses its connection, resumes, dies and comes again as somebody else, repeats
frames, and settles what is not its own any more. Whatever it does and is told stands in the books of the checker.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

from checker import Handed, History, Intent
from sim_loop import Life, LifeLoop
from sim_network import Link

from minibroker.aio.message import Message
from minibroker.contract import limits
from minibroker.contract.errors import MinibrokerError
from minibroker.session.delivery import drop
from minibroker.session.events import (
    Answered,
    Delivered,
    Leaving,
    Published,
    PublishFailed,
    Settled,
    SettleRefused,
    Welcomed,
)
from minibroker.session.session import Session
from minibroker.session.settlements import BEGUN, ENDED, HELD, Settlement
from support.quiet_shell import QuietShell

if TYPE_CHECKING:
    from sim_world import World


MOST_IN_FRAME = 200  # messages that wait for a connection


@dataclass(frozen=True, slots=True)
class Habits:
    """How one client behaves: frequencies are per second, shares from 0 to 1."""

    publishes: float
    most_in_batch: int
    delayed: float
    keyed: float
    prefetch: int  # 0: it consumes nothing
    work_us: int
    nacks: float
    rejects: float
    releases: float
    extends: float
    repeats: float
    stale: float


class PublishWaiter:
    """Stands for a caller's future; never cancelled."""

    __slots__ = ("intent",)

    def __init__(self, intent: Intent) -> None:
        self.intent = intent

    def cancelled(self) -> bool:
        """It is not."""
        return False


@dataclass(slots=True, eq=False)
class Work:
    """One message in the hands of the application."""

    message: Message[Any]
    history: History
    handed: Handed
    delay_ms: int | None = None
    extended_us: int = 0
    stale: bool = False  # it was answered, and is settled once more on purpose


class SimulatedClient:
    """One client; `life` ends when its process does, and `revive` begins another."""

    def __init__(self, world: World, name: str, habits: Habits, seed: int) -> None:
        self.world = world
        self.base_name = name
        self.habits = habits
        self.random = Random(seed)
        self.link: Link | None = None
        self.lives = 0
        self.quiet = False  # the world drains: nothing new is published, everything is acked
        self._revive()

    def _revive(self) -> None:
        self.lives += 1
        self.name = f"{self.base_name}.{self.lives}"
        self.life = Life()
        self.loop = LifeLoop(self.world.loop, self.life)
        self.session = Session(self.name, QuietShell(), self._ripe)
        self.works: dict[int, Work] = {}  # by id() of the message, which it keeps alive
        self.spent: deque[Work] = deque(maxlen=20)
        self.old_frames: deque[tuple[int, bytes]] = deque(maxlen=5)
        self._count = 0
        self._heard_us = 0
        self._flush_due = False
        self.loop.call_later(self.random.uniform(0, 0.2), self.connect)
        self.loop.call_later(5, self._beat)
        if self.habits.publishes:
            self._later(self.habits.publishes, self._publish)
        if self.habits.stale:
            self._later(self.habits.stale, self._settle_stale)
        if self.habits.repeats:
            self._later(self.habits.repeats, self._repeat)

    def die(self) -> None:
        """End the process with all it had, and start another one."""
        self.world.note(f"{self.name} dies")
        self.world.checker.deaths += 1
        self.life.over = True
        if self.link is not None:
            self.link.drop()
            self.link = None
        self._revive()

    def _later(self, per_second: float, callback: Callable[[], None]) -> None:
        self.loop.call_later(self.random.expovariate(per_second), callback)

    # -- the connection -------------------------------------------------------------------------

    def connect(self) -> None:
        """Connect, or try again."""
        if self.link is not None:
            return
        link = self.world.accept(self)
        if link is None:
            self.loop.call_later(self.random.uniform(0.05, 0.7), self.connect)
            return
        self.link = link
        self._heard_us = self.world.loop.now_us
        link.send(self.session.login())

    def lost(self, link: Link) -> None:
        """The connection ended: what is held is gone, what is begun goes on."""
        if link is not self.link:
            return
        self.link = None
        self.world.checker.troubles += 1
        self.world.checker.returned()
        self._act(self.session.disconnected())
        for delivery in list(self.session.deliveries.values()):
            held = [message for message in delivery.messages if message.state == HELD]
            drop(held)
            for message in held:
                self.works.pop(id(message), None)
        self.loop.call_later(self.random.uniform(0.01, 0.7), self.connect)

    def _beat(self) -> None:
        self.loop.call_later(5, self._beat)
        if self.link is None:
            return
        if self.world.loop.now_us - self._heard_us > 2_000 * limits.HEARTBEAT_MS:
            self._give_up()
        elif self.session.is_open:
            self.session.request("ping", {}, None)
            if self.quiet and self.habits.prefetch:
                self.consume()  # of queues that were not there the last time
            self.flush_soon()

    def _give_up(self) -> None:
        link = self.link
        assert link is not None
        link.drop()
        self.lost(link)

    def receive(self, link: Link, data: bytes) -> None:
        """Take bytes that arrived."""
        if link is not self.link:
            return
        self._heard_us = self.world.loop.now_us
        try:
            events = self.session.receive(data)
        except MinibrokerError as error:
            if error.code != "shutting_down":
                self.world.checker.violation("protocol", f"{self.name} was told: {error}")
            self._give_up()
            return
        self._act(events)
        self.flush_soon()

    def flush_soon(self) -> None:
        """Write what may be written, at the end of this turn."""
        if not self._flush_due:
            self._flush_due = True
            self.loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_due = False
        if self.link is not None and self.session.is_open:
            self._write(self.session.flush(self.world.loop.now_us // 1_000))

    def _write(self, frames: list[bytes]) -> None:
        if frames and self.link is not None:
            self.link.send(b"".join(frames))
            some = list(self.session.window)[-2:]
            self.old_frames.extend((sent.sequence, sent.frame) for sent in some)

    def _ripe(self, _: Any) -> None:
        self.flush_soon()

    # -- what happens ---------------------------------------------------------------------------

    def _act(self, events: list[Any]) -> None:
        for event in events:
            _HANDLERS[type(event)](self, event)

    def _welcomed(self, event: Welcomed) -> None:
        for message in event.lost:
            if message.state != ENDED:
                work = self.works.pop(id(message), None)
                message.lose()
                if work is not None:
                    work.handed.lost = True
        now_ms = self.world.loop.now_us // 1_000
        self._write(self.session.resend(lambda _: False) + self.session.retry_returned(now_ms))
        if self.habits.prefetch:
            self.consume()
        self.welcomed()

    def welcomed(self) -> None:
        """For those who have something to do when they are connected."""

    def consume(self) -> None:
        """Make the consumers of this connection."""
        for number, queue in enumerate(self.world.consumable, 1):
            self.session.consumers.add(number)
            self.session.request(
                "consume",
                {"queue": queue, "consumer": number, "prefetch": self.habits.prefetch},
                None,
            )

    def _published(self, event: Published) -> None:
        for at, waiter in enumerate(event.group.waiters):
            self.world.checker.stored(
                waiter.intent, (event.origin, event.first + at), self.world.loop.now_us
            )

    def _publish_failed(self, event: PublishFailed) -> None:
        self.world.note(f"{self.name} refused: {event.error.code}")
        self.old_frames.clear()  # a refused frame left no trace: sent again, it would be a new one
        if event.error.code != "outcome_unknown":
            for waiter in event.group.waiters:
                self.world.checker.refused(waiter.intent)

    def _settled(self, event: Settled) -> None:
        for message in event.part.messages:
            work = self.works.get(id(message))
            if work is None:
                continue
            lost = any(message is other for other in event.lost)
            if work.stale:
                del self.works[id(message)]
                self.world.checker.stale_answer(work.history, message.token, lost)
            elif event.part.op == "extend":
                if lost:
                    work.handed.lost = True
                else:
                    work.handed.leased_us = work.extended_us
            elif event.part.op != "begin" and work.handed.ended:
                del self.works[id(message)]
                self.world.checker.settled(work.history, work.handed, lost, work.delay_ms)
                self.spent.append(work)

    def _settle_refused(self, event: SettleRefused) -> None:
        self.old_frames.clear()
        if event.error.retryable:
            self.loop.call_later(0.5, self._retry)
        elif event.error.code not in ("unknown_queue", "outcome_unknown"):
            self.world.checker.violation("protocol", f"{self.name}: settling: {event.error}")

    def _retry(self) -> None:
        if self.session.is_open:
            self._write(self.session.retry_returned(self.world.loop.now_us // 1_000))

    def _answered(self, event: Answered) -> None:
        if event.waiter is not None:
            event.waiter(event.value, event.error)

    # -- working --------------------------------------------------------------------------------

    def _delivered(self, event: Delivered) -> None:
        world, delivery, link = self.world, event.delivery, self.link
        assert link is not None
        at_us = 0
        for message in delivery.messages:
            handed = Handed(
                self.name, link.number, delivery.queue, message.token, message.attempt,
                delivery.lease_ms, world.loop.now_us, world.checker.crashes,
            )  # fmt: skip
            history = world.checker.delivered(
                handed, (message.origin, message.sequence), message.raw, world.loop.now_us
            )
            if history is None:
                continue
            if self.world.draining:
                world.checker.drained(history, handed, fresh=self.base_name == "drain")
            world.checker.early(history, handed, world.healthy_links(), world.loop.now_us)
            work = Work(message, history, handed)
            self.works[id(message)] = work
            at_us += round(self.random.expovariate(1 / self.habits.work_us))
            self.loop.call_later(at_us / 1e6, self._begin, work)

    def _begin(self, work: Work) -> None:
        message = work.message
        if message.state != HELD:
            return
        message.state, message.begun_at = BEGUN, self.loop.time()
        message.run.settlements.begins.append(message)
        message.run.settlements.owe()
        work.handed.leased_us = self.world.loop.now_us
        self.flush_soon()
        work_s = self.random.expovariate(1 / self.habits.work_us) / 1e6
        if not self.quiet and self.random.random() < self.habits.extends:
            self.loop.call_later(work_s, self._extend, work)
            work_s += self.random.expovariate(1 / self.habits.work_us) / 1e6
        self.loop.call_later(work_s, self._end, work)

    def _extend(self, work: Work) -> None:
        message = work.message
        if message.state != ENDED:
            settlements = message.run.settlements
            work.extended_us = self.world.loop.now_us
            settlements.extend_waiters.append((message, work))
            settlements.others.append(Settlement("extend", message, work.handed.lease_ms))
            settlements.on_ripe()

    def _end(self, work: Work) -> None:
        message, random, habits = work.message, self.random, self.habits
        if message.state == ENDED:
            return
        fate = 1.0 if self.quiet else random.random()
        settlements = message.run.settlements
        op = "ack"
        if fate < habits.nacks:
            op = "nack"
            work.delay_ms = random.choice((None, 0, 20, 700, 5_000))
            settlements.others.append(Settlement("nack", message, work.delay_ms, b"E", b"text"))
        elif fate < habits.nacks + habits.rejects:
            op = "reject"
            settlements.others.append(Settlement("reject", message, None, b"E", b"never"))
        elif fate < habits.nacks + habits.rejects + habits.releases:
            op = "release"
            settlements.others.append(Settlement("release", message))
        else:
            settlements.acks.append(message)
        message.state = ENDED
        message.run.delivery.open -= 1
        settlements.waiters.append((message, work))
        self.world.checker.ending(work.history, work.handed, op, self.world.loop.now_us)
        settlements.on_ripe()

    def _settle_stale(self) -> None:
        """Settle again, under its old token, what was settled and answered."""
        self._later(self.habits.stale, self._settle_stale)
        if self.spent and self.session.is_open and not self.quiet:
            work = self.spent.popleft()
            message = work.message
            settlements = self.session.settlements_of(message.queue)
            if id(message) not in self.works:
                self.works[id(message)] = Work(message, work.history, work.handed, stale=True)
                settlements.waiters.append((message, work))
                if self.random.random() < 0.5:
                    settlements.acks.append(message)
                else:
                    settlements.others.append(Settlement("nack", message, 0, b"E", b"stale"))
                settlements.on_ripe()

    def _repeat(self) -> None:
        """Send a frame again that was answered; those without an answer are sent again after a resume."""
        self._later(self.habits.repeats, self._repeat)
        unanswered = {sent.sequence for sent in self.session.window}
        frames = [frame for sequence, frame in self.old_frames if sequence not in unanswered]
        if self.link is not None and self.session.is_open and frames:
            self.link.send(self.random.choice(frames))

    # -- publishing -----------------------------------------------------------------------------

    def _publish(self) -> None:
        if self.quiet:
            return
        self._later(self.habits.publishes, self._publish)
        random, habits = self.random, self.habits
        queue = random.choice(self.world.queues)
        count = random.randint(1, habits.most_in_batch)
        now_ms = self.world.loop.now_us // 1_000
        outbox = self.session.outbox
        key = (queue, 30_000)
        group = outbox.open.get(key)
        if group is None or len(group.waiters) > MOST_IN_FRAME:
            group = outbox.start(key, now_ms)
        for _ in range(count):
            self._count += 1
            delay_ms = (
                random.choice((1, 50, 900, 12_000)) if random.random() < habits.delayed else 0
            )
            name = b"k%d" % random.randrange(3) if random.random() < habits.keyed else b""
            body = f"{self.name}-{self._count}:".encode()
            body += bytes(random.choice((0, 5, 100, self.world.largest_body)))
            intent = Intent(
                body, self.name, queue, self.world.loop.now_us, delay_ms, not (delay_ms or name)
            )
            self.world.checker.intend(intent)
            group.add(PublishWaiter(intent), b"", body, 0, name, delay_ms)
        self.flush_soon()


def _ignore(client: SimulatedClient, event: Any) -> None:
    """The client reconnects when its link ends, not before."""


_HANDLERS: dict[type, Callable[[Any, Any], None]] = {
    Welcomed: SimulatedClient._welcomed,
    Published: SimulatedClient._published,
    PublishFailed: SimulatedClient._publish_failed,
    Settled: SimulatedClient._settled,
    SettleRefused: SimulatedClient._settle_refused,
    Delivered: lambda client, event: client._delivered(event),  # others have their own
    Answered: SimulatedClient._answered,
    Leaving: _ignore,
}
