"""Section 9 of protocol.md, byte for byte, against the real broker: the document alone is enough."""

from __future__ import annotations

import re
import socket
from typing import Any

import pytest

from minibroker.contract import wire
from support.broker import BrokerServer
from support.source import ROOT


def printed_frames() -> list[bytes]:
    """Return the frames that section 9 prints in hex: hello, publish, confirm, deliver, ack, its confirm, nack."""
    text = (ROOT / "protocol.md").read_text("utf-8").partition("\n## 9. ")[2].partition("\n## ")[0]
    blocks = re.findall(r"(?:^    .*\n)+", text, re.MULTILINE)
    hex_part = re.compile(r"^    +((?:[0-9a-f]{2} {1,2})*[0-9a-f]{2})(?: |$)", re.MULTILINE)
    return [bytes.fromhex(" ".join(hex_part.findall(block))) for block in blocks]


def read_frame(connection: socket.socket) -> bytes:
    """Return the next frame, its length prefix included."""
    head = _exactly(connection, 4)
    return head + _exactly(connection, int.from_bytes(head, "big"))


def meaning(frame: bytes) -> tuple[Any, ...]:
    """Return the parts of a frame; the order of keys in the header means nothing."""
    read = wire.read_payload(frame[4:])
    return read.header, read.columns, read.lengths, read.blob


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        assert more, f"the broker closed the connection after {data!r}"
        data += more
    return data


@pytest.mark.parametrize("settlement", ["ack", "step", "nack"])
def test_the_worked_example_is_answered_as_printed(
    broker_server: BrokerServer, settlement: str
) -> None:
    """Hello, welcome, publish, confirm; then a consumer's delivery, and what becomes of it."""
    hello, publish, confirm, deliver, ack, settled, step, nack = printed_frames()
    with socket.create_connection(
        (broker_server.host, broker_server.port), timeout=10
    ) as connection:
        connection.sendall(hello)
        assert b"welcome" in read_frame(connection)
        connection.sendall(publish)
        assert meaning(read_frame(connection)) == meaning(confirm)
        part = {"op": "consume", "queue": "q", "consumer": 1, "prefetch": 1}
        connection.sendall(wire.pack_frame({"parts": [part], "request": 1}))
        assert b"reply" in read_frame(connection)
        header, columns, *bodies = meaning(read_frame(connection))
        printed_header, printed_columns, *printed_bodies = meaning(deliver)
        assert (header, bodies) == (printed_header, printed_bodies)
        # All but the time of the publish.
        assert bytes(columns)[:-8] == bytes(printed_columns)[:-8]
        connection.sendall({"ack": ack, "step": step, "nack": nack}[settlement])
        header, *rest = meaning(settled)
        if settlement == "step":
            stored = {"origin": 2, "first": 0, "durability": "sync"}
            header = {**header, "results": [*header["results"], stored]}
        assert meaning(read_frame(connection)) == (header, *rest)


def test_the_same_frame_again_gets_the_same_answer(broker_server: BrokerServer) -> None:
    """protocol.md 4.4: nothing is stored twice."""
    hello, publish, confirm, *_ = printed_frames()
    address = (broker_server.host, broker_server.port)
    with socket.create_connection(address, timeout=10) as connection:
        connection.sendall(hello)
        read_frame(connection)
        connection.sendall(publish + publish)
        first, second = read_frame(connection), read_frame(connection)
        assert meaning(first) == meaning(second) == meaning(confirm)
