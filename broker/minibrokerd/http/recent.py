"""The newest events of the broker's log, for whoever looks over HTTP; kept while the port is open."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import Any, Final

from minibrokerd.http.requests import Ask
from minibrokerd.http.shapes import EventList, EventView
from minibrokerd.process import logs

KEPT: Final = 500


class Recent:
    """The newest events; strings in them are escaped and cut already."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._events: deque[EventView] = deque(maxlen=KEPT)
        self._loop = loop
        self._waiting: set[asyncio.Future[None]] = set()
        self.last = 0  # the number of the newest

    @property
    def first(self) -> int:
        """The number of the oldest that is kept; above `last`: none is."""
        return self._events[0].number if self._events else self.last + 1

    async def news(self) -> None:
        """Return when something has happened."""
        happened = self._loop.create_future()
        self._waiting.add(happened)
        try:
            await happened
        finally:
            self._waiting.discard(happened)

    def start(self) -> None:
        """Take events from now on."""
        logs.listener = self._take

    def stop(self) -> None:
        """Take no more."""
        logs.listener = None

    def since(self, number: int) -> list[EventView]:
        """Return the events behind that of a number, oldest first."""
        return [event for event in self._events if event.number > number]

    def _take(self, event: Mapping[str, Any]) -> None:
        """Take an event in whatever thread it happens."""
        fields = dict(event)
        level, name = fields.pop("level", "info"), fields.pop("event", "")
        view = EventView(0, logs.now(), level, name, fields)
        try:
            self._loop.call_soon_threadsafe(self._keep, view)
        except RuntimeError:
            self.stop()  # the loop was closed

    def _keep(self, view: EventView) -> None:
        self.last += 1
        view.number = self.last
        self._events.append(view)
        for happened in self._waiting:
            if not happened.done():
                happened.set_result(None)


async def list_events(ask: Ask) -> EventList:
    """Return the newest events."""
    recent = ask.subject.recent
    after = ask.number("after", 0, 2**53)
    return EventList(
        recent.since(after) if recent is not None else [], recent.last if recent else 0
    )
