"""Consumers: the buffer of what was delivered, and the order in which it is handed to the application."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Generic, TypeVar

from minibroker.aio.batches import Batches
from minibroker.aio.driver import Driver
from minibroker.aio.message import Message
from minibroker.contract.errors import MinibrokerError
from minibroker.session.batching import begin_some, is_marked
from minibroker.session.pacing import Pacing
from minibroker.session.settlements import BEGUN, TOLD
from minibroker.session.subscription import QUIET_S, Subscription
from minibroker.session.typed import Convert
from minibroker.shell.monotonic import now_ms
from minibroker.shell.real_threads import Clock

Body = TypeVar("Body")
SEVERAL: Final = 2  # slots of `run`, which share frames
logger = logging.getLogger("minibroker")


class Consumer(Subscription, Generic[Body]):
    """One consumer of a queue: an async iterator of begun messages. Several tasks may share it."""

    def __init__(
        self,
        driver: Driver,
        queue: str,
        prefetch: tuple[int, Pacing | None],
        lease_ms: int,
        convert: Convert | None = None,
    ) -> None:
        super().__init__(queue, prefetch, lease_ms, driver.session.settlements_of(queue), convert)
        self._driver = driver
        driver.machine.subscribe(self)
        driver.keep_alive()

    async def start(self) -> None:
        """Ask for messages; return when the server has agreed, raise what it refused."""
        driver, asked_ms = self._driver, now_ms()
        try:
            await driver.request("consume", self.fields(), driver.timeout_ms)
        except BaseException:
            driver.machine.forget(self)
            raise
        self.is_agreed = True
        self.answered(now_ms() - asked_ms)

    # ---- handing over ----

    def __aiter__(self) -> Consumer[Body]:
        # Once for each iteration; for each message it would cost a fiftieth of what consuming one does.
        self._driver.check_loop()
        return self

    async def __anext__(self, clock: Callable[[], float] = Clock.monotonic) -> Message[Body]:
        # The clock is a local name: that of the module could be a test's (Clock), an attribute costs 200 ns more.
        # A coroutine that returns at once costs 150 ns; any hand-written awaitable costs 420 ns or more,
        # because the interpreter has a short way only for the former.
        driver = self._driver
        if driver.turn_due:
            await self._turn()
        while True:
            try:
                message: Message[Body] = self._buffer.popleft()
            except IndexError:
                await self._more()
                continue
            break
        now = clock()
        message.begun_at = now
        if self._handed and message.run.delivery.handed:
            self._handed -= 1
            message.state = TOLD
            return message
        message.state = BEGUN
        begins = self._settlements.begins
        if not begins:
            self._settlements.owe()
        begins.append(message)
        if now - driver.last_write > QUIET_S or message.run.marked:
            await self._write_first((message,))
        elif not driver.scheduled:
            driver.schedule()
        return message

    async def take(self, most: int) -> list[Message[Body]]:
        """Return the messages that are there, begun: `most` at the most, and one at the least."""
        driver = self._driver
        driver.check_loop()
        if driver.turn_due:
            await self._turn()
        while not (
            messages := begin_some(self._buffer, most, Clock.monotonic(), self._settlements)
        ):
            await self._more()
        if messages[0].state == TOLD:
            return messages
        if messages[0].begun_at - driver.last_write > QUIET_S or is_marked(messages):
            await self._write_first(messages)
        elif not driver.scheduled:
            driver.schedule()
        return messages

    async def _turn(self) -> None:
        """Write the acks that wait before the next message begins.

        A message that began first would be told to the server with a part, a record and a timer of its own, mostly
        to be acked in the next moment (measured: consuming at prefetch 32 was a third slower). Where other tasks
        are at work the loop turns instead, and the flush at its end writes what they end meanwhile in the same
        frame; so it does for a slow handler, which would keep the loop for twice as long.
        """
        driver, settlements = self._driver, self._settlements
        driver.turn_due = False
        if (
            settlements.begins == settlements.acks
            and len(driver.runs.get(self, ())) < SEVERAL
            and driver.clock() - driver.last_write < QUIET_S
        ):
            driver.flush()
        else:
            await asyncio.sleep(0)

    async def _write_first(self, messages: Sequence[Message[Body]]) -> None:
        """Write all that is pending, these begins included, and let the loop send it."""
        driver = self._driver
        driver.flush()
        try:
            await asyncio.sleep(0)
        except BaseException:
            driver.give_back(messages)
            raise

    def is_free(self) -> bool:
        """Whether somebody waits, and no handler of this loop is at work.

        One that computes for longer than a lease would keep the loop from reading a message that was begun for
        another, and nobody would know that its lease is to be renewed.
        """
        for delivery in self._driver.session.deliveries.values():
            if delivery.open > 0:
                return False
        return not self._ended and bool(self._live_waiters())

    async def _more(self) -> None:
        """Return when the buffer may have something; StopAsyncIteration when nothing will come."""
        if self._ended:
            if self.error is not None:
                raise self.error
            raise StopAsyncIteration
        self._driver.check_open()
        waiter = self._driver.create_future()
        self._wait(waiter, now_ms())
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and self.pass_on():
                self._driver.schedule()
            raise

    # ---- leaving ----

    async def stop(self) -> None:
        """Deliver no more: settlements go first, then what has not begun goes back, at once."""
        driver = self._driver
        if driver.consumers.get(self.number) is not self or driver.is_closed:
            return
        self.end(self.error)
        by_ms = driver.leaving.by_ms(now_ms())
        try:
            driver.flush()
            if driver.session.owed.is_any():
                await driver.drained()
        except BaseException:
            driver.machine.retire(self)
            raise
        driver.machine.forget(self)
        if driver.session.is_open:
            left_ms = max(0, by_ms - now_ms())
            await driver.request("cancel", {"consumer": self.number}, max(1, left_ms))


class Consumption(Generic[Body]):
    """What `Queue.consume` returns: an async context manager and an async iterator of messages.

    With `async with`, leaving the block gives back what has not begun and waits until settlements are
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

    async def __aenter__(self) -> Consumption[Body]:
        self._driver.check_open()
        self._consumer = Consumer(self._driver, *self._args)
        await self._consumer.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await leave(self._driver, consumer)

    def batches(self, most: int = 1_000) -> Batches[Body]:
        """Return an async iterator of what is there each time: up to `most` messages, to be acknowledged together.

            async with queue.consume(prefetch=2_000) as messages:
                async for batch in messages.batches(500):
                    await store([message.body for message in batch])
                    await batch.ack()

        The first message that is there makes a batch: it waits for no others. How many there can be is the
        `prefetch` of `consume`.

        Raises:
            TypeError, BadValue: `most` is not 1 to 10,000.
            RuntimeError: outside of `async with`.
        """
        if self._consumer is None:
            raise RuntimeError(
                "batches are taken inside of `async with queue.consume() as messages:`"
            )
        return Batches(self._consumer.take, most)

    def __aiter__(self) -> Consumer[Body] | LooseIterator[Body]:
        if self._consumer is not None:
            return self._consumer
        self._driver.check_open()
        return LooseIterator(self._driver, Consumer(self._driver, *self._args))


