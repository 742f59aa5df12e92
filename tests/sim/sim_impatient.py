"""Clients who change their minds: they receive and consume, and take it back at any moment.

A call that was cancelled leaves nothing at the server, whatever was on its way when it was: no receive that waits,
no consumer, no message. And an attempt is charged for what a client began, not for an answer that nobody saw.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from checker import Handed
from sim_client import Habits, SimulatedClient, Work

from minibroker.contract.errors import MinibrokerError
from minibroker.session.delivery import Delivery, drop
from minibroker.session.events import Delivered
from minibroker.session.settlements import BEGUN, HELD

if TYPE_CHECKING:
    from sim_world import World

MOST_ASKED = 8  # receives that one client waits for


class Asked:
    """A receive, and its caller, who may go."""

    __slots__ = ("client", "number")

    def __init__(self, client: ImpatientClient) -> None:
        self.client = client
        self.number = 0

    def __call__(self, value: Any, error: MinibrokerError | None) -> None:
        """Take the answer."""
        if self.client.asked.pop(self.number, None) is not None and isinstance(value, Delivery):
            self.client.take(value, self.number)


class ImpatientClient(SimulatedClient):
    """Asks for messages again and again; goes before, while, or after the answer comes."""

    def __init__(
        self, world: World, name: str, habits: Habits, seed: int, per_second: float, patience: float
    ) -> None:
        self._per_second = per_second
        self._patience_s = patience
        super().__init__(world, name, habits, seed)

    def _revive(self) -> None:
        self.asked: dict[int, Asked] = {}
        self.taking: dict[int, list[Any]] = {}  # by consumer: what was delivered to it
        self._next_consumer = 0
        self._opening: dict[int, int] = {}  # request of a consume, by consumer
        super()._revive()
        self._later(self._per_second, self._ask)
        self._later(self._per_second / 4, self._open)

    def consume(self) -> None:
        """Ask for every open consumer again, on a new connection; the session asks again for those that open."""
        for number in self.taking.keys() - self._opening.keys():
            self._request_consume(number)

    # -- receiving ------------------------------------------------------------------------------

    def _ask(self) -> None:
        if self.quiet:
            self._go_all()
            return
        self._later(self._per_second, self._ask)
        if len(self.asked) >= MOST_ASKED:
            return
        random = self.random
        fields: dict[str, object] = {
            "queue": random.choice(self.world.queues),
            "count": random.choice((1, 1, 3, 10)),
            "wait_ms": random.choice((0, 20, 1_000, 10_000)),
        }
        asked = Asked(self)
        asked.number = self.session.request("receive", fields, asked)
        self.asked[asked.number] = asked
        self.flush_soon()
        if random.random() < 0.6:
            self.loop.call_later(random.expovariate(1 / self._patience_s), self._go, asked)

    def _go(self, asked: Asked) -> None:
        if self.asked.pop(asked.number, None) is not None:
            self.world.note(f"{self.name} withdraws {asked.number}")
            self.world.checker.returned()
            self.session.requests.withdraw(asked.number, "receive")
            self.flush_soon()

    def take(self, delivery: Delivery, number: int) -> None:
        """Begin what was received, as `Queue.receive` does, or go in the very turn in which it came."""
        if self.random.random() < 0.1:
            self.world.checker.returned()
            self.session.requests.withdraw(number, "receive")
            self.session.take_back(delivery)
            return
        link = self.link
        assert link is not None
        for message in delivery.messages:
            handed = Handed(
                self.name, link.number, delivery.queue, message.token, message.attempt,
                delivery.lease_ms, self.world.loop.now_us, self.world.checker.crashes,
            )  # fmt: skip
            history = self.world.checker.delivered(
                handed, (message.origin, message.sequence), message.raw, self.world.loop.now_us
            )
            if history is None:
                continue
            message.state, message.begun_at = BEGUN, self.loop.time()
            handed.leased_us = self.world.loop.now_us
            if self.world.draining:
                self.world.checker.drained(history, handed, fresh=False)
            work = Work(message, history, handed)
            self.works[id(message)] = work
            work_us = self.random.expovariate(1 / self.habits.work_us)
            self.loop.call_later(work_us / 1e6, self._end, work)

    # -- consuming ------------------------------------------------------------------------------

    def _open(self) -> None:
        if self.quiet:
            self._go_all()
            return
        self._later(self._per_second / 4, self._open)
        if len(self.taking) >= 2:
            return
        self._next_consumer += 1
        number = self._next_consumer
        self.taking[number] = []
        self.session.consumers.add(number)
        self._request_consume(number)
        self.loop.call_later(self.random.expovariate(1 / self._patience_s), self._close, number)

    def _request_consume(self, number: int) -> None:
        queue = self.world.queues[number % len(self.world.queues)]
        fields = {"queue": queue, "consumer": number, "prefetch": 1 + number % 7}

        def opened(value: Any, error: MinibrokerError | None) -> None:
            self._opening.pop(number, None)

        self._opening[number] = self.session.request("consume", fields, opened)
        self.flush_soon()

    def _close(self, number: int) -> None:
        """Go as a caller does that is cancelled while it opens, or as a consumer that stops."""
        if number not in self.taking:
            return
        if number not in self._opening and (
            not self.session.is_open or self.session.owes_settlements()
        ):
            self.loop.call_later(0.01, self._close, number)  # a cancel must not overtake an ack
            return
        taken = self.taking.pop(number)
        self.session.consumers.discard(number)
        self.world.checker.returned()
        held = [message for message in taken if message.state == HELD]
        drop(held)
        for message in held:
            self.works.pop(id(message), None)
        request = self._opening.pop(number, None)
        if request is not None:
            self.session.requests.withdraw(request, "consume")
        else:
            self.session.request("cancel", {"consumer": number}, None)
        self.flush_soon()

    def _delivered(self, event: Delivered) -> None:
        if event.consumer in self.taking:
            self.taking[event.consumer] += event.delivery.messages
        super()._delivered(event)

    # -- the end --------------------------------------------------------------------------------

    def _go_all(self) -> None:
        for asked in list(self.asked.values()):
            self._go(asked)
        for number in list(self.taking):
            self._close(number)

    def left_behind(self, store: Any) -> str:
        """Return what the server still has for calls that have gone; empty: nothing."""
        session = store.sessions.get(self.session.session_id)
        connection = session and store.connections.get(session.connection)
        if not connection or not self.session.is_open:
            return ""
        receives = set(connection.receives) - set(self.asked)
        consumers = set(connection.consumers) - set(self.taking)
        return f"receives {sorted(receives)}, consumers {sorted(consumers)}" * bool(
            receives or consumers
        )
