"""TLS on buffers: a tunnel between two values, and the layer that the server puts under its connections."""

from __future__ import annotations

import ssl
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minibroker.shell.tunnel import Tunnel
from minibrokerd.net.tls import MAX_HANDSHAKE_BYTES, SealedTransport, Tls, TlsFiles
from minibrokerd.net.turns import HANDSHAKE, Turns
from support.certificates import Authority

MIB = 1024 * 1024


class Loop:
    """A loop that the test turns."""

    def __init__(self) -> None:
        self.ready: deque[Callable[[], object]] = deque()

    def call_soon(self, call: Callable[[], object]) -> None:
        """Call it in a later turn."""
        self.ready.append(call)

    def turn(self) -> None:
        """Do what is ready now."""
        for _ in range(len(self.ready)):
            self.ready.popleft()()


class Wire:
    """The transport of a socket."""

    def __init__(self) -> None:
        self.out = b""
        self.high = 0
        self.closing = self.aborted = False

    def write(self, data: bytes) -> None:
        """Take bytes."""
        assert not self.closing
        self.out += data

    def set_write_buffer_limits(self, high: int) -> None:
        """Take the limit."""
        self.high = high

    def get_write_buffer_size(self) -> int:
        """Return what the peer has not read: all of it, until `take`."""
        return len(self.out)

    def get_extra_info(self, name: str, default: object = None) -> object:
        """There is a socket, which nobody may have."""
        return f"the {name}"

    def is_closing(self) -> bool:
        """Whether it was closed."""
        return self.closing

    def close(self) -> None:
        """Close it."""
        self.closing = True

    def abort(self) -> None:
        """End it."""
        self.closing = self.aborted = True

    def take(self) -> bytes:
        """Read all that was written."""
        out, self.out = self.out, b""
        return out


class Plain:
    """The connection above the layer."""

    def __init__(self) -> None:
        self.transport: Any = None
        self.heard = b""
        self.failed = ""
        self.refused = b""

    def connection_made(self, transport: Any) -> None:
        """Take the transport."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Take bytes."""
        self.heard += data

    def eof_received(self) -> bool | None:
        """Note nothing."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Note nothing."""

    def pause_writing(self) -> None:
        """Note nothing."""

    def resume_writing(self) -> None:
        """Note nothing."""

    def refuse_plain(self, transport: Any, first: bytes) -> None:
        """Take what is no TLS."""
        self.refused = first

    def tls_failed(self, text: str) -> None:
        """Take why."""
        self.failed = text


class World:
    """One layer with a client at its other end."""

    def __init__(self, files: tuple[Path, Path], ca: Path) -> None:
        self.loop = Loop()
        self.wire, self.plain = Wire(), Plain()
        tls = Tls(TlsFiles(*files))
        self.turns = Turns(self.loop)  # type: ignore[arg-type]
        self.layer = SealedTransport(self.plain, tls.context, self.turns)
        self.layer.connection_made(self.wire)  # type: ignore[arg-type]
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.context.load_verify_locations(ca)
        self.client = Tunnel(self.context, server_name="localhost")

    def give(self, data: bytes, step: int = 0) -> None:
        """Deliver bytes, whole or in steps."""
        for at in range(0, len(data), step or len(data) or 1):
            self.layer.data_received(data[at : at + (step or len(data))])
            self.loop.turn()

    def shake(self, step: int = 0) -> bytes:
        """Shake hands; return what came for the client."""
        self.client.shake()
        heard = b""
        while not self.client.is_open:
            self.give(self.client.take(), step)
            heard += self.client.received(self.wire.take())
        self.give(self.client.take(), step)
        return heard


@pytest.fixture
def world(authority: Authority, server_files: tuple[Path, Path]) -> World:
    """A layer and its client."""
    return World(server_files, authority.cert)


