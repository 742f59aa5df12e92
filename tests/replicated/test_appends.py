"""What is sent for an append, and which answers count: those of the append in flight, and of no earlier one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from minibrokerd.replicated import nats_appends
from minibrokerd.replicated.nats_appends import Appends
from minibrokerd.replicated.stream import Acked, NoRoom, Outcome, Refused, Unknown
from minibrokerd.replicated.stream_address import parse


class Wire:
    """A client of nats-py, as far as appends use one: what was written, and what is waited for."""

    awaited = b""
    unsent_bytes = 0

    def __init__(self) -> None:
        self.written = b""
        self._transport = self

    def writelines(self, lines: list[bytes]) -> None:
        """Write."""
        self.written += b"".join(lines)

    def hears(self, appends: Appends, subject: bytes, data: bytes, headers: bytes = b"") -> None:
        """Read a message, as the client does that `new_client` makes."""
        if subject == self.awaited:
            appends.answered(data, headers)


class Scene:
    """Appends on a wire, and what was told of them."""

    def __init__(self) -> None:
        self.wire = Wire()
        self.told: list[Outcome] = []
        self.is_told = asyncio.Event()
        address = parse("nats://a/orders")
        self.appends = Appends(self.wire, address, "_INBOX.x", lambda error: str(error) or "late")

    def begin(self, *parts: bytes, expected: int = 7, is_epoch: bool = False) -> bytes:
        """Begin an append; return the subject of its answer."""
        self.wire.written = b""
        self.appends.begin(parts, expected, self._told, is_epoch=is_epoch)
        return self.wire.awaited

    def _told(self, outcome: Outcome) -> None:
        self.told.append(outcome)
        self.is_told.set()

    def hears(self, subject: bytes, data: bytes, headers: bytes = b"") -> None:
        """Read a message."""
        self.wire.hears(self.appends, subject, data, headers)


@pytest.fixture
async def scene() -> Any:
    """Nothing was sent yet."""
    scene = Scene()
    yield scene
    scene.appends.forget()


async def test_a_part_is_one_message_that_expects_the_last_sequence(scene: Scene) -> None:
    reply = scene.begin(b"body\r\n", expected=41)
    head = b"NATS/1.0\r\nNats-Expected-Last-Sequence: 41\r\n\r\n"
    assert scene.wire.written == (
        b"HPUB minibroker.orders.records %b %d %d\r\n%bbody\r\n\r\n"
        % (reply, len(head), len(head) + 6, head)
    )
    scene.hears(reply, b'{"stream":"orders","seq":42}')
    assert scene.told == [Acked(42)]


async def test_an_epoch_record_stands_under_its_own_subject(scene: Scene) -> None:
    scene.begin(b"record", is_epoch=True)
    assert scene.wire.written.startswith(b"HPUB minibroker.orders.epochs ")


async def test_parts_are_an_atomic_batch_of_which_the_first_expects_and_the_last_is_answered(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nats_appends.os, "urandom", bytes)
    reply = scene.begin(b"a", b"b", b"c", expected=5)
    first, second, third = scene.wire.written.split(b"HPUB ")[1:]
    assert first.startswith(b"minibroker.orders.records ")
    assert reply not in first + second
    assert third.startswith(b"minibroker.orders.records %b " % reply)
    headers = [part.split(b"\r\n")[2:-3] for part in (first, second, third)]
    batch = b"Nats-Batch-Id: 0000000000000000"
    assert headers == [
        [b"Nats-Expected-Last-Sequence: 5", batch, b"Nats-Batch-Sequence: 1"],
        [batch, b"Nats-Batch-Sequence: 2"],
        [batch, b"Nats-Batch-Sequence: 3", b"Nats-Batch-Commit: 1"],
    ]


ANSWERS = {
    b'{"stream":"orders","seq":8}': Acked(8),
    b'{"error":{"code":400,"err_code":10071,"description":"wrong last sequence: 9"}}': Refused(9),
    b'{"error":{"code":503,"err_code":10077,"description":"maximum bytes exceeded"}}': NoRoom(
        "maximum bytes exceeded"
    ),
    b'{"error":{"code":503,"err_code":10077,"description":"message too large"}}': Unknown(
        "message too large"
    ),
    b"": Unknown("an empty answer"),
}


@pytest.mark.parametrize("data", ANSWERS)
async def test_an_answer_is_judged_by_its_code(data: bytes, scene: Scene) -> None:
    scene.hears(scene.begin(b"body"), data)
    assert scene.told == [ANSWERS[data]]


async def test_nobody_listens(scene: Scene) -> None:
    scene.hears(scene.begin(b"body"), b"", b"NATS/1.0 503\r\n\r\n")
    assert scene.told == [Unknown("the stream has no leader", is_led=False)]


async def test_an_answer_that_comes_late_is_none_to_the_next_append(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else an append that nobody stored would be confirmed by the ack of the one before."""
    monkeypatch.setattr(nats_appends, "APPEND_S", 0.0)
    late = scene.begin(b"first")
    await scene.is_told.wait()
    monkeypatch.undo()
    reply = scene.begin(b"second")
    scene.hears(late, b'{"stream":"orders","seq":8}')
    assert scene.told == [Unknown("late")]
    scene.hears(reply, b'{"stream":"orders","seq":9}')
    assert scene.told == [Unknown("late"), Acked(9)]


async def test_a_second_answer_is_none(scene: Scene) -> None:
    reply = scene.begin(b"body")
    for _ in range(2):
        scene.hears(reply, b'{"stream":"orders","seq":8}')
    assert scene.told == [Acked(8)]


async def test_a_connection_that_is_lost_leaves_it_open_what_became_of_an_append(
    scene: Scene,
) -> None:
    scene.begin(b"body")
    scene.appends.lost()
    scene.appends.lost()
    assert scene.told == [Unknown("the connection was lost")]


async def test_a_connection_that_has_just_ended_takes_nothing_and_raises_nothing(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """uvloop raises in the turn between the end of a socket and when nats-py hears of it."""

    def ended(lines: list[bytes]) -> None:
        raise RuntimeError("unable to perform operation; the handler is closed")

    monkeypatch.setattr(scene.wire, "writelines", ended)
    scene.begin(b"a")
    assert scene.told == []
    scene.appends.lost()
    assert [type(outcome) for outcome in scene.told] == [Unknown]


async def test_an_append_is_waited_for_as_long_as_it_is_still_being_sent(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch may have 20 MB. Given up on a slow way, it would be begun again for ever."""
    monkeypatch.setattr(nats_appends, "APPEND_S", 3_600.0)
    reply = scene.begin(b"a" * 900_000)
    for scene.wire.unsent_bytes in (700_000, 300_000, 0):
        scene.appends._timed_out()
        assert scene.told == []
    scene.appends._timed_out()
    assert scene.told == [Unknown("late")]
    scene.told.clear()
    reply = scene.begin(b"b" * 900_000)
    scene.wire.unsent_bytes = 700_000
    scene.appends._timed_out()
    scene.hears(reply, b'{"stream":"orders","seq":8}')
    scene.begin(b"c" * 900_000, expected=8)
    for _ in range(2):
        scene.appends._timed_out()
    assert scene.told == [Acked(8), Unknown("late")], "nothing more was taken"
