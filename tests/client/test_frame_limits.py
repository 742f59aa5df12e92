"""Whatever the application does, no frame of the client exceeds a limit of the table.

The frames of a session that is driven by random wishes are read by the server's own reader, and counted as the
server counts them.
"""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import minibroker
from minibroker.aio.message import Message
from minibroker.contract import limits, wire
from minibroker.contract.errors import TooLarge
from minibroker.session.delivery import Delivery, DeliveryRun
from minibroker.session.session import Session
from minibroker.session.settle_frames import frames_naming
from minibroker.session.settlements import BEGUN, ENDED, Settlement, Settlements
from minibroker.session.step_frame import StepFrame
from minibrokerd.net.frames import read_frame
from support.hypothesis_budget import fuzz_settings
from support.quiet_shell import QuietShell, Waiter

# Of a frame with one result, whose message alone may be larger than a frame of small segments.
BOUND = limits.MAX_RESULT_BYTES + 1_024


class Reader:
    """Takes frames as the server does, and answers or withholds what it is told to."""

    def __init__(self) -> None:
        self.session = Session("c" * 200, QuietShell(), lambda settlements: None)
        self.next_token = 1 << 40
        self.outcomes: dict[int, int] = {}  # size of each frame from answered_below on
        self.answered_below = 1
        self.unanswered: list[tuple[int, int]] = []  # sequence, parts
        self.max_frame_bytes = limits.MAX_FRAME_BYTES
        self.connect()

    def connect(self) -> None:
        self.session.disconnected()
        [payload] = cut(self.session.login())
        assert len(payload) <= limits.MAX_LOGIN_FRAME_BYTES
        frame = read_frame(payload, 1, 0.0)
        named = [run[3] for run in wire.RUN.iter_unpack(frame.columns)]
        assert sum(named) <= limits.MAX_RUNS_PER_FRAME
        self.send(
            {
                "op": "welcome",
                "session": 7,
                "secret": b"s" * 32,
                "epoch": 1,
                "version": "0",
                "heartbeat_ms": 15_000,
                "max_frame_bytes": self.max_frame_bytes,
                "max_message_bytes": limits.MAX_MESSAGE_BYTES,
                "lost": 0,
                "known": True,
            }
        )
        self.unanswered.clear()
        self.take(self.session.resend(lambda group: False))

    def send(self, header: dict[str, Any]) -> None:
        self.session.receive(wire.pack_frame(header))

    def turn(self) -> None:
        self.take(self.session.flush(0))

    def take(self, frames: list[bytes]) -> None:
        for payload in cut(b"".join(frames)):
            frame = read_frame(payload, 1, 0.0)  # header bytes, parts, fields
            assert len(payload) <= (BOUND if has_one_result(frame) else self.max_frame_bytes)
            runs = sum(getattr(part, "runs", 0) for part in frame.parts)
            assert runs <= limits.MAX_RUNS_PER_FRAME
            if frame.parts[0].row.op == "publish":
                assert len(frame.parts) == 1
                assert 0 < frame.parts[0].count <= limits.MAX_MESSAGES_PER_FRAME
            else:
                assert messages_named(frame) <= limits.MAX_RUNS_PER_FRAME
            if frame.sequence is not None:
                self.count(frame.sequence, frame.answered_below, frame.size)
                self.unanswered.append((frame.sequence, len(frame.parts)))

    def count(self, sequence: int, answered_below: int, size: int) -> None:
        if sequence in self.outcomes:
            return
        self.answered_below = max(self.answered_below, answered_below)
        for known in [known for known in self.outcomes if known < self.answered_below]:
            del self.outcomes[known]
        assert sequence - self.answered_below < limits.MAX_UNANSWERED_FRAMES
        self.outcomes[sequence] = size
        assert len(self.outcomes) == 1 or sum(self.outcomes.values()) <= limits.MAX_UNANSWERED_BYTES

    def answer(self, index: int) -> None:
        """Confirm one of the unanswered frames."""
        if self.unanswered:
            sequence, parts = self.unanswered.pop(index % len(self.unanswered))
            result = {"origin": 1, "first": 0, "durability": "sync", "lost": 0}
            self.send({"op": "confirm", "sequence": sequence, "results": [result] * parts})

    def messages(self, queue: str, count: int, every: int) -> list[Message[Any]]:
        """Return begun messages of one delivery; every n-th only, so that they make runs."""
        settlements = self.session.settlements_of(queue)
        delivery = Delivery(queue, self.next_token, 30_000, settlements, QuietShell())
        self.next_token += 1
        run = DeliveryRun(delivery, settlements, 1, 1, False, 0, 0, None)
        delivery.messages = [Message(run, n * every, b"", b"") for n in range(count)]
        delivery.open = count
        for message in delivery.messages:
            message.state = BEGUN
        self.session.deliveries[delivery.token] = delivery
        return delivery.messages


