"""Who uses the retained logs of a world: those who publish to them and work for groups, and one who keeps them."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any, Final

from checker import Handed
from sim_answer import Answer
from sim_client import Habits, SimulatedClient, Work
from sim_log_books import Sent
from sim_publisher import UNKNOWN
from sim_steps import Stepper

from minibroker.contract.confirms import Confirm
from minibroker.session.log_pages import LogPage
from minibroker.session.message import Delivery
from minibroker.session.outbox import MESSAGE_RESERVE

if TYPE_CHECKING:
    from sim_log_books import Books
    from sim_world import World

FOR_EVER_MS: Final = 600_000  # beyond the end of the world
AGAIN_US: Final = 200_000


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
            self._count += 1
            key = f"k{random.randrange(3)}" if random.random() < habits.keyed else ""
            body = f"{self.name}-{self._count}:".encode() + bytes(random.choice((0, 5, 100)))
            self._add(Sent(body, log, self.name, key, self.world.loop.now_us))
        self.schedule()

    def _add(self, sent: Sent) -> None:
        self.books.intend(sent)
        group = self.publisher._group((sent.log, self.timeout_ms), len(sent.name) + MESSAGE_RESERVE)

        def told(value: Any, error: Exception | None) -> None:
            if error is None:
                assert isinstance(value, Confirm)
                place = value.origin, value.sequence
                self.books.stored(sent, place, self.world.loop.now_us)
            elif getattr(error, "code", "") not in UNKNOWN:
                self.books.refused(sent)

        answer = Answer(self, "publish", group.deadline_ms, told)
        group.add(answer, b"", sent.name, 0, sent.key.encode(), 0)
        if self._wishes.random() < self.habits.goes:
            self.soon(20_000, self._take_back, answer, sent)

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
            found = self.books.delivered(handed, id_, message.raw, world.loop.now_us)
            if found is None:
                continue
            checker, history = found
            if world.draining:
                checker.drained(history, handed, fresh=self.base_name == "logdrain")
            work = self.works[id(message)] = Work(message, history, handed, checker)
            noted.append(work)
        return noted


class LogKeeper(SimulatedClient):
    """Makes the logs of a world and their groups, and reads them, now and at the end."""

    def __init__(self, world: World, seed: int, per_second: float) -> None:
        self._per_second = per_second
        self.is_reading = False
        super().__init__(world, "keeper", Habits(), seed)

    @property
    def books(self) -> Books:
        """Those of all logs of the world."""
        return self.world.logs.books

    def start(self) -> None:
        """Begin."""
        super().start()
        for log in self.world.logs.settings:
            self._make(log)
        self._now_and_then(self._per_second, self._read)

    def _make(self, log: str) -> None:
        groups = [group for group in self.books.groups.values() if group.log == log]

        def made(value: Any, error: Exception | None) -> None:
            if error is not None:
                self.soon(AGAIN_US, self._make, log)
            elif groups:
                fields = {"queue": log, "group": groups.pop().name}
                self.ask("log_group_set", fields, made, FOR_EVER_MS)
            else:
                self.books.standing.add(log)

        settings = self.world.logs.settings[log]
        self.ask("queue_set", {"queue": log, "settings": settings}, made, FOR_EVER_MS)

    # -- reading --------------------------------------------------------------------------------

    def _read(self) -> None:
        standing = sorted(self.books.standing)
        if standing:
            log, offset = self.random.choice(standing), self.random.choice((0, 1, 10, 50))
            wait_ms = self.random.choice((0, 0, 300))
            self._ask_for(log, offset, lambda page: None, self.random.choice((1, 3_000)), wait_ms)

    def _ask_for(self, log: str, offset: int, then: Any, most_bytes: int, wait_ms: int) -> None:
        def told(value: Any, error: Exception | None) -> None:
            if error is None:
                assert isinstance(value, LogPage)
                self.books.read(log, offset, [(each.offset, each.raw) for each in value])
                then(value)
            elif self.world.draining:
                self.soon(AGAIN_US, self._ask_for, log, offset, then, most_bytes, wait_ms)

        fields = {"queue": log, "start": "offset", "at": offset}
        fields |= {"most_bytes": most_bytes, "wait_ms": wait_ms}
        self.ask("log_read", fields, told, wait_ms + self.timeout_ms)

    def read_all(self, log: str, found: list[tuple[int, bytes]], offset: int = 0) -> None:
        """Read a log to its end; `is_reading` until that."""
        self.is_reading = True

        def then(page: LogPage) -> None:
            found.extend((each.offset, each.raw) for each in page)
            if page.next < page.stop:
                self.read_all(log, found, page.next)
            else:
                self.is_reading = False

        self._ask_for(log, offset, then, 3_000, 0)
