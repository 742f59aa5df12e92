"""What a connection may cost over time: deadlines, heartbeats, output that nobody reads, flow control."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hand import Hand, Peer, frame, part

from minibrokerd.log.seam import Room

MIB = 1024 * 1024
PING = frame(part("ping"), request=1)


@pytest.fixture
def hand() -> Hand:
    """A server."""
    return Hand()


def publish(peer: Peer, sequence: int, *bodies: bytes) -> None:
    """Publish to q and take the confirm."""
    peer.give(publish_frame(sequence, *bodies))
    assert peer.take()[-1]["op"] == "confirm"


def publish_frame(sequence: int, *bodies: bytes) -> bytes:
    """Return a publish to q."""
    lengths = b"".join(struct.pack("<II", 0, len(body)) for body in bodies)
    head = part("publish", queue="q", count=len(bodies))
    bins: dict[str, Any] = {"lengths": lengths, "blob": b"".join(bodies)}
    return frame(head, sequence=sequence, answered_below=sequence, **bins)


def consume(prefetch: int, consumer: int = 1) -> bytes:
    """Return a consume of q."""
    head = part("consume", queue="q", consumer=consumer, prefetch=prefetch)
    return frame(head, request=consumer)


def statistics(hand: Hand) -> dict[str, Any]:
    """Return the counters of q, asked for on a connection of its own."""
    peer = hand.login()
    (reply,) = peer.give(frame(part("stats", queue="q"), request=1)).take()
    peer.give(frame(part("goodbye")))
    counters: dict[str, Any] = reply["value"]["queues"]["q"]
    return counters


# -- before login ---------------------------------------------------------------------------------


def test_a_login_takes_5_seconds_at_most(hand: Hand) -> None:
    """protocol.md 4.1; bytes that trickle in do not buy time, and nothing is said to a stranger."""
    silent, slow, done = hand.connect(), hand.connect(), hand.login()
    for byte in frame(part("hello", protocol=1))[:5]:
        slow.give(bytes([byte]))
        hand.pass_s(1)
    assert not silent.closed
    assert not slow.closed
    hand.pass_s(1)
    assert silent.transport.aborted
    assert slow.transport.aborted
    assert not done.closed


def test_a_crowd_is_ended_in_parts(hand: Hand) -> None:
    """The loop turns in between; all of them are gone soon."""
    crowd = [hand.connect() for _ in range(250)]
    hand.loop.now_s += 6
    looks = 0
    while not crowd[-1].closed:
        hand.server.connections.sweep()
        looks += 1
        assert sum(peer.closed for peer in crowd) <= 100 * looks
        hand.settle()
    assert looks == 3


def test_the_oldest_that_has_not_logged_in_gives_way(hand: Hand) -> None:
    """Never one that has; when all of them have, the newest is told to come back."""
    hand.server.connections.most = 3
    first, second, done = hand.connect(), hand.connect(), hand.login()
    third = hand.connect()
    assert first.closed
    assert first.take()[0]["code"] == "busy"
    hand.settle()
    assert third.hello()
    fourth = hand.connect()
    assert second.closed
    hand.settle()
    assert fourth.hello()
    late = hand.connect()
    assert late.take()[0]["code"] == "busy"
    assert [each.closed for each in (done, third, fourth)] == [False] * 3
    hand.settle()
    done.transport.close()
    hand.settle()
    assert hand.login()


def test_before_login_a_frame_of_4_kib_is_read_and_one_byte_more_is_not(hand: Hand) -> None:
    """protocol.md 4.1: decided on the length alone."""
    padded = hand.connect().give((4_096).to_bytes(4, "big") + b"\x94" + bytes(4_094))
    assert not padded.closed
    padded.give(b"\x00")
    assert padded.take()[0]["text"].startswith("a payload must be")
    early = hand.connect().give((4_097).to_bytes(4, "big"))
    assert early.closed


def test_after_login_16_mib_are_waited_for(hand: Hand) -> None:
    """protocol.md 2: the limit itself is allowed."""
    peer = hand.login().give((16 * MIB).to_bytes(4, "big") + b"\x94")
    assert not peer.closed


# -- signs of life --------------------------------------------------------------------------------


def test_a_frame_must_be_complete_within_30_seconds(hand: Hand) -> None:
    """A byte now and then is no frame; the pings of an attached connection do not help either."""
    main = hand.connect()
    welcome = main.hello()
    attach = part("attach", protocol=1, session=welcome["session"], secret=welcome["secret"])
    other = hand.connect().give(frame(attach))
    for byte in PING[:-1] + bytes(10):
        if main.closed:
            break
        main.give(bytes([byte]) if main.connection.frame_since_s is None else b"")
        other.give(PING)
        hand.pass_s(1)
    assert main.transport.aborted
    assert not other.closed


def test_two_silent_intervals_end_a_connection_and_the_server_speaks_in_each(hand: Hand) -> None:
    """protocol.md 4.2: a peer that vanished without a word is found, and a live one hears from us."""
    peer = hand.login()
    hand.pass_s(29)
    assert [header["op"] for header in peer.take()] == ["pong"]
    assert not peer.closed
    hand.pass_s(1)
    assert peer.transport.aborted
    assert hand.connections == 0


def test_a_silent_connection_ends_after_two_intervals_to_the_moment(hand: Hand) -> None:
    """Also when the sweep, which comes once a second, would find it up to a second later."""
    hand.loop.now_s += 0.4
    peer = hand.login()
    heard_s = hand.loop.now_s
    hand.loop.now_s += 29.2
    hand.loop.timers.clear()
    hand.server._sweep()
    assert not peer.closed
    sweeps = [timer.when_s for timer in hand.loop.timers if not timer.cancelled]
    assert min(sweeps) == pytest.approx(heard_s + 30)
    hand.loop.now_s = heard_s + 30
    hand.server._sweep()
    assert peer.closed


def test_frames_that_are_still_arriving_are_bounded_over_all_connections(
    hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The largest goes; small frames and complete ones are not harmed, and nothing of it stays counted."""
    monkeypatch.setattr("minibroker.contract.limits.MAX_UNFINISHED_BYTES", 4 * MIB)
    small = hand.login()
    small.give(PING[:6])
    large = [hand.login() for _ in range(20)]
    for at, peer in enumerate(large):
        peer.give((MIB + at).to_bytes(4, "big") + b"\x94" + bytes(MIB - 100))
        assert hand.server.connections.unfinished.bytes <= 4 * MIB
    refused = [peer.take()[0] for peer in large if peer.closed]
    assert len(refused) == 16  # four have room
    assert {(each["code"], each["retryable"]) for each in refused} == {("limit_reached", True)}
    (pong,) = small.give(PING[6:]).take()
    assert pong["op"] == "pong"
    for peer in large:
        peer.transport.abort()
    hand.settle()
    assert hand.server.connections.unfinished.bytes == 0