def cut(data: bytes) -> list[bytes]:
    """Return the payloads of the frames in `data`."""
    payloads, at = [], 0
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        payloads.append(data[at + 4 : at + 4 + length])
        at += 4 + length
    return payloads


def has_one_result(frame: Any) -> bool:
    """Return whether a frame is the end of one message with its result, which small segments take, too."""
    return [(part.row.op, getattr(part, "runs", 0)) for part in frame.parts] == [("complete", 1)]


def messages_named(frame: Any) -> int:
    """Return how many messages the run columns of a settle frame name."""
    total, at = 0, 0
    for part in frame.parts:
        runs = getattr(part, "runs", 0)
        column = frame.columns[at : at + 24 * runs]
        total += sum(run[3] for run in wire.RUN.iter_unpack(column))
        at += 24 * runs
        for _ in range(max(part.row.texts, 0) if runs else 0):
            _, used = wire.unpack_strings(frame.columns[at:], runs)
            at += used
    return total


def settle(messages: list[Message[Any]], op: str, value: int | None) -> None:
    for message in messages:
        settlements = message.run.settlements
        if op == "ack":
            settlements.acks.append(message)
        elif op in ("complete", "progress"):
            size = limits.MAX_RESULT_BYTES if op == "complete" else limits.MAX_NOTE_BYTES
            settlements.others.append(Settlement(op, message, 1_000, b"", b"r" * size))
        else:
            error = (b"E" * 200, b"t" * 1_024) if op in ("nack", "reject") else (b"", b"")
            settlements.others.append(Settlement(op, message, value, *error))
        if op not in ("extend", "progress"):
            message.state = ENDED
            message.run.delivery.open -= 1
        settlements.owe()


NAMES = st.integers(0, 200).map(lambda n: f"{n:0>124}")
WISHES = st.one_of(
    st.tuples(st.just("publish"), NAMES, st.integers(1, 1_000), st.integers(0, 40_000)),
    st.tuples(st.just("begin"), NAMES, st.sampled_from([1, 7, 900, 12_000]), st.integers(1, 2)),
    st.tuples(
        st.sampled_from(["ack", "nack", "reject", "release", "extend", "complete", "progress"]),
        NAMES,
        st.sampled_from([1, 5, 300, 5_000, 12_000]),
        st.integers(1, 2),
    ),
    st.tuples(st.just("request"), st.sampled_from(["peek", "receive", "stats"])),
    st.tuples(st.just("answer"), st.integers(0, 2_000)),
    st.tuples(st.just("turn")),
    st.tuples(st.just("connect"), st.sampled_from([limits.MAX_FRAME_BYTES, 50_000])),
)


