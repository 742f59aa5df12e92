"""A whole server in a test's hand: real connections, engine and core, a loop that the test turns, no socket.

Bytes go into `Peer.give` as a transport would deliver them, and what the server writes is read back with
msgpack alone, so that a fault which both of our sides share is seen.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, cast

import msgpack

from minibrokerd.log.memorylog import MemoryLog
from minibrokerd.log.seam import Leadership
from minibrokerd.serving.configuration import ServeOptions
from minibrokerd.serving.server import Server

CHUNK_BYTES = 256 * 1024  # what the real loop reads at a time


class Handle:
    """A timer of a `HandLoop`."""

    def __init__(self, when_s: float, call: Callable[[], object]) -> None:
        self.when_s = when_s
        self.call = call
        self.cancelled = False

    def when(self) -> float:
        """Return when it is due."""
        return self.when_s

    def cancel(self) -> None:
        """Never call it."""
        self.cancelled = True


class HandLoop:
    """What the server uses of an event loop; it turns and time passes when the test says so."""

    def __init__(self) -> None:
        self.now_s = 1_000.0
        self.ready: deque[Callable[[], object]] = deque()
        self.timers: list[Handle] = []

    def time(self) -> float:
        """Return the time that the test has set."""
        return self.now_s

    def call_soon(self, call: Callable[..., object], *arguments: object) -> None:
        """Call in the next `run`."""
        self.ready.append(lambda: call(*arguments))

    def call_at(self, when_s: float, call: Callable[..., object], *arguments: object) -> Handle:
        """Call when time has come."""
        self.timers.append(Handle(when_s, lambda: call(*arguments)))
        return self.timers[-1]

    def call_later(self, delay_s: float, call: Callable[..., object], *arguments: object) -> Handle:
        """Call after a while."""
        return self.call_at(self.now_s + delay_s, call, *arguments)

    def create_future(self) -> None:
        """Nothing here waits for one."""

    def turn(self) -> None:
        """Do what is ready now."""
        for _ in range(len(self.ready)):
            self.ready.popleft()()

    def run(self) -> None:
        """Turn until nothing is ready."""
        while self.ready:
            self.ready.popleft()()


class HandTransport:
    """A transport whose peer reads everything at once, unless `reads` is false."""

    def __init__(self, loop: HandLoop) -> None:
        self.loop = loop
        self.protocol: Any = None
        self.reads = True
        self.taken = bytearray()  # what the peer has read
        self.buffer = bytearray()
        self.high = 64 * 1024
        self.paused = self.closing = self.aborted = self.lost = self.ended = False

    def set_write_buffer_limits(self, high: int) -> None:
        """Set the size above which the protocol is paused."""
        self.high = high

    def write(self, data: bytes) -> None:
        """Take bytes for the peer."""
        assert not self.closing, "written after close"
        assert not self.ended, "written after the end"
        self.buffer += data
        if self.reads:
            self.read()
        elif not self.paused and len(self.buffer) > self.high:
            self.paused = True
            self.protocol.pause_writing()

    def writelines(self, pieces: Iterable[bytes]) -> None:
        """Take several."""
        self.write(b"".join(pieces))

    def read(self, size: int | None = None) -> None:
        """The peer reads so much, or all."""
        self.taken += self.buffer[:size]
        del self.buffer[:size]
        if self.paused and len(self.buffer) <= self.high // 4:
            self.paused = False
            self.protocol.resume_writing()
        if self.closing and not self.buffer:
            self._end()

    def get_write_buffer_size(self) -> int:
        """Return what the peer has not read."""
        return len(self.buffer)

    def get_extra_info(self, name: str) -> tuple[str, int] | None:
        """There is no socket, but an address."""
        return ("192.0.2.7", 50_007) if name == "peername" else None

    def can_write_eof(self) -> bool:
        """Return that there is a half close."""
        return True

    def write_eof(self) -> None:
        """Write nothing more."""
        self.ended = True

    def is_closing(self) -> bool:
        """Return whether `close` or `abort` was called."""
        return self.closing

    def close(self) -> None:
        """End when the peer has read everything."""
        self.closing = True
        if not self.buffer:
            self._end()

    def abort(self) -> None:
        """End now."""
        self.closing = self.aborted = True
        self._end()

    def _end(self) -> None:
        if not self.lost:
            self.lost = True
            self.loop.call_soon(self.protocol.connection_lost, None)


class Peer:
    """The other end of one connection."""

    def __init__(self, hand: Hand) -> None:
        self.hand = hand
        self.transport = HandTransport(hand.loop)
        self.connection = cast(Any, hand.server.connections.make())
        self.transport.protocol = self.connection
        self.connection.connection_made(self.transport)

    def give(self, data: bytes, chunk_bytes: int = CHUNK_BYTES) -> Peer:
        """Send bytes in chunks of this size, and let the server answer."""
        for at in range(0, len(data), chunk_bytes):
            self.give_chunk(data[at : at + chunk_bytes])
        self.hand.settle()
        return self

    def give_chunk(self, data: bytes) -> None:
        """Send bytes that arrive in one read; nothing else happens."""
        if not self.transport.closing:
            self.connection.data_received(data)

    def hello(self) -> dict[str, Any]:
        """Log in and return the welcome."""
        self.give(frame(part("hello", protocol=1, client="hand")))
        (welcome,) = self.take()
        assert welcome["op"] == "welcome", welcome
        return welcome

    def take(self) -> list[dict[str, Any]]:
        """Return the headers of the frames that came since the last call; `columns` and `blob` stand in them."""
        headers, data = [], self.transport.taken
        while data:
            end = 4 + int.from_bytes(data[:4], "big")
            assert len(data) >= end, "half a frame came"
            header, columns, lengths, blob = msgpack.unpackb(bytes(data[4:end]))
            bins = {"columns": columns, "lengths": lengths, "blob": blob}
            headers.append(msgpack.unpackb(header) | bins)
            del data[:end]
        return headers

    @property
    def closed(self) -> bool:
        """Whether the server ended the connection."""
        return self.transport.closing


class Hand:
    """A server, its log, and the loop."""

    def __init__(self, leadership: Leadership | None = None) -> None:
        self.loop = HandLoop()
        self.log = MemoryLog(hold=True)
        self.log.leadership = leadership
        self.server = Server(ServeOptions(Path("unused")), self.loop, self.log)  # type: ignore[arg-type]
        self.server.connections.session_key = self.log.session_key
        self.server.engine.start(0)
        self.settle()

    def connect(self) -> Peer:
        """A new connection that has sent nothing."""
        return Peer(self)

    def login(self) -> Peer:
        """A new connection that has said hello."""
        peer = self.connect()
        peer.hello()
        return peer

    def settle(self) -> None:
        """Turn the loop and sync the log until both are idle."""
        self.loop.run()
        while self.log.pending is not None:
            self.log.sync_one()
            self.loop.run()

    def pass_s(self, seconds: float) -> None:
        """Let time pass, a second at a time, and sweep the connections after each."""
        for _ in range(int(seconds)):
            self.loop.now_s += 1
            self.server._sweep()
            self.settle()

    @property
    def connections(self) -> int:
        """How many connections the core knows."""
        return len(self.server._core.store.connections)


def part(op: str, **fields: object) -> dict[str, object]:
    """Return one part of a header."""
    return {"op": op, **fields}


def bin_(data: bytes) -> bytes:
    """Return a msgpack bin; its length is that of the data."""
    packed: bytes = msgpack.packb(data, use_bin_type=True)
    return packed


def raw(header: bytes, columns: bytes = b"", lengths: bytes = b"", blob: bytes = b"") -> bytes:
    """Return a frame around a header that is packed already, or is no header at all."""
    return prefixed(b"\x94" + bin_(header) + bin_(columns) + bin_(lengths) + bin_(blob))


def frame(*parts: dict[str, object], **fields: Any) -> bytes:
    """Return a frame; `columns`, `lengths` and `blob` are its bins, all other fields go into the header."""
    bins = [fields.pop(name, b"") for name in ("columns", "lengths", "blob")]
    return raw(msgpack.packb({"parts": list(parts), **fields}), *bins)


def prefixed(payload: bytes) -> bytes:
    """Return a payload behind its length."""
    return len(payload).to_bytes(4, "big") + payload
