"""An application of a world, on the client's machine: it publishes, works on what it gets, and misbehaves.

Its process dies and comes again as somebody else, or leaves in good order; its callers go before their answers
come; it repeats frames, and settles what is not its own any more. Whatever it does and is told stands in the books
of the checker.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from checker import Checker, Handed, History
from sim_answer import Answer
from sim_consumer import SimulatedConsumer
from sim_handlers import Handler
from sim_publisher import Publisher
from sim_shell import MachineShell
from sim_steps import Stepper

from minibroker.contract.errors import LeaseLost
from minibroker.session.delivery import MakeMessage
from minibroker.session.events import Lost
from minibroker.session.message import Delivery, MessageData
from minibroker.session.pacing import Prefetch
from minibroker.session.settlements import BEGUN, ENDED, TOLD, Settlement

if TYPE_CHECKING:
    from sim_world import World

LOOK_AGAIN_S = 3.0  # whether a queue is without its consumer
NOT_OURS = (
    "lease_lost",
    "cancelled",
    "unknown_queue",
    "outcome_unknown",
)  # why a settlement may not count


@dataclass(frozen=True, slots=True, kw_only=True)
class Habits:
    """How one client behaves: frequencies are per second, shares from 0 to 1."""

    publishes: float = 0
    most_in_batch: int = 1
    delayed: float = 0
    keyed: float = 0
    prefetch: Prefetch = 0  # 0: it consumes nothing
    work_us: int = 1
    nacks: float = 0
    rejects: float = 0
    releases: float = 0
    extends: float = 0
    repeats: float = 0
    stale: float = 0
    goes: float = 0  # of its callers, before their answer comes
    blind: float = 0  # of its settlements, whose outcome it does not wait for
    handlers: int = 0  # of each consumer, which wait; 0: messages begin by themselves
    blocking: bool = False  # they are threads, and another one reads
    impatience: float = 0  # of their waits, which end before or just after something comes
    patience_us: int = 1
    timeout_ms: int = 30_000
    declares: bool = False


class SimulatedMessage(MessageData[Any], eq=False, gc=False):
    """A message that says when its client gives it back although the server has begun it."""

    def release_unseen(self, recalled: int | None = None) -> None:
        """Give it back."""
        is_there = self.state != ENDED
        MessageData.release_unseen(self, recalled)
        if is_there and self.run.delivery.handed:
            self.run.delivery.shell.gave_back(self)


@dataclass(slots=True, eq=False)
class Work:
    """One message in the hands of the application."""

    message: MessageData[Any]
    history: History
    handed: Handed
    judge: Checker
    delay_ms: int | None = None


class SimulatedClient(MachineShell):
    """One client; `start` begins its process, `die` and `leave` end it, and another one begins."""

    make_message: MakeMessage = SimulatedMessage

    def __init__(self, world: World, name: str, habits: Habits, seed: int) -> None:
        self.base_name = name
        self.habits = habits
        self.lives = 0
        self.quiet = False  # the world drains: nothing new is published, everything is acked
        super().__init__(world, name, habits.timeout_ms, seed)

    def start(self) -> None:
        """Begin a process that does what its habits say."""
        self.lives += 1
        self.name = f"{self.base_name}.{self.lives}"
        super().start()
        self.works: dict[int, Work] = {}  # by id() of the message, which it keeps alive
        self.spent: deque[Work] = deque(maxlen=20)
        self.leaving = False
        self.publisher = Publisher(self)
        self.stepper = Stepper(self)
        habits = self.habits
        if habits.declares:
            for queue, settings in self.world.settings.items():
                self.machine.declarations.declare(queue, settings, overwrite=False)
        if habits.prefetch:
            self.loop.call_later(self.random.uniform(0, 0.2), self._look_after_consumers)
        self._now_and_then(habits.publishes, self.publisher.publish)
        self._now_and_then(habits.stale, self._settle_stale)
        self._now_and_then(habits.repeats, self._repeat)

    def calm_down(self) -> None:
        """Publish nothing new from now on, and ack what comes."""
        self.quiet = True

    def die(self) -> None:
        """End the process with all it had, and start another one."""
        self.world.note(f"{self.name} dies")
        self.world.checker.deaths += 1
        self.world.checker.returned()
        self._end()

    def leave(self) -> None:
        """Go in good order: no new work, the answers to what was settled and published, then goodbye."""
        if self.leaving:
            return
        self.leaving = True
        self.world.note(f"{self.name} leaves")
        self.world.checker.deaths += 1  # what runs is not waited for
        self.world.checker.returned()
        for consumer in list(self.machine.consumers.values()):
            self.machine.retire(consumer)
        self.flush()
        departure, life = self.machine.leaving, self.life
        if departure.is_drained(True):
            self._go(life)
            return
        by_ms = departure.by_ms(self.now_ms())
        gone = Answer(
            self, "leave", by_ms, lambda value, error: self.loop.call_soon(self._go, life)
        )
        departure.add(gone, True, by_ms)
        self.after()

    def _go(self, life: object) -> None:
        if self.life is life:
            self.machine.close("the application ends", self.now_ms())
            self.after()
            if self.waiting:
                names = sorted(answer.what for answer in self.waiting)
                self.world.checker.violation("I9", f"{self.name} closed, and {names} wait on")
            self._end()

    def _end(self) -> None:
        self.life.over = True
        if self.link is not None:
            self.link.drop()
        self.start()

    def _now_and_then(self, per_second: float, act: Callable[[], None]) -> None:
        """Do something at random times, `per_second` on average, until the world drains."""
        if per_second:
            self.loop.call_later(self.random.expovariate(per_second), self._do, per_second, act)

    def _do(self, per_second: float, act: Callable[[], None]) -> None:
        if not self.quiet:
            self._now_and_then(per_second, act)
            if not self.leaving:
                act()

    def soon(self, mean_us: float, act: Callable[..., object], *arguments: Any) -> None:
        delay_us = self.random.expovariate(1 / mean_us)
        self.loop.call_later(delay_us / 1e6, act, *arguments)

    # -- consuming ------------------------------------------------------------------------------

    def _look_after_consumers(self) -> None:
        """Have a consumer for each queue: the first time, and whenever one has ended."""
        self.loop.call_later(LOOK_AGAIN_S, self._look_after_consumers)
        taken = {consumer.queue for consumer in self.machine.consumers.values()}
        for queue in self.consumes():
            if queue not in taken and not self.leaving:
                SimulatedConsumer(self, queue, self.habits.prefetch).open()

    def consumes(self) -> list[str]:
        """Return the queues that it takes messages of."""
        return self.world.consumable

    def delivered(self, consumer: SimulatedConsumer, delivery: Delivery) -> None:
        """Messages came: they wait in the consumer's buffer, and begin one after the other."""
        at_us = 0.0
        for work in self.note_delivery(delivery):
            checker = work.judge
            checker.early(
                work.history, work.handed, self.world.healthy_links(), work.handed.received_us
            )
            checker.taken_over(
                work.history, work.handed, self.world.kept_links(),
                1_000 * self.world.resume_wait_ms, work.handed.received_us,
            )  # fmt: skip
            if not self.habits.handlers:
                at_us += self.random.expovariate(1 / self.habits.work_us)
                self.loop.call_later(at_us / 1e6, self._begin, consumer)

    def note_delivery(self, delivery: Delivery) -> list[Work]:
        """Let the books have what came."""
        world, link, noted = self.world, self.link, []
        assert link is not None
        alive = world.healthy_links()
        for message in delivery.messages:
            handed = Handed(
                self.name, link.number, delivery.queue, message.token, message.attempt,
                delivery.lease_ms, world.loop.now_us, world.checker.crashes,
            )  # fmt: skip
            place = (message.origin, message.sequence)
            history = world.checker.delivered(handed, place, message.raw, world.loop.now_us)
            if history is None:
                continue
            world.laws.delivered(history, handed, alive)
            if world.draining:
                world.checker.drained(history, handed, fresh=self.base_name == "drain")
            work = self.works[id(message)] = Work(message, history, handed, world.checker)
            noted.append(work)
        return noted

    def _begin(self, consumer: SimulatedConsumer) -> None:
        message = consumer.take()
        if message is None:
            return  # the connection that held it has ended
        self.work_on(self.begin(message))

    def begin(self, message: MessageData[Any]) -> Work:
        """Let the application have a message; the server has begun it, or is told."""
        if message.run.delivery.handed:
            ledger, token = self.world.ledger, message.token
            ledger.handed.saw(token)
            self.note_begun(message, ledger.handed_us(token))
            message.state = TOLD
        else:
            self.note_begun(message, self.world.loop.now_us)
            message.run.settlements.begins.append(message)
            message.run.settlements.owe()
            self.schedule()
        return self.works[id(message)]

    def gave_back(self, message: MessageData[Any]) -> None:
        """The server has begun it, and nobody here will see it."""
        books, token = self.world.ledger.handed, message.token
        self.world.checker.returned()
        books.asked(token)

        def told(value: Any, error: Exception | None) -> None:
            if error is None:
                books.is_back(token, self.world.checker.epoch)

        by_ms = self.now_ms() + self.timeout_ms
        answer = Answer(self, "giving back", by_ms, told)
        self.machine.await_settled(answer, message, message.run.settlements, by_ms, False)

    def note_begun(self, message: MessageData[Any], leased_us: int) -> None:
        """The application has it now, under a lease that began at `leased_us` or later."""
        message.state, message.begun_at = BEGUN, self.loop.time()
        self.works[id(message)].handed.leased_us = leased_us

    def work_on(self, work: Work, handler: Handler | None = None) -> None:
        """Do what it takes, then settle; a handler comes back for more."""
        work_us = self.random.expovariate(1 / self.habits.work_us)
        if not self.quiet and self.random.random() < self.habits.extends:
            self.loop.call_later(work_us / 1e6, self._extend, work)
            work_us += self.random.expovariate(1 / self.habits.work_us)
        self.loop.call_later(work_us / 1e6, self._end_work, work, handler)

    def _end_work(self, work: Work, handler: Handler | None) -> None:
        self.finish(work)
        if handler is not None:
            handler.came_back()

    def lose(self, effect: Lost) -> None:
        """Messages are not this client's any more."""
        if getattr(effect.error, "code", "") not in NOT_OURS:
            self._complain(f"settling: {effect.error}")
        for message in effect.messages:
            work = self.works.get(id(message))
            if work is not None:
                work.handed.lost = True

    # -- settling -------------------------------------------------------------------------------

    def _extend(self, work: Work) -> None:
        message = work.message
        if message.state == ENDED:
            return
        asked_us = self.world.loop.now_us

        def told(value: Any, error: Exception | None) -> None:
            if error is None:
                work.handed.leased_us = asked_us
            elif isinstance(error, LeaseLost):
                work.handed.lost = True

        lease_ms = work.handed.lease_ms
        message.run.settlements.others.append(Settlement("extend", message, lease_ms))
        self._await_settled(message, told, extends=True)

    def finish(self, work: Work) -> None:
        """Settle a message, as this client's habits have it."""
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
        elif not self.quiet and self.stepper.wants():
            self.stepper.end(work)
            return
        elif (done := self.stepper.result_of(work)) is not None:
            settlements.others.append(done)
        else:
            settlements.acks.append(message)
        message._end()
        work.judge.ending(work.history, work.handed, op, self.world.loop.now_us)
        if random.random() < habits.blind:
            settlements.on_ripe()
            return

        def told(value: Any, error: Exception | None) -> None:
            del self.works[id(message)]
            if error is None or isinstance(error, LeaseLost):
                now_us = self.world.loop.now_us
                work.judge.settled(
                    work.history, work.handed, error is not None, work.delay_ms, now_us
                )
                self.spent.append(work)

        self._await_settled(message, told)

    def _await_settled(
        self,
        message: MessageData[Any],
        told: Callable[[Any, Exception | None], object],
        *,
        extends: bool = False,
    ) -> None:
        by_ms = self.now_ms() + self.timeout_ms
        answer = Answer(self, "settlement", by_ms, told)
        settlements = message.run.settlements
        done = self.machine.await_settled(answer, message, settlements, by_ms, extends)
        self.after()
        if self.random.random() < self.habits.goes:
            self.soon(self.habits.work_us, lambda: answer.cancel() and done())

    def _settle_stale(self) -> None:
        """Settle again, under its old token, what was settled and answered."""
        if not self.spent or not self.session.is_open:
            return
        work = self.spent.popleft()
        message = work.message
        settlements = message.run.settlements

        def told(value: Any, error: Exception | None) -> None:
            if error is None or isinstance(error, LeaseLost):
                lost = error is not None
                work.judge.stale_answer(work.history, message.token, lost)

        if self.random.random() < 0.5:
            settlements.acks.append(message)
        else:
            settlements.others.append(Settlement("nack", message, 0, b"E", b"stale"))
        self._await_settled(message, told)

    def _repeat(self) -> None:
        """Send a frame again that was confirmed; those without an answer are sent again after a resume."""
        if self.link is not None and self.session.is_open and self.tap.confirmed:
            self.link.send(self.random.choice(self.tap.confirmed))