def act(world: Reader, wish: tuple[Any, ...]) -> None:
    match wish:
        case ("publish", name, count, size):
            group = world.session.outbox.start((name, 30_000), 0)
            total = min(count, max(1, 500_000 // (size + 1)))
            for _ in range(total if world.max_frame_bytes > 500_000 else 1):
                group.add(Waiter(), b"", bytes(size), 0, b"", 0)
        case ("begin", name, count, every):
            messages = world.messages(name, count, every)
            messages[0].run.settlements.begins += messages
            messages[0].run.settlements.owe()
        case ("request", op):
            field = {"peek": {"count": 1_000}, "receive": {"count": 1}, "stats": {}}[op]
            world.session.request(op, {"queue": "q", **field}, "w")
        case ("answer", index):
            world.answer(index)
        case ("turn",):
            world.turn()
        case ("connect", max_frame_bytes):
            if not world.session.window and not world.session.outbox.groups:
                world.max_frame_bytes = max_frame_bytes
            world.connect()
        case (op, name, count, every):
            value = count if op in ("nack", "extend") else None
            settle(
                world.messages(name, min(count, 400) if op != "ack" else count, every), op, value
            )


@settings(parent=fuzz_settings(), max_examples=40)
@given(st.lists(WISHES, min_size=5, max_size=60))
@example([("connect", 50_000), ("complete", "0" * 124, 300, 1)])
def test_no_frame_exceeds_a_limit(wishes: list[tuple[Any, ...]]) -> None:
    world = Reader()
    for wish in wishes:
        act(world, wish)
    while world.unanswered or world.session.owed.is_any() or world.session.outbox.groups:
        world.turn()
        for _ in range(100):
            world.answer(0)


def test_acks_of_three_queues_leave_in_frames_of_10_000_messages() -> None:
    world = Reader()
    for name in "abc":
        settle(world.messages(name, 5_000, 1), "ack", None)
    world.turn()
    assert len(world.unanswered) == 2


@pytest.mark.parametrize("names", ["a", "ab"])
def test_a_step_acks_no_more_than_a_frame_may_name(names: str) -> None:
    """The server ended the connection for 10,001, and with it all of them were lost."""
    world = Reader()
    messages = [m for name in names for m in world.messages(name, 10_000 // len(names), 1)]
    StepFrame(dict.fromkeys(messages), []).check(limits.MAX_FRAME_BYTES)
    messages += world.messages("a", 1, 1)
    with pytest.raises(TooLarge, match="acks at most 10000 messages; these are 10001"):
        StepFrame(dict.fromkeys(messages), []).check(limits.MAX_FRAME_BYTES)


def test_acks_of_a_hundred_queues_leave_in_frames_of_64_parts() -> None:
    world = Reader()
    for number in range(100):
        settle(world.messages(f"q{number}", 2, 1), "ack", None)
    world.turn()
    assert [parts for _, parts in world.unanswered] == [64, 36]


def test_a_queue_is_looked_at_for_its_own_frame_and_not_for_each(monkeypatch: Any) -> None:
    world, looks, take = Reader(), 0, Settlements.take

    def counted(self: Settlements, room: Any) -> Any:
        nonlocal looks
        looks += 1
        return take(self, room)

    monkeypatch.setattr(Settlements, "take", counted)
    for number in range(2_000):
        settle(world.messages(f"q{number}", 1, number + 1), "ack", None)
    world.turn()
    assert len(world.unanswered) > 10
    assert looks < 2_200


def test_a_resume_names_no_more_than_10_000_messages() -> None:
    world = Reader()
    for _ in range(12):
        world.messages("q", 1_000, 1)
    world.connect()


def test_what_an_attached_connection_releases_is_split() -> None:
    world = Reader()
    messages = world.messages("a", 6_000, 1) + world.messages("b", 6_000, 2)
    frames = list(frames_naming("release", messages, lambda message: None))
    assert [sum(len(part.messages) for part in parts) for parts in frames] == [10_000, 2_000]


def test_bytes_behind_an_unanswered_frame_count_until_it_is_answered() -> None:
    """The server keeps their outcomes until `answered_below` passes them."""
    world = Reader()
    for _ in range(40):
        group = world.session.outbox.start(("q", 30_000), 0)
        group.add(Waiter(), b"", bytes(1_000_000), 0, b"", 0)
        world.turn()
        if len(world.unanswered) > 1:
            world.answer(1)
    assert world.answered_below == 1
    assert len(world.session.outbox.groups) > 20
    world.answer(0)
    world.turn()
    assert world.answered_below > 10


@pytest.mark.parametrize("name", ["", "x" * 129, "x" * 20_000])
async def test_a_name_that_no_frame_can_hold_is_refused(
    broker: minibroker.Broker, name: str
) -> None:
    """The server would end the connection for it, and its neighbours in the frame with it."""
    with pytest.raises(minibroker.BadName):
        broker.queue(name)


async def test_what_a_request_cannot_hold_is_refused_by_name(broker: minibroker.Broker) -> None:
    queue = broker.queue("q")
    with pytest.raises(minibroker.BadValue, match="count"):
        await queue.receive(count=1_001)
    ids = [minibroker.MessageId(1, 2 * number) for number in range(10_001)]
    with pytest.raises(minibroker.BadValue, match="runs"):
        await broker.queue("q.dlq").redrive(ids)
    await queue.publish(b"x")  # the connection goes on
