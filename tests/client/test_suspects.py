"""A frame for which the server ends the connection is found, and not sent again."""

from __future__ import annotations

import pytest
from fake_server import FakeConnection
from session_world import World

from minibroker.contract.errors import LoginRefused, OutcomeUnknown, ProtocolError
from minibroker.session.events import Answered, Event, PublishFailed


def refuse_all_of(world: World, guilty: bytes) -> tuple[int, list[Event]]:
    """Connect again and again to a server that ends the connection for frames with `guilty` in them.

    Return how many connections ended, and what was told of that.
    """
    ends, events = 0, list[Event]()
    for _ in range(20):
        events += world.session.disconnected()
        world.connect()
        frames = world.session.resend(lambda group: False)
        while frames := [*frames, *world.session.flush(0)]:
            for frame in frames:
                if guilty in frame:
                    world.peer.send(
                        {"op": "error", "code": "protocol_error", "text": "no", "retryable": False}
                    )
                    break
                world.peer.receive(frame)
            try:
                world.read()
            except ProtocolError:
                ends += 1
                break
            frames = []
        else:
            break
    return ends, events


def test_a_frame_that_ends_connections_is_found_and_given_up() -> None:
    """Its neighbours are answered, and what waits behind them leaves."""
    world = World()
    world.server.withhold = True
    for number in range(9):
        world.publish(b"good%d" % number if number != 4 else b"guilty")
    world.session.flush(0)  # written, and the connection ends
    world.server.withhold = False
    ends, [event] = refuse_all_of(world, b"guilty")
    assert ends == 2
    assert len(world.session.window) == 0
    assert len(world.server.queue("q").ready) == 8
    assert isinstance(event, PublishFailed)
    assert isinstance(event.error, OutcomeUnknown)


def test_a_request_that_ends_connections_is_given_up() -> None:
    world = World()
    world.session.request("peek", {"queue": "guilty"}, "w")
    ends, [event] = refuse_all_of(world, b"guilty")
    assert ends == 2
    assert isinstance(event, Answered)
    assert isinstance(event.error, ProtocolError)


def test_a_resume_that_is_refused_leads_to_a_new_session() -> None:
    world = World()
    world.session.disconnected()
    world.server.refuse = lambda header: {
        "code": "protocol_error",
        "text": "too much",
        "retryable": False,
    }
    world.peer = FakeConnection(world.server)
    world.peer.receive(world.session.login())
    with pytest.raises(LoginRefused):
        world.read()
