"""protocol.md, section 3, as the server reads it: golden frames, and what becomes of them cut, grown, damaged."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any
from zlib import crc32

import frame_octets
import msgspec
import pytest
from frame_bins import bins, changed, joined
from frame_vectors import CLIENT, TOKEN, UNIX_MS, Vector, run
from hand import Hand, Peer, frame, part, prefixed
from hypothesis import given
from hypothesis import strategies as st

from minibroker.contract import wire
from minibrokerd.bodies.memory_extents import MemoryExtent
from minibrokerd.bodies.store import BodyStore
from minibrokerd.bodies.tails import split_bins
from minibrokerd.core.core import Core
from minibrokerd.core.model.columns import read_columns
from minibrokerd.core.model.inputs import (
    Command,
    Disconnected,
    Frame,
    Hello,
    Resume,
    Synced,
    Tick,
)
from minibrokerd.core.verbs.runs import read_errors, read_runs
from minibrokerd.log.seam import Batch, Record
from minibrokerd.net.frames import BadFrame, read_frame
from minibrokerd.net.outgoing import frame_of
from support.hypothesis_budget import fuzz_settings


def values_of(columns: memoryview, parts: list[Any]) -> tuple[Any, ...]:
    """Return what the decoders of the core read in the columns of all parts, and that nothing is left over."""
    values: list[Any] = []
    at = 0
    for each in parts:
        if each.row.op == "publish":
            read = read_columns(each, columns, each.count)
            values.append(tuple(list(column) for column in read.values()))
            at = len(columns)
        elif hasattr(each, "runs"):
            values.append(read_runs(columns[at:], each.runs))
            at += wire.RUN.size * each.runs
            if each.row.errors:
                errors, used = read_errors(columns[at:], each.runs)
                values.append(list(errors))
                at += used
    assert at == len(columns)
    return tuple(values)


def messages_of(frame: Frame) -> tuple[tuple[bytes, bytes], ...]:
    """Return headers and body of each message of a publish."""
    if frame.extent is None:
        return ()
    _, lengths, blob = split_bins(memoryview(frame.extent.tail), 3)
    pieces, at = [], 0
    for size in lengths.cast("I"):
        pieces.append(bytes(blob[at : at + size]))
        at += size
    assert at == len(blob)
    return tuple(zip(pieces[::2], pieces[1::2], strict=True))


def check_fields(frame: Frame, vector: Vector) -> None:
    """Compare everything that was read with the vector."""
    parts = [{"op": each.row.op, **msgspec.structs.asdict(each)} for each in frame.parts]
    assert parts == vector.parts
    assert (frame.request, frame.sequence, frame.answered_below) == vector.numbers
    assert values_of(frame.columns, list(frame.parts)) == vector.columns
    assert messages_of(frame) == vector.messages


def check_tail(frame: Frame, payload: bytes) -> None:
    """What the log keeps of a sequenced frame is all of it but the header, byte for byte."""
    header = bins(payload)[0]
    tail = payload[3 + len(header) :] if frame.sequence is not None else b""
    assert frame.checksum == (crc32(header, crc32(tail)) if tail else 0)
    assert (frame.extent is not None) == (frame.parts[0].row.op == "publish")
    if frame.extent is not None:
        assert (bytes(frame.extent.tail), frame.extent.checksum) == (tail, crc32(tail))
        assert bytes(frame.extent.columns()) == frame.columns
    assert (frame.size, frame.connection, frame.jitter) == (len(payload), 5, 0.25)


@pytest.mark.parametrize("name", CLIENT)
def test_a_frame_of_a_client_is_read_field_by_field(name: str) -> None:
    """As bytes, and as a view, which is how a large one comes."""
    vector = CLIENT[name]
    assert int.from_bytes(vector.octets[:4], "big") == len(vector.payload)
    for payload in (vector.payload, memoryview(vector.payload)):
        read = read_frame(payload, 5, 0.25)
        check_fields(read, vector)
        check_tail(read, vector.payload)


@pytest.mark.parametrize(("head", "size"), [(b"\xc5", 2), (b"\xc6", 4)])
@pytest.mark.parametrize("name", CLIENT)
def test_a_bin_may_have_a_longer_form(name: str, head: bytes, size: int) -> None:
    """protocol.md 3: 0xc4, 0xc5 or 0xc6; the tail is found behind each of them, and the lengths in it."""
    payload = joined(bins(CLIENT[name].payload), head, size)
    read = read_frame(payload, 5, 0.25)
    check_fields(read, CLIENT[name])
    if read.parts[0].row.op == "publish":
        assert isinstance(read.extent, MemoryExtent)
        header, _, lengths, blob = bins(CLIENT[name].payload)
        assert bytes(read.extent.tail) == payload[2 + size + len(header) :]
        assert read.extent.cut(0, read.parts[0].count, 0, len(blob)) == (lengths, blob)


PACE_S = 0.01  # after which settlements alone are synced again


def stage() -> tuple[Hand, Peer]:
    """A server, and a worker who holds the messages 0 to 3 of q; 4 is dead and 5 is ready."""
    hand = Hand()
    hand.server.connections.session_key = bytes(
        32
    )  # so that the secret of a session can stand in a vector
    worker, other = hand.login(), hand.login()
    publish = part("publish", queue="q", count=4)
    other.give(frame(publish, sequence=1, lengths=bytes(32)))
    consume = part("consume", queue="q", consumer=1, prefetch=4)
    answers = worker.give(frame(consume, request=1)).take()
    assert [each.get("token") for each in answers] == [None, TOKEN]
    other.give(frame(publish | {"count": 2}, sequence=2, lengths=bytes(16)))
    other.give(frame(part("receive", queue="q", count=1), request=1))
    dead = wire.pack_runs([run(4, 1, TOKEN + 1)]) + bytes(8)
    hand.loop.now_s += PACE_S
    other.give(frame(part("reject", queue="q", runs=1), sequence=3, columns=dead))
    assert [each["op"] for each in other.take()] == ["confirm", "confirm", "deliver", "confirm"]
    return hand, worker


def sender(vector: Vector, hand: Hand, worker: Peer) -> Peer:
    """Return the connection on which a vector comes."""
    return hand.connect() if vector.is_login else worker


def chunks(size: int, end: int, way: str) -> list[int]:
    """Return where a stream whose first frame ends at `end` is cut."""
    if way == "two frames at once":
        return [size]
    if way == "one and a half":
        return [end + 9, size]
    if way == "byte by byte":
        return list(range(1, size + 1))
    random = Random(way)
    return [*sorted(random.sample(range(1, size), random.randint(1, 9))), size]


WAYS = ["two frames at once", "one and a half", "byte by byte", *map(str, range(8))]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", CLIENT)
def test_a_frame_is_cut_out_of_the_stream(
    name: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However it comes, it is applied once, when its last byte is there; so is the ping behind it."""
    vector = CLIENT[name]
    hand, worker = stage()
    peer = sender(vector, hand, worker)
    submitted: list[Command] = []
    submit = hand.server.engine.submit

    def noted(command: Command) -> None:
        submitted.append(command)
        submit(command)

    monkeypatch.setattr(hand.server.engine, "submit", noted)  # of logins
    monkeypatch.setattr(peer.connection, "_submit", noted)
    stream, at = vector.octets + frame_octets.PING, 0
    for end in chunks(len(stream), len(vector.octets), way):
        hand.loop.now_s += PACE_S
        peer.give(stream[at:end])
        at = end
        assert bool(submitted) == (at >= len(vector.octets))
    check_submitted(submitted[0], vector)
    pong = () if name == "goodbye" else ("pong",)
    ops = [header["op"] for header in peer.take() if "consumer" not in header]
    assert sorted(ops) == sorted(vector.answers + pong)  # a pong waits for no sync
    assert peer.closed == (name == "goodbye")


