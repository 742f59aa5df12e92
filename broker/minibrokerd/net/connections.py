"""The connections of one broker: what they share, who is silent, and what is said of those that are refused.

A server has one of these for its sockets, and a broker in process one for its links. It counts and decides; where
the bytes come from, and what else happens once a second, is for whoever owns it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

from minibroker.contract import limits
from minibroker.contract.commands import Phase
from minibrokerd.access.door import Door
from minibrokerd.engine.engine import Engine
from minibrokerd.net.connection import ServerConnection
from minibrokerd.net.refusals import Refusals
from minibrokerd.net.turns import Turns
from minibrokerd.net.unfinished import Unfinished
from minibrokerd.process.logs import events

SWEEP_S: Final = 1.0
SILENT_S: Final = 2 * limits.HEARTBEAT_MS / 1_000
MOST_ENDS: Final = 100  # in one look: to end a connection takes longer than to look at it
SOON_S: Final = 0.01
FAREWELL_S: Final = 1.0  # how long a stop waits for clients to take what was written to them


class Connections:
    """All connections of `engine`; `seam.Broker`. At most `most` of them are taken."""

    def __init__(self, engine: Engine, loop: asyncio.AbstractEventLoop, most: int) -> None:
        self.engine = engine
        self.loop = loop
        self.most = most
        self.stopping = False
        self.session_key = b""  # known after recovery
        self.unfinished = Unfinished()
        self.turns = Turns(loop)
        self.door = Door()
        self.turned_away = 0  # since the last report
        self._connections: dict[int, ServerConnection] = {}
        self._new: dict[
            int, ServerConnection
        ] = {}  # those that have not logged in, the oldest first
        self._parting: set[int] = set()  # were told that they are too many
        self._next_number = 1
        self._refusals = Refusals()
        self._all_gone: asyncio.Future[None] | None = None
        engine.describe = self._describe

    def __len__(self) -> int:
        return len(self._connections)

    def __iter__(self) -> Iterator[ServerConnection]:
        return iter(list(self._connections.values()))

    def make(self) -> ServerConnection:
        """Return the protocol of a new connection."""
        connection = ServerConnection(self, self._next_number)
        self._connections[connection.number] = self._new[connection.number] = connection
        self._next_number += 1
        return connection

    def has_room_for(self, connection: ServerConnection) -> bool:
        """Whether a new connection may stay: if there are too many, the oldest that has not logged in goes for it.

        So whoever opens connections and says nothing takes no place from those who log in at once.
        """
        if len(self._connections) - len(self._parting) <= self.most:
            return True
        oldest = next(iter(self._new.values()))
        self._parting.add(oldest.number)
        del self._new[oldest.number]
        if oldest is not connection:
            oldest.give_way()
        return oldest is not connection

    def entered(self, connection: ServerConnection) -> None:
        """Note that a connection has logged in."""
        self._new.pop(connection.number, None)

    def gone(self, connection: ServerConnection) -> None:
        """Forget a connection that has ended."""
        self._connections.pop(connection.number, None)
        self._new.pop(connection.number, None)
        self._parting.discard(connection.number)
        if self._all_gone is not None and not self._connections and not self._all_gone.done():
            self._all_gone.set_result(None)

    def refused(self, connection: ServerConnection, code: str, text: str, speaks: str = "") -> None:
        """Note that a peer was told that it may not go on."""
        if code == "busy" and connection.phase is Phase.NEW:
            self.turned_away += 1  # one event a second for all of them: they may be many
            return
        fields = {"code": code, **({"speaks": speaks} if speaks else {}), "text": text}
        self._complain("connection_refused", connection, (code, speaks), fields)

    def ended(self, connection: ServerConnection, why: str) -> None:
        """Note that a connection was cut off."""
        self._complain("connection_ended", connection, (why,), {"reason": why})

    def sweep(self) -> float:
        """Look after logins, frames and heartbeats, and end silent and stuck peers; called about once a second.

        Return when the next look is due, in seconds of the loop's time.
        """
        now_s = self.loop.time()
        heard: dict[int, float] = {}
        for connection in self._connections.values():
            if connection.session:
                heard[connection.session] = max(
                    heard.get(connection.session, 0.0), connection.received_s
                )
        next_s, ended = now_s + SWEEP_S, 0
        for connection in self:
            heard_s = heard.get(connection.session, 0.0)
            why = complaint(connection, heard_s, now_s)
            if why:
                connection.end(why)
                ended += 1
                if ended == MOST_ENDS:
                    return now_s + SOON_S  # the rest of a crowd, when others had their turn
                continue
            if connection.session:
                next_s = min(next_s, heard_s + SILENT_S)  # the moment is kept, not just the second
                if now_s - connection.sent_s > limits.HEARTBEAT_MS / 1_000 - SWEEP_S:
                    connection.heartbeat()
        return next_s

    def report(self) -> None:
        """Log what was only counted since the last time; called about once a second."""
        for fields in self._refusals.due(self.loop.time()):
            events.warning("events_repeated", **fields)
        if self.turned_away:
            events.warning(
                "connections_full",
                turned_away=self.turned_away,
                connections=len(self._connections),
                most_connections=self.most,
            )
            self.turned_away = 0

    def report_rest(self) -> None:
        """Log all that was counted and not told: the broker stops."""
        for fields in self._refusals.rest():
            events.warning("events_repeated", **fields)

    async def part(self) -> None:
        """Say goodbye to all clients, and give them a moment to take it with what was written before.

        Who does not read is cut off: its confirms are kept, and come again after a resume.
        """
        for connection in self:
            connection.farewell("the server is stopping")
        if self._connections:
            self._all_gone = self.loop.create_future()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._all_gone, FAREWELL_S)
        for connection in self:
            connection.end("it did not take what was written before the stop")
        await asyncio.sleep(0)

    def _describe(self, number: int) -> dict[str, Any]:
        connection = self._connections.get(number)
        return {} if connection is None else connection.fields()

    def _complain(
        self, name: str, connection: ServerConnection, kind: tuple[str, ...], fields: dict[str, Any]
    ) -> None:
        """Log what is wrong with a peer, unless the same was said of its host just now: then it is counted."""
        of = {"host": connection.host, "client": connection.client}
        if connection.grant is not None:
            of["token"] = connection.grant.name
        key = (name, *of.values(), *kind)
        if self._refusals.is_first(key, {"of": name, **of, **fields}, self.loop.time()):
            events.warning(name, **connection.fields(), **fields)


def complaint(connection: ServerConnection, heard_s: float, now_s: float) -> str:
    """Return why a connection is to be ended now; empty: it is not. `heard_s`: when its session last spoke."""
    if connection.phase is Phase.NEW:
        late = now_s - connection.opened_s > limits.LOGIN_DEADLINE_MS / 1_000
        return "it did not log in within 5 s" if late else ""
    since_s = connection.frame_since_s
    if since_s is not None and now_s - since_s > limits.FRAME_DEADLINE_MS / 1_000:
        return "a frame was not complete after 30 s"
    if now_s >= heard_s + SILENT_S:
        return "nothing was heard of its session for two heartbeats"
    if connection.stalled_s(now_s) > limits.OUTPUT_STALL_MS / 1_000:
        return "it has not read anything for 10 s"
    return ""