async def leave(driver: Driver, consumer: Consumer[Any]) -> None:
    """Stop `consumer`, then wait within a deadline until all settlements are confirmed."""
    with suppress(MinibrokerError):  # the connection may be away, and with it what it held
        await consumer.stop()
    await driver.drained()


class LooseIterator(Generic[Body]):
    """An iteration without `async with`; when the loop drops it, what has not begun is released."""

    def __init__(self, driver: Driver, consumer: Consumer[Body]) -> None:
        self._driver = driver
        self._consumer = consumer
        self._started = False

    def __aiter__(self) -> LooseIterator[Body]:
        return self

    async def __anext__(self) -> Message[Body]:
        if not self._started:
            self._started = True
            await self._consumer.start()
        return await self._consumer.__anext__()

    def __del__(self) -> None:
        with suppress(RuntimeError):  # the loop may be closed, and the connection with it
            self._driver.hand_over(_stop_soon, self._driver, self._consumer)


def _stop_soon(driver: Driver, consumer: Consumer[Any]) -> None:
    if not driver.is_closed:
        driver.spawn(_leave_quietly(consumer))


async def _leave_quietly(consumer: Consumer[Any]) -> None:
    """Stop a consumer whose iterator is gone; nobody is there to be told of trouble."""
    try:
        await consumer.stop()
    except MinibrokerError as error:
        logger.debug("a consumer was stopped without an answer: %s", error)
