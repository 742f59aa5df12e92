"""A client of about a hundred lines that knows nothing of ours: written from protocol.md, sections 3 to 6."""

from __future__ import annotations

import socket
import struct
from typing import Any

import msgpack


class RawClient:
    """One session over one blocking connection: `publish`, `receive`, `settle`; `resume` after a loss."""

    def __init__(self, host: str, port: int) -> None:
        self.address = host, port
        self.sequence = 0
        self.request = 0
        self.unanswered: dict[int, bytes] = {}  # sequenced frames, to be sent again after a resume
        self.inbox: list[dict[str, Any]] = []
        self.welcome = self._login({"op": "hello", "protocol": 1, "client": "raw"})

    def resume(self, begun: list[tuple[int, int, int, int]], port: int | None = None) -> None:
        """Continue the session; what was begun stays ours, what was not answered is sent again."""
        self.address = self.address[0], port or self.address[1]
        self.inbox.clear()  # what was not begun is dropped: section 4.3
        login = {"op": "resume", "protocol": 1, "client": "raw", "runs": len(begun)}
        login |= {name: self.welcome[name] for name in ("session", "secret")}
        self.welcome = self._login(login, b"".join(struct.pack("<QIQI", *run) for run in begun))
        for sequence in sorted(self.unanswered):
            self._send(self.unanswered[sequence])

    def publish(self, queue: str, bodies: list[bytes], **fields: Any) -> int:
        """Send a publish and return its sequence; `confirmed` waits for the answer."""
        lengths = b"".join(struct.pack("<II", 0, len(body)) for body in bodies)
        part = {"op": "publish", "queue": queue, "count": len(bodies), **fields}
        return self._sequenced(part, b"", lengths, b"".join(bodies))

    def settle(self, op: str, queue: str, *messages: dict[str, Any], **fields: Any) -> int:
        """Send a settlement and return its sequence."""
        column = b"".join(struct.pack("<QIQI", *m["run"]) for m in messages)
        if op in ("nack", "reject"):
            for text in ("ValueError", "it failed"):
                column += struct.pack("<I", len(text)) * len(messages) + text.encode() * len(
                    messages
                )
        part = {"op": op, "queue": queue, "runs": len(messages), **fields}
        return self._sequenced(part, column)

    def confirmed(self, sequence: int) -> dict[str, Any]:
        """Wait for the confirm of a frame and return the result of its only part."""
        frame = self.answer(sequence)
        assert frame["op"] == "confirm", frame
        result: dict[str, Any] = frame["results"][0]
        return result

    def answer(self, sequence: int) -> dict[str, Any]:
        """Wait for the answer to a frame: its confirm, or an error."""
        frame = self._await("sequence", sequence)
        del self.unanswered[sequence]
        return frame

    def ask(self, op: str, **fields: Any) -> dict[str, Any]:
        """Send a request and wait for its answer."""
        self.request += 1
        self._send(self._frame([{"op": op, **fields}], request=self.request))
        return self._await("request", self.request)

    def receive(self, queue: str, count: int, wait_ms: int = 5_000) -> list[dict[str, Any]]:
        """Receive begun messages."""
        return self.messages(self.ask("receive", queue=queue, count=count, wait_ms=wait_ms))

    def delivered(self, consumer: int) -> list[dict[str, Any]]:
        """Wait for the next delivery to a consumer."""
        return self.messages(self._await("consumer", consumer))

    @staticmethod
    def messages(frame: dict[str, Any]) -> list[dict[str, Any]]:
        """Take the messages of a deliver frame apart: section 6, frame deliver."""
        messages, at, blob_at = [], 0, 0
        for index in range(frame["runs"]):
            run = struct.unpack_from("<IQIIBBQ", frame["columns"], 30 * index)
            origin, first, count, attempt, flags, _encoding, _published_unix_ms = run
            for sequence in range(first, first + count):
                headers, body = struct.unpack_from("<II", frame["lengths"], at)
                at, start = at + 8, blob_at + headers
                blob_at = start + body
                one = {"id": (origin, sequence), "attempt": attempt, "marked": flags & 1}
                one |= {"run": (frame["token"], origin, sequence, 1)}
                messages.append(one | {"body": frame["blob"][start:blob_at]})
        assert len(messages) == frame["count"]
        return messages

    def _sequenced(self, part: dict[str, Any], *bins: bytes) -> int:
        self.sequence += 1
        below = min(self.unanswered, default=self.sequence)
        frame = self._frame([part], *bins, sequence=self.sequence, answered_below=below)
        self.unanswered[self.sequence] = frame
        self._send(frame)
        return self.sequence

    @staticmethod
    def _frame(
        parts: list[dict[str, Any]],
        columns: bytes = b"",
        lengths: bytes = b"",
        blob: bytes = b"",
        **numbers: int,
    ) -> bytes:
        header = msgpack.packb({"parts": parts, **numbers})
        payload: bytes = msgpack.packb([header, columns, lengths, blob])
        return struct.pack(">I", len(payload)) + payload

    def _login(self, part: dict[str, Any], columns: bytes = b"") -> dict[str, Any]:
        self.socket = socket.create_connection(self.address, timeout=20)
        self.stream = self.socket.makefile("rb")
        try:
            self._send(self._frame([part], columns))
            return self._read()
        except OSError:
            self.close()  # its maker never gets hold of it
            raise

    def close(self) -> None:
        """End the connection without a word."""
        self.stream.close()
        self.socket.close()

    def _send(self, frame: bytes) -> None:
        self.socket.sendall(frame)

    def _read(self) -> dict[str, Any]:
        head = self.stream.read(4)
        payload = self.stream.read(int.from_bytes(head, "big"))
        if len(head) < 4 or len(payload) < int.from_bytes(head, "big"):
            raise ConnectionResetError("the server is gone")
        header, columns, lengths, blob = msgpack.unpackb(payload)
        frame: dict[str, Any] = msgpack.unpackb(header)
        return frame | {"columns": columns, "lengths": lengths, "blob": blob}

    def _await(self, name: str, value: int) -> dict[str, Any]:
        while True:
            for frame in self.inbox:
                if frame.get(name) == value:
                    self.inbox.remove(frame)
                    return frame
            self.inbox.append(self._read())
