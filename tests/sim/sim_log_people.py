"""Who uses the retained logs of a world: those who publish to them, and work on what their groups get."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

from checker import Handed
from msgpack import packb
from sim_answer import Answer
from sim_client import Habits, SimulatedClient, Work
from sim_log_bounds import Sent
from sim_publisher import UNKNOWN
from sim_steps import Stepper

from minibroker.contract.confirms import Confirm
from minibroker.session.message import Delivery
from minibroker.session.outbox import MESSAGE_RESERVE

if TYPE_CHECKING:
    from sim_log_books import Books
    from sim_world import World


class Acks(Stepper):
    """Ends nothing by a step, or with a result."""

    def wants(self) -> bool:
        """Draw nothing."""
        return False

    def result_of(self, work: Work) -> Any:
        """Say nothing."""
        return None


class LogWorker(SimulatedClient):
    """Publishes to logs, or works on what groups get, as its habits have it."""

    def __init__(
        self, world: World, name: str, habits: Habits, seed: int, publishes: float = 0
    ) -> None:
        """`publishes`: how often in a second, to logs."""
        self._publishes = publishes
        self._wishes = Random(f"logs of {world.seed} {name}")
        super().__init__(world, name, habits, seed)

    @property
    def books(self) -> Books:
        """Those of all logs of the world."""
        return self.world.logs.books

    def start(self) -> None:
        """Begin."""
        self._count = 0
        super().start()
        self.stepper = Acks(self)
        self._now_and_then(self._publishes, self._publish)

    # -- publishing -----------------------------------------------------------------------------

    def _publish(self) -> None:
        standing = sorted(self.books.standing)
        if not standing:
            return
        random, habits = self._wishes, self.habits
        log = random.choice(standing)
        for _ in range(random.randint(1, habits.most_in_batch)):
            key = f"k{random.randrange(3)}" if random.random() < habits.keyed else ""
            is_tombstone = bool(key) and random.random() < 0.1
            self.put(log, key, random.choice((0, 5, 100)), is_tombstone=is_tombstone)
        self.schedule()

    def put(self, log: str, key: str, more_bytes: int, *, is_tombstone: bool = False) -> Sent:
        """Put one message into the open group of a log, as `Queue.publish` does."""
        self._count += 1
        world, name = self.world, f"{self.name}-{self._count}:".encode() + bytes(more_bytes)
        headers, body = (packb({"name": name}), b"") if is_tombstone else (b"", name)
        sent = Sent(
            headers or body, log, self.name, key, world.loop.now_us, world.unix_ms(), is_tombstone
        )
        self.books.intend(sent)
        group = self.publisher._group((log, self.timeout_ms), len(sent.name) + MESSAGE_RESERVE)

        def told(value: Any, error: Exception | None) -> None:
            if error is None:
                assert isinstance(value, Confirm)
                self.books.stored(sent, (value.origin, value.sequence), world.loop.now_us)
            elif getattr(error, "code", "") not in UNKNOWN:
                self.books.refused(sent)

        answer = Answer(self, "publish", group.deadline_ms, told)
        group.add(answer, headers, body, 0, key.encode(), 0)
        if self._wishes.random() < self.habits.goes:
            self.soon(20_000, self._take_back, answer, sent)
        return sent

    def _take_back(self, answer: Answer, sent: Sent) -> None:
        waits = any(answer in group.waiters for group in self.session.outbox.groups)
        if answer.cancel() and waits:
            self.books.refused(sent)

    # -- working --------------------------------------------------------------------------------

    def consumes(self) -> list[str]:
        """Return the queues to consume."""
        queues = list(self.books.groups)
        return [*queues, *(f"{queue}.dlq" for queue in queues)] if self.quiet else queues

    def note_delivery(self, delivery: Delivery) -> list[Work]:
        """Let the books have what came."""
        world, link, noted = self.world, self.link, []
        assert link is not None
        for message in delivery.messages:
            handed = Handed(
                self.name, link.number, delivery.queue, message.token, message.attempt,
                delivery.lease_ms, world.loop.now_us, world.checker.crashes,
            )  # fmt: skip
            id_ = message.origin, message.sequence
            name = message.raw or bytes(message._headers)
            found = self.books.delivered(handed, id_, name, world.loop.now_us)
            if found is None:
                continue
            checker, history = found
            if world.draining:
                checker.drained(history, handed, fresh=self.base_name == "logdrain")
            work = self.works[id(message)] = Work(message, history, handed, checker)
            noted.append(work)
        return noted
