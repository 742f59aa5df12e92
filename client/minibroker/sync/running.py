"""`Queue.run`: threads that take one message after the other and call the handler for each."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from typing import Any

from minibroker.session.handling import check_handler, is_async
from minibroker.session.pacing import Pacing
from minibroker.session.typed import Convert
from minibroker.sync.consumer import Consumer, leave
from minibroker.sync.driver import Driver
from minibroker.sync.message import Message
from minibroker.sync.waiter import Waiter

Handler = Callable[[Message[Any]], object]


def run_threads(
    driver: Driver,
    queue: str,
    handler: Handler,
    concurrency: int,
    prefetch: tuple[int, Pacing | None],
    lease_ms: int,
    convert: Convert | None = None,
) -> None:
    """Consume `queue` and call `handler` for each message, until interrupted; as `Queue.run` says."""
    check_handler(handler)
    if is_async(handler):
        raise TypeError("run() of minibroker.sync takes a plain function; asyncio's awaits")
    consumer: Consumer[Any] = Consumer(driver, queue, prefetch, lease_ms, convert)
    consumer.start()
    run = _Run(driver, consumer, handler)
    driver.runs.add(run)
    try:
        run.here() if concurrency == 1 else run.in_threads(concurrency)
    finally:
        try:
            run.end()
        finally:
            driver.runs.discard(run)


class _Run:
    """One consumer, and the threads that call its handler."""

    def __init__(self, driver: Driver, consumer: Consumer[Any], handler: Handler) -> None:
        self._driver = driver
        self._consumer = consumer
        self._handler = handler
        self._threads: list[threading.Thread] = []
        self._first_end = Waiter(driver.machine)
        self._error: BaseException | None = None
        self._idents = {threading.get_ident()}
        self._is_over = threading.Event()

    def here(self) -> None:
        """Call the handler in this thread."""
        for message in self._consumer:
            with message.process():
                self._call(message)

    def in_threads(self, concurrency: int) -> None:
        """Call the handler in so many threads; return when one of them ends, raise what ended it."""
        for number in range(concurrency):
            name = f"minibroker-{self._consumer.queue}_{number}"
            thread = threading.Thread(target=self._slot, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()
        self._driver.wait(self._first_end)
        if self._error is not None:
            raise self._error

    def end(self) -> None:
        """Begin no more, wait for the handlers that run, and for the settlements."""
        self.retire()
        for thread in self._threads:
            thread.join()
        self._is_over.set()
        leave(self._driver, self._consumer)

    def wait(self, timeout_s: float) -> None:
        """Wait until the handlers have ended, if this is not the thread of one of them."""
        if threading.get_ident() not in self._idents:
            self._is_over.wait(max(0.0, timeout_s))

    def retire(self) -> None:
        """Begin no more."""
        with self._driver:
            self._consumer.end(self._consumer.error)

    def _slot(self) -> None:
        self._idents.add(threading.get_ident())
        try:
            self.here()
        except BaseException as error:  # noqa: BLE001 - raised by `run`, in the thread that called it
            self._error = self._error or error
        finally:
            with self._driver:
                if not self._first_end.done():
                    self._first_end.set_result(None)

    def _call(self, message: Message[Any]) -> None:
        value = self._handler(message)
        if inspect.iscoroutine(value):
            value.close()
            raise TypeError("the handler returned a coroutine, which nobody awaits here")
        if value is not None:
            message.returned(value)
