"""One consumer of a queue: the buffer of what was delivered, who waits for it, and its place at the server."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, Final

from minibroker.contract.errors import Closed, MinibrokerError
from minibroker.session.delivery import drop
from minibroker.session.message import Delivery
from minibroker.session.pacing import Pacing
from minibroker.session.settle_frames import Owed
from minibroker.session.settlements import HELD, Settlements
from minibroker.session.typed import Convert

# A handler that computes and dies must not take a begin with it that was never written: when the last
# write is longer ago than this, what is pending is written before the application sees the message.
QUIET_S: Final = 0.001


class Subscription:
    """What a shell's consumer is made of; those that a machine knows are asked for again on a new connection."""

    takes_begun = True  # who takes a message begins it, so the server may have begun it before

    def __init__(
        self,
        queue: str,
        prefetch: tuple[int, Pacing | None],
        lease_ms: int,
        settlements: Settlements,
        convert: Convert | None = None,
    ) -> None:
        self.number = 0  # the machine gives it one
        self.queue = queue
        self.prefetch, self._pacing = prefetch
        self.lease_ms = lease_ms  # 0: as the queue says
        self.is_agreed = False  # the server has said so, once
        self.arming: Any = None  # the call that asks again, while it has no answer
        self._buffer: deque[Any] = deque()
        self._waiters: deque[Any] = deque()
        self._waits_since_ms = 0  # the first of those that wait
        self._handed = 0  # messages in the buffer that the server has begun
        self.owed: Owed | None = None  # of its session, where it says that somebody waits
        self._settlements = settlements
        self._convert = convert
        self.error: MinibrokerError | None = None
        self._ended = False

    def fields(self) -> dict[str, object]:
        """Return what the request says that asks for messages."""
        fields: dict[str, object] = {"queue": self.queue, "consumer": self.number}
        fields["prefetch"] = self.prefetch
        if self.lease_ms:
            fields["lease_ms"] = self.lease_ms
        return fields

    def set_half(self, consumers: Iterable[Subscription]) -> None:
        """Let acks of the queue leave early when half of the smallest prefetch has been used up."""
        smallest = min((each.prefetch for each in consumers if each.queue == self.queue), default=2)
        self._settlements.half = max(1, smallest // 2)

    def deliver(self, delivery: Delivery, now_ms: int) -> bool:
        """Take a delivery into the buffer; return whether to ask for messages again, with another prefetch."""
        delivery.convert = self._convert
        if delivery.handed:
            if not self.is_waiting():
                delivery.give_back()
                return False
            self._handed += 1
        count, before = len(delivery.messages), self.prefetch
        if self._pacing is not None and self.is_agreed and not self.is_asked_again:
            self.prefetch = self._paced(self._pacing, count, now_ms)
        self._buffer.extend(delivery.messages)
        self._wake(count)
        return self.prefetch != before

    def answered(self, took_ms: int) -> None:
        """Note how long the server took to answer a request of this consumer."""
        if self._pacing is not None:
            self._pacing.answered(took_ms)

    def _paced(self, pacing: Pacing, count: int, now_ms: int) -> int:
        waiting = 0 if self._buffer else len(self._waiters)
        waits_ms = now_ms - self._waits_since_ms if waiting else 0
        return pacing.delivered(now_ms, count, len(self._buffer), self.prefetch, waiting, waits_ms)

    @property
    def is_asked_again(self) -> bool:
        """Whether it has been asked for again, and there is no answer yet."""
        return self.arming is not None and not self.arming.waiter.done()

    def _wait(self, waiter: object, now_ms: int) -> None:
        """Let `waiter` know when there is something in the buffer, or will be nothing."""
        if not self._waiters:
            self._waits_since_ms = now_ms
        self._waiters.append(waiter)
        if self.owed is not None:
            self.owed.waiting = self

    def is_waiting(self) -> bool:
        """Whether somebody would begin the next message as soon as it came."""
        return not self._ended and len(self._buffer) < self._live_waiters()

    is_free = is_waiting  # as far as whoever reads what comes is: then the server may begin it

    def _live_waiters(self) -> int:
        return sum(not waiter.done() for waiter in self._waiters)

    def give_back_handed(self) -> bool:
        """Give back what the server has begun for somebody who does not wait any more; False: there is nothing.

        It was never handed out, then: it comes again, and is begun by whoever takes it.
        """
        if not self._handed:
            return False
        self._handed = 0
        taken = self.take_out([each for each in self._buffer if each.run.delivery.handed])
        for message in taken:
            message.release_unseen(recalled=1)
        return bool(taken)

    def pass_on(self) -> bool:
        """Whoever was told of a message goes without it: another one has it, or (True) something is given back."""
        if not self._live_waiters():
            return self.give_back_handed()
        self._wake(1)
        return False

    def take_buffer(self) -> list[Any]:
        """Take out what was not begun. Also called by the attached thread: each popleft is one step."""
        taken: list[Any] = []
        try:
            while True:
                taken.append(self._buffer.popleft())
        except IndexError:
            return taken

    def take_out(self, messages: Sequence[Any]) -> list[Any]:
        """Take messages out that are not to begin here; return those. Another thread may have taken one before."""
        taken = []
        for message in messages:
            with suppress(ValueError):
                self._buffer.remove(message)
                taken.append(message)
        if taken and self._pacing is not None:
            self._pacing.gave_back(len(taken))
        return taken

    def drop_buffer(self) -> None:
        """Forget what was not begun: the connection that held it has ended, or gives it back."""
        drop([message for message in self.take_buffer() if message.state == HELD])

    def end(self, error: MinibrokerError | None) -> None:
        """Let the iteration end, with `error` if there is one."""
        self.error = error
        self._ended = True
        self._wake(len(self._waiters))

    def _wake(self, count: int) -> None:
        while count > 0 and self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                count -= 1


class Arming:
    """Waits for the answer when messages are asked for again: a refusal ends the iteration."""

    def __init__(self, subscription: Subscription, received_ms: Callable[[], int]) -> None:
        """`received_ms` returns when the newest bytes came."""
        self._subscription = subscription
        self._received_ms = received_ms
        self._asked_ms = received_ms()
        self._is_done = False

    def done(self) -> bool:
        """Return whether there is an answer."""
        return self._is_done

    def cancelled(self) -> bool:
        """Nobody gives it up by itself."""
        return False

    def exception(self) -> None:
        """It keeps none."""

    def result(self) -> None:
        """It keeps none."""

    def set_result(self, value: object) -> None:
        """Note that the server has agreed."""
        self._is_done = True
        self._subscription.answered(self._received_ms() - self._asked_ms)

    def set_exception(self, error: MinibrokerError) -> None:
        """Note what the server refused."""
        self._is_done = True
        if not isinstance(error, Closed):
            self._subscription.end(error)
