"""Signs of life: when the client gives the next one, and when the server has given none for too long."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from minibroker.contract import wire
from minibroker.session.events import Event
from minibroker.session.session import Session
from minibroker.session.timers import Timers

PING: Final = wire.pack_frame({"parts": [{"op": "ping"}]})


class Living(Protocol):
    """The machine that gives signs of life, and looks for those of its server."""

    session: Session
    timers: Timers
    frames: list[bytes]
    closed: str | None
    received_ms: int

    def act(self, events: Sequence[Event], now_ms: int) -> None:
        """Do what is to be done about what happened."""

    def fail(self, error: Exception, now_ms: int) -> None:
        """End the connection because of `error`."""


class Heartbeat:
    """The signs of life of one machine, from its first welcome to its end."""

    def __init__(self, machine: Living) -> None:
        self._machine = machine
        self._beats = False

    def begin(self, now_ms: int) -> None:
        """Give signs of life from now on, if it does not yet."""
        if not self._beats:
            self._beats = True
            self._beat_later(now_ms)

    def _beat(self, now_ms: int) -> None:
        """Send a sign of life, and end a connection that gives none."""
        machine, session = self._machine, self._machine.session
        session.deliveries.prune()
        machine.act(session.expire(now_ms), now_ms)
        if session.is_open:
            if now_ms - machine.received_ms > 2 * session.heartbeat_ms:
                machine.fail(ConnectionResetError("the server gave no sign of life"), now_ms)
            else:
                machine.frames.append(PING)
        self._beat_later(now_ms)

    def _beat_later(self, now_ms: int) -> None:
        """Let the next sign of life be due after half of the time that the server allows."""
        machine = self._machine
        if machine.closed is None:
            heartbeat_ms = machine.session.heartbeat_ms
            at_ms = now_ms + heartbeat_ms // 2
            # A peer that is gone is noticed when two intervals are over, not with the next sign of life.
            silent_ms = machine.received_ms + 2 * heartbeat_ms + 1
            machine.timers.at(
                min(at_ms, silent_ms) if machine.session.is_open else at_ms, self._beat
            )
