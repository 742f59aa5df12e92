"""Handlers at work for the length of a block of a test: those of an application's `App`, or one function."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from minibroker.aio.broker import Broker
from minibroker.aio.callables import Handler
from minibroker.session.spans import Span

if TYPE_CHECKING:
    from minibroker.worker.app import App

LOOK_S: Final = 0.002  # between two looks whether the workers have begun


@asynccontextmanager
async def working(
    broker: Broker, url: str, app: App | None, queue: str, handler: Handler | None, timeout: Span
) -> AsyncIterator[None]:
    """Work during the block; what is ready at its end is done, or Timeout says what is not."""
    if app is not None:
        stop, hurry, task = _start_app(app, url)
        queues: Sequence[str] = [declared.queue for declared in app.handlers]
    else:
        assert handler is not None, "one of the two"
        task = asyncio.create_task(broker.queue(queue).run(handler))
        stop = hurry = task.cancel  # asked twice, it cancels the handlers
        queues = [queue]
    end = stop
    try:
        await _first(task, *(_consumed(broker, name) for name in queues))
        yield
        await _first(task, *(broker.queue(name).join(timeout=timeout) for name in queues))
    except BaseException:
        stop()
        await asyncio.sleep(0)
        end = hurry
        raise
    finally:
        end()
        await asyncio.wait([task])
    if not task.cancelled():
        error = task.exception() or getattr(task.result(), "error", None)
        if error is not None:
            raise error


async def _first(task: asyncio.Task[Any], *calls: Coroutine[Any, Any, None]) -> None:
    """Wait for the calls, or for the task: whoever works may end by an error, and then nothing is ever done."""
    waiting = [asyncio.create_task(call) for call in calls]
    try:
        left = set(waiting)
        while left and not task.done():
            done, _ = await asyncio.wait([task, *left], return_when=asyncio.FIRST_COMPLETED)
            left -= done
            for each in done - {task}:
                each.result()
    finally:
        for each in waiting:
            each.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def _consumed(broker: Broker, name: str) -> None:
    """Return when somebody consumes the queue: before, its settings may not be declared either."""
    while True:
        queues = (await broker.stats())["queues"]
        if name in queues and queues[name]["consumers"]:
            return
        await asyncio.sleep(LOOK_S)


def _start_app(
    app: App, url: str
) -> tuple[Callable[[], object], Callable[[], object], asyncio.Task[Any]]:
    from minibroker.worker.control import Control
    from minibroker.worker.reporting import LogReport
    from minibroker.worker.work import WorkOptions, work

    control = Control()
    task = asyncio.create_task(work(app, WorkOptions(url=url), LogReport(), control))
    return lambda: control.stop("the test is over"), control.hurry, task
