"""A crowd of strangers is heard a few in each turn of the loop, and who has logged in waits for one turn only."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hand import Hand, Peer, frame, part

from minibroker.contract.limits import MAX_UNFINISHED_BYTES, STRANGERS_PER_TURN
from minibrokerd.net import turns
from minibrokerd.net.connection import ServerConnection

CROWD = 4 * STRANGERS_PER_TURN
STEPS = [(turn + 1) * STRANGERS_PER_TURN for turn in range(4)]
HELLO = frame(part("hello", protocol=1, client="hand"))
PING = frame(part("ping"), request=1)
OVERSIZED = b"\xff\xff\xff\xff\x94" + bytes(1_000)
CHUNK = 256 * 1024


@pytest.fixture
def hand() -> Hand:
    """A server."""
    return Hand()


def crowd(hand: Hand) -> list[Peer]:
    """Return connections that have said nothing."""
    return [hand.connect() for _ in range(CROWD)]


def closed_by_turn(hand: Hand, peers: list[Peer]) -> list[int]:
    """Return how many are closed now, and after each further turn until nothing is left to do."""
    counts = [sum(peer.closed for peer in peers)]
    while hand.loop.ready:
        hand.loop.turn()
        counts.append(sum(peer.closed for peer in peers))
    return sorted(set(counts))


def test_so_many_are_refused_in_a_turn(hand: Hand) -> None:
    """In the order in which they came; each is told why."""
    peers = crowd(hand)
    for peer in peers:
        peer.give_chunk(OVERSIZED)
    assert [peer.closed for peer in peers] == [at < STRANGERS_PER_TURN for at in range(CROWD)]
    assert closed_by_turn(hand, peers) == STEPS
    assert {peer.take()[0]["code"] for peer in peers} == {"protocol_error"}


def test_so_many_are_told_in_a_turn_that_tls_is_asked_for(hand: Hand) -> None:
    """What more comes of them, while they wait, is not looked at."""
    peers = crowd(hand)
    for peer in peers:
        peer.connection.refuse_plain(peer.transport, HELLO)
        peer.give_chunk(HELLO)
    assert closed_by_turn(hand, peers) == STEPS
    assert [[each["code"] for each in peer.take()] for peer in peers] == [["login_refused"]] * CROWD
    assert hand.connections == 0


def test_so_many_leave_in_a_turn(hand: Hand) -> None:
    """The end of a stranger costs as much as a word of it."""
    peers = crowd(hand)
    assert all(peer.connection.eof_received() for peer in peers)
    assert closed_by_turn(hand, peers) == STEPS


def test_who_has_logged_in_is_served_meanwhile(hand: Hand) -> None:
    """Behind the crowd, in its first turn; and its end is its own."""
    there, peers = hand.login(), crowd(hand)
    for peer in peers:
        peer.give_chunk(OVERSIZED)
    there.give_chunk(PING)
    hand.loop.turn()
    assert [each["op"] for each in there.take()] == ["pong"]
    assert not peers[-1].closed
    assert not there.connection.eof_received()


def test_a_login_that_waits_comes_in_pieces(hand: Hand) -> None:
    """All that came meanwhile is heard at once; no frame of it is taken for one that still arrives."""
    peer, peers = hand.connect(), crowd(hand)
    peer.give_chunk(HELLO[:6])
    for each in peers:
        each.give_chunk(OVERSIZED)
    peer.give_chunk(HELLO[6:9])
    peer.give_chunk(HELLO[9:] + PING)
    assert not peer.take()
    hand.settle()
    assert [each["op"] for each in peer.take()] == ["welcome", "pong"]
    assert peer.connection.frame_since_s is None
    assert hand.server.connections.unfinished.bytes == 0


def test_what_waits_is_bounded(hand: Hand) -> None:
    """As all that is still arriving: a crowd that sends much before its turn takes no memory for it."""
    peers = [hand.connect() for _ in range(MAX_UNFINISHED_BYTES // CHUNK + 2 * STRANGERS_PER_TURN)]
    for peer in peers:
        peer.give_chunk(bytes(CHUNK))
    assert hand.server.connections.unfinished.bytes <= MAX_UNFINISHED_BYTES
    hand.settle()
    assert hand.server.connections.unfinished.bytes == 0
    assert all(peer.closed for peer in peers)


def test_an_error_in_the_turn_of_one_is_not_that_of_the_others(
    hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the loop itself calls a connection: it is logged, and the time for its login ends it."""
    peers = crowd(hand)
    hear, broken = ServerConnection._hear, peers[STRANGERS_PER_TURN].connection

    def breaks(self: Any) -> None:
        if self is broken:
            raise ZeroDivisionError
        hear(self)

    monkeypatch.setattr(ServerConnection, "_hear", breaks)
    logged: list[tuple[str, BaseException]] = []
    noting = SimpleNamespace(error=lambda event, **more: logged.append((event, more["exc_info"])))
    monkeypatch.setattr(turns, "events", noting)
    for peer in peers:
        peer.give_chunk(OVERSIZED)
    hand.settle()
    assert [peer for peer in peers if not peer.closed] == [peers[STRANGERS_PER_TURN]]
    hand.pass_s(7)
    assert peers[STRANGERS_PER_TURN].closed
    ((event, error),) = logged
    assert event == "loop_error"
    assert isinstance(error, ZeroDivisionError)
