"""A consumer of a simulated client: the machine's subscription, opened and left as `Queue.consume` does it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sim_handlers import Handler

from minibroker.session.calls import Call
from minibroker.session.message import Delivery, MessageData
from minibroker.session.pacing import Prefetch, prefetch_of
from minibroker.session.subscription import Subscription

if TYPE_CHECKING:
    from sim_client import SimulatedClient


class SimulatedConsumer(Subscription):
    """Known to the machine from its making on; `open` asks for messages.

    It has as many handlers as its client's habits say, which wait for messages; with none of them messages begin
    by themselves, some time after they came.
    """

    def __init__(self, client: SimulatedClient, queue: str, prefetch: Prefetch) -> None:
        super().__init__(queue, prefetch_of(prefetch), 0, client.session.settlements_of(queue))
        self.client = client
        self._call: Call | None = None
        self._is_leaving = False
        client.machine.subscribe(self)

    def open(self) -> None:
        """Ask for messages."""
        for _ in range(self.client.habits.handlers):
            self.client.loop.call_soon(Handler(self).next)
        self._call = self.client.ask("consume", self.fields(), self._opened)

    def _opened(self, value: Any, error: Exception | None) -> None:
        self._call = None
        if error is None:
            self.is_agreed = True
        else:
            self.client.loop.call_soon(self.client.machine.forget, self)

    def deliver(self, delivery: Delivery, now_ms: int) -> bool:
        """Take messages into the buffer."""
        again = super().deliver(delivery, now_ms)
        self.client.delivered(self, delivery)
        return again

    def is_free(self) -> bool:
        """As the client for asyncio has it, whose loop reads, or the blocking one, where another thread does."""
        deliveries = self.client.session.deliveries.values()
        if not self.client.habits.blocking and any(each.open > 0 for each in deliveries):
            return False
        return not self._ended and bool(self._live_waiters())

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will come."""
        return self._ended

    def take(self) -> MessageData[Any] | None:
        """Take out the message that begins next."""
        return self._buffer.popleft() if self._buffer else None

    def close(self) -> None:
        """Go: in the middle of opening, or settlements first, then what has not begun goes back."""
        client = self.client
        machine = client.machine
        if machine.consumers.get(self.number) is not self or self._is_leaving:
            return
        self._is_leaving = True
        client.world.checker.returned()
        if self._call is not None:
            call, self._call = self._call, None
            client.give_up(call)
            machine.forget(self)
            client.schedule()
            return
        self.end(None)
        client.flush()
        if client.session.owed.is_any() and client.random.random() < 0.7:
            self._await_settlements()
        else:
            machine.retire(self)  # as one that is cancelled while it waits

    def _await_settlements(self) -> None:
        client = self.client
        if client.session.owed.is_any():
            client.loop.call_later(0.01, self._await_settlements)
            return
        client.machine.forget(self)
        if client.session.is_open:
            client.ask("cancel", {"consumer": self.number}, _seen)


def _seen(value: Any, error: Exception | None) -> None:
    """Whatever it is: the connection may have ended, and the consumer with it."""
