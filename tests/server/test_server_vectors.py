"""protocol.md, section 6, server frames: golden bytes, which the server writes and the client reads."""

from __future__ import annotations

from typing import Any

import pytest
from frame_bins import bins
from frame_octets import CONFIRM, DELIVER, HELLO, PONG, PUBLISH, octets
from frame_vectors import TOKEN, UNIX_MS
from hand import prefixed

from minibroker.contract import wire
from minibroker.contract.errors import Busy, ProtocolError
from minibroker.session.events import Answered, Delivered, Event, Leaving, Published, Welcomed
from minibroker.session.session import Session
from minibrokerd.bodies.store import BodyStore
from minibrokerd.core.model.messages import Block
from minibrokerd.log.seam import Record
from minibrokerd.net.outgoing import frame_of
from support.quiet_shell import QuietShell, Waiter

WELCOME = octets("""
    000000a3 94 c4 82  # payload: 163 bytes; header: 130
    8a a2 6f70 a7 77656c636f6d65  # map of 10: "op": "welcome"
    a7 73657373696f6e cf 0000010000000001 a5 65706f6368 01  # "session": 0x10000000001, "epoch": 1
    ac 6865617274626561745f6d73 cd 2710  # "heartbeat_ms": 10,000
    af 6d61785f6672616d655f6279746573 ce 00800000  # "max_frame_bytes": 8,388,608
    b1 6d61785f6d6573736167655f6279746573 ce 00080000  # "max_message_bytes": 524,288
    a4 6c6f7374 01 a5 6b6e6f776e c2  # "lost": 1, "known": false
    a6 736563726574 c402 7365 a7 76657273696f6e a1 31  # "secret": bin of 2, "version": "1"
    c4 18  # columns: 24
    0300000000010000 01000000  # token, origin
    0500000000000000 01000000  # first 5, count 1
    c4 00 c4 00  # no lengths, no blob
""")
CONFIRM_LOST = octets("""
    0000004e 94 c4 2d  # payload: 78 bytes; header: 45
    83 a2 6f70 a7 636f6e6669726d  # map of 3: "op": "confirm"
    a7 726573756c7473 92 81 a4 6c6f7374 00 81  # "results": list of 2: map of 1: "lost": 0, map of 1
    a4 6c6f7374 01  # "lost": 1
    a8 73657175656e6365 01  # "sequence": 1
    c4 18  # columns: 24
    0300000000010000 01000000  # the lost run of the second: token, origin
    0100000000000000 01000000  # first 1, count 1
    c4 00 c4 00  # no lengths, no blob
""")
DELIVER_MARKED = octets("""
    000000ba 94 c4 4d  # payload: 186 bytes; header: 77
    88 a2 6f70 a7 64656c69766572 a5 7175657565 a1 71  # map of 8: "op": "deliver", "queue": "q"
    a5 746f6b656e cf 0000010000000003  # "token": 0x10000000003
    a8 6c656173655f6d73 cd 7530  # "lease_ms": 30,000
    a5 636f756e74 03 a4 72756e73 02 a5 6b65796564 c3  # "count": 3, "runs": 2, "keyed": true
    a8 636f6e73756d6572 01  # "consumer": 1
    c4 45  # columns: 69
    01000000 0000000000000000 02000000  # origin 1, first 0, count 2
    01000000 00 01 0068e5cf8b010000  # attempt 1, not marked, msgpack, 1,700,000,000,000
    02000000 0900000000000000 01000000  # origin 2, first 9, count 1
    03000000 01 00 0168e5cf8b010000  # attempt 3, marked, bytes, 1 ms later
    01000000 00000000 6b  # keys: "k", none
    c4 18  # lengths: 24
    00000000 01000000 02000000 01000000  # headers of 0, 2, 0; bodies of 1, 1, 3
    00000000 03000000
    c4 07  # blob: 7
    07 81c0 08 78797a  # 7; headers, 8; xyz
""")
DELIVER_NONE = octets("""
    0000004b 94 c4 42  # payload: 75 bytes; header: 66
    88 a2 6f70 a7 64656c69766572 a7 72657175657374 01  # map of 8: "op": "deliver", "request": 1
    a5 7175657565 a1 71  # "queue": "q" (the answer to a receive that got nothing)
    a5 746f6b656e 00 a8 6c656173655f6d73 00 a5 636f756e74 00  # "token": 0, "lease_ms": 0, "count": 0
    a4 72756e73 00 a5 626567756e c3  # "runs": 0, "begun": true
    c4 00 c4 00 c4 00  # no columns, no lengths, no blob
""")
REPLY = octets("""
    0000002d 94 c4 24  # payload: 45 bytes; header: 36
    83 a2 6f70 a5 7265706c79 a7 72657175657374 01  # map of 3: "op": "reply", "request": 1
    a5 76616c7565 81 a6 707572676564 cd 0400  # "value": map of 1: "purged": 1,024
    c4 00 c4 00 c4 00  # no columns, no lengths, no blob
""")
MESSAGES = octets("""
    0000007e 94 c4 1d  # payload: 126 bytes; header: 29
    83 a2 6f70 a8 6d65737361676573 a7 72657175657374 01  # map of 3: "op": "messages", "request": 1
    a5 636f756e74 01  # "count": 1
    c4 4e  # columns: 78
    4a000000 86  # info: a string of 74 bytes, a map of 6
    a6 6f726967696e 01 a8 73657175656e6365 05  # "origin": 1, "sequence": 5
    a5 7374617465 a5 5245414459  # "state": "READY"
    a8 656e636f64696e67 00 a3 6b6579 a1 6b  # "encoding": 0, "key": "k"
    b1 7075626c69736865645f756e69785f6d73 cf 0000018bcfe56800  # "published_unix_ms": 0x18bcfe56800
    c4 08  # lengths: 8
    00000000 02000000  # no headers, a body of 2 bytes
    c4 02  # blob: 2
    6869  # hi
""")
ERROR = octets("""
    00000047 94 c4 3e  # payload: 71 bytes; header: 62
    86 a2 6f70 a5 6572726f72 a4 636f6465 a4 62757379  # map of 6: "op": "error", "code": "busy"
    a4 74657874 a4 66756c6c  # "text": "full"
    a9 726574727961626c65 c3 a8 72657472795f6d73 cd 03e8  # "retryable": true, "retry_ms": 1,000
    a7 72657175657374 01  # "request": 1
    c4 00 c4 00 c4 00  # no columns, no lengths, no blob
""")
SERVER_GOODBYE = octets("""
    0000001e 94 c4 15  # payload: 30 bytes; header: 21
    82 a2 6f70 a7 676f6f64627965 a4 74657874 a3 627965  # map of 2: "op": "goodbye", "text": "bye"
    c4 00 c4 00 c4 00  # no columns, no lengths, no blob
""")


