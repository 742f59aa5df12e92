"""The network of a world: streams of bytes that are late, cut in pieces, cut off, silent, or not read.

Each direction keeps its order; connections overtake each other. A link that is half open takes bytes and delivers
none, and tells nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any
from zlib import crc32

from sim_loop import Life, LifeLoop, SimulatedLoop

PIECE_BYTES = 400


class Stream:
    """One direction of a link."""

    def __init__(self, link: Link, name: str, receive: Callable[[bytes], None], life: Life) -> None:
        self._link = link
        self._name = name
        self._receive = receive
        self._life = life
        self._last_us = 0
        self.ended = False

    def send(self, data: bytes) -> None:
        """Put bytes on the way."""
        link = self._link
        if self.ended or link.half_open:
            return
        pieces = [data]
        if link.random.random() < link.sliced:
            at = link.random.randint(1, PIECE_BYTES)
            pieces = [data[:at], data[at:]] if at < len(data) else pieces
        for piece in pieces:
            due_us = max(self._last_us, link.loop.now_us + link.latency_us())
            self._last_us = due_us
            link.loop.at(due_us, self._life, self._arrive, piece)

    def _arrive(self, data: bytes) -> None:
        if self.ended or self._link.half_open:
            return
        self._link.note(f"{self._name} {len(data)} {crc32(data):08x}")
        self._receive(data)

    def end(self, callback: Callable[[], None]) -> None:
        """Let the other side see the end behind what was sent."""
        due_us = max(self._last_us, self._link.loop.now_us + self._link.latency_us())
        self._link.loop.at(due_us, self._life, self._arrive_end, callback)

    def _arrive_end(self, callback: Callable[[], None]) -> None:
        if not (self.ended or self._link.half_open):
            self.ended = True
            callback()


class Link:
    """One connection: the server's transport, and the client's end.

    `lost` is called at the client, `given_up` when the server ends it.
    """

    def __init__(
        self,
        loop: SimulatedLoop,
        random: Random,
        note: Callable[[str], None],
        number: int,
        lives: tuple[Life, Life],
        receive: Callable[[bytes], None],
        lost: Callable[[Link], None],
        given_up: Callable[[], None],
    ) -> None:
        self.loop = loop
        self.random = random
        self.note = note
        self.number = number
        self.half_open = False
        self.troubled = False  # it was cut, silent or stalled: what was sent may not have come
        self.sliced = 0.0
        self.mean_latency_us = 300
        self.slow_until_us = 0
        self.server: Any = None
        self.transport: Transport | None = None
        self._lost = lost
        self.given_up = given_up
        self.is_open = True
        client_life, server_life = lives
        self.down = Stream(self, f"down {number}", receive, client_life)
        self.up = Stream(self, f"up {number}", self._to_server, server_life)

    def latency_us(self) -> int:
        """Return how long the next piece takes."""
        return 20 + round(self.random.expovariate(1 / self.mean_latency_us))

    def _to_server(self, data: bytes) -> None:
        transport = self.transport
        if transport is not None and not transport.is_closing():
            self.server.data_received(data)

    def send(self, data: bytes) -> None:
        """Send from the client."""
        self.up.send(data)

    def drop(self) -> None:
        """The client lets go of it, or its process ended: the server sees the end of the stream."""
        self.is_open = False
        self.troubled = True
        self.down.ended = True
        if self.transport is not None:
            self.up.end(self.transport.abort)

    def cut(self) -> None:
        """The network breaks it: both sides see a reset, and what was on the way is gone."""
        self.troubled = True
        self.up.ended = True
        if self.transport is not None:
            self.transport.abort()
        self.client_lost()

    def client_lost(self) -> None:
        """The client sees the end."""
        self.down.ended = True
        if self.is_open:
            self.is_open = False
            self._lost(self)


class Transport:
    """The server's end, with the names of asyncio's transports."""

    def __init__(self, link: Link, loop: LifeLoop) -> None:
        self._link = link
        self._loop = loop
        self._buffer: list[bytes] = []
        self._buffered = 0
        self._high = 64 * 1024
        self._paused = False
        self._closing = False

    def set_write_buffer_limits(self, high: int) -> None:
        """Say from which size on the protocol is told to pause."""
        self._high = high

    def get_write_buffer_size(self) -> int:
        """Return what the peer's side has not taken yet."""
        return self._buffered

    def get_extra_info(self, name: str) -> None:
        """There is no socket."""

    def is_closing(self) -> bool:
        """Whether it is closed or about to be."""
        return self._closing

    def write(self, data: bytes) -> None:
        """Send, or keep while the peer does not read."""
        if self._link.slow_until_us <= self._loop.world.now_us and not self._buffer:
            self._link.down.send(data)
            return
        self._buffer.append(data)
        self._buffered += len(data)
        if len(self._buffer) == 1:
            wait_us = self._link.slow_until_us - self._loop.world.now_us
            self._loop.call_later(wait_us / 1_000_000, self._take_up)
        if self._buffered > self._high and not self._paused:
            self._paused = True
            self._link.server.pause_writing()

    def writelines(self, pieces: Sequence[Any]) -> None:
        """Send pieces as one."""
        self.write(b"".join(pieces))

    def _take_up(self) -> None:
        buffer, self._buffer, self._buffered = self._buffer, [], 0
        for data in buffer:
            self._link.down.send(data)
        if self._paused and not self._closing:
            self._paused = False
            self._link.server.resume_writing()

    def close(self) -> None:
        """Send what is kept, then end."""
        if not self._closing:
            self._take_up()
            self._end()

    def abort(self) -> None:
        """End at once."""
        if not self._closing:
            self._end()

    def _end(self) -> None:
        self._closing = True
        self._link.given_up()
        self._link.down.end(self._link.client_lost)
        self._loop.call_soon(self._link.server.connection_lost, None)
