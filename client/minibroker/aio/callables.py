"""Handlers of `Queue.run`: which callables are taken, and how each is called.

An `async def` handler is awaited in the loop. Any other callable may block, so it runs in a thread of the run's
own pool, and the verbs of its message block (in_thread.py); what it returns is awaited if it can be, so that a
plain function may return a coroutine. What can never be right (a generator, a coroutine that was called already, a
function without a place for the message) is refused before the first message is taken: found later, its work would
be done, or not done, at each attempt.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from minibroker.aio.in_thread import MessageInThread, settle
from minibroker.aio.message import Message
from minibroker.session.handling import check_handler, is_async
from minibroker.shell.telling import tell_goes_on

Handler = Callable[[Message[Any]], Awaitable[object] | object]
Call = Callable[[Message[Any]], Awaitable[object]]


class Handlers:
    """The calls of one handler, `concurrency` at a time at the most; `close` it at the end."""

    def __init__(self, handler: Handler, concurrency: int, name: str, grace_s: float) -> None:
        """Take a handler; `grace_s`: how long a thread is waited for whose task was cancelled.

        Raises:
            TypeError: it can never handle a message; says why.
        """
        check_handler(handler)
        self._handler = handler
        self._grace_s = grace_s
        self._pool: ThreadPoolExecutor | None = None
        if is_async(handler):
            self.call: Call = handler  # type: ignore[assignment]
        else:
            self._pool = ThreadPoolExecutor(concurrency, f"minibroker-{name}")
            self.call = self._call_in_thread

    def close(self) -> None:
        """Let the threads end when they are idle."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    async def _call_in_thread(self, message: Message[Any]) -> object:
        loop = asyncio.get_running_loop()
        given = MessageInThread(message, loop)
        run = functools.partial(contextvars.copy_context().run, _outcome, self._handler, given)
        future = loop.run_in_executor(self._pool, run)
        try:
            value, error = await asyncio.shield(future)
        except asyncio.CancelledError:
            await self._wait_for_thread(message, future)
            raise
        if error is not None:
            raise error
        if inspect.isawaitable(value):
            return await value
        return value

    async def _wait_for_thread(self, message: Message[Any], future: asyncio.Future[Any]) -> None:
        """Wait for a call whose task was cancelled: a thread cannot be stopped.

        Its message is settled as the call ends, or released when it goes on beyond the deadline of the connection.
        A message that was lost has no deadline: the next one must not begin beside it.
        """
        tell_goes_on(message)
        await asyncio.wait([future], timeout=None if message.lost else self._grace_s)
        if future.done():
            await settle(message, *future.result())


def _outcome(handler: Any, message: MessageInThread) -> tuple[object, BaseException | None]:
    """Call a handler, in its thread. Its error is a value: a future takes no StopIteration."""
    try:
        return handler(message), None
    except BaseException as error:  # noqa: BLE001 - raised again in the loop, where `process` judges it
        return None, error
