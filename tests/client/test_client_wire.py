"""protocol.md, section 3: frames as bytes, in both directions."""

from __future__ import annotations

import struct

import pytest

from minibroker.contract import limits, wire
from minibroker.contract.errors import ProtocolError
from minibroker.session.delivery import unpack_delivery
from minibroker.session.message import MessageData
from minibroker.session.outbox import MESSAGE_RESERVE, Outbox, PublishGroup
from minibroker.session.settlements import Settlements

# length 32 | array of 4 | bin 18: map of 2, "op": "pong", "request": 7 | bin 2 | bin 0 | bin 3
VECTOR = bytes.fromhex(
    "00000020 94 c412 82 a26f70 a4706f6e67 a772657175657374 07 c4026162 c400 c40378797a"
)


def contents(frames: list[wire.Frame]) -> list[tuple[object, ...]]:
    return [(frame.header, frame.columns, frame.lengths, frame.blob) for frame in frames]


PONG = ({"op": "pong", "request": 7}, b"ab", b"", b"xyz")


def test_a_frame_is_written_as_the_protocol_says() -> None:
    """A golden vector, written by hand."""
    assert wire.pack_frame({"op": "pong", "request": 7}, b"ab", b"", b"xyz") == VECTOR


@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 7, 1_000])
def test_frames_are_cut_wherever_the_stream_is(chunk: int) -> None:
    """Whole, byte by byte, and with the start of the next frame behind them."""
    frame = wire.pack_frame({"op": "pong", "request": 7}, b"ab", b"", b"xyz")
    stream = frame * 3 + frame[:9]
    reader, frames = wire.FrameReader(), []
    for at in range(0, len(stream), chunk):
        frames += reader.feed(stream[at : at + chunk])
    assert contents(frames) == [PONG] * 3
    assert contents(reader.feed(frame[9:])) == [PONG]


def test_a_large_frame_in_chunks_is_joined_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """16 MiB in chunks of 256 KiB must not be copied for each chunk."""
    frame = wire.pack_frame({"op": "deliver"}, b"", b"", bytes(8 * 1024 * 1024))
    cut, sizes = wire.FrameReader._cut, []

    def noted(self: wire.FrameReader, data: bytes) -> list[wire.Frame]:
        sizes.append(len(data))
        return cut(self, data)

    monkeypatch.setattr(wire.FrameReader, "_cut", noted)
    reader, frames = wire.FrameReader(), []
    for at in range(0, len(frame), 256 * 1024):
        frames += reader.feed(frame[at : at + 256 * 1024])
    assert len(frames) == 1
    assert sizes == [256 * 1024, len(frame)]


def test_an_excessive_length_is_refused_on_the_prefix() -> None:
    with pytest.raises(ProtocolError, match="exceeds"):
        wire.FrameReader().feed(struct.pack(">I", limits.MAX_FRAME_BYTES + 1))


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x94",
        b"\x91\xc4\x00",
        b"\x94\xc4\x01\x01\xc4\x00\xc4\x00\xc4\x00",  # the header is a number
        b"\x94\xc4\x02\x80\x80\xc4\x00\xc4\x00\xc4\x00",  # something follows it
        b"\x94\xc4\x03\x81\x01\x01\xc4\x00\xc4\x00\xc4\x00",  # a key is a number
        b"\x94\xc4\x01\x80\xa0\xc4\x00\xc4\x00",  # a string where bytes should be
        b"\x94\xc4\x01\x80\xc4\x00\xc4\x00\xc4\x00\x00",
        b"\x95\xc4\x01\x80\xc4\x00\xc4\x00\xc4\x00\xc4\x00",
        b"\xc1",
        b"\x80",
    ],
)
def test_what_is_no_frame_is_a_protocol_error(payload: bytes) -> None:
    with pytest.raises(ProtocolError):
        wire.read_payload(payload)


