"""A queue of this session alone, which the server names, for the time of a block."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Generic, TypeVar

from minibroker.aio.driver import Driver
from minibroker.aio.queue import Queue
from minibroker.contract.errors import Closed, ConnectionLost, Timeout, UnknownQueue
from minibroker.session.spans import Span
from minibroker.session.wishes import Wish, timeout_ms

Body = TypeVar("Body")


class TemporaryQueue(Generic[Body]):
    """What `Broker.temporary_queue` returns: `async with` it."""

    def __init__(
        self,
        driver: Driver,
        named: Callable[[str], Queue[Body]],
        wish: Wish,
        timeout: Span | None,
    ) -> None:
        """`named` makes a queue of a name."""
        self._driver = driver
        self._named = named
        self._wish = wish
        self._timeout = timeout
        self._queue: Queue[Body] | None = None

    async def __aenter__(self) -> Queue[Body]:
        op, fields, columns = self._wish
        within_ms = timeout_ms(self._timeout, self._driver.timeout_ms)
        value = await self._driver.request(op, fields, within_ms, columns)
        self._queue = self._named(value["queue"])
        return self._queue

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        queue, self._queue = self._queue, None
        # Where it is not told so, it ends with the session.
        with suppress(UnknownQueue, Closed, ConnectionLost, Timeout):
            if queue is not None:
                await queue.delete(force=True, timeout=self._timeout)