def check_submitted(command: Command, vector: Vector) -> None:
    """A login is a command of its own, everything else the frame as it was read."""
    if isinstance(command, Frame):
        check_fields(command, vector)
        return
    expected = vector.parts[0]
    assert type(command).__name__.lower() == expected["op"]
    for field in ("session", "client"):
        assert getattr(command, field, None) == expected.get(field)
    if isinstance(command, Resume):
        assert (read_runs(command.runs, expected["runs"]),) == vector.columns


def check_refused(hand: Hand, vector: Vector, payload: bytes, what: str) -> None:
    """One error frame that names no frame, then the end; the others go on."""
    peer = hand.connect() if vector.is_login else hand.login()
    peer.give(prefixed(payload) + frame_octets.PING)
    errors = [(header["op"], header.get("code")) for header in peer.take()]
    assert (errors, peer.closed) == ([("error", "protocol_error")], True), what


@pytest.fixture(scope="module")
def audience() -> tuple[Hand, Peer]:
    """A server that is told many wrong things, and one client who is right."""
    return stage()


def alive(peer: Peer) -> bool:
    """Whether the server still answers a connection."""
    return [header["op"] for header in peer.give(frame_octets.PING).take()] == ["pong"]


@pytest.mark.parametrize("name", CLIENT)
def test_bytes_behind_a_payload_or_in_a_bin_are_refused(
    name: str, audience: tuple[Hand, Peer]
) -> None:
    """protocol.md 3: nothing is left over."""
    vector, (hand, worker) = CLIENT[name], audience
    for byte in (b"\x00", b"\xc0", b"\xff", vector.payload):
        check_refused(hand, vector, vector.payload + byte, "behind the payload")
    for what, payload in changed(vector.payload, cut=False):
        check_refused(hand, vector, payload, what)
    assert alive(worker)


