"""A server for the client's machine: the real core behind connections that cut frames as the real ones do.

What a client may never do is an assertion here, where the server would end the connection: a frame beyond a limit,
or one that is not understood. And the other way round: no frame of the server may end a connection for something
that it was sent.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Any

from harness import World

from minibroker.contract import limits, wire
from minibrokerd.bodies.tails import split_bins
from minibrokerd.core.core import error_header
from minibrokerd.core.model.effects import Outgoing
from minibrokerd.core.model.inputs import Frame
from minibrokerd.core.model.records import PublishMeta, decode
from minibrokerd.net.frames import read_frame

Id = tuple[int, int]
Stored = tuple[Id, bytes, int, int]  # with its key, encoding, and delay in ms
SECRET = b"s" * 32


class CoreServer(World):
    """The core, with a log and a clock in a test's hands; `full`: it has no room for publishes."""

    def __init__(self) -> None:
        super().__init__(auto_sync=False)
        self.full = False

    def bind(self, exchange: str, bindings: Iterable[tuple[str, str]]) -> None:
        """Make an exchange of type topic that leads to queues, each with its pattern."""
        asked: list[dict[str, object]] = [{"op": "exchange_set", "name": exchange, "type": "topic"}]
        for queue, pattern in bindings:
            asked.append({"op": "bind", "exchange": exchange, "queue": queue, "pattern": pattern})
        peer = self.connect()
        hello = {"op": "hello", "protocol": limits.PROTOCOL_VERSION, "client": "maker"}
        peer.receive(wire.pack_frame({"parts": [hello]}))
        for part in asked:
            peer.receive(wire.pack_frame({"parts": [part], "request": 1}))
            self.sync()
        peer.receive(wire.pack_frame({"parts": [{"op": "goodbye"}]}))
        peer.lose()

    def connect(self) -> CorePeer:
        """Accept a connection."""
        self._connections += 1
        peer = CorePeer(self, self._connections)
        self.clients[self._connections] = peer  # type: ignore[assignment]
        return peer

    def admits(self, frame: Frame) -> bool:
        """Return whether there is room for a frame, as `Admission` judges; one that is known needs none."""
        return (
            not self.full
            or frame.parts[0].row.op not in ("publish", "route")
            or self.core.knows(frame)
        )

    def stored(self) -> dict[bytes, list[Stored]]:
        """Return as what each body was ever stored, after a sync."""
        found: dict[bytes, list[Stored]] = {}
        for batch in self.log:
            for record in batch.records:
                meta = decode(record)
                if isinstance(meta, PublishMeta):
                    (origin, first), *_ = meta.targets
                    terms = zip(*_columns(meta, record.tail), strict=True)
                    for at, (body, term) in enumerate(
                        zip(_bodies(record.tail), terms, strict=True)
                    ):
                        found.setdefault(body, []).append(((origin, first + at), *term))
        return found

    def copies(self) -> dict[bytes, set[Id]]:
        """Return the ids of each body in all queues that it was stored in, after a sync."""
        found: dict[bytes, set[Id]] = {}
        for batch in self.log:
            for record in batch.records:
                meta = decode(record)
                if isinstance(meta, PublishMeta):
                    for at, body in enumerate(_bodies(record.tail)):
                        ids = {(origin, first + at) for origin, first in meta.targets}
                        found.setdefault(body, set()).update(ids)
        return found

    def living(self) -> set[Id]:
        """Return the ids of all messages that have not ended."""
        return {id for name in self.store.queues for id in self.states(name)}

    def in_hands(self, session: int) -> set[tuple[int, int, int]]:
        """Return (token, origin, sequence) of what a session holds or has begun."""
        found = set()
        for token in self.store.sessions[session].deliveries:
            delivery = self.store.deliveries[token]
            for item in (*delivery.spans.values(), *delivery.singles.values()):
                for sequence in range(item.first, item.stop):
                    found.add((token, item.block.origin, sequence))
        return found

    def handed_to(self, session: int) -> set[tuple[int, int, int]]:
        """Return those of them that were begun as they were handed out."""
        deliveries = self.store.deliveries
        return {run for run in self.in_hands(session) if deliveries[run[0]].handed}


class CorePeer:
    """One connection: `receive` takes bytes, cut anywhere; `out` has what goes to the client."""

    def __init__(self, server: CoreServer, number: int) -> None:
        self.server = server
        self.number = number
        self.out: list[bytes] = []
        self.closed = False
        self._buffer = b""
        self._is_open = False

    def receive(self, data: bytes) -> None:
        """Apply the frames in `data`."""
        self._buffer += data
        while len(self._buffer) >= wire.LENGTH.size and not self.closed:
            (length,) = wire.LENGTH.unpack_from(self._buffer)
            most = limits.MAX_FRAME_BYTES if self._is_open else limits.MAX_LOGIN_FRAME_BYTES
            assert length <= most, f"a frame of {length} bytes"
            end = wire.LENGTH.size + length
            if len(self._buffer) < end:
                return
            payload, self._buffer = self._buffer[wire.LENGTH.size : end], self._buffer[end:]
            self._take(read_frame(payload, self.number, 0.0))

    def _take(self, frame: Frame) -> None:
        part, server = frame.parts[0], self.server
        login = part.row.login
        assert self._is_open != (login is not None), part.row.op
        if login is not None:
            assert getattr(part, "secret", SECRET) == SECRET
            server.apply(login(self.number, part, frame.columns, None))
        elif server.admits(frame):
            server.apply(frame)
        else:
            header = error_header("busy", "it is full", 50, frame)
            server._send(Outgoing(self.number, 0, header))
        self._is_open = True

    def take_frame(self, data: bytes) -> None:
        """Send a frame of the core."""
        frame = wire.read_payload(data[wire.LENGTH.size :])
        header = dict(frame.header)
        if header["op"] == "welcome":
            data = wire.pack_frame({**header, "secret": SECRET, "version": "0"}, frame.columns)
        blamed = header["op"] == "error" and not header.keys() & {"sequence", "request"}
        assert not blamed, header
        self.out.append(data)

    def lose(self) -> None:
        """The connection ends."""
        if not self.closed:
            self.server.disconnect(self.number)
            self.closed = True


def _bodies(tail: Any) -> Iterator[bytes]:
    _, lengths, blob = split_bins(memoryview(tail), 3)
    at = 0
    for index in range(0, len(lengths), 8):
        headers = int.from_bytes(lengths[index : index + 4], "little")
        size = int.from_bytes(lengths[index + 4 : index + 8], "little")
        yield bytes(blob[at + headers : at + headers + size])
        at += headers + size


def _columns(meta: PublishMeta, tail: Any) -> tuple[list[bytes], list[int], list[int]]:
    """Return keys, encodings and delays of all messages of a frame."""
    data, count = bytes(split_bins(memoryview(tail), 3)[0]), meta.count
    keys, encodings = [meta.key.encode()] * count, [meta.encoding] * count
    delays = [meta.delay_ms] * count
    for name in meta.columns:
        used = count
        if name == "delay_ms":
            used = 8 * count
            delays = list(struct.unpack(f"<{count}Q", data[:used]))
        elif name == "key":
            keys, used = wire.unpack_strings(data, count)
        else:
            encodings = list(data[:used])
        data = data[used:]
    assert not data, "bytes are left over in the columns"
    return keys, encodings, delays
