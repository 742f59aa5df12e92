"""protocol.md, frame `confirm`: one that answers several frames, as the client takes it; and what it accepts."""

from __future__ import annotations

import pytest
from session_world import World, settle

from minibroker.contract import limits, wire
from minibroker.contract.errors import ProtocolError
from minibroker.session.accepting import KNOWN, accept_of
from minibroker.session.events import Settled
from support.quiet_shell import Waiter


def settled(messages: int = 4) -> World:
    """Return a session with an unanswered frame for each of some messages, numbered from 2 on."""
    world = World()
    world.publish(*[b"x"] * messages)
    world.turn()
    delivery = world.consume()
    world.server.withhold = True
    for message in list(delivery.messages):
        settle(message)
        message.run.settlements.waiters.append((message, Waiter()))
        world.turn()
    return world


def confirm(world: World, first: int, last: int) -> int:
    """Answer frames from one to another; return how many settlements are told to somebody."""
    world.peer.send({"op": "confirm", "sequence": first, "through": last, "results": []})
    events = world.read()
    assert all(isinstance(event, Settled) and not event.lost for event in events)
    return len(events)


def test_all_frames_from_one_to_another_are_answered() -> None:
    world = settled()
    assert [sent.sequence for sent in world.session.window] == [2, 3, 4, 5]
    assert confirm(world, 2, 4) == 3
    assert [sent.sequence for sent in world.session.window] == [5]
    assert world.session.window.answered_below == 5
    assert not world.session.deliveries  # nothing is left of the only one
    assert confirm(world, 5, 5) == 1
    assert not len(world.session.window)


def test_those_that_were_answered_before_are_passed_over() -> None:
    world = settled()
    assert confirm(world, 3, 3) == 1
    assert confirm(world, 2, 5) == 3
    assert confirm(world, 2, 5) == 0


@pytest.mark.parametrize(
    ("first", "last"), [(2, 2 + limits.MAX_UNANSWERED_FRAMES), (1, 2**63), ("2", 3), (2, None)]
)
def test_an_answer_to_more_than_there_can_be_ends_the_connection(
    first: object, last: object
) -> None:
    """At once: nobody counts up to what it claims."""
    world = settled()
    world.peer.send({"op": "confirm", "sequence": first, "through": last, "results": []})
    with pytest.raises(ProtocolError):
        world.read()


def test_a_publish_is_not_answered_without_its_ids() -> None:
    world = World()
    world.server.withhold = True
    world.publish(b"x")
    world.turn()
    world.peer.send({"op": "confirm", "sequence": 1, "through": 1, "results": []})
    with pytest.raises(ProtocolError):
        world.read()


@pytest.mark.parametrize("offered", [(), ("recalls",), ("through",), KNOWN])
def test_what_a_server_offers_is_accepted_and_nothing_else(offered: tuple[str, ...]) -> None:
    """An older one knows neither the other names nor the command."""
    frame = accept_of(dict.fromkeys((*offered, "newer"), True))
    if not offered:
        assert not frame
        return
    header = wire.read_payload(frame[wire.LENGTH.size :]).header
    assert header == {"parts": [{"op": "accept", **dict.fromkeys(offered, 1)}]}