ONE = (
    b"\xc4\x00\xc4\x10" + bytes(4) + b"\x01\0\0\0\x02\0\0\0\x01\0\0\0" + b"\xc4\x04\x07\x81\xc0\x08"
)
TWO = b"\xc4\x00\xc4\x10" + bytes(4) + b"\x02\0\0\0" + bytes(4) + b"\x03\0\0\0" + b"\xc4\x05zzxyz"
HI = b"\xc4\x00\xc4\x08" + bytes(4) + b"\x02\0\0\0" + b"\xc4\x02hi"


def block(origin: int, first: int, count: int, tail: bytes) -> Block:
    """Return published messages."""
    extent = BodyStore().extent(Record(4, b"", tail), 0)
    return Block(origin, first, count, extent, extent.sizes(count), 0, None, 0, 1, UNIX_MS, 0, 1)


MARKED_BODIES = [(block(1, 0, 2, ONE), 0, 2), (block(2, 8, 2, TWO), 9, 10)]
INFO = {"origin": 1, "sequence": 5, "state": "READY", "encoding": 0, "key": "k"}
DELIVERED = {"op": "deliver", "queue": "q", "token": TOKEN}

# The frame, its header in the order in which the server makes it, and its messages.
SERVER: dict[str, tuple[bytes, dict[str, Any], list[tuple[Block, int, int]]]] = {
    "welcome": (
        WELCOME,
        {
            "op": "welcome",
            "session": 0x10000000001,
            "epoch": 1,
            "heartbeat_ms": 10_000,
            "max_frame_bytes": 8 * 1024 * 1024,
            "max_message_bytes": 512 * 1024,
            "lost": 1,
            "known": False,
            "secret": b"se",
            "version": "1",
        },
        [],
    ),
    "confirm": (
        CONFIRM,
        {
            "op": "confirm",
            "results": [{"origin": 1, "first": 0, "durability": "sync"}],
            "sequence": 1,
        },
        [],
    ),
    "confirm, lost": (
        CONFIRM_LOST,
        {"op": "confirm", "results": [{"lost": 0}, {"lost": 1}], "sequence": 1},
        [],
    ),
    "deliver": (
        DELIVER,
        DELIVERED
        | {"lease_ms": 43_200_000, "count": 2, "runs": 2, "keyed": True, "consumer": 2**32 - 1},
        [
            (
                block(
                    1, 0, 2, b"\xc4\x00\xc4\x10" + 2 * (bytes(4) + b"\x01\0\0\0") + b"\xc4\x02x\x07"
                ),
                0,
                2,
            )
        ],
    ),
    "deliver, marked": (
        DELIVER_MARKED,
        DELIVERED | {"lease_ms": 30_000, "count": 3, "runs": 2, "keyed": True, "consumer": 1},
        MARKED_BODIES,
    ),
    "deliver, none": (
        DELIVER_NONE,
        {"op": "deliver", "request": 1, "queue": "q", "token": 0, "lease_ms": 0}
        | {"count": 0, "runs": 0, "begun": True},
        [],
    ),
    "reply": (REPLY, {"op": "reply", "request": 1, "value": {"purged": 1_024}}, []),
    "messages": (
        MESSAGES,
        {"op": "messages", "request": 1, "count": 1},
        [(block(1, 5, 1, HI), 5, 6)],
    ),
    "error": (
        ERROR,
        {"op": "error", "code": "busy", "text": "full", "retryable": True}
        | {"retry_ms": 1_000, "request": 1},
        [],
    ),
    "pong": (PONG, {"op": "pong", "request": 200}, []),
    "goodbye": (SERVER_GOODBYE, {"op": "goodbye", "text": "bye"}, []),
}


