"""What is withdrawn is withdrawn over lost connections, too, and what a session forgot is not its successor's."""

from __future__ import annotations

from typing import Any

import pytest
from session_world import World

from minibroker.contract.wire import pack_runs
from minibroker.session.delivery import Delivery
from minibroker.session.events import Answered

RECEIVE = {"queue": "q", "count": 1, "wait_ms": 10_000}
RESULT = {"queue": "q", "runs": 1, "wait_ms": 10_000}


def withdrawn(world: World) -> list[int]:
    """Return the numbers that the server was told of."""
    return [part["withdrawn"] for part in world.server.parts("withdraw")]


def test_what_was_asked_on_a_lost_connection_is_withdrawn_on_the_next() -> None:
    """It may have been answered: only the server knows."""
    world = World()
    number = world.session.request("receive", RECEIVE, "w")
    world.peer.receive(b"".join(world.session.flush(0)))
    world.session.disconnected()
    world.session.requests.withdraw(number, "receive")
    world.connect()
    world.turn()
    assert withdrawn(world) == [number]
    assert len(world.server.parts("receive")) == 1


@pytest.mark.parametrize(
    ("op", "fields", "columns"),
    [
        ("receive", RECEIVE, b""),
        ("consume", {"queue": "q", "consumer": 1, "prefetch": 1}, b""),
        ("result", RESULT, pack_runs([(0, 1, 0, 1)])),
    ],
    ids=["receive", "consume", "result"],
)
def test_what_waits_at_the_server_is_withdrawn(
    op: str, fields: dict[str, Any], columns: bytes
) -> None:
    """Of results, too, a connection may have so many that wait: nobody would take those away before their time."""
    world = World()
    number = world.session.request(op, fields, "w", columns)
    world.session.flush(0)
    world.session.requests.withdraw(number, op)
    world.turn()
    assert withdrawn(world) == [number]


def test_a_withdrawal_is_asked_until_it_is_answered() -> None:
    world = World()
    number = world.session.request("receive", RECEIVE, "w")
    world.session.flush(0)
    world.session.requests.withdraw(number, "receive")
    for _ in range(2):
        assert world.session.flush(0)  # lost
        world.session.disconnected()
        world.connect()
    world.turn()
    assert withdrawn(world) == [number]
    world.session.disconnected()
    world.connect()
    assert world.session.flush(0) == []


def test_what_was_never_written_needs_no_withdrawal() -> None:
    world = World()
    number = world.session.request("receive", RECEIVE, "w")
    world.session.requests.withdraw(number, "receive")
    assert world.session.flush(0) == []


def test_an_answer_that_was_taken_back_is_kept_nowhere() -> None:
    world = World()
    world.publish(b"a")
    world.turn()
    number = world.session.request("receive", RECEIVE, "w")
    [answer] = world.turn()
    assert isinstance(answer, Answered)
    assert isinstance(answer.value, Delivery)
    world.session.requests.withdraw(number, "receive")
    world.session.deliveries.take_back(answer.value)
    assert (world.session.deliveries, answer.value.messages) == ({}, [])
    world.turn()
    assert withdrawn(world) == [number]
    assert len(world.server.queue("q").ready) == 1


def test_frames_of_a_forgotten_session_are_not_sent_in_the_next_one() -> None:
    """Whether they were stored is not known: under a new name they would be stored again."""
    world = World()
    world.publish(b"a")
    world.session.flush(0)
    world.session.disconnected()
    assert len(world.session.forget()) == 1
    world.connect()
    assert world.session.resend(lambda group: False) == []
    world.publish(b"b")
    world.turn()
    assert len(world.server.queue("q").ready) == 1
    assert [header["sequence"] for header in world.server.headers if "sequence" in header] == [1]
