"""A client in a test's hands: it packs frames as bytes, and reads the bytes that the server would write."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgpack

from minibroker.contract import wire
from minibroker.session.log_pages import unpack_page
from minibrokerd.core.model.inputs import Disconnected
from minibrokerd.net.frames import BadFrame, read_frame

if TYPE_CHECKING:
    from harness import World

Id = tuple[int, int]
Run = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Delivered:
    """One message as a client got it."""

    queue: str
    token: int
    origin: int
    sequence: int
    attempt: int
    marked: bool
    encoding: int
    published_unix_ms: int
    key: str
    body: bytes

    @property
    def id(self) -> Id:
        """The id that the message keeps for life."""
        return self.origin, self.sequence

    @property
    def run(self) -> Run:
        """The message as an entry of a run column."""
        return self.token, self.origin, self.sequence, 1


class Client:
    """One connection of a session: packs frames, and keeps what it was sent in `inbox`."""

    def __init__(self, world: World, connection: int, name: str) -> None:
        self.world = world
        self.connection = connection
        self.name = name
        self.session = 0
        self.sequence = 0
        self.answered_below = 1
        self.requests = 0
        self.inbox: list[dict[str, Any]] = []
        self.closed = False
        self.sent: dict[int, bytes] = {}  # the payload of each sequenced frame

    # -- frames ---------------------------------------------------------------------------------

    def take_frame(self, data: bytes) -> None:
        """Read one frame of the server."""
        frame = wire.read_payload(data[wire.LENGTH.size :])
        header = dict(frame.header)
        if header["op"] == "deliver":
            header["messages"] = _messages(header, frame)
        elif header["op"] == "messages":
            header["messages"] = _peeked(header, frame)
        elif header["op"] == "log":
            header["messages"] = unpack_page(frame)
        elif header["op"] in ("confirm", "welcome", "cancelled"):
            header["lost_runs"] = list(wire.RUN.iter_unpack(frame.columns))
        self.inbox.append(header)

    def send(self, payload: bytes) -> None:
        """Let the server have one payload; one that breaks the protocol ends the connection."""
        try:
            frame = read_frame(payload, self.connection, self.world.jitter)
        except BadFrame:
            self.closed = True
            self.world.apply(Disconnected(self.connection))
            return
        self.world.apply(frame)

    def frame(
        self,
        parts: Sequence[dict[str, Any]],
        columns: bytes = b"",
        lengths: bytes = b"",
        blob: bytes = b"",
        **header: int,
    ) -> bytes:
        """Return a payload."""
        return wire.pack_frame({"parts": list(parts), **header}, columns, lengths, blob)[4:]

    def sequenced(
        self,
        parts: Sequence[dict[str, Any]],
        columns: bytes = b"",
        lengths: bytes = b"",
        blob: bytes = b"",
        **header: int,
    ) -> Any:
        """Send a frame under the next sequence; return its answer, or None if that has to wait."""
        self.sequence += 1
        sequence = self.sequence
        header |= {"sequence": sequence, "answered_below": self.answered_below}
        payload = self.frame(parts, columns, lengths, blob, **header)
        self.sent[sequence] = payload
        self.send(payload)
        return self.answer(sequence=sequence)

    def resend(self, sequence: int, of: Client | None = None) -> Any:
        """Send a frame again, byte for byte; return its answer, if it came."""
        self.send((of or self).sent[sequence])
        return self.answer(sequence=sequence)

    def request(self, part: dict[str, Any], columns: bytes = b"") -> Any:
        """Send a request; return its answer, or None if that has to wait."""
        self.requests += 1
        request = self.requests
        self.send(self.frame([part], columns, request=request))
        return self.answer(request=request)

    def answer(self, **name: int) -> Any:
        """Take the answer to a sequence or a request out of the inbox; None: it is not there."""
        ((key, value),) = name.items()
        for frame in self.inbox:
            if frame.get(key) == value:
                self.inbox.remove(frame)
                return frame
        return None

    def answer_alone(self, sequence: int) -> dict[str, Any]:
        """Return the confirm of a frame of settlements that lost nothing, as it is where no others share it."""
        parts = wire.read_payload(self.sent[sequence]).header["parts"]
        results = [{"lost": 0} for _ in parts]
        return {"op": "confirm", "results": results, "sequence": sequence, "lost_runs": []}

    def pop(self, op: str) -> dict[str, Any]:
        """Take the oldest frame out of the inbox, which must be of this kind."""
        frame = self.inbox.pop(0)
        assert frame["op"] == op, frame
        return frame

    # -- commands -------------------------------------------------------------------------------

    def publish(self, queue: str, *bodies: bytes, **fields: Any) -> Any:
        """Publish; `delays`, `keys`, `encodings`, `uniques` and `dedupes` become columns, the rest are fields."""
        columns, names = b"", []
        if (delays := fields.pop("delays", None)) is not None:
            columns, names = struct.pack(f"<{len(delays)}Q", *delays), ["delay_ms"]
        if (keys := fields.pop("keys", None)) is not None:
            columns += wire.pack_strings([key.encode() for key in keys])
            names.append("key")
        if (encodings := fields.pop("encodings", None)) is not None:
            columns += bytes(encodings)
            names.append("encoding")
        for name, field in (("unique_key", "uniques"), ("dedupe_id", "dedupes")):
            if (texts := fields.pop(field, None)) is not None:
                columns += wire.pack_strings([text.encode() for text in texts])
                names.append(name)
        part = {"op": "publish", "queue": queue, "count": len(bodies), **fields}
        if names:
            part["columns"] = names
        lengths = b"".join(struct.pack("<II", 0, len(body)) for body in bodies)
        return self.sequenced([part], columns, lengths, b"".join(bodies))

    def consume(self, queue: str, prefetch: int = 1, consumer: int = 1, lease_ms: int = 0) -> Any:
        """Add or change a consumer."""
        return self.request(
            {
                "op": "consume",
                "queue": queue,
                "consumer": consumer,
                "prefetch": prefetch,
                "lease_ms": lease_ms,
            }
        )

    def take_from(self, queue: str) -> None:
        """Be in the log as one that takes from a queue, so that its deliveries rest on nothing more."""
        self.consume(queue, prefetch=0, consumer=99)
        self.world.sync()
        self.cancel(99)
        self.inbox.clear()

    def cancel(self, consumer: int = 1) -> Any:
        """End a consumer."""
        return self.request({"op": "cancel", "consumer": consumer})

    def receive(self, queue: str, count: int = 1, wait_ms: int = 0, lease_ms: int = 0) -> Any:
        """Receive; None: the answer has to wait."""
        return self.request(
            {
                "op": "receive",
                "queue": queue,
                "count": count,
                "wait_ms": wait_ms,
                "lease_ms": lease_ms,
            }
        )

    def receive_all(self, queue: str, count: int = 1_000, lease_ms: int = 0) -> list[Delivered]:
        """Return what a receive gives now."""
        answer = self.receive(queue, count, lease_ms=lease_ms)
        messages: list[Delivered] = answer["messages"] if answer is not None else []
        return messages

    def messages(self) -> list[Delivered]:
        """Take all deliveries out of the inbox and return their messages."""
        deliveries = [frame for frame in self.inbox if frame["op"] == "deliver"]
        self.inbox = [frame for frame in self.inbox if frame["op"] != "deliver"]
        return [message for frame in deliveries for message in frame["messages"]]

    def begin(self, *messages: Delivered, together: bool = False) -> None:
        """Begin messages of one queue, without an answer; in as few runs as it takes, or in one for each."""
        runs: list[Run] = []
        for token, origin, first, count in [message.run for message in messages]:
            last = runs[-1] if together and runs else None
            if last is not None and (*last[:2], last[2] + last[3]) == (token, origin, first):
                runs[-1] = token, origin, last[2], last[3] + count
            else:
                runs.append((token, origin, first, count))
        part, columns = settle_part("begin", messages[0].queue, runs)
        self.send(self.frame([part], columns))

    def settle(self, op: str, *messages: Delivered, **fields: Any) -> Any:
        """Settle messages of one queue in one part, one run for each."""
        return self.settle_runs(op, messages[0].queue, [m.run for m in messages], **fields)

    def settle_runs(self, op: str, queue: str, runs: Sequence[Run], **fields: Any) -> Any:
        """Settle runs in one part."""
        part, columns = settle_part(op, queue, runs, **fields)
        return self.sequenced([part], columns)

    def peek(
        self, queue: str, count: int = 1_000, skip: int = 0, **fields: str
    ) -> list[dict[str, Any]]:
        """Return what peek says of each message, with its `body`."""
        part = {"op": "peek", "queue": queue, "count": count, "skip": skip, **fields}
        answer = self.request(part)
        if answer is None:  # a long page takes steps
            self.world.run_jobs()
            answer = self.answer(request=self.requests)
        messages: list[dict[str, Any]] = answer["messages"]
        return messages

    def set(self, queue: str, **settings: int | str) -> Any:
        """Create a queue or change its settings."""
        return self.request({"op": "queue_set", "queue": queue, "settings": settings})

    def stats(self, queue: str) -> dict[str, int]:
        """Return the counters of a queue."""
        answer = self.request({"op": "stats", "queue": queue})
        counters: dict[str, int] = answer["value"]["queues"][queue]
        return counters

    def redrive(self, queue: str, ids: Sequence[Id] = (), count: int = 0) -> Any:
        """Send dead messages back."""
        part = {"op": "redrive", "queue": queue, "runs": len(ids), "count": count}
        return self.request(part, wire.pack_runs((0, *id, 1) for id in ids))

    def cancel_messages(self, queue: str, *ids: Id, **fields: str) -> Any:
        """Cancel messages: these, or those that a filter is about."""
        part = {"op": "cancel_messages", "queue": queue, "runs": len(ids), **fields}
        answer = self.request(part, wire.pack_runs((0, *id, 1) for id in ids))
        self.world.run_jobs()
        return answer or self.answer(request=self.requests)

    def retime(self, queue: str, id: Id, delay_ms: int) -> Any:
        """Let a message be ready at another time."""
        part = {"op": "retime", "queue": queue, "runs": 1, "delay_ms": delay_ms}
        answer = self.request(part, wire.pack_runs([(0, *id, 1)]))
        self.world.run_jobs()
        return answer

    def purge(self, queue: str) -> Any:
        """End every message of a queue."""
        return self.request({"op": "purge", "queue": queue})

    def explain(self, id: Id, queue: str = "") -> dict[str, Any]:
        """Return why a message is not running."""
        part = {"op": "explain", "queue": queue, "runs": 1}
        answer = self.request(part, wire.pack_runs([(0, *id, 1)]))
        while answer is None:  # looking everywhere takes steps; what is not safe is no answer
            self.world.run_jobs()
            self.world.sync()
            answer = self.answer(request=self.requests)
        value: dict[str, Any] = answer["value"]
        return value

    def queue_names(self) -> list[str]:
        """Return the names of all queues."""
        return list(self.request({"op": "stats"})["value"]["queues"])

    def delete(self, queue: str, *, force: bool = False) -> Any:
        """End a queue."""
        return self.request({"op": "queue_delete", "queue": queue, "force": int(force)})


def settle_part(
    op: str, queue: str, runs: Sequence[Run], **fields: Any
) -> tuple[dict[str, Any], bytes]:
    """Return a begin or settle part and its columns; `error` is (class, text) of every run."""
    columns = wire.pack_runs(runs)
    if op in ("nack", "reject"):
        name, text = fields.pop("error", ("", ""))
        columns += wire.pack_strings([name.encode()] * len(runs))
        columns += wire.pack_strings([text.encode()] * len(runs))
    return {"op": op, "queue": queue, "runs": len(runs), **fields}, columns


def _messages(header: dict[str, Any], frame: wire.Frame) -> list[Delivered]:
    runs = header["runs"]
    end = runs * wire.DELIVERY_RUN.size
    keys = [b""] * runs
    if header.get("keyed"):
        keys, used = wire.unpack_strings(frame.columns[end:], runs)
        end += used
    assert end == len(frame.columns), "bytes are left over in the columns of a delivery"
    bodies = _bodies(frame)
    messages: list[Delivered] = []
    entries = wire.DELIVERY_RUN.iter_unpack(frame.columns[: runs * wire.DELIVERY_RUN.size])
    for (origin, first, count, attempt, flags, encoding, unix_ms), key in zip(
        entries, keys, strict=True
    ):
        for sequence in range(first, first + count):
            messages.append(
                Delivered(
                    header["queue"],
                    header["token"],
                    origin,
                    sequence,
                    attempt,
                    bool(flags & wire.MARKED),
                    encoding,
                    unix_ms,
                    key.decode(),
                    bodies[len(messages)],
                )
            )
    assert len(messages) == header["count"] == len(bodies)
    return messages


def _peeked(header: dict[str, Any], frame: wire.Frame) -> list[dict[str, Any]]:
    infos, used = wire.unpack_strings(frame.columns, header["count"])
    assert used == len(frame.columns)
    bodies = _bodies(frame)
    assert len(bodies) == len(infos)
    return [
        {**msgpack.unpackb(info), "body": body} | ({"headers": headers} if headers else {})
        for info, headers, body in zip(infos, _headers(frame), bodies, strict=True)
    ]


def _headers(frame: wire.Frame) -> list[bytes]:
    headers, at = [], 0
    for header_bytes, body_bytes in struct.iter_unpack("<II", frame.lengths):
        headers.append(frame.blob[at : at + header_bytes])
        at += header_bytes + body_bytes
    return headers


def _bodies(frame: wire.Frame) -> list[bytes]:
    bodies, at = [], 0
    for header_bytes, body_bytes in struct.iter_unpack("<II", frame.lengths):
        bodies.append(frame.blob[at + header_bytes : at + header_bytes + body_bytes])
        at += header_bytes + body_bytes
    assert at == len(frame.blob)
    return bodies