@pytest.mark.parametrize("name", SERVER)
def test_the_server_writes_the_bytes_of_the_protocol(name: str) -> None:
    """Also lengths and blob, which are cut out of what was published."""
    golden, header, bodies = SERVER[name]
    assert b"".join(frame_of(header, bins(golden[4:])[1], bodies)) == golden


@pytest.mark.parametrize("name", SERVER)
def test_the_client_reads_every_field(name: str) -> None:
    """Byte by byte, one and a half frames at a time, and two in one chunk."""
    golden, header, _ = SERVER[name]
    for chunk in (1, 3, len(golden) + 9, 2 * len(golden)):
        reader, found = wire.FrameReader(), []
        for at in range(0, 2 * len(golden), chunk):
            found += reader.feed((2 * golden)[at : at + chunk])
        contents = [(each.header, each.columns, each.lengths, each.blob) for each in found]
        assert contents == 2 * [(header, *bins(golden[4:])[1:])]


@pytest.mark.parametrize("name", SERVER)
def test_the_client_refuses_what_is_cut_or_has_bytes_behind_it(name: str) -> None:
    """A frame that ends elsewhere than its length says is none."""
    payload = SERVER[name][0][4:]
    for wrong in (*(payload[:end] for end in range(len(payload))), payload + b"\x00"):
        with pytest.raises(ProtocolError):
            wire.FrameReader().feed(prefixed(wrong))


def welcomed() -> Session:
    """Return a client's session that got the golden welcome."""
    session = Session("w", QuietShell(), lambda settlements: None)
    assert session.login() == HELLO
    (event,) = session.receive(WELCOME)
    assert isinstance(event, Welcomed)
    return session


def answered(golden: bytes) -> Answered:
    """Return what a session makes of the answer to its first request."""
    session = welcomed()
    assert session.request("stats", {}, "waiter") == 1
    (event,) = session.receive(golden)
    assert isinstance(event, Answered)
    assert event.waiter == "waiter"
    return event


def test_the_session_takes_the_welcome() -> None:
    session = welcomed()
    assert (session.session_id, session.secret) == (0x10000000001, b"se")
    assert (session.heartbeat_ms, session.is_open) == (10_000, True)
    assert (session.max_frame_bytes, session.max_message_bytes) == (2**23, 2**19)


def test_the_session_writes_the_golden_publish_and_takes_its_confirm() -> None:
    session = welcomed()
    group = session.outbox.start(("q", 30_000), 0)
    group.add_many(Waiter(), b"", [b"hi"], bytes(1), b"", 0)
    assert session.flush(0) == [PUBLISH]
    assert session.receive(CONFIRM) == [Published(group, 1, 0, "sync")]


def test_the_session_takes_a_delivery_apart() -> None:
    """Origin, sequence, attempt, mark, encoding, instant, key, headers and body of each message."""
    session = welcomed()
    session.consumers.add(1)
    (event,) = session.receive(DELIVER_MARKED)
    assert isinstance(event, Delivered)
    delivery = event.delivery
    assert (delivery.queue, delivery.token, delivery.lease_ms) == ("q", TOKEN, 30_000)
    found = [
        (
            one.run.origin,
            one.sequence,
            one.run.attempt,
            one.run.marked,
            one.run.encoding,
            one.run.published_unix_ms - UNIX_MS,
            one.run.key,
            one._headers,
            one.raw,
        )
        for one in delivery.messages
    ]
    assert found == [
        (1, 0, 1, False, 1, 0, "k", b"", b"\x07"),
        (1, 1, 1, False, 1, 0, "k", b"\x81\xc0", b"\x08"),
        (2, 9, 3, True, 0, 1, None, b"", b"xyz"),
    ]


def test_the_session_takes_the_answers_to_its_requests() -> None:
    """Reply, messages, error, and a deliver that has nothing, each by its number."""
    assert answered(REPLY).value == {"purged": 1_024}
    (peeked,) = answered(MESSAGES).value
    assert (peeked.info, peeked.raw) == (INFO | {"published_unix_ms": UNIX_MS}, b"hi")
    error = answered(ERROR).error
    assert isinstance(error, Busy)
    assert (str(error), error.retry_ms, error.retryable) == ("full", 1_000, True)
    assert answered(DELIVER_NONE).value.messages == []


def test_the_session_hears_the_goodbye_and_passes_over_a_pong() -> None:
    events: list[Event] = welcomed().receive(PONG + SERVER_GOODBYE)
    assert events == [Leaving("bye")]
