"""Consumers: the iteration over what was delivered, and how it ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any, Generic, TypeVar

from minibroker.contract.errors import MinibrokerError
from minibroker.session.batching import begin_some, check_most, is_marked
from minibroker.session.pacing import Pacing
from minibroker.session.settlements import TOLD
from minibroker.session.subscription import QUIET_S, Subscription
from minibroker.session.typed import Convert
from minibroker.sync.batches import Batch, batches_of
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
        messages = self.take(1)
        if messages is None:
            raise StopIteration
        return messages[0]

    def take(self, most: int) -> list[Message[Body]] | None:
        """Return the messages that are there, begun: 1 to `most`; None: no more will come."""
        while True:
            messages = self._take(most)
            if messages:
                return messages
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
                return None
            driver.wait(waiter, partial(self._pass_on, waiter))

    def _take(self, most: int) -> list[Message[Body]]:
        """Begin the next messages that are here."""
        driver = self._driver
        try:
            driver.__enter__()
            messages: list[Message[Body]] = []
            if not self._ended:
                messages = begin_some(self._buffer, most, driver.clock(), self._settlements)
            is_told = not messages or messages[0].state == TOLD
            flush = not is_told and (
                messages[0].begun_at - driver.last_write > QUIET_S
                or (messages[0].run.marked if most == 1 else is_marked(messages))
            )
        except BaseException as error:
            driver.__exit__(type(error), error, None)
            raise
        driver.leave(flush=flush)
        if not is_told and not flush and driver.keeper is not None:
            driver.keeper.soon()
        return messages

    def _pass_on(self, waiter: Waiter) -> None:
        if not waiter.cancelled():
            self.pass_on()

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

    def batches(self, most: int = 1_000) -> Iterator[Batch[Body]]:
        """Return an iterator of what is there each time: up to `most` messages, to be acknowledged together.

            with queue.consume(prefetch=2_000) as messages:
                for batch in messages.batches(500):
                    store([message.body for message in batch])
                    batch.ack()

        The first message that is there makes a batch: it waits for no others. How many there can be is the
        `prefetch` of `consume`.

        Raises:
            TypeError, BadValue: `most` is not 1 to 10,000.
            RuntimeError: outside of `with`.
        """
        if self._consumer is None:
            raise RuntimeError("batches are taken inside of `with queue.consume() as messages:`")
        return batches_of(self._consumer.take, check_most(most))

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
