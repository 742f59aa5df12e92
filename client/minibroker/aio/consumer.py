"""Consumers: the buffer of what was delivered, and the order in which it is handed to the application."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Generic, TypeVar

from minibroker.aio.driver import Driver
from minibroker.aio.real_threads import Clock
from minibroker.aio.timer import now_ms
from minibroker.contract.errors import Closed, MinibrokerError
from minibroker.session.delivery import Delivery, drop
from minibroker.session.message import Message
from minibroker.session.settlements import BEGUN, HELD

Body = TypeVar("Body")

# A handler that computes and dies must not take a begin with it that was never written: when the last
# write is longer ago than this, what is pending is written before the application sees the message.
QUIET_S: Final = 0.001


class Consumer(Generic[Body]):
    """One consumer of a queue: an async iterator of begun messages. Several tasks may share it."""

    def __init__(self, driver: Driver, queue: str, prefetch: int, lease_ms: int) -> None:
        self._driver = driver
        self.queue = queue
        self.prefetch = prefetch
        self._lease_ms = lease_ms
        self._buffer: deque[Message[Body]] = deque()
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._settlements = driver.session.settlements_of(queue)
        self._error: MinibrokerError | None = None
        self._ended = False
        self._opened = False
        self._arming: asyncio.Task[None] | None = None
        self._number = driver.add_consumer(self)
        self._set_half()

    def _set_half(self) -> None:
        """Let acks of the queue leave early when half of the smallest prefetch has been used up."""
        smallest = min(
            (
                other.prefetch
                for other in self._driver.consumers.values()
                if other.queue == self.queue
            ),
            default=2,
        )
        self._settlements.half = max(1, smallest // 2)

    async def start(self) -> None:
        """Ask for messages; return when the server has agreed, raise what it refused."""
        try:
            await self._consume(self._driver.timeout_ms)
        except BaseException:
            self._leave()
            raise
        self._opened = True

    def arm(self) -> None:
        """Ask again, on a new connection; the server forgets consumers with the connection.

        Not while it opens: the session asks again what has no answer, and its caller may still withdraw that one.
        """
        if not self._opened:
            return
        if self._arming is None or self._arming.done():
            self._arming = self._driver.loop.create_task(self._rearm())

    async def _rearm(self) -> None:
        if self._number not in self._driver.consumers:
            return
        try:
            await self._consume(None)
        except Closed:
            pass
        except MinibrokerError as error:
            self.end(error)

    async def _consume(self, timeout_ms: int | None) -> None:
        fields = {"queue": self.queue, "consumer": self._number, "prefetch": self.prefetch}
        if self._lease_ms:
            fields["lease_ms"] = self._lease_ms
        await self._driver.request("consume", fields, timeout_ms)

    # ---- what the driver calls ----

    def deliver(self, delivery: Delivery) -> None:
        """Take a delivery into the buffer."""
        self._buffer.extend(delivery.messages)
        self._wake(len(delivery.messages))

    def drop_buffer(self) -> None:
        """Forget what was not begun: the connection that held it has ended."""
        drop(self.take_buffer())

    def take_buffer(self) -> list[Message[Any]]:
        """Take out what was not begun. Also called by the attached thread: each popleft is one step."""
        taken: list[Message[Any]] = []
        try:
            while True:
                taken.append(self._buffer.popleft())
        except IndexError:
            return taken

    def end(self, error: MinibrokerError | None) -> None:
        """Let the iteration end, with `error` if there is one."""
        self._error = error
        self._ended = True
        self._wake(len(self._waiters))

    def _wake(self, count: int) -> None:
        while count > 0 and self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                count -= 1

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
                message = self._buffer.popleft()
            except IndexError:
                await self._more()
                continue
            break
        now = clock()
        message.begun_at = now
        message.state = BEGUN
        settlements = self._settlements
        if not settlements.begins:
            settlements.owe()
        settlements.begins.append(message)
        if now - driver.last_write > QUIET_S or message.run.marked:
            await self._write_first(message)
        elif not driver.scheduled:
            driver.schedule()
        return message

    async def _turn(self) -> None:
        """Write the acks that wait, and let the loop send them, before the next message begins.

        A message that began here would be told to the server with a part, a record and a timer of its own,
        mostly to be acked in the next moment (measured: consuming at prefetch 32 was a third slower).
        """
        self._driver.turn_due = False
        self._driver.flush()
        await asyncio.sleep(0)

    async def _write_first(self, message: Message[Body]) -> None:
        """Write all that is pending, this begin included, and let the loop send it."""
        driver = self._driver
        driver.flush()
        try:
            await asyncio.sleep(0)
        except BaseException:
            driver.give_back([message])
            raise

    async def _more(self) -> None:
        """Return when the buffer may have something; StopAsyncIteration when nothing will come."""
        if self._ended:
            if self._error is not None:
                raise self._error
            raise StopAsyncIteration
        self._driver.check_open()
        waiter = self._driver.create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self._wake(1)  # it was this one's turn: another may have it
            raise

    # ---- leaving ----

    def _leave(self) -> None:
        self._driver.consumers.pop(self._number, None)
        self._driver.session.consumers.discard(self._number)
        self._set_half()
        self.end(None)

    def retire(self) -> None:
        """Deliver no more, and give back what has not begun, without waiting for the answer."""
        self._give_back()
        session = self._driver.session
        # While settlements wait for room, the end of the connection gives back: a cancel would overtake them.
        if session.is_open and not session.owes_settlements():
            session.request("cancel", {"consumer": self._number}, None)
            self._driver.schedule()

    def _give_back(self) -> None:
        if self._arming is not None:
            self._arming.cancel()  # a consume that is not written yet must not follow the cancel
        self.end(self._error)
        drop([message for message in self.take_buffer() if message.state == HELD])
        self._leave()

    async def stop(self) -> None:
        """Deliver no more: settlements go first, then what has not begun goes back, at once."""
        driver = self._driver
        if driver.consumers.get(self._number) is not self or driver.is_closed:
            return
        self.end(self._error)
        by_ms = driver.leaving.by_ms()
        try:
            driver.flush()
            if driver.session.owes_settlements():
                await driver.drained()
        except BaseException:
            self.retire()
            raise
        self._give_back()
        if driver.session.is_open:
            left_ms = max(0, by_ms - now_ms())
            await driver.request("cancel", {"consumer": self._number}, left_ms)


class Consumption(Generic[Body]):
    """What `Queue.consume` returns: an async context manager and an async iterator of messages.

    With `async with`, leaving the block gives back what has not begun and waits until settlements are
    confirmed. Without it, the end of the loop (`break`, too) gives back what has not begun.
    """

    def __init__(self, driver: Driver, queue: str, prefetch: int, lease_ms: int) -> None:
        self._driver = driver
        self._args = (queue, prefetch, lease_ms)
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

    def __aiter__(self) -> Consumer[Body] | LooseIterator[Body]:
        if self._consumer is not None:
            return self._consumer
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
            self._driver.loop.call_soon_threadsafe(self._driver.stop_soon, self._consumer)