def test_any_bytes_are_a_sign_of_life(hand: Hand) -> None:
    """protocol.md 4.2: something, not a ping in particular."""
    peer = hand.login()
    for _ in range(5):
        hand.pass_s(20)
        peer.give(frame(part("stats"), request=1))
    assert not peer.closed


def test_the_attached_connection_keeps_its_session_alive(hand: Hand) -> None:
    """protocol.md 4.2: a client whose loop is busy; without it both end."""
    main = hand.connect()
    welcome = main.hello()
    attach = part("attach", protocol=1, session=welcome["session"], secret=welcome["secret"])
    other = hand.connect().give(frame(attach))
    for _ in range(6):
        hand.pass_s(10)
        other.give(PING)
    assert not main.closed
    assert not other.closed
    hand.pass_s(31)
    assert main.transport.aborted
    assert other.transport.aborted


def test_held_messages_of_a_vanished_peer_go_back(hand: Hand) -> None:
    """protocol.md 4.3, found by the heartbeat."""
    peer = hand.login()
    publish(peer, 1, b"a", b"b")
    peer.give(consume(2))
    assert statistics(hand)["held"] == 2
    hand.pass_s(31)
    counters = statistics(hand)
    assert (counters["held"], counters["ready"], counters["consumers"]) == (0, 2, 0)


# -- output ---------------------------------------------------------------------------------------


