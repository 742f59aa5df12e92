"""Clients who change their minds: they receive and consume, and take it back at any moment.

A call that was cancelled leaves nothing at the server, whatever was on its way when it was: no receive that waits,
no consumer, no message. And an attempt is charged for what a client began, not for an answer that nobody saw.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sim_client import Habits, SimulatedClient
from sim_consumer import SimulatedConsumer

from minibroker.session.calls import Call
from minibroker.session.message import Delivery

if TYPE_CHECKING:
    from sim_world import World

MOST_ASKED = 8  # receives that one client waits for
MOST_TAKING = 2  # consumers


class ImpatientClient(SimulatedClient):
    """Asks for messages again and again; goes before, while, or after the answer comes."""

    def __init__(
        self, world: World, name: str, habits: Habits, seed: int, per_second: float, patience: float
    ) -> None:
        self._per_second = per_second
        self._patience_us = patience * 1e6
        super().__init__(world, name, habits, seed)

    def start(self) -> None:
        """Begin."""
        super().start()
        self.asked: dict[Call, None] = {}
        self._now_and_then(self._per_second, self._ask)
        self._now_and_then(self._per_second / 4, self._open)

    # -- receiving ------------------------------------------------------------------------------

    def _ask(self) -> None:
        if len(self.asked) >= MOST_ASKED:
            return
        random = self.random
        wait_ms = random.choice((0, 20, 1_000, 10_000))
        fields: dict[str, object] = {
            "queue": random.choice(self.world.queues),
            "count": random.choice((1, 1, 3, 10)),
            "wait_ms": wait_ms,
        }
        within_ms = wait_ms + random.choice((10, self.timeout_ms))

        asked_us = self.world.loop.now_us  # its lease runs while the answer is on its way

        def told(value: Any, error: Exception | None) -> None:
            self.asked.pop(call, None)
            if isinstance(value, Delivery):
                self._take(call, value, asked_us)
            else:
                self.world.checker.returned()  # its deadline may have passed while the answer came

        call = self.ask("receive", fields, told, within_ms)
        self.asked[call] = None
        if random.random() < 0.6:
            self.soon(self._patience_us, self._go_away, call)

    def _go_away(self, call: Call) -> None:
        if call in self.asked:
            del self.asked[call]
            self.world.note(f"{self.name} withdraws {call.number}")
            self.world.checker.returned()
            self.give_up(call)

    def _take(self, call: Call, delivery: Delivery, asked_us: int) -> None:
        """Begin what was received, as `Queue.receive` does, or go in the very turn in which it came."""
        if self.random.random() < 0.1:
            self.world.checker.returned()
            self.loop.call_soon(self.give_up, call)
            return
        for work in self.note_delivery(delivery):
            self.note_begun(work.message, asked_us)
            self.work_on(work)

    # -- consuming ------------------------------------------------------------------------------

    def _open(self) -> None:
        if len(self.machine.consumers) < MOST_TAKING:
            queue = self.random.choice(self.world.queues)
            consumer = SimulatedConsumer(self, queue, self.random.randint(1, 7))
            consumer.open()
            self.soon(self._patience_us, consumer.close)

    # -- the end --------------------------------------------------------------------------------

    def calm_down(self) -> None:
        """Nothing new is asked for, and all that is open is taken back."""
        super().calm_down()
        for call in list(self.asked):
            self._go_away(call)
        for consumer in list(self.machine.consumers.values()):
            assert isinstance(consumer, SimulatedConsumer)
            consumer.close()

    def left_behind(self, store: Any) -> str:
        """Return what the server still has for calls that have gone; empty: nothing."""
        session = store.sessions.get(self.session.session_id)
        connection = session and store.connections.get(session.connection)
        if not connection or not self.session.is_open:
            return ""
        receives = set(connection.receives) - {call.number for call in self.asked}
        consumers = set(connection.consumers) - set(self.machine.consumers)
        return f"receives {sorted(receives)}, consumers {sorted(consumers)}" * bool(
            receives or consumers
        )