@pytest.mark.parametrize("name", CLIENT)
def test_a_payload_that_is_cut_short_is_refused(name: str, audience: tuple[Hand, Peer]) -> None:
    """At every byte: of the payload, and of each bin, with the lengths around it made right again."""
    vector, (hand, worker) = CLIENT[name], audience
    for end in range(len(vector.payload)):
        with pytest.raises(BadFrame):
            read_frame(vector.payload[:end], 5, 0.25)
        check_refused(hand, vector, vector.payload[:end], f"payload of {end}")
    for what, payload in changed(vector.payload, cut=True):
        check_refused(hand, vector, payload, what)
    assert alive(worker)


@pytest.mark.parametrize("name", CLIENT)
def test_the_array_has_its_short_form_only(name: str, audience: tuple[Hand, Peer]) -> None:
    """protocol.md 3: a payload starts with 0x94."""
    vector, (hand, _) = CLIENT[name], audience
    for head in (b"\xdc\x00\x04", b"\xdd\x00\x00\x00\x04"):
        check_refused(hand, vector, head + vector.payload[1:], head.hex())


def test_columns_stand_in_the_order_of_the_table_only(audience: tuple[Hand, Peer]) -> None:
    """protocol.md 3: names in another order could mean either, and the bytes would be misread."""
    vector, (hand, _) = CLIENT["publish, columns"], audience
    header, _, lengths, blob = bins(vector.payload)
    delay, key, encoding = (b"\xa8delay_ms", b"\xa3key", b"\xa8encoding")
    assert delay + key + encoding in header
    delays, keys, encodings = bytes(24), bytes(12), bytes(3)
    right = joined([header, delays + keys + encodings, lengths, blob])
    assert [each["op"] for each in hand.login().give(prefixed(right)).take()] == ["confirm"]
    header = header.replace(delay + key + encoding, encoding + key + delay)
    for columns in (encodings + keys + delays, delays + keys + encodings):
        check_refused(hand, vector, joined([header, columns, lengths, blob]), "wrong order")


def test_a_frame_has_one_number(audience: tuple[Hand, Peer]) -> None:
    """protocol.md 3: with a sequence and a request, one of the two would wait for ever."""
    vector, (hand, _) = CLIENT["ack"], audience
    header, *others = bins(vector.payload)
    both = b"\x84" + header[1:] + b"\xa7request\x07"
    check_refused(hand, vector, joined([both, *others]), "two numbers")


# -- damaged frames -------------------------------------------------------------------------------


class Broker:
    """A core whose log is safe at once, its frames encoded, and what a restart would find of it."""

    def __init__(self) -> None:
        self.core = Core(BodyStore())
        self.core.opened(1, 1, UNIX_MS, clean=True)
        self.now_ms = 1
        self.batches: list[Batch] = []
        self.sent: dict[int, list[bytes]] = {}

    def apply(self, *commands: Command) -> None:
        """Step the core until nothing more follows from the commands."""
        waiting = list(commands)
        while waiting:
            effects = self.core.apply(waiting.pop(0), self.now_ms, UNIX_MS)
            for outgoing in effects.outgoing:
                data = frame_of(outgoing.header, outgoing.columns, outgoing.bodies)
                self.sent.setdefault(outgoing.connection, []).append(b"".join(data))
            waiting += [Disconnected(connection) for connection in effects.closes]
            if effects.records:
                waiting.append(Synced(self._append(effects.records)))

    def _append(self, records: list[Record]) -> int:
        number = self.core.close_batch()
        self.batches.append(Batch(number, records, self.now_ms, UNIX_MS))
        return number

    def take(self, payload: bytes, connection: int) -> None:
        """Read a payload and apply it; raises BadFrame."""
        self.apply(command_of(read_frame(payload, connection, 0.0)))

    def restart(self) -> None:
        """A new core reads what this one has logged."""
        core = Core(BodyStore())
        for batch in self.batches:
            core.replay(batch)
        core.opened(2, self.now_ms, UNIX_MS, clean=False, next_batch=len(self.batches) + 1)