def test_a_header_takes_subclasses_for_what_they_are() -> None:
    """As the safe strings of web frameworks, or numbers of an enumeration; of a header nothing else is."""

    class Text(str):
        def __str__(self) -> str:
            return "another"

    class Octets(bytes): ...

    class Number(int): ...

    class Share(float): ...

    said = {Text("queue"): Text("q"), "parts": [Octets(b"x"), Number(3), Share(0.5), True]}
    plain = {"queue": "q", "parts": [b"x", 3, 0.5, True]}
    assert wire.pack_header(said) == wire.pack_header(plain)
    with pytest.raises(TypeError, match="a header cannot hold object"):
        wire.pack_header({"queue": object()})


def test_string_columns_come_back() -> None:
    column = wire.pack_strings([b"a", b"", b"xyz"])
    assert column == bytes.fromhex("01000000 00000000 03000000 61 78 79 7a".replace(" ", ""))
    assert wire.unpack_strings(column + b"rest", 3) == ([b"a", b"", b"xyz"], len(column))
    with pytest.raises(ProtocolError):
        wire.unpack_strings(column[:-1], 3)


# ---- publish frames ----


def sent(group: PublishGroup) -> wire.Frame:
    [frame] = wire.FrameReader().feed(group.pack(3, 2))
    return frame


def test_what_all_messages_share_stands_in_the_header() -> None:
    """protocol.md, publish: a golden vector written by hand."""
    group = Outbox().start(("q", 1_000), 0)
    group.add(None, b"", b"abc", 0, b"k", 5)
    group.add(None, b"H", b"d", 0, b"k", 5)
    frame = sent(group)
    assert frame.header == {
        "parts": [{"op": "publish", "queue": "q", "count": 2, "delay_ms": 5, "key": "k"}],
        "sequence": 3,
        "answered_below": 2,
    }
    assert (frame.columns, frame.blob) == (b"", b"abcHd")
    assert frame.lengths == bytes.fromhex("00000000030000000100000001000000")


def test_what_differs_stands_in_columns() -> None:
    group = Outbox().start(("q", 1_000), 0)
    group.add(None, b"", b"a", 0, b"", 0)
    group.add(None, b"", b"b", 1, b"", 7)
    group.add_many(None, b"", [b"c", b"d"], b"\x01\x00", b"key", 0)
    frame = sent(group)
    part = {"op": "publish", "queue": "q", "count": 4, "columns": ["delay_ms", "key", "encoding"]}
    assert frame.header["parts"] == [part]
    keys = wire.pack_strings([b"", b"", b"key", b"key"])
    assert frame.columns == struct.pack("<4Q", 0, 7, 0, 0) + keys + b"\x00\x01\x01\x00"


def test_a_later_message_without_delay_does_not_inherit_one() -> None:
    group = Outbox().start(("q", 1_000), 0)
    group.add_many(None, b"", [b"c", b"d"], b"\x00\x00", b"", 9)
    group.add(None, b"", b"e", 0, b"", 0)
    assert sent(group).columns == struct.pack("<3Q", 9, 9, 0)


class Waiter:
    """Stands for a caller's future."""

    def __init__(self, gone: bool) -> None:
        self.gone = gone

    def cancelled(self) -> bool:
        return self.gone


def test_messages_of_cancelled_callers_are_taken_out() -> None:
    group = Outbox().start(("q", 1_000), 0)
    group.add(Waiter(False), b"", b"a", 0, b"", 0)
    group.add(Waiter(True), b"h", b"b", 1, b"k", 7)
    group.add_many(Waiter(False), b"h", [b"c", b"d"], b"\x00\x00", b"", 0)
    group.add_many(Waiter(True), b"", [b"e", b"f"], b"\x00\x01", b"", 0)
    group.drop_withdrawn()
    frame = sent(group)
    assert frame.header["parts"] == [{"op": "publish", "queue": "q", "count": 3}]
    assert frame.blob == b"ahchd"
    assert [type(entry) for entry in group.waiters] == [Waiter, tuple]


def test_groups_are_closed_once_later_callers_would_inherit_an_early_deadline() -> None:
    outbox = Outbox()
    group = outbox.start(("q", 30_000), 1_000)
    outbox.close_older(1_050)
    assert outbox.open == {("q", 30_000): group}
    outbox.close_older(1_200)
    assert outbox.open == {}
    assert list(outbox.groups) == [group]


