"""What surrounds the work: the lifespan of the app, entered and left within the deadlines of a stop.

An application connects to its databases there, and to one that is away for ever, too. A stop that comes meanwhile
waits for it as long as for a handler, and so does the end.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Any, Final

from minibroker.worker.app import App
from minibroker.worker.control import Control

LEAST_S: Final = 2.0  # what leaving the lifespan has in any case


class LifespanLate(Exception):
    """A stop was asked for, and the lifespan of the app did not come to its yield, or to its end, in time."""


class Life:
    """The lifespan of an app as a context manager; its task is cancelled when a stop has waited for too long."""

    def __init__(self, app: App, control: Control, drain_s: float) -> None:
        self._app = app
        self._control = control
        self._drain_s = drain_s
        self._manager: AbstractAsyncContextManager[Any, Any] | None = None

    async def __aenter__(self) -> None:
        if self._app.life is None:
            return
        manager = self._app.life(self._app)
        async with self._bounded(0.0, "begin"):
            self._app.state = await manager.__aenter__()
        self._manager = manager

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        if self._manager is None:
            return None
        async with self._bounded(LEAST_S, "end"):
            swallows: bool | None = await self._manager.__aexit__(kind, error, traceback)
        return swallows

    @asynccontextmanager
    async def _bounded(self, least_s: float, what: str) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(None) as bound:
                watch = asyncio.ensure_future(self._watch(bound, least_s))
                try:
                    yield
                finally:
                    watch.cancel()
        except TimeoutError as error:
            if not bound.expired():
                raise
            raise LifespanLate(f"it did not {what} within the deadline of the stop") from error

    async def _watch(self, bound: asyncio.Timeout, least_s: float) -> None:
        """Set the deadline when a stop is asked for; `least_s` from now there are in any case."""
        control, now = self._control, asyncio.get_running_loop().time
        least = now() + least_s
        await control.stopped.wait()
        bound.reschedule(max(control.stopped_at + self._drain_s, least))
        await control.hurried.wait()
        bound.reschedule(max(now(), least))