def command_of(frame: Frame) -> Command:
    """Return a frame, or the login that a connection makes of it; the secret always opens."""
    part = frame.parts[0]
    if len(frame.parts) == 1 and part.row.login is not None:
        login: Command = part.row.login(frame.connection, part, frame.columns, None)
        return login
    return frame


def set_stage() -> Broker:
    """The stage of the vectors: connection 1 holds the messages 0 to 3 of q, connection 2 published them."""
    broker = Broker()
    broker.apply(Hello(1, "w"), Hello(2, "other"))
    broker.take(frame(part("publish", queue="q", count=4), sequence=1, lengths=bytes(32))[4:], 2)
    broker.take(frame(part("consume", queue="q", consumer=1, prefetch=4), request=1)[4:], 1)
    assert TOKEN in broker.core.store.deliveries
    return broker


def test_the_core_makes_the_golden_delivery_of_the_golden_publish() -> None:
    """Bytes in, bytes out: PUBLISH_COLUMNS, CONSUME and 7 ms later DELIVER; PUBLISH and CONFIRM; PING and PONG."""
    broker = Broker()
    broker.apply(Hello(1, "w"), Hello(2, "other"))
    broker.take(CLIENT["publish, columns"].payload, 2)
    broker.now_ms += 7
    broker.apply(Tick())
    broker.sent.clear()
    broker.take(CLIENT["consume"].payload, 1)
    broker.take(CLIENT["ping"].payload, 1)
    assert sorted(broker.sent[1], key=len)[-1] == frame_octets.DELIVER
    assert frame_octets.PONG in broker.sent[1]
    fresh = Broker()
    fresh.apply(Hello(1, "w"))
    fresh.take(frame_octets.PUBLISH[4:], 1)
    assert fresh.sent[1][-1] == frame_octets.CONFIRM


EDITS: dict[str, Callable[[bytearray, int, int], None]] = {
    "flip": lambda data, at, byte: data.__setitem__(at, data[at] ^ (byte or 1)),
    "insert": lambda data, at, byte: data.insert(at, byte),
    "delete": lambda data, at, byte: data.__delitem__(slice(at, at + 1 + byte % 4)),
    "duplicate": lambda data, at, byte: data.__setitem__(
        slice(at, at), data[at : at + 1 + byte % 40]
    ),
}


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A vector with a few wrong bytes: anywhere, or in one bin whose length is right again."""
    payload = CLIENT[draw(st.sampled_from(sorted(CLIENT)))].payload
    contents = bins(payload)
    index = draw(st.sampled_from([None, *(i for i in range(4) if contents[i])]))
    data = bytearray(payload if index is None else contents[index])
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        edit = draw(st.sampled_from(sorted(EDITS)))
        if data:
            EDITS[edit](data, at, draw(st.integers(0, 255)))
    if index is None:
        return bytes(data)
    return joined([*contents[:index], bytes(data), *contents[index + 1 :]])


@st.composite
def noise(draw: st.DrawFn) -> bytes:
    """Bytes that nobody meant, as a payload or in the bins of one."""
    if draw(st.booleans()):
        return draw(st.binary(max_size=80))
    contents = bins(CLIENT[draw(st.sampled_from(sorted(CLIENT)))].payload)
    contents[draw(st.integers(0, 3))] = draw(st.binary(max_size=80))
    return joined(contents)


def survives(payload: bytes) -> None:
    """Give a core a payload, then see that it serves others, and that its log can be read again."""
    broker = set_stage()
    for connection in (1, 3):  # one that holds messages, and one that is new
        try:
            broker.take(payload, connection)
        except BadFrame:
            continue
        broker.apply(Tick())
    broker.sent.clear()
    good = frame(part("publish", queue="good", count=1), sequence=2, lengths=bytes(8))
    broker.take(good[4:], 2)
    (answer,) = (read for sent in broker.sent[2] for read in wire.FrameReader().feed(sent))
    assert (answer.header["op"], answer.header.get("sequence")) == ("confirm", 2)
    broker.restart()


@fuzz_settings()
@given(damaged())
def test_a_damaged_frame_works_or_is_refused(payload: bytes) -> None:
    """Only BadFrame leaves the reader, nothing leaves the core, and no other client notices."""
    survives(payload)


@fuzz_settings()
@given(noise())
def test_noise_is_refused(payload: bytes) -> None:
    """As above, for bytes that come from nowhere."""
    survives(payload)
