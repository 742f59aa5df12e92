"""In which order the engine lets things happen: a timer that is due, and what waits in a socket."""

from __future__ import annotations

from hand import Hand, Peer, frame, part

from minibroker import wire

LEASE_MS = 200


class StoppedClock:
    """A clock that stands still until the test moves it."""

    def __init__(self, ms: int) -> None:
        self.ms = ms

    def now_ms(self) -> int:
        """Return the log time."""
        return self.ms

    def unix_ms(self) -> int:
        """Return the wall time: the same."""
        return self.ms


def publish(peer: Peer, body: bytes) -> dict[str, object]:
    """Publish the first message of a session to q, and return the confirm."""
    lengths = b"\0\0\0\0" + len(body).to_bytes(4, "little")
    one = part("publish", queue="q", count=1)
    peer.give(frame(one, sequence=1, answered_below=1, lengths=lengths, blob=body))
    (confirm,) = peer.take()
    assert confirm["op"] == "confirm"
    return confirm


def go_on(hand: Hand, clock: StoppedClock, after_ms: int) -> None:
    """Let the process go on after a while: the loop calls the timers that are due, and nothing else yet."""
    clock.ms += after_ms
    hand.loop.now_s += after_ms / 1_000
    timers, hand.loop.timers = hand.loop.timers, []
    for timer in timers:
        if timer.when_s > hand.loop.now_s:
            hand.loop.timers.append(timer)
        elif not timer.cancelled:
            timer.call()


def test_an_ack_that_waited_while_the_process_stood_still_wins_over_the_end_of_its_lease() -> None:
    """T5: the loop runs its timers before it reads its sockets, and the lease ended in between."""
    hand = Hand()
    clock = StoppedClock(hand.server.engine.clock.now_ms())
    hand.server.engine.clock = clock  # type: ignore[assignment]
    peer = hand.login()
    publish(peer, b"hi")
    ask = part("receive", queue="q", count=1, lease_ms=LEASE_MS, wait_ms=0)
    (given,) = peer.give(frame(ask, request=1)).take()
    origin, first = wire.DELIVERY_RUN.unpack_from(given["columns"])[:2]
    run = wire.RUN.pack(given["token"], origin, first, 1)
    go_on(hand, clock, 10 * LEASE_MS)
    ack = frame(part("ack", queue="q", runs=1), sequence=2, answered_below=2, columns=run)
    hand.loop.call_soon(peer.give_chunk, ack)
    hand.settle()
    go_on(hand, clock, 10)  # acks gather for a millisecond before they are written
    hand.settle()
    (confirm,) = peer.take()
    assert confirm["results"] == [{"lost": 0}]
