"""Consumers: the iteration over what was delivered, and how it ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any, Generic, TypeVar

from minibroker.contract.errors import MinibrokerError
from minibroker.session.pacing import Pacing
from minibroker.session.settlements import BEGUN
from minibroker.session.subscription import QUIET_S, Subscription
from minibroker.session.typed import Convert
from minibroker.sync.driver import Driver
from minibroker.sync.message import Message
from minibroker.sync.waiter import Waiter

Body = TypeVar("Body")


class Consumer(Subscription, Generic[Body]):
    """One consumer of a queue: an iterator of begun messages. Several threads may share it."""

    def __init__(
        self,
        driver: Driver,
        queue: str,
        prefetch: tuple[int, Pacing | None],
        lease_ms: int,
        convert: Convert | None = None,
    ) -> None:
        with driver:
            driver.machine.check_open()
            super().__init__(
                queue, prefetch, lease_ms, driver.session.settlements_of(queue), convert
            )
            self._driver = driver
            self._machine = driver.machine
            driver.machine.subscribe(self)
            driver.keep_alive()

    def start(self) -> None:
        """Ask for messages; return when the server has agreed, raise what it refused."""
        driver = self._driver
        asked = driver.clock()
        try:
            driver.request("consume", self.fields(), driver.timeout_ms)
        except BaseException:
            with driver:
                self._machine.forget(self)
            raise
        self.is_agreed = True
        self.answered(round((driver.clock() - asked) * 1_000))

    def __iter__(self) -> Consumer[Body]:
        return self

    def __next__(self) -> Message[Body]:
        while True:
            message = self._take()
            if message is not None:
                return message
            waiter = Waiter()
            driver = self._driver
            with driver as now:
                if self._buffer:
                    continue
                if not self._ended:
                    waiter.owner = driver.machine
                    driver.machine.check_open()
                    self._wait(waiter, now)
            if self._ended and not waiter.done():
                if self.error is not None:
                    raise self.error
                raise StopIteration
            driver.wait(waiter, partial(self._pass_on, waiter))

    def _take(self) -> Message[Body] | None:
        """Begin the next message that is here; None if there is none."""
        driver = self._driver
        try:
            driver.__enter__()
            message = None if self._ended else self._begin_next()
            flush = message is not None and (
                message.begun_at - driver.last_write > QUIET_S or message.run.marked
            )
        except BaseException as error:
            driver.__exit__(type(error), error, None)
            raise
        driver.leave(flush=flush)
        if message is not None and not flush and driver.keeper is not None:
            driver.keeper.soon()
        return message

    def _begin_next(self) -> Message[Body] | None:
        try:
            message: Message[Body] = self._buffer.popleft()
        except IndexError:
            return None
        message.begun_at = self._driver.clock()
        message.state = BEGUN
        settlements = self._settlements
        if not settlements.begins:
            settlements.owe()
        settlements.begins.append(message)
        return message

    def _pass_on(self, waiter: Waiter) -> None:
        if not waiter.cancelled():
            self._wake(1)  # it was this one's turn: another may have it

    # ---- leaving ----

    def stop(self) -> None:
        """Deliver no more: settlements go first, then what has not begun goes back, at once."""
        driver, machine = self._driver, self._machine
        with driver as now:
            if machine.consumers.get(self.number) is not self or machine.closed is not None:
                return
            self.end(self.error)
            by_ms = machine.leaving.by_ms(now)
        try:
            with driver:
                owes = machine.session.owed.is_any()
            if owes:
                driver.drained()
        except BaseException:
            self.retire()
            raise
        with driver as now:
            machine.forget(self)
            is_open = machine.session.is_open
            left_ms = max(0, by_ms - now)
        if is_open:
            driver.request("cancel", {"consumer": self.number}, max(1, left_ms))

    def retire(self) -> None:
        """Deliver no more, and give back what has not begun, without waiting for the answer."""
        with self._driver:
            self._retire()

    def retire_soon(self) -> None:
        """As `retire`, by the next thread that looks: also while this one has the mutex."""
        self._driver.todo.append(self._retire)
        if self._driver.keeper is not None:
            self._driver.keeper.soon()

    def _retire(self) -> None:
        machine = self._machine
        if machine.consumers.get(self.number) is self and machine.closed is None:
            machine.retire(self)


class Consumption(Generic[Body]):
    """What `Queue.consume` returns: a context manager and an iterator of messages.

    With `with`, leaving the block gives back what has not begun and waits until settlements are
    confirmed. Without it, the end of the loop (`break`, too) gives back what has not begun.
    """

    def __init__(
        self,
        driver: Driver,
        queue: str,
        prefetch: tuple[int, Pacing | None],
        lease_ms: int,
        convert: Convert | None = None,
    ) -> None:
        self._driver = driver
        self._args = (queue, prefetch, lease_ms, convert)
        self._consumer: Consumer[Body] | None = None

    def __enter__(self) -> Consumption[Body]:
        self._consumer = Consumer(self._driver, *self._args)
        self._consumer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            leave(self._driver, consumer)

    def __iter__(self) -> Iterator[Message[Body]]:
        if self._consumer is not None:
            return self._consumer
        return self._loosely()

    def _loosely(self) -> Iterator[Message[Body]]:
        consumer: Consumer[Body] = Consumer(self._driver, *self._args)
        consumer.start()
        try:
            yield from consumer
        finally:
            consumer.retire_soon()  # the collector may be who ends this iteration, in any thread


def leave(driver: Driver, consumer: Consumer[Any]) -> None:
    """Stop `consumer`, then wait within a deadline until all settlements are confirmed."""
    with suppress(MinibrokerError):  # the connection may be away, and with it what it held
        consumer.stop()
    driver.drained()
