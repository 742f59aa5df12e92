"""In which order the engine lets things happen: a timer that is due, and what waits in a socket."""

from __future__ import annotations

from typing import Any

import pytest
from hand import Hand, HandTransport, Peer, frame, part

from minibroker.contract import wire

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


def publish(peer: Peer, body: bytes, sequence: int = 1, **fields: object) -> dict[str, object]:
    """Publish one message, to q if no queue is named, and return the confirm."""
    lengths = b"\0\0\0\0" + len(body).to_bytes(4, "little")
    one = part("publish", **{"queue": "q", "count": 1} | fields)
    peer.give(frame(one, sequence=sequence, answered_below=sequence, lengths=lengths, blob=body))
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


@pytest.mark.parametrize("count", [1, 2])
def test_an_ack_waits_for_others_only_where_something_is_in_hand(count: int) -> None:
    """Batches of acks start a millisecond apart (decision 6); the last one of all has nothing to wait for."""
    hand = Hand()
    peer = hand.login()
    publish(peer, b"one")
    publish(peer, b"two", 2)
    ask = part("receive", queue="q", count=count, lease_ms=60_000, wait_ms=0)
    (given,) = peer.give(frame(ask, request=1)).take()
    hand.loop.now_s += 0.0001  # since a batch was begun
    run = wire.RUN.pack(given["token"], *wire.DELIVERY_RUN.unpack_from(given["columns"])[:2], 1)
    ack = part("ack", queue="q", runs=1)
    came = peer.give(frame(ack, sequence=3, answered_below=3, columns=run)).take()
    assert [each["op"] for each in came] == ["confirm"] * (count == 1)
    hand.loop.now_s += 0.001
    for timer in [each for each in hand.loop.timers if each.when_s <= hand.loop.now_s]:
        timer.call()
    hand.settle()
    assert len(came + peer.take()) == 1


