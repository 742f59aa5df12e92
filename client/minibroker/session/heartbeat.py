"""Signs of life: when the client gives the next one, and when the server has given none for too long.

Where another server may lead meanwhile it asks more often: one whose machine is cut off, or that stands still,
says nothing more, and what waits for it is told of nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from minibroker.contract import wire
from minibroker.session.events import Event
from minibroker.session.session import Session
from minibroker.session.timers import Timers

# Of two of these without a word a server is given up, if there are others.
SEVERAL_MS: Final = 2_000
# A look that comes so much later: this program stood still, and has read nothing meanwhile.
LATE_MS: Final = 500
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
        self._due_ms = 0
        self.is_hurried = False  # there are other servers

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
            if self.is_hurried and now_ms - self._due_ms > LATE_MS:
                machine.received_ms = now_ms
            if now_ms - machine.received_ms > 2 * self._every_ms():
                machine.fail(ConnectionResetError("the server gave no sign of life"), now_ms)
            else:
                machine.frames.append(PING)
        self._beat_later(now_ms)

    def _beat_later(self, now_ms: int) -> None:
        """Let the next sign of life be due after half of the time that the server allows."""
        machine = self._machine
        if machine.closed is None:
            heartbeat_ms = self._every_ms()
            at_ms = now_ms + heartbeat_ms // 2
            # A peer that is gone is noticed when two intervals are over, not with the next sign of life.
            silent_ms = machine.received_ms + 2 * heartbeat_ms + 1
            self._due_ms = min(at_ms, silent_ms) if machine.session.is_open else at_ms
            machine.timers.at(self._due_ms, self._beat)

    def _every_ms(self) -> int:
        heartbeat_ms = self._machine.session.heartbeat_ms
        return min(heartbeat_ms, SEVERAL_MS) if self.is_hurried else heartbeat_ms