def filled(hand: Hand, messages: int, size: int) -> Peer:
    """A logged-in consumer of a queue of so many messages, that does not read."""
    producer = hand.login()
    for sequence in range(messages // 8):
        publish(producer, sequence + 1, *[b"x" * size] * 8)
    producer.give(frame(part("goodbye")))
    peer = hand.login()
    peer.transport.reads = False
    return peer


def test_deliveries_to_a_peer_that_does_not_read_stop_at_about_1_mib(hand: Hand) -> None:
    """protocol.md 4.5: whatever its prefetch; the connection stands, and the rest is for others."""
    peer = filled(hand, 64, 256 * 1024).give(consume(64))
    run_ticks(hand)
    assert MIB < peer.transport.get_write_buffer_size() < 2.5 * MIB
    assert not peer.closed
    other = hand.login().give(consume(4))
    assert other.take()[-1]["count"] == 4


def test_a_peer_that_reads_again_gets_the_rest(hand: Hand) -> None:
    """protocol.md 4.5: nothing is lost by the pause, however large the prefetch is."""
    peer = filled(hand, 64, 256 * 1024).give(consume(64))
    while peer.transport.buffer:
        peer.transport.read(100_000)
        run_ticks(hand)
    assert sum(header.get("count", 0) for header in peer.take()) == 64
    assert not peer.closed


def run_ticks(hand: Hand) -> None:
    """Fire the ticks that are due at once: work that the core goes on with in its next turn."""
    engine = hand.server.engine
    hand.settle()
    while hand.server._core.store.jobs:
        engine._tick()
        hand.settle()


def test_8_mib_of_unread_answers_end_the_connection(hand: Hand) -> None:
    """protocol.md 4.5: also when all of it is asked for in one read."""
    peer = filled(hand, 8, 128 * 1024)
    ask = b"".join(frame(part("peek", queue="q", count=8), request=number) for number in range(100))
    peer.give_chunk(ask)
    assert peer.transport.aborted
    assert peer.transport.get_write_buffer_size() < 10 * MIB
    hand.settle()
    assert hand.connections == 0


def test_10_seconds_without_progress_end_the_connection(hand: Hand) -> None:
    """protocol.md 4.5: one byte taken is progress, the beats of our own heart are not."""
    peer = filled(hand, 8, 256 * 1024).give(consume(8))
    for _ in range(9):
        peer.give(PING)
        hand.pass_s(1)
    peer.transport.read(1)
    for _ in range(10):
        peer.give(PING)
        hand.pass_s(1)
    assert not peer.closed
    peer.give(PING)
    hand.pass_s(2)
    assert peer.transport.aborted


def test_a_slow_reader_whose_buffer_is_never_empty_is_not_stuck(hand: Hand) -> None:
    """protocol.md 4.5: progress is what it takes, not how short the buffer is."""
    peer = filled(hand, 8, 256 * 1024).give(consume(8))
    for _ in range(25):
        peer.transport.read(1_000)
        peer.give(frame(part("peek", queue="q", count=0), request=1) * 20)
        peer.give(PING * 60)
        hand.pass_s(1)
    assert not peer.closed


def test_a_closing_connection_whose_peer_does_not_read_is_cut_off(hand: Hand) -> None:
    """The last error frame is not waited for without end."""
    peer = filled(hand, 8, 256 * 1024).give(consume(8)).give(b"\xff\xff\xff\xff")
    assert peer.closed
    assert not peer.transport.lost
    hand.pass_s(12)
    assert peer.transport.lost


# -- flow control ---------------------------------------------------------------------------------


def test_1024_unanswered_frames_are_allowed_and_one_more_is_not(hand: Hand) -> None:
    """protocol.md 4.4: the one limit towards the server."""
    peer = hand.login()
    publish(peer, 1, b"a")
    ack = part("ack", queue="q", runs=0)
    for sequence in range(2, 1_025):
        peer.give_chunk(frame(ack, sequence=sequence, answered_below=1))
    hand.settle()
    assert len(peer.take()) == 1_023
    peer.give(frame(ack, sequence=1_025, answered_below=1))
    assert peer.take()[0]["code"] == "protocol_error"
    assert peer.closed


def test_a_welcome_says_what_holds(hand: Hand) -> None:
    """protocol.md, frame welcome."""
    welcome = hand.connect().hello()
    assert welcome["max_frame_bytes"] == 16 * MIB
    assert welcome["max_message_bytes"] == MIB
    assert welcome["heartbeat_ms"] == 15_000
    assert len(welcome["secret"]) == 32


def test_publishes_that_wait_for_room_are_bounded(hand: Hand) -> None:
    """A client that goes on while the log makes room may not fill the memory: it is cut off, others stay."""
    flood, other = hand.login(), hand.login()
    hand.log.set_room(Room.WAIT)
    for sequence in range(1, 5):
        flood.give(publish_frame(sequence, *[bytes(MIB)] * 9))
    assert flood.closed
    other.give(publish_frame(1, b"a"))
    assert not other.closed
    hand.log.set_room(Room.GRANTED)
    hand.settle()
    assert [answer["op"] for answer in other.take()] == ["confirm"]


# -- the end --------------------------------------------------------------------------------------


def test_a_stopping_server_answers_what_it_took_and_takes_no_more(hand: Hand) -> None:
    """A login is told to come back; what came too late is not answered, so its client sends it again."""
    peer, stranger = hand.login(), hand.connect()
    publish(peer, 1, b"a")
    hand.server.connections.stopping = True
    peer.give(PING)
    assert peer.take() == []
    stranger.give(frame(part("hello", protocol=1)))
    (error,) = stranger.take()
    assert (error["code"], error["retryable"]) == ("shutting_down", True)
    assert stranger.closed


def test_a_hundred_logins_and_drops_leave_nothing(hand: Hand) -> None:
    """No sink, no connection, no entry of the server; the sessions wait for their resume."""
    for _ in range(100):
        peer = hand.login()
        peer.give(consume(1))
        peer.transport.abort()
        hand.settle()
    assert hand.connections == 0
    assert not len(hand.server.connections)
    assert not hand.server.engine.sinks
    assert statistics(hand)["consumers"] == 0
