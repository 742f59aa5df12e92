"""A small server in memory that speaks protocol.md: for tests of the client without a socket.

It takes bytes and returns bytes, stores messages in lists, and keeps every header it was sent. What a test
needs to go wrong is said by the test: it withholds answers, refuses a frame, or ends the connection.
"""

from __future__ import annotations

import asyncio
import struct
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Any

from minibroker.aio.link import Link
from minibroker.contract import limits, wire
from minibroker.contract.commands import COLUMNS, COMMANDS
from minibroker.contract.settings import default_settings

Part = dict[str, Any]
Stored = tuple[int, bytes, bytes, int, str]  # sequence, headers, body, encoding, key


class Queue:
    """Ready messages, and what the consumers may still take."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.next_sequence = 0
        self.ready: deque[Stored] = deque()


class FakeServer:
    """All state of the server; `connect` gives a connection."""

    def __init__(self) -> None:
        self.queues: dict[str, Queue] = {}
        self.headers: list[dict[str, Any]] = []  # of all frames, in the order they came
        self.frames: list[bytes] = []  # the payloads of them
        self.outcomes: dict[int, dict[str, Any]] = {}  # by frame sequence
        self.held: dict[tuple[int, int, int], tuple[str, Stored]] = {}  # token, origin, sequence
        self.settled: list[tuple[str, int, int, int]] = []  # op, token, origin, sequence
        self.lost: set[int] = set()  # message sequences whose settlements are refused
        self.refuse: Callable[[dict[str, Any]], dict[str, Any] | None] = lambda header: None
        self.withhold = False  # apply sequenced frames, but do not answer
        self.max_frame_bytes = limits.MAX_FRAME_BYTES
        self.payloads: list[bytes] = []
        self.judged: Any = None  # the frame that `refuse` is asked about
        self.withhold_from: int | None = (
            None  # as `withhold`, for this frame sequence and later ones
        )
        self.mute = False  # take what comes, and say nothing
        self.marked = False
        self.welcome_lost: list[tuple[int, int, int, int]] = []
        self.lease_ms = 30_000
        self.next_token = 1 << 40
        self.links: list[MemoryLink] = []
        self.declared: set[str] = set()  # names of queues
        self.leads: dict[str, list[str]] = {}  # the queues of an exchange
        self.published: defaultdict[str, list[tuple[int, bytes]]] = defaultdict(list)

    def queue(self, name: str) -> Queue:
        """Return a queue, made when first named."""
        return self.queues.setdefault(name, Queue(len(self.queues) + 1))

    def parts(self, op: str) -> list[Part]:
        """Return all parts with this operation that were received."""
        return [part for header in self.headers for part in header["parts"] if part["op"] == op]

    async def dial(self, address: tuple[str, int], received: Callable[[Link, bytes], None]) -> Link:
        """Stand in for `minibroker.aio.dialling.dial`."""
        link = MemoryLink(self, received)
        self.links.append(link)
        return link


class MemoryLink(Link):
    """A link whose other end is a `FakeConnection`; answers arrive with the next turn of the loop."""

    def __init__(self, server: FakeServer, received: Callable[[Link, bytes], None]) -> None:
        super().__init__(received)
        self.peer = FakeConnection(server)
        self._loop = asyncio.get_running_loop()

    def write(self, frames: Any) -> None:
        """Hand the frames to the server and schedule what it answers."""
        if self.is_ended:
            return
        if self.peer.server.mute:
            return
        self.peer.receive(b"".join(frames))
        self.deliver()

    def deliver(self) -> None:
        """Schedule what the server has to say."""
        if self.peer.out:
            data, self.peer.out = b"".join(self.peer.out), []
            self._loop.call_soon(self.data_received, data)

    def close(self) -> None:
        """End it."""
        self.fail(ConnectionResetError("closed"))


class FakeConnection:
    """One connection as the server sees it: `receive` takes bytes, `out` collects frames."""

    def __init__(self, server: FakeServer) -> None:
        self.server = server
        self.out: list[bytes] = []
        self.consumers: dict[int, dict[str, Any]] = {}
        self.holds: set[tuple[int, int, int]] = set()
        self.received: dict[int, set[tuple[int, int, int]]] = {}  # by request
        self._reader = wire.FrameReader()

    def receive(self, data: bytes) -> None:
        """Apply the frames in `data`."""
        at = 0
        while at < len(data):
            end = at + 4 + int.from_bytes(data[at : at + 4], "big")
            self.server.payloads.append(data[at + 4 : end])
            at = end
        for frame in self._reader.feed(data):
            self._check(frame.header)
            self.server.headers.append(frame.header)
            self.server.frames.append(data)
            self._apply(frame)
        self.deliver()

    def send(self, header: dict[str, Any], *pieces: bytes) -> None:
        """Add a frame to what goes to the client."""
        self.out.append(wire.pack_frame(header, *pieces))

    def _check(self, header: dict[str, Any]) -> None:
        assert set(header) <= {"parts", "request", "sequence", "answered_below"}, header
        for part in header["parts"]:
            row = COMMANDS[part["op"]]
            assert set(part) - {"op"} <= {field.name for field in row.fields}, part

    def _apply(self, frame: wire.Frame) -> None:
        header, server = frame.header, self.server
        server.judged = frame
        refusal = server.refuse(header)
        if refusal is not None:
            for name in ("sequence", "request"):
                if name in header:
                    refusal = {**refusal, name: header[name]}
            self.send({"op": "error", **refusal})
            return
        if "sequence" not in header:
            columns = frame.columns
            for part in header["parts"]:
                columns = self._part(part, columns, frame, header)
            return
        sequence = header["sequence"]
        if sequence not in server.outcomes:
            results, lost, columns = [], b"", frame.columns
            for part in header["parts"]:
                if part["op"] == "publish":
                    results.append(self._publish(part, frame))
                elif part["op"] == "route":
                    result, runs = self._route(part, frame)
                    results.append(result)
                    lost += runs
                else:
                    result, runs, columns = self._settle(part, columns)
                    results.append(result)
                    lost += runs
            server.outcomes[sequence] = {"results": results, "lost": lost}
        late = server.withhold_from is not None and sequence >= server.withhold_from
        if not (server.withhold or late):
            self.confirm(sequence)

    def confirm(self, sequence: int) -> None:
        """Answer a sequenced frame."""
        outcome = self.server.outcomes[sequence]
        header = {"op": "confirm", "sequence": sequence, "results": outcome["results"]}
        self.send(header, outcome["lost"])

    def _part(self, part: Part, columns: bytes, frame: wire.Frame, header: dict[str, Any]) -> bytes:
        op, request = part["op"], header.get("request")
        if op in ("hello", "resume", "attach"):
            self._welcome(part)
        elif op == "consume":
            self.consumers[part["consumer"]] = {**part, "out": 0}
            self.send({"op": "reply", "request": request, "value": {}})
        elif op == "cancel":
            self.consumers.pop(part["consumer"], None)
            self.give_back()
            self.send({"op": "reply", "request": request, "value": {}})
        elif op == "receive":
            queue, before = self.server.queue(part["queue"]), set(self.server.held)
            self._deliver(part["queue"], queue, part["count"], {"request": request, "begun": True})
            assert request is not None
            self.received[request] = set(self.server.held) - before
        elif op == "withdraw":
            self._put_back(self.received.pop(part["withdrawn"], set()))
            self.send({"op": "reply", "request": request, "value": {}})
        elif op == "ping":
            self.send({"op": "pong"})
        elif op == "queue_declare":
            created = part["queue"] not in self.server.declared
            self.server.declared.add(part["queue"])
            value = {"created": created, "settings": default_settings() | part["settings"]}
            self.send({"op": "reply", "request": request, "value": value})
        elif op in ("begin", "ack", "nack", "reject", "release", "extend"):
            result, lost, columns = self._settle(part, columns)
            if request is not None:
                self.send({"op": "confirm", "request": request, "results": [result]}, lost)
        elif op != "goodbye":
            self.send({"op": "reply", "request": request, "value": {"op": op}})
        return columns

    def _welcome(self, part: Part) -> None:
        runs = self.server.welcome_lost if part["op"] == "resume" else []
        self.send(
            {
                "op": "welcome",
                "session": 7,
                "secret": b"s",
                "epoch": 1,
                "version": "0",
                "heartbeat_ms": limits.HEARTBEAT_MS,
                "max_frame_bytes": self.server.max_frame_bytes,
                "max_message_bytes": limits.MAX_MESSAGE_BYTES,
                "lost": len(runs),
                "known": True,
            },
            wire.pack_runs(runs),
        )

    def _publish(self, part: Part, frame: wire.Frame) -> dict[str, Any]:
        queue, count = self.server.queue(part["queue"]), part["count"]
        lengths = struct.unpack(f"<{2 * count}I", frame.lengths)
        encodings, keys = self._publish_columns(part, frame.columns, count)
        first, at = queue.next_sequence, 0
        for index in range(count):
            headers_end = at + lengths[2 * index]
            end = headers_end + lengths[2 * index + 1]
            headers, body = frame.blob[at:headers_end], frame.blob[headers_end:end]
            queue.ready.append((first + index, headers, body, encodings[index], keys[index]))
            self.server.published[part["queue"]].append((first + index, body))
            at = end
        assert at == len(frame.blob)
        queue.next_sequence += count
        return {"origin": queue.number, "first": first, "durability": "sync"}

    def _route(self, part: Part, frame: wire.Frame) -> tuple[dict[str, Any], bytes]:
        """Store in the queues that an exchange leads to."""
        names, runs = self.server.leads.get(part["exchange"], ()), []
        for name in names:
            stored = self._publish({**part, "queue": name}, frame)
            runs.append((0, stored["origin"], stored["first"], part["count"]))
        result = {"routed": len(names), "queues": " ".join(names), "durability": "lazy"}
        return result, wire.pack_runs(runs)

    def _publish_columns(self, part: Part, data: bytes, count: int) -> tuple[Any, list[str]]:
        encodings: Any = [part.get("encoding", 0)] * count
        keys = [part.get("key", "")] * count
        for name in part.get("columns", ()):
            if name == "key":
                values, used = wire.unpack_strings(data, count)
                keys = [value.decode() for value in values]
            else:
                used = struct.calcsize(COLUMNS[name].layout) * count
                encodings = data[:used] if name == "encoding" else encodings
            data = data[used:]
        assert not data
        return encodings, keys

    def _settle(self, part: Part, columns: bytes) -> tuple[dict[str, Any], bytes, bytes]:
        used = part["runs"] * wire.RUN.size
        runs, columns = list(wire.RUN.iter_unpack(columns[:used])), columns[used:]
        if part["op"] in ("nack", "reject"):
            for _ in range(2):
                _, used = wire.unpack_strings(columns, part["runs"])
                columns = columns[used:]
        lost = []
        for token, origin, first, count in runs:
            for sequence in range(first, first + count):
                if not self._settle_one(part, (token, origin, sequence)):
                    lost.append((token, origin, sequence, 1))
        return {"lost": len(lost)}, wire.pack_runs(lost), columns

    def _settle_one(self, part: Part, name: tuple[int, int, int]) -> bool:
        server = self.server
        if name[2] in server.lost or name not in server.held:
            return False
        server.settled.append((part["op"], *name))
        self.holds.discard(name)
        if part["op"] in ("begin", "extend"):
            return True
        queue_name, stored = server.held.pop(name)
        if part["op"] in ("nack", "release"):
            server.queue(queue_name).ready.appendleft(stored)
        for consumer in self.consumers.values():
            if consumer["queue"] == queue_name and consumer["out"]:
                consumer["out"] -= 1
                break
        return True

    def give_back(self) -> None:
        """Put what is held and not begun back to its place."""
        self._put_back(self.holds)
        self.holds.clear()

    def _put_back(self, names: set[tuple[int, int, int]]) -> None:
        for name in sorted(names & self.server.held.keys(), reverse=True):
            queue_name, stored = self.server.held.pop(name)
            self.server.queue(queue_name).ready.appendleft(stored)

    def deliver(self) -> None:
        """Deliver what the consumers have credit for."""
        for number, consumer in self.consumers.items():
            queue = self.server.queue(consumer["queue"])
            count = min(len(queue.ready), consumer["prefetch"] - consumer["out"], 1_000)
            if count > 0:
                consumer["out"] += count
                self._deliver(consumer["queue"], queue, count, {"consumer": number, "begun": False})

    def _deliver(self, name: str, queue: Queue, count: int, header: dict[str, Any]) -> None:
        server, token = self.server, self.server.next_token
        server.next_token += 1
        taken = [queue.ready.popleft() for _ in range(min(count, len(queue.ready)))]
        rows, keys = [], []
        flags = wire.MARKED if server.marked else 0
        for sequence, _, _, encoding, key in taken:
            rows.append([queue.number, sequence, 1, 1, flags, encoding, 1_700_000_000_000])
            keys.append(key)
        for stored in taken:
            server.held[token, queue.number, stored[0]] = (name, stored)
            if not header["begun"]:
                self.holds.add((token, queue.number, stored[0]))
        header |= {"op": "deliver", "queue": name, "token": token, "lease_ms": server.lease_ms}
        header |= {"count": len(taken), "runs": len(rows), "keyed": any(keys)}
        columns = b"".join(wire.DELIVERY_RUN.pack(*row) for row in rows)
        if any(keys):
            columns += wire.pack_strings([key.encode() for key in keys])
        lengths = b"".join(struct.pack("<II", len(item[1]), len(item[2])) for item in taken)
        self.send(header, columns, lengths, b"".join(item[1] + item[2] for item in taken))
