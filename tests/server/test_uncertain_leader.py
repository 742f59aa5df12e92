"""A broker that may have been deposed without knowing it: nothing leaves it, and its clients go elsewhere."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hand import Hand, Peer, frame, part

from minibroker.contract import wire
from minibrokerd.engine.clock import Clock


class Lease:
    """A leadership in the hand of a test."""

    def __init__(self) -> None:
        self.is_watched: Callable[[], bool] = lambda: False
        self.on_news: Callable[[], object] = lambda: None
        self.is_over = False
        self.renewals = 0

    def renew(self) -> None:
        """Count."""
        self.renewals += 1

    def ends(self, *, is_told: bool = False) -> None:
        """Let it end; a process that stands still is told of nothing."""
        self.is_over = True
        if is_told:
            self.on_news()

    def goes_on(self) -> None:
        """An append was acked."""
        self.is_over = False
        self.on_news()


@pytest.fixture
def lease() -> Lease:
    return Lease()


@pytest.fixture
def hand(lease: Lease) -> Hand:
    return Hand(lease)


def publishing(body: bytes, sequence: int = 1) -> bytes:
    """Return the frame of a publish to q."""
    lengths = b"\0\0\0\0" + len(body).to_bytes(4, "little")
    one = part("publish", queue="q", count=1)
    return frame(one, sequence=sequence, answered_below=sequence, lengths=lengths, blob=body)


def consuming(hand: Hand) -> Peer:
    """Return a peer that consumes q."""
    peer = hand.login()
    peer.give(frame(part("consume", queue="q", consumer=1, prefetch=1), request=1)).take()
    return peer


HELLO = frame(part("hello", protocol=1, client="hand"))


def ops(peer: Peer) -> list[str]:
    """Return what came."""
    return [header["op"] for header in peer.take()]


def test_a_broker_that_stood_still_hands_nothing_out_and_confirms_nothing(
    hand: Hand, lease: Lease
) -> None:
    """The first that it does is to read what waited in its sockets."""
    producer, consumer = hand.login(), consuming(hand)
    producer.give(publishing(b"a"))
    assert ops(producer) == ["confirm"]
    assert ops(consumer) == ["deliver"]
    second = consuming(hand)
    lease.ends()
    second.give(publishing(b"b"))
    assert [ops(peer) for peer in (producer, consumer, second)] == [[], [], []]
    assert [peer.closed for peer in (producer, consumer, second)] == [True, True, True]
    assert hand.connections == 0


def test_an_ack_that_waited_while_the_process_stood_still_is_read_before_the_connection_ends(
    hand: Hand, lease: Lease
) -> None:
    """Else somebody else gets what was done."""
    consumer, other = consuming(hand), hand.login()
    other.give(publishing(b"a"))
    (given,) = consumer.take()
    origin, first = wire.DELIVERY_RUN.unpack_from(given["columns"])[:2]
    run = wire.RUN.pack(given["token"], origin, first, 1)
    ack = frame(part("ack", queue="q", runs=1), sequence=1, answered_below=1, columns=run)
    lease.ends()
    hand.loop.call_soon(hand.loop.call_soon, hand.loop.call_soon, consumer.give_chunk, ack)
    other.give(publishing(b"b", sequence=2))
    assert consumer.closed
    lease.goes_on()
    hand.loop.run()
    again = hand.login()
    again.give(frame(part("consume", queue="q", consumer=1, prefetch=9), request=1))
    columns = [header["columns"] for header in again.take() if header["op"] == "deliver"]
    (left,) = columns
    assert wire.DELIVERY_RUN.unpack_from(left)[1] == first + 1


def test_clients_are_parted_from_when_the_log_says_that_it_is_over(
    hand: Hand, lease: Lease
) -> None:
    peer = hand.login()
    lease.ends(is_told=True)
    hand.loop.run()
    assert peer.closed
    assert hand.connections == 0


def test_a_login_waits_until_it_is_certain_again_and_what_was_held_is_there(
    hand: Hand, lease: Lease
) -> None:
    consumer = consuming(hand)
    consumer.give(publishing(b"a"))
    assert ops(consumer) == ["confirm", "deliver"]
    lease.ends(is_told=True)
    hand.loop.run()
    peer, gone = hand.connect(), hand.connect()
    for each in (peer, gone):
        each.give(HELLO)
    assert ops(peer) == []
    assert lease.renewals == 2
    gone.transport.abort()
    hand.loop.run()
    lease.goes_on()
    hand.loop.run()
    assert ops(peer) == ["welcome"]
    peer.give(frame(part("consume", queue="q", consumer=1, prefetch=1), request=1))
    assert ops(peer) == ["reply", "deliver"]


def test_the_log_is_asked_to_find_out_while_somebody_goes_by_it(hand: Hand, lease: Lease) -> None:
    assert not lease.is_watched()
    peer = hand.login()
    assert lease.is_watched()
    peer.transport.abort()
    hand.loop.run()
    assert not lease.is_watched()
    lease.ends(is_told=True)
    stranger = hand.connect()
    stranger.give(HELLO)
    assert lease.is_watched(), "somebody waits for it"
    stranger.transport.abort()
    hand.loop.run()
    assert not lease.is_watched()


def test_without_clients_nothing_is_said_of_it(
    hand: Hand, lease: Lease, caplog: pytest.LogCaptureFixture
) -> None:
    lease.ends(is_told=True)
    assert not caplog.records
    peer = hand.connect()
    peer.give(HELLO)
    lease.goes_on()
    hand.loop.run()
    assert ops(peer) == ["welcome"]


def test_a_log_that_grows_by_what_says_who_leads_is_kept_short_though_nobody_writes(
    hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An entry each second fills within days what a stream with a limit keeps for acks."""
    asked: list[int] = []

    def step(clock: Clock) -> bool:
        asked.append(clock.unix_ms())
        return False

    monkeypatch.setattr(hand.server.engine._forwarder, "step", step)
    hand.login()
    asked.clear()
    hand.pass_s(3)
    assert len(asked) == 3
