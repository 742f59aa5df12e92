"""Whether this broker still leads its log, where another one may: if that is not certain, nothing leaves it.

Clients are then parted from, as by a broken connection, and go on wherever somebody leads; here as well, when it
is certain again. Who logs in waits for that, with the patience that he has.
"""

from __future__ import annotations

from collections.abc import Callable

from minibrokerd.engine.clock import TURNS
from minibrokerd.engine.sinks import Sink
from minibrokerd.log.seam import Leadership
from minibrokerd.process.logs import events


class Certainty:
    """What the engine and the connections go by."""

    def __init__(
        self,
        leadership: Leadership | None,
        sinks: dict[int, Sink],
        call_soon: Callable[..., object],
    ) -> None:
        """`sinks` are those of the connections; `call_soon` is the loop's."""
        self._call_soon = call_soon
        self.leadership = leadership
        self.is_sure = True
        self._sinks = sinks
        self._waiting: dict[Callable[[], object], None] = {}
        if leadership is not None:
            leadership.is_watched = lambda: bool(self._sinks or self._waiting)
            leadership.on_news = self.look

    def look(self) -> None:
        """Find out, by the clock; called before anything leaves."""
        if self.leadership is None or self.leadership.is_over is not self.is_sure:
            return
        self.is_sure = not self.is_sure
        if self.is_sure:
            waiting, self._waiting = self._waiting, {}
            for goes_on in waiting:
                goes_on()
        elif self._sinks:
            events.warning("leads_unsurely", connections=len(self._sinks))
            sinks = list(self._sinks.values())
            self._sinks.clear()
            self._drop(sinks)

    def _drop(self, sinks: list[Sink], turns: int = TURNS) -> None:
        # Acks that waited while the process stood still are read first: nobody else is to get what was acked.
        if turns:
            self._call_soon(self._drop, sinks, turns - 1)
            return
        for sink in sinks:
            sink.drop()

    def lets_in(self, again: Callable[[], object]) -> bool:
        """Whether somebody may log in now; else `again` is called when that has changed."""
        self.look()
        if not self.is_sure:
            assert self.leadership is not None, "else it is"
            self._waiting[again] = None
            self.leadership.renew()
        return self.is_sure

    def forget(self, again: Callable[[], object]) -> None:
        """Somebody waits no longer."""
        self._waiting.pop(again, None)
