"""Handlers of a simulated application: each iterates over a consumer, as a task or a thread does.

It takes a message, works, settles it, and comes back for the next one; where there is none it waits, which its
client tells the server. It may go at any moment: before it is told that something came, or after that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sim_consumer import SimulatedConsumer

LEAVES = 0.2  # of those that wait no longer: their application wants no more messages at all
THREAD_S = 0.001  # within which a thread mostly runs that was woken


class Wait:
    """What a handler waits with, as a future does."""

    __slots__ = ("_handler", "state")

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self.state = "waiting"

    def done(self) -> bool:
        """Return whether it was told, or has gone."""
        return self.state != "waiting"

    def cancelled(self) -> bool:
        """Return whether it went before it was told."""
        return self.state == "gone"

    def set_result(self, value: object) -> None:
        """Something has come, or nothing will."""
        self.state = "told"
        self._handler.told(self)


class Handler:
    """One of those that share a consumer."""

    def __init__(self, consumer: SimulatedConsumer) -> None:
        self._consumer = consumer
        self._client = consumer.client
        self._waiting: Wait | None = None

    def next(self) -> None:
        """Come for a message."""
        client = self._client
        message = self._consumer.take()
        if message is not None:
            client.work_on(client.begin(message), self)
        elif not self._consumer.has_ended:
            self._waiting = Wait(self)
            self._consumer._wait(self._waiting, client.now_ms())
            if self._is_impatient():
                client.soon(client.habits.patience_us, self._go, self._waiting)

    def came_back(self) -> None:
        """Its work is done: it comes for more, mostly before its ack leaves."""
        client = self._client
        if client.random.random() < 0.7:
            self.next()
        else:
            client.soon(client.habits.work_us, self.next)

    def told(self, wait: Wait) -> None:
        """Go on in the next turn, or when the thread runs; or be cancelled before that."""
        client = self._client
        if self._is_impatient():
            client.loop.call_soon(self._go, wait)
        elif client.habits.blocking:
            client.loop.call_later(client.random.expovariate(1 / THREAD_S), self._woken, wait)
        else:
            client.loop.call_soon(self._woken, wait)

    def _woken(self, wait: Wait) -> None:
        if wait is self._waiting:
            self._waiting = None
            self.next()

    def _go(self, wait: Wait) -> None:
        """Wait no longer, as when a time is over or a task is cancelled; and come again later."""
        if wait is not self._waiting:
            return
        self._waiting = None
        if not wait.done():
            wait.state = "gone"
        elif self._consumer.pass_on():
            self._client.schedule()
        if self._client.random.random() < LEAVES:
            self._consumer.close()
        else:
            self._client.soon(self._client.habits.patience_us, self.next)

    def _is_impatient(self) -> bool:
        client = self._client
        return not client.quiet and client.random.random() < client.habits.impatience