def test_many_plain_bodies_are_as_if_each_had_been_added() -> None:
    """Whatever comes behind them; `Queue.publish` appends nothing unseen, as it counts calls, not messages."""
    many, each = Outbox().start(("q", 1_000), 0), Outbox().start(("q", 1_000), 0)
    many.add_many(None, b"", [b"a", b"bc"], bytes(2), b"", 0)
    assert many.plain_bytes < 0
    many.add_many(None, b"", [b"d"], bytes(1), b"", 0)
    for body in (b"a", b"bc", b"d"):
        each.add(None, b"", body, 0, b"", 0)
    assert contents([sent(many)]) == contents([sent(each)])
    assert many.count == each.count
    for group in (many, each):
        group.add(None, b"H", b"e", 1, b"k", 7)
    assert contents([sent(many)]) == contents([sent(each)])
    assert (many.size, many.cost) == (each.size, each.cost)


def test_names_of_many_plain_bodies_are_told() -> None:
    group = Outbox().start(("q", 1_000), 0)
    group.add_many(None, b"", [b"a", b"b"], bytes(2), b"", 0)
    group.name_last([(b"one", b""), (b"two", b"")])
    frame = sent(group)
    assert frame.header["parts"][0]["columns"] == ["unique_key"]
    assert (frame.blob, len(frame.lengths)) == (b"ab", 16)


@pytest.mark.parametrize("sizes", [(5, 5), (5, 6)])
@pytest.mark.parametrize("headers", [b"", b"H"])
@pytest.mark.parametrize("count", [1, 2, 16, 40])
def test_messages_are_cut_out_of_a_delivery(
    count: int, headers: bytes, sizes: tuple[int, int]
) -> None:
    """All of one size or not, in two runs."""
    bodies = [b"%d" % (number % 10) * sizes[number % 2] for number in range(count)]
    middle = count // 2
    rows = [(1, 7, middle, 1, 0, 0, 5), (1, 90, count - middle, 2, 0, 0, 6)]
    columns = b"".join(wire.DELIVERY_RUN.pack(*row) for row in rows)
    lengths = b"".join(struct.pack("<II", len(headers), len(body)) for body in bodies)
    header = {"queue": "q", "token": 3, "lease_ms": 9, "count": count, "runs": len(rows)}
    frame = wire.Frame(header, columns, lengths, b"".join(headers + body for body in bodies))
    settlements = Settlements("q", {}, lambda settlements: None)
    delivery = unpack_delivery(frame, settlements, None, MessageData)
    assert [message.body for message in delivery.messages] == bodies
    assert [message._headers for message in delivery.messages] == [headers] * count
    told = [(message.sequence, message.attempt) for message in delivery.messages]
    first = [(7 + at, 1) for at in range(middle)]
    assert told == first + [(90 + at, 2) for at in range(count - middle)]
    cut, long = wire.Frame(header, columns, lengths[:-1], frame.blob), frame
    long.blob += b"x"
    for wrong in (cut, long):
        with pytest.raises(ProtocolError):
            unpack_delivery(wrong, settlements, None, MessageData)


def test_what_says_nothing_else_is_only_appended_to_a_group() -> None:
    group = PublishGroup(("q", 1_000), 0, plain_bytes=10)
    group.add("first", b"", b"body", 0, b"", 0)
    assert (group.plain, group.blob, group.waiters) == (True, [b"body"], ["first"])
    assert group.takes(1, 10 + MESSAGE_RESERVE, most_bytes=1_000)
    group.add("second", b"", bytes(11), 0, b"", 0)  # as many of these might not have room
    assert (group.plain, group.blob) == (False, [b"", b"body", b"", bytes(11)])
    assert group.cost == 4 + 11 + 2 * MESSAGE_RESERVE
    assert not group.takes(1, MESSAGE_RESERVE, most_bytes=group.cost)