@pytest.mark.parametrize("step", [0, 1, 7])
def test_bytes_arrive_as_they_were_however_they_are_cut(world: World, step: int) -> None:
    """Both ways, also in one piece with the end of the handshake."""
    world.shake(step)
    sent = bytes(range(256)) * 200
    world.give(world.client.seal(sent), step)
    assert world.plain.heard == sent
    world.plain.transport.write(b"alone")
    world.plain.transport.writelines([b"in", memoryview(b"two"), sent])
    assert world.client.received(world.wire.take()) == b"aloneintwo" + sent


def test_what_waits_is_what_was_given(world: World) -> None:
    """The output limits go by the size of the buffer: sealed bytes, a little more than plain ones."""
    world.shake()
    world.plain.transport.set_write_buffer_limits(high=MIB)
    assert world.wire.high == MIB
    for count in range(1, 5):
        world.plain.transport.write(b"x" * MIB)
        size = world.plain.transport.get_write_buffer_size()
        assert count * MIB < size < count * MIB * 1.01


def test_nobody_gets_at_the_socket(world: World) -> None:
    """A confirm that goes to the bare descriptor would be plain text in the stream."""
    assert world.plain.transport.get_extra_info("socket") is None
    assert world.plain.transport.get_extra_info("peername") == "the peername"


def test_nothing_leaves_in_the_clear_before_the_handshake(world: World) -> None:
    """A refusal for want of descriptors, the farewell of a stop."""
    world.plain.transport.write(b"busy")
    assert world.wire.take() == b""
    world.shake()
    world.plain.transport.write(b"now")
    assert world.client.received(world.wire.take()) == b"now"


def test_handshakes_take_turns(authority: Authority, server_files: tuple[Path, Path]) -> None:
    """One step in each turn of the loop, whoever comes at once."""
    first = World(server_files, authority.cert)
    others = [World(server_files, authority.cert) for _ in range(4)]
    turns = Turns(first.loop)  # type: ignore[arg-type]
    for each in (first, *others):
        each.layer._turns = turns
        each.client.shake()
        each.layer.data_received(each.client.take())
    answered = []
    for _ in range(5):
        answered.append(sum(bool(each.wire.out) for each in (first, *others)))
        first.loop.turn()
    assert answered == [1, 2, 3, 4, 5]


def test_what_is_no_handshake_is_handed_back(world: World) -> None:
    """By its first byte."""
    world.give(b"\0\0\0\x10\x94")
    assert world.plain.refused == b"\0\0\0\x10\x94"
    assert not world.wire.out


def test_garbage_behind_a_first_byte_ends_the_connection(world: World) -> None:
    """With an alert for the peer, and a reason for the log."""
    world.give(b"\x16\x03\x01\x00\x05garbage and more of it")
    assert world.plain.failed
    assert world.wire.take()[:1] == b"\x15"
    assert world.wire.closing
    world.give(b"more")
    assert not world.plain.heard


def test_a_handshake_without_end_is_cut(world: World) -> None:
    """Its bytes are counted, however slowly its turn comes."""
    world.turns.take(lambda: None, HANDSHAKE)  # another one has this turn
    for _ in range(MAX_HANDSHAKE_BYTES // 4_096 + 2):
        world.layer.data_received(b"\x16\x03\x01\x0f\xfb" + bytes(4_091))
    assert "more than" in world.plain.failed
    assert world.wire.closing


def test_a_forged_record_ends_the_connection(world: World) -> None:
    """Nothing of it is heard."""
    world.shake()
    sealed = bytearray(world.client.seal(b"ack everything"))
    sealed[-1] ^= 1
    world.give(bytes(sealed))
    assert world.plain.failed
    assert world.plain.heard == b""
    assert world.wire.closing


def test_both_ends_say_goodbye(world: World) -> None:
    """So that a cut stream is not taken for a whole one."""
    world.shake()
    world.plain.transport.write(b"last words")
    world.plain.transport.close()
    assert world.wire.closing
    assert world.client.received(world.wire.take()) == b"last words"
    assert world.client.is_over


def test_the_peer_says_goodbye(world: World) -> None:
    """What came before it counts."""
    world.shake()
    world.give(world.client.seal(b"ack") + world.client.goodbye())
    assert world.plain.heard == b"ack"
    assert world.wire.closing