def test_the_loop_syncs_for_a_lone_worker_and_not_for_one_that_works_off_a_backlog(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Behind a backlog more acks come in during the sync, and the consumer waits for what they make room for."""
    hand = Hand()
    peer = hand.login()
    log, small = hand.server.engine._log, list[bool]()
    append = log.append

    def note(*args: Any, is_small: bool = False) -> bool:
        small.append(is_small)
        return append(*args, is_small=is_small)

    monkeypatch.setattr(log, "append", note)
    for sequence in range(1, 9):  # from the third on the loop does it
        publish(peer, b"hi", sequence)
    ask = part("receive", queue="q", count=8, lease_ms=60_000, wait_ms=0)
    (given,) = peer.give(frame(ask, request=1)).take()
    *_, begun = small
    small.clear()
    (runs,) = [given["columns"]]
    for index in range(7):
        at = index * wire.DELIVERY_RUN.size
        run = wire.RUN.pack(given["token"], *wire.DELIVERY_RUN.unpack_from(runs, at)[:2], 1)
        hand.loop.now_s += 0.0011 if index < 5 else 1.0
        ack = part("ack", queue="q", runs=1)
        peer.give(frame(ack, sequence=9 + index, answered_below=9 + index, columns=run)).take()
    assert begun
    assert small == [True, False, False, False, False, True, True]


@pytest.mark.parametrize("is_one", [False, True])
def test_what_a_consumer_waits_for_is_written_before_its_confirm(
    monkeypatch: pytest.MonkeyPatch, *, is_one: bool
) -> None:
    """Of lone publishes; and both in one write, where they go to one client."""
    hand = Hand()
    producer = hand.login()
    worker = producer if is_one else hand.login()
    worker.give(frame(part("consume", queue="q", consumer=1, prefetch=10), request=1)).take()
    written: list[list[object]] = []
    write = HandTransport.write

    def note(transport: HandTransport, data: bytes) -> None:
        write(transport, data)
        (peer,) = [each for each in {producer, worker} if each.transport is transport]
        written.append([each["op"] for each in peer.take()])

    monkeypatch.setattr(HandTransport, "write", note)
    for sequence in range(1, 6):  # the first ones are not known to be alone
        written.clear()
        body = {"lengths": bytes(4) + b"\x01\0\0\0", "blob": b"x"}
        one = part("publish", queue="q", count=1)
        producer.give(frame(one, sequence=sequence, answered_below=sequence, **body))
    assert written == ([["deliver", "confirm"]] if is_one else [["deliver"], ["confirm"]])


def early_by(hand: Hand, ms: int) -> StoppedClock:
    """Let the timer of the next deadline fire this much too early by the clock; return the clock."""
    clock = hand.server.engine.clock
    assert isinstance(clock, StoppedClock)
    due_ms = hand.server._core.next_deadline_ms()
    assert due_ms is not None
    go_on(hand, clock, due_ms - clock.ms)
    clock.ms -= ms
    return clock


def test_nothing_is_due_before_its_time_when_the_loop_fires_early() -> None:
    """T6: a tick that comes a millisecond early is none, and there is one more in time."""
    hand = Hand()
    engine = hand.server.engine
    engine.clock = StoppedClock(engine.clock.now_ms())  # type: ignore[assignment]
    peer = hand.login()
    publish(peer, b"later", delay_ms=500)
    peer.give(frame(part("consume", queue="q", consumer=1, prefetch=10), request=1)).take()
    clock = early_by(hand, 1)
    hand.settle()
    assert peer.take() == []
    go_on(hand, clock, 1)
    hand.settle()
    assert [each["op"] for each in peer.take()] == ["deliver"]


def test_a_tick_that_is_due_is_the_only_one_on_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second one took the time of the next timer for its own: leases of 30 s ended in the same moment.

    What it takes: a loop that fires a little early, and work that is wanted at once while the tick is due.
    """
    hand = Hand()
    engine = hand.server.engine
    engine.clock = StoppedClock(engine.clock.now_ms())  # type: ignore[assignment]
    peer = hand.login()
    publish(peer, b"later", 1, delay_ms=500)
    for sequence in (2, 3):
        publish(peer, bytes(600_000), sequence)
    clock = early_by(hand, 1)
    ticks: list[int] = []
    tick = engine._alarm._ring

    def counted() -> None:
        ticks.append(clock.ms)
        tick()

    monkeypatch.setattr(engine, "_tick", counted)
    consume = frame(part("consume", queue="q", consumer=1, prefetch=10), request=2)
    peer.give(consume)  # more than a share of output: its refill is wanted at once
    for _ in range(3):
        go_on(hand, clock, 1)
        hand.settle()
    assert hand.server._core.store.now_ms <= clock.ms + 8
    assert len(ticks) == len(set(ticks)), "two ticks at one time"


def test_the_end_of_a_hold_is_not_missed_when_its_tick_came_early(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After a crash nothing is handed out for a second; a command that came when it was over hid its end."""
    hand = Hand()
    engine = hand.server.engine
    engine.clock = StoppedClock(engine.clock.now_ms())  # type: ignore[assignment]
    peer = hand.login()
    publish(peer, b"hi")
    hand.server._core.store.hold_until_ms = engine.clock.now_ms() + 500
    peer.give(frame(part("consume", queue="q", consumer=1, prefetch=10), request=1)).take()
    clock = early_by(hand, 1)
    tick = engine._alarm._ring

    def then_a_command() -> None:
        tick()
        clock.ms += 1
        peer.give_chunk(frame(part("ping"), request=2))

    monkeypatch.setattr(engine._alarm, "_ring", then_a_command)
    hand.settle()
    monkeypatch.undo()
    go_on(hand, clock, 1_000)
    hand.settle()
    assert [each["op"] for each in peer.take()] == ["pong", "deliver"]


def test_a_message_that_came_back_is_not_overtaken_by_one_that_came_in_with_its_record() -> None:
    """The delivery of the first rests on the batch that the second one enters with: both are for one consumer."""
    hand = Hand()
    clock = StoppedClock(hand.server.engine.clock.now_ms())
    hand.server.engine.clock = clock  # type: ignore[assignment]
    producer, lost, worker = hand.login(), hand.login(), hand.login()
    publish(producer, b"first")
    lost.give(frame(part("receive", queue="q", count=1, lease_ms=LEASE_MS, wait_ms=0), request=1))
    lost.transport.abort()
    hand.settle()
    worker.give(frame(part("consume", queue="q", consumer=1, prefetch=2), request=1)).take()
    for sequence in range(
        2, 5
    ):  # batches that serve one client each, as those of lone publishers do
        publish(producer, b"elsewhere", sequence, queue="other")
    clock.ms += 10 * LEASE_MS
    hand.server.engine.time_moved()  # the lease ends, and nothing is written yet
    lengths = b"\0\0\0\0" + (6).to_bytes(4, "little")
    one = part("publish", queue="q", count=1)
    producer.give_chunk(frame(one, sequence=5, answered_below=5, lengths=lengths, blob=b"second"))
    hand.settle()
    came = [each["blob"] for each in worker.take() if each["op"] == "deliver"]
    assert came == [b"first", b"second"]
