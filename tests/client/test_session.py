"""The session without a socket: what it writes, what it makes of what it reads, what it sends again."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from fake_server import FakeConnection
from session_world import KEY, World, end, settle

from minibroker.contract import limits, wire
from minibroker.contract.errors import Busy, LoginRefused, OutcomeUnknown, ProtocolError
from minibroker.session.asking import MOST_LONG, Requests
from minibroker.session.events import (
    Answered,
    Leaving,
    Published,
    PublishFailed,
    Settled,
    SettleRefused,
    Welcomed,
)
from minibroker.session.message import Delivery, DeliveryRun
from minibroker.session.settlements import ENDED, TOLD, Settlement, named_by, runs_of
from support.quiet_shell import Waiter


def test_hello_then_welcome() -> None:
    world = World()
    assert world.server.headers == [{"parts": [{"op": "hello", "protocol": 1, "client": "tester"}]}]
    assert world.session.is_open
    assert world.session.session_id == 7


def test_a_publish_is_confirmed_with_its_first_id() -> None:
    world = World()
    world.publish(b"a", b"b")
    world.publish(b"c")
    published = world.turn()
    firsts = [event.first for event in published if isinstance(event, Published)]
    assert (firsts, len(published)) == ([0, 2], 2)
    assert [header["sequence"] for header in world.server.headers[1:]] == [1, 2]
    assert [header["answered_below"] for header in world.server.headers[1:]] == [1, 1]
    world.publish(b"d")
    world.turn()
    assert world.server.headers[-1]["answered_below"] == 3


def test_a_refused_publish_names_its_error() -> None:
    world = World()
    world.server.refuse = lambda header: {
        "code": "busy",
        "text": "full",
        "retryable": True,
        "retry_ms": 50,
    }
    world.publish(b"a")
    [event] = world.turn()
    assert isinstance(event, PublishFailed)
    assert isinstance(event.error, Busy)
    assert (event.error.retry_ms, event.error.retryable) == (50, True)
    assert len(world.session.window) == 0


def test_no_more_than_the_window_is_written() -> None:
    """protocol.md: 1,024 frames; the distance from the oldest unanswered one counts."""
    world = World()
    world.server.withhold = True
    for _ in range(limits.MAX_UNANSWERED_FRAMES + 10):
        world.publish(b"a")
    world.turn()
    assert len(world.server.parts("publish")) == limits.MAX_UNANSWERED_FRAMES
    for sequence in range(2, 1_000):  # all but the oldest
        world.peer.confirm(sequence)
    world.read()
    assert world.session.flush(0) == []
    world.peer.confirm(1)
    world.read()
    assert len(world.session.flush(0)) == 10


def test_no_more_than_16_mib_are_unanswered() -> None:
    world = World()
    world.server.withhold = True
    for _ in range(30):
        world.publish(bytes(1024 * 1024))
    world.turn()
    written = sum(len(frame) for frame in world.server.frames[1:2])
    assert len(world.server.parts("publish")) == 15
    assert written <= limits.MAX_UNANSWERED_BYTES


def test_unanswered_frames_are_sent_again_byte_for_byte() -> None:
    world = World()
    world.server.withhold = True
    world.publish(b"a")
    world.publish(b"b")
    first = world.session.flush(0)
    world.peer.receive(b"".join(first))
    world.session.disconnected()
    assert [type(event) for event in world.connect()] == [Welcomed]
    assert world.server.headers[-1]["parts"][0]["op"] == "resume"
    assert world.session.resend(lambda group: False) == first
    world.server.withhold = False
    world.peer.receive(b"".join(first))
    assert [event.first for event in world.read() if isinstance(event, Published)] == [0, 1]
    assert len(world.server.queue("q").ready) == 2  # applied once


def test_a_publish_whose_callers_gave_up_is_never_sent_again() -> None:
    world = World()
    world.server.withhold = True
    world.publish(b"a")
    world.publish(b"b")
    _, second = world.session.flush(0)
    world.session.disconnected()
    world.connect()
    gone = world.session.window.get(1)
    assert gone is not None
    assert world.session.resend(lambda group: group is gone.content) == [second]
    assert world.session.window.answered_below == 2


def test_a_session_the_server_refuses_leaves_publishes_unknown() -> None:
    world = World()
    world.server.withhold = True
    world.publish(b"a")
    world.turn()
    world.session.disconnected()
    world.server.refuse = lambda header: {"code": "login_refused", "text": "?", "retryable": False}
    world.peer = FakeConnection(world.server)
    world.peer.receive(world.session.login())
    with pytest.raises(LoginRefused):
        world.read()
    [event] = world.session.forget()
    assert isinstance(event, PublishFailed)
    assert isinstance(event.error, OutcomeUnknown)
    world.server.refuse = lambda header: None
    world.connect()
    assert world.server.headers[-1]["parts"][0]["op"] == "hello"


# ---- deliveries and settlements ----


def test_a_delivery_comes_as_messages() -> None:
    world = World()
    group = world.session.outbox.start(KEY, 0)
    group.add(Waiter(), b"", b"raw", 0, b"", 0)
    group.add(Waiter(), b"\x81\xa1h\x01", b"\x81\xa1b\x02", 1, b"key", 0)
    world.turn()
    first, second = world.consume().messages
    assert (first.body, first.headers, first.key, first.id) == (b"raw", {}, None, (1, 0))
    assert (second.body, second.headers, second.key) == ({"b": 2}, {"h": 1}, "key")
    assert (second.queue, second.attempt, str(second.id), second.marked) == ("q", 1, "1-1", False)
    assert second.token == 1 << 40
    assert second.published_at.year == 2023


@pytest.mark.parametrize("cut", ["columns", "lengths", "blob"])
def test_a_delivery_that_does_not_add_up_is_a_protocol_error(cut: str) -> None:
    world = World()
    world.session.consumers.add(1)
    header = {"op": "deliver", "consumer": 1, "queue": "q", "token": 5, "lease_ms": 1, "count": 1}
    pieces = {
        "columns": wire.DELIVERY_RUN.pack(1, 0, 1, 1, 0, 0, 0),
        "lengths": struct.pack("<II", 0, 3),
        "blob": b"abc",
    }
    pieces[cut] = pieces[cut][:-1]
    world.peer.send({**header, "runs": 1, "begun": False}, *pieces.values())
    with pytest.raises(ProtocolError):
        world.read()


def test_what_a_cancelled_consumer_still_gets_is_ignored() -> None:
    world = World()
    world.publish(b"a")
    world.turn()
    world.session.request("consume", {"queue": "q", "consumer": 1, "prefetch": 1}, "w")
    assert [type(event) for event in world.turn()] == [Answered]
    assert world.session.deliveries == {}


def test_acks_travel_as_runs() -> None:
    world = World()
    world.publish(*[b"x"] * 6)
    world.turn()
    messages = world.consume().messages
    waiting = world.session.settlements_of("q")
    waiting.owe()
    waiting.acks += [end(messages[index]) for index in (0, 1, 2, 5, 4)]
    world.turn()
    assert world.server.parts("ack") == [{"op": "ack", "queue": "q", "runs": 2}]
    assert [sequence for *_, sequence in world.server.settled] == [0, 1, 2, 4, 5]
    assert len(world.session.window) == 0


def test_begin_and_settle_in_one_turn_need_only_the_settle() -> None:
    world = World()
    world.publish(b"a", b"b")
    world.turn()
    first, second = world.consume().messages
    waiting = world.session.settlements_of("q")
    waiting.owe()
    waiting.begins += [first, second]
    waiting.acks.append(end(first))
    world.turn()
    assert [(op, sequence) for op, *_, sequence in world.server.settled] == [
        ("ack", 0),
        ("begin", 1),
    ]
    assert [part["runs"] for part in world.server.parts("begin")] == [1]
    assert (first.state, second.state) == (ENDED, TOLD)


def test_a_begin_needs_no_room() -> None:
    """A full window must not hide from the server what a handler works on."""
    world = World()
    world.publish(b"a")
    world.turn()
    [message] = world.consume().messages
    world.server.withhold = True
    for _ in range(limits.MAX_UNANSWERED_FRAMES):
        world.publish(b"x")
    world.turn()
    waiting = world.session.settlements_of("q")
    waiting.owe()
    waiting.begins.append(message)
    world.turn()
    assert [op for op, *_ in world.server.settled] == ["begin"]


def test_settlements_of_several_queues_share_a_frame_and_tell_their_losses_apart() -> None:
    world = World()
    world.publish(b"a", b"b", b"c")
    world.turn()
    messages = list(world.consume().messages)
    waiting = world.session.settlements_of("q")
    waiting.owe()
    waiting.acks += [end(messages[0]), end(messages[1])]
    waiting.others += [
        Settlement("nack", end(messages[2]), 500, b"ValueError", b"no"),
    ]
    world.server.lost = {1, 2}
    settled = [event for event in world.turn() if isinstance(event, Settled)]
    assert [(event.part.op, list(event.lost)) for event in settled] == [
        ("nack", [messages[2]]),
        ("ack", [messages[1]]),
    ]
    assert world.server.headers[-1]["parts"][0] == {
        "op": "nack",
        "queue": "q",
        "runs": 1,
        "delay_ms": 500,
    }


def test_a_settlement_refused_for_now_is_tried_again_under_a_new_sequence() -> None:
    world = World()
    world.publish(b"a")
    world.turn()
    [message] = world.consume().messages
    settle(message)
    world.server.refuse = lambda header: {"code": "busy", "text": "later", "retryable": True}
    [event] = world.turn()
    assert isinstance(event, SettleRefused)
    world.server.refuse = lambda header: None
    world.peer.receive(b"".join(world.session.retry_returned(0)))
    world.read()
    assert world.server.settled == [("ack", 1 << 40, 1, 0)]
    assert world.server.headers[-1]["sequence"] == 3


def test_resume_names_what_is_begun_and_what_is_settled_without_an_answer() -> None:
    world = World()
    world.publish(*[b"x"] * 5)
    world.turn()
    messages = world.consume().messages
    messages[4].state = 0  # held: the server takes it back with the connection
    waiting = world.session.settlements_of("q")
    waiting.owe()
    world.server.withhold = True
    waiting.acks.append(end(messages[0]))
    world.turn()
    settle(messages[1])  # not written yet
    world.session.disconnected()
    world.server.welcome_lost = [(1 << 40, 1, 2, 2)]
    [event] = world.connect()
    part = world.server.headers[-1]["parts"][0]
    assert (part["session"], part["secret"], part["runs"]) == (7, b"s", 1)
    assert wire.RUN.pack(1 << 40, 1, 0, 4) in world.server.frames[-1]
    assert isinstance(event, Welcomed)
    assert list(event.lost) == [messages[2], messages[3]]


def test_a_login_frame_stays_below_its_limit() -> None:
    """4 KiB before login: many scattered begun messages must not break the resume."""
    world = World()
    for _ in range(3):
        world.publish(*[b"x"] * 400)
    world.turn()
    for message in world.consume(10_000).messages[::2]:
        end(message)
    world.session.disconnected()
    assert len(world.session.login()) <= limits.MAX_LOGIN_FRAME_BYTES


def test_a_resume_that_cannot_name_all_names_what_was_begun_last() -> None:
    """The begins that a crash can lose are the latest."""
    world = World()
    for _ in range(3):
        world.publish(*[b"x"] * 400)
    world.turn()
    messages = world.consume(10_000).messages
    for number, message in enumerate(messages):
        message.begun_at = float(number)
        if number % 2:
            end(message)
    world.session.disconnected()
    world.connect()
    runs = world.server.headers[-1]["parts"][0]["runs"]
    assert 100 < runs <= 128
    assert wire.RUN.pack(1 << 40, 1, len(messages) - 2, 1) in world.server.frames[-1]
    assert wire.RUN.pack(1 << 40, 1, 0, 1) not in world.server.frames[-1]


def test_requests_that_may_not_be_doubled_fail_with_the_connection() -> None:
    world = World()
    for op in ("purge", "peek"):
        world.session.request(op, {"queue": "q"}, op)
    frames = world.session.flush(0)
    (event,) = world.session.disconnected()
    assert isinstance(event, Answered)
    assert event.waiter == "purge"
    world.connect()
    assert world.session.flush(0) == frames[1:]


def test_an_error_without_an_address_ends_the_connection() -> None:
    world = World()
    world.peer.send({"op": "error", "code": "protocol_error", "text": "no", "retryable": False})
    with pytest.raises(ProtocolError):
        world.read()


@pytest.mark.parametrize(
    "header", [{}, {"op": ["what"]}, {"op": "deliver"}, {"op": "confirm", "sequence": 1}]
)
def test_a_frame_that_is_not_understood_is_a_protocol_error(header: dict[str, Any]) -> None:
    world = World()
    world.server.withhold = True
    world.publish(b"a")
    world.turn()
    world.peer.send(header)
    with pytest.raises(ProtocolError):
        world.read()


def test_a_frame_of_a_newer_server_is_passed_over() -> None:
    """protocol.md 10: what follows it counts."""
    world = World()
    world.peer.send({"op": "what", "runs": 3})
    world.peer.send({"op": "goodbye", "text": "over"})
    assert [type(event) for event in world.read()] == [Leaving]


@pytest.mark.parametrize("joined", [True, False])
def test_runs_and_names_are_inverse(*, joined: bool) -> None:
    """Of messages that came as one run, and of such that came as a run each."""
    world = World()
    world.publish(*[b"x"] * 9)
    world.turn()
    messages = world.consume().messages
    for message in messages if joined else ():
        message.run = messages[0].run
    for indices, expected in (
        ((8, 1, 2, 0, 5), [(0, 3), (5, 1), (8, 1)]),
        ((2, 3, 4, 5), [(2, 4)]),
        ((2, 3, 5, 6), [(2, 2), (5, 2)]),
        ((2, 4, 3, 5), [(2, 4)]),
        ((7,), [(7, 1)]),
        ((), []),
    ):
        runs = runs_of([messages[index] for index in indices])
        assert [(first, count) for *_, first, count in runs] == expected
        named = [message.sequence for message in named_by(runs, messages)]
        assert named == sorted(indices)


def test_messages_of_two_deliveries_are_named_apart() -> None:
    """Their sequences may go on where they do not; even if the first and the last are of one delivery."""
    world = World()
    world.publish(*[b"x"] * 9)
    world.turn()
    messages = world.consume().messages
    token, run = messages[0].token, messages[0].run
    other = Delivery("q", token + 1, 1_000, run.settlements, None)
    for message in messages:
        message.run = run
    messages[1].run = DeliveryRun(other, run.settlements, run.origin, 1, False, 0, 0, None)
    assert runs_of(messages[:4]) == [
        (token, run.origin, 0, 1),
        (token, run.origin, 2, 2),
        (token + 1, run.origin, 1, 1),
    ]


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ([*range(3, 20), *range(30, 50)], [(3, 17), (30, 20)]),
        ([*range(19, 20), *range(20, 40)], [(19, 21)]),
        ([*range(40, 60), *range(10, 20), *range(20, 21)], [(10, 11), (40, 20)]),
        ([*range(10), *range(11, 40)], [(0, 10), (11, 29)]),
        ([*range(20, 40), *range(9, -1, -1)], [(0, 10), (20, 20)]),
        ([*range(0, 60, 20), *range(1, 60, 20)], [(0, 2), (20, 2), (40, 2)]),
        ([0, 20, 40, *range(41, 60)], [(0, 1), (20, 1), (40, 20)]),
    ],
)
def test_a_batch_of_several_runs_is_named_as_its_messages_are(
    places: list[int], expected: list[tuple[int, int]]
) -> None:
    """Three runs of twenty: what a batch has of each, in the order of a delivery or in another."""
    world = World()
    world.publish(*[b"x"] * 60)
    world.turn()
    messages = world.consume().messages
    for number, message in enumerate(messages):
        message.run = messages[number // 20 * 20].run
    some = [messages[place] for place in places]
    token, origin = messages[0].token, messages[0].origin
    assert runs_of(some) == [(token, origin, *run) for run in expected]


def test_losses_are_found_without_a_walk_over_all_runs_for_each_message() -> None:
    """Thousands of lost runs of thousands of acks stood still for half a second."""
    looks = 0

    class Counted(int):
        def __lt__(self, other: int) -> bool:
            nonlocal looks
            looks += 1
            return int(self) < int(other)

    world = World()
    world.publish(*[b"x"] * 900)
    world.turn()
    messages = world.consume(900).messages
    token = messages[0].token
    runs = [(token, 1, Counted(first), 1) for first in range(0, 900, 2)]
    assert [message.sequence for message in named_by(runs, messages)] == list(range(0, 900, 2))
    assert looks < 900 * 20


def test_few_long_answers_are_under_way_at_a_time() -> None:
    """Of forty peeks at once a slow reader was cut off as one that does not read, and asked them all anew."""
    requests = Requests()
    peeks = [
        requests.add("peek", {"queue": "q", "count": 1_000}, "w") for _ in range(2 * MOST_LONG)
    ]
    requests.add("ping", {}, "w")
    assert len(requests.write()) == MOST_LONG + 1
    assert requests.write() == []
    requests.answer(peeks[0])
    requests.withdraw(peeks[1], "peek")
    requests.withdraw(peeks[-1], "peek")
    assert len(requests.write()) == 2
    assert requests.disconnected() == []
    assert len(requests.write()) == MOST_LONG + 1
    for number in peeks[2:-1]:
        requests.answer(number)
        requests.write()
    requests.add("peek", {"queue": "q", "count": 1_000}, "w")
    assert len(requests.write()) == 1
