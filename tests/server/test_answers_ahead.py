"""An answer that the writer thread sends: all of it leaves once, whoever sends which part."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from hand import Hand, Peer, frame, part

from minibroker.contract.wire import read_payload
from minibrokerd.core.model.effects import Outgoing

LARGE = bytes(range(256)) * 8_192  # more than the buffers of a socket take


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of one connection; the first is the server's."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    yield ours, theirs
    ours.close()
    theirs.close()


@pytest.fixture
def peer(pair: tuple[socket.socket, socket.socket]) -> Peer:
    """A peer that has logged in, with a socket under its transport."""
    peer = Hand().login()
    transport: Any = peer.transport
    transport.get_extra_info = {"socket": pair[0]}.get
    return peer


def answer(peer: Peer, columns: bytes = b"") -> Outgoing:
    """Return a frame for this peer."""
    return Outgoing(peer.connection.number, 0, {"op": "confirm", "sequence": 1}, columns)


def sent(peer: Peer, outgoing: Outgoing) -> bytes:
    """Send a frame as the loop does, and return what its transport got of it."""
    peer.connection.send(outgoing)
    peer.connection.flush()
    taken = bytes(peer.transport.taken + peer.transport.buffer)
    peer.transport.taken.clear()
    return taken


@pytest.mark.parametrize("columns", [b"", LARGE])
def test_what_was_sent_ahead_is_not_sent_again(
    pair: tuple[socket.socket, socket.socket], peer: Peer, columns: bytes
) -> None:
    """All of a small frame, some of a large one."""
    outgoing = answer(peer, columns)
    write = peer.connection.ahead(outgoing)
    write()
    pair[0].setblocking(True)
    rest = sent(peer, outgoing)
    ahead = pair[1].recv(len(LARGE) * 2)
    assert ahead
    assert bool(rest) == bool(columns)
    assert ahead + rest == sent(peer, answer(peer, columns))


def test_a_peer_that_does_not_read_gets_it_from_the_loop(
    pair: tuple[socket.socket, socket.socket], peer: Peer
) -> None:
    """The socket takes nothing: the transport waits for it, as ever."""
    with suppress(BlockingIOError):
        while True:
            pair[0].send(LARGE)
    outgoing = answer(peer)
    peer.connection.ahead(outgoing)()
    assert sent(peer, outgoing) == sent(peer, answer(peer))


def test_nothing_overtakes_what_waits_before_it(peer: Peer) -> None:
    """Neither what the connection keeps, nor what its transport does; and a peer that is gone gets nothing."""
    assert peer.connection.ahead(answer(peer)) is not None
    peer.transport.reads = False
    peer.connection.send(answer(peer))
    assert peer.connection.ahead(answer(peer)) is None
    peer.connection.flush()
    assert peer.connection.ahead(answer(peer)) is None
    peer.transport.reads = True
    peer.transport.read()
    assert peer.connection.ahead(answer(peer)) is not None
    peer.connection.close()
    assert peer.connection.ahead(answer(peer)) is None


def test_the_confirm_of_a_lone_publish_is_sent_by_whoever_synced_it(
    pair: tuple[socket.socket, socket.socket], peer: Peer
) -> None:
    """The fourth in a row: past the transport, and once."""
    one = part("publish", queue="q", count=1)
    for sequence in range(1, 5):
        peer.hand.log.hold = sequence < 4
        lengths = b"\0\0\0\0\2\0\0\0"
        peer.give(
            frame(one, sequence=sequence, answered_below=sequence, lengths=lengths, blob=b"hi")
        )
    assert [each["sequence"] for each in peer.take()] == [1, 2, 3]
    peer.transport.taken += pair[1].recv(4_096)
    (confirm,) = peer.take()
    assert (confirm["op"], confirm["sequence"]) == ("confirm", 4)


def test_a_delivery_does_not_come_between_two_parts_of_a_confirm(
    pair: tuple[socket.socket, socket.socket], peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message that its own publisher waits for; the socket took a part of the confirm from the writer."""
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:5]))
    peer.give(frame(part("consume", queue="q", consumer=1, prefetch=1), request=1)).take()
    for sequence, queue in enumerate(("other", "other", "other", "q"), 1):
        one = part("publish", queue=queue, count=1)
        peer.hand.log.hold = queue != "q"
        lengths = b"\0\0\0\0\2\0\0\0"
        peer.give(
            frame(one, sequence=sequence, answered_below=sequence, lengths=lengths, blob=b"hi")
        )
        if queue != "q":
            peer.take()
    ahead = pair[1].recv(4_096)
    assert len(ahead) == 5
    peer.transport.taken[:0] = ahead
    assert sorted(each["op"] for each in peer.take()) == ["confirm", "deliver"]


def test_a_welcome_is_not_sent_ahead(peer: Peer) -> None:
    """It gets its secret when it is sent."""
    engine = peer.hand.server.engine
    for op, is_ahead in (("welcome", False), ("deliver", False), ("confirm", True)):
        engine._held[engine._under_way] = [Outgoing(peer.connection.number, 0, {"op": op})]
        assert (engine._answer_ahead() is not None) == is_ahead


def test_who_is_cut_off_for_its_silence_is_told_why(
    pair: tuple[socket.socket, socket.socket], peer: Peer
) -> None:
    """protocol.md 4.2: an error frame without a name goes ahead of the end."""
    peer.connection.end("nothing was heard of its session for two heartbeats")
    assert peer.transport.aborted
    frame = read_payload(pair[1].recv(65_536)[4:])
    assert (frame.header["op"], frame.header["code"]) == ("error", "protocol_error")
    assert "two heartbeats" in frame.header["text"]
    assert not {"sequence", "request"} & set(frame.header)
