"""Fills a broker with very many queues, keys or delays through one socket, as protocol.md says.

The client would put what is published at the same time into one frame, so the frames are made here.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Iterator
from typing import Any

from benchmarks.growth import read_answers

from minibroker.contract import wire

WINDOW = 500  # frames that are written before their answers are read


class Filler:
    """One connection that publishes frames of its own making; `refused` counts codes of what was refused."""

    def __init__(self, url: str) -> None:
        host, port = url.removeprefix("minibroker://").split(":")
        self._socket = socket.create_connection((host, int(port)), timeout=60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        hello = {"op": "hello", "protocol": 1, "client": "filler"}
        self._socket.sendall(wire.pack_frame({"parts": [hello]}))
        self._answers = read_answers(self._socket)
        assert next(self._answers)["op"] == "welcome"
        self._sequence = 0
        self.refused: dict[str, int] = {}

    def close(self) -> None:
        """End the connection."""
        self._socket.close()

    def publish(self, frames: Iterable[tuple[dict[str, Any], bytes, bytes]]) -> int:
        """Publish frames, each (part, lengths, bodies); return how many were stored."""
        stored = waiting = 0
        written = []
        for part, lengths, bodies in frames:
            self._sequence += 1
            header = {
                "parts": [{"op": "publish"} | part],
                "sequence": self._sequence,
                "answered_below": self._sequence - waiting,
            }
            written.append(wire.pack_frame(header, b"", lengths, bodies))
            waiting += 1
            if waiting == WINDOW:
                stored += self._answered(written, waiting)
                written, waiting = [], 0
        return stored + self._answered(written, waiting)

    def _answered(self, written: list[bytes], waiting: int) -> int:
        self._socket.sendall(b"".join(written))
        stored = 0
        for _ in range(waiting):
            header = next(self._answers)
            if header["op"] == "confirm":
                stored += 1
            else:
                self.refused[header["code"]] = self.refused.get(header["code"], 0) + 1
        return stored


def one_each(names: Iterable[str], body: bytes) -> Iterator[tuple[dict[str, Any], bytes, bytes]]:
    """Yield a frame of one message for each queue."""
    lengths = struct.pack("<II", 0, len(body))
    for name in names:
        yield {"queue": name, "count": 1}, lengths, body


def keyed(
    queue: str, keys: Iterable[str], body: bytes
) -> Iterator[tuple[dict[str, Any], bytes, bytes]]:
    """Yield a frame of one message for each key."""
    lengths = struct.pack("<II", 0, len(body))
    for key in keys:
        yield {"queue": queue, "count": 1, "key": key}, lengths, body


def delayed(
    queue: str, delays_ms: Iterable[int], body: bytes
) -> Iterator[tuple[dict[str, Any], bytes, bytes]]:
    """Yield a frame of one message for each delay."""
    lengths = struct.pack("<II", 0, len(body))
    for delay_ms in delays_ms:
        yield {"queue": queue, "count": 1, "delay_ms": delay_ms}, lengths, body
