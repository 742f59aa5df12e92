"""The loop of a world as asyncio knows one: tasks of the product that wait, sleep and time out, without time.

A log in a stream is made of coroutines. Each life of a broker has a loop of this kind, and what that life has
asked for ends with it, as on its other loop.
"""

from __future__ import annotations

import asyncio
from asyncio import events
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import Context
from typing import Any, cast

from sim_loop import Handle, LifeLoop


class AsyncioLoop:
    """What tasks and futures ask of a loop; the rest of it is not there."""

    def __init__(self, loop: LifeLoop) -> None:
        self._loop = loop
        self._tasks: set[asyncio.Task[Any]] = set()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Be the loop that runs; a test may have one of its own around it."""
        before = events._get_running_loop()
        events._set_running_loop(cast(Any, self))
        try:
            yield
        finally:
            events._set_running_loop(before)

    def _step(
        self, callback: Callable[..., object], arguments: tuple[Any, ...], context: Context | None
    ) -> None:
        with self.running():
            if context is None:
                callback(*arguments)
            else:
                context.run(callback, *arguments)

    def call_soon(
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Handle:
        """Have something called in the next turn."""
        return self._loop.call_soon(self._step, callback, args, context)

    call_soon_threadsafe = call_soon

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Handle:  # fmt: skip
        """Have something called after a while."""
        return self._loop.call_later(delay, self._step, callback, args, context)

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Handle:  # fmt: skip
        """Have something called at an instant of `time`."""
        return self._loop.call_at(when, self._step, callback, args, context)

    def time(self) -> float:
        """Return the monotonic time in seconds."""
        return self._loop.time()

    def create_future(self) -> asyncio.Future[Any]:
        """Return a future of this loop."""
        return asyncio.Future(loop=cast(Any, self))

    def create_task(self, coro: Coroutine[Any, Any, Any], **options: Any) -> asyncio.Task[Any]:
        """Have a coroutine run; it is kept until it ends."""
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=cast(Any, self), **options)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def get_debug(self) -> bool:
        """Tasks ask whether to note where they were made."""
        return False

    def is_closed(self) -> bool:
        """It ends with its life, and nobody is told."""
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Tasks of a life that is over are never done: that is how it is."""


async def pass_by(seconds: float) -> None:
    """Let time of the loop that runs pass, which is none."""
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    loop.call_later(seconds, _end, future)
    await future


def _end(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
