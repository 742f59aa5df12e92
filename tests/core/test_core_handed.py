"""protocol.md, 5.3: what is begun as it is handed out, to a handler that waits; and what becomes of it."""

from __future__ import annotations

from typing import Any

import pytest
from core_client import Client, Delivered, settle_part
from harness import World

LEASE_MS = 10_000


def waiting(
    world: World,
    name: str = "worker",
    prefetch: int = 1,
    *,
    says: bool = True,
    lease_ms: int = LEASE_MS,
) -> Client:
    """Return a client with a consumer of `q`, which has said that its handler waits."""
    client = world.hello(name)
    client.consume("q", prefetch, lease_ms=lease_ms)
    if says:
        say(client)
    client.inbox = [frame for frame in client.inbox if frame["op"] == "deliver"]
    return client


def say(client: Client, consumer: int = 1) -> None:
    """Say that a handler waits, in a frame that settles nothing."""
    part, columns = settle_part("ack", "q", [])
    client.sequenced([part], columns, waits=consumer)


def publish(world: World, count: int = 1, **fields: Any) -> None:
    world.hello("producer").publish("q", *[b"x"] * count, **fields)


def handed(client: Client) -> tuple[Delivered, bool]:
    """Return the message that came, and whether it is begun."""
    frame = client.pop("deliver")
    (message,) = frame["messages"]
    return message, frame.get("begun", False)


def states(world: World) -> tuple[int, int, int]:
    """Return how many messages are ready, held and begun."""
    group = world.queue("q").group
    return group.lanes.ready, group.held, group.begun


def test_a_message_begins_as_it_is_handed_to_a_handler_that_waits() -> None:
    world = World()
    client = waiting(world)
    publish(world)
    message, begun = handed(client)
    assert begun
    assert states(world) == (0, 0, 1)
    assert client.settle("ack", message)["results"] == [{"lost": 0}]
    assert states(world) == (0, 0, 0)
    world.check()


def test_what_nobody_said_to_wait_for_is_held() -> None:
    world = World()
    client = waiting(world, says=False)
    publish(world)
    assert not handed(client)[1]
    assert states(world) == (0, 1, 0)


def test_it_is_said_for_one_delivery() -> None:
    world = World()
    client = waiting(world, prefetch=2)
    publish(world)
    publish(world)
    assert [handed(client)[1], handed(client)[1]] == [True, False]


def test_an_ack_says_it_for_what_comes_next() -> None:
    world = World()
    client = waiting(world)
    publish(world)
    message, _ = handed(client)
    part, columns = settle_part("ack", "q", [message.run])
    client.sequenced([part], columns, waits=1)
    publish(world)
    assert client.messages()[-1].sequence == message.sequence + 1
    assert states(world) == (0, 0, 1)
    world.check()


def test_what_is_ready_already_is_held() -> None:
    """It leaves with the answer to the ack, and its own ack mostly begins it: that is one record, not two."""
    world = World()
    client = waiting(world)
    publish(world, 3)
    message, _ = handed(client)
    part, columns = settle_part("ack", "q", [message.run])
    client.sequenced([part], columns, waits=1)
    assert states(world) == (1, 1, 0)
    held = client.messages()[-1]
    part, columns = settle_part("ack", "q", [held.run])
    client.sequenced([part], columns)
    client.inbox.clear()
    assert states(world) == (0, 1, 0)
    world.check()


@pytest.mark.parametrize("is_answered", [False, True])
def test_a_frame_that_comes_twice_says_it_once(is_answered: bool) -> None:
    world = World()
    client = waiting(world, prefetch=2, says=False)
    say(client)
    sequence = client.sequence
    if is_answered:
        client.answered_below = sequence + 1
        part, columns = settle_part("ack", "q", [])
        client.sequenced([part], columns)
    client.inbox.clear()
    publish(world)
    assert handed(client)[1]
    client.resend(sequence)
    client.inbox.clear()
    publish(world)
    assert not handed(client)[1]
    world.check()


def test_a_frame_that_is_refused_says_nothing() -> None:
    world = World()
    client = waiting(world, says=False)
    part, columns = settle_part("ack", "q", [(1, 1, 1, 1)])
    answer = client.sequenced([part], columns, step=1, waits=1)
    assert answer["code"] == "lease_lost"
    publish(world)
    assert not handed(client)[1]


def test_what_comes_for_another_consumer_of_the_connection_uses_it_up() -> None:
    """Its handler may hold up the loop in which the first one waits."""
    world = World()
    client = waiting(world, says=False)
    client.consume("other", consumer=2)
    client.inbox.clear()
    say(client)
    world.hello("producer").publish("other", b"x")
    assert not handed(client)[1]
    publish(world)
    assert not handed(client)[1]
    assert states(world) == (0, 1, 0)


def test_of_several_together_none_is_begun() -> None:
    world = World()
    client = waiting(world, prefetch=2)
    publish(world, 2)
    frame = client.pop("deliver")
    assert not frame.get("begun")
    assert states(world) == (0, 2, 0)
    publish(world)
    client.settle("ack", frame["messages"][0])
    assert not handed(client)[1]  # nor is the next one
    assert states(world) == (0, 2, 0)


@pytest.mark.parametrize("number", [0, 2, 2**32 - 1])
def test_a_consumer_that_is_not_there_waits_for_nothing(number: int) -> None:
    world = World()
    client = waiting(world, says=False)
    say(client, number)
    publish(world)
    assert not client.closed
    assert states(world) == (0, 1, 0)


@pytest.mark.parametrize("number", [-1, 2**32])
def test_what_is_no_number_of_a_consumer_breaks_the_protocol(number: int) -> None:
    world = World()
    client = waiting(world, says=False)
    say(client, number)
    assert client.closed


def test_a_short_lease_begins_with_its_handler() -> None:
    world = World()
    client = waiting(world, lease_ms=999)
    publish(world)
    assert not handed(client)[1]


def test_a_marked_message_is_begun_by_its_client_alone() -> None:
    world = World()
    lost = waiting(world, "lost", says=False)
    publish(world)
    world.disconnect(lost)
    message, begun = handed(waiting(world, says=False))
    assert message.marked
    assert not begun
    client = waiting(world, "next")
    world.disconnect(world.clients[client.connection - 1])
    message, begun = handed(client)
    assert message.marked
    assert not begun
    assert states(world) == (0, 1, 0)


def test_its_lease_runs_from_the_hand_out_and_ends_as_any() -> None:
    world = World()
    client = waiting(world)
    publish(world)
    handed(client)
    world.advance(LEASE_MS - 100)
    assert states(world) == (0, 0, 1)
    world.advance(200)
    world.check()
    assert client.stats("q")["expired"] == 1


def test_a_worker_that_dies_before_its_handler_saw_it_has_used_an_attempt() -> None:
    world = World()
    client = waiting(world)
    publish(world)
    world.disconnect(client)
    assert states(world) == (0, 0, 1)
    world.advance(LEASE_MS + 100)
    other = waiting(world, "other", says=False)
    message, _ = handed(other)
    assert (message.attempt, message.marked) == (2, True)
    assert other.stats("q")["worker_lost"] == 1
    world.check()


def test_what_no_handler_took_goes_back_as_if_it_had_never_been_handed_out() -> None:
    world = World()
    client = waiting(world)
    publish(world)
    for _ in range(3):  # a release would be delayed from the second one on
        message, begun = handed(client)
        assert begun
        assert (message.attempt, message.marked) == (1, False)
        client.settle("release", message, recalled=1)
        message, begun = handed(client)
        assert not begun  # it comes again, and to whoever takes it
        client.inbox.clear()
        say(client)
        client.settle("release", message, recalled=1)
        world.advance(200)
    world.check()


def test_what_a_resume_does_not_name_was_never_seen_and_waits_again_at_once() -> None:
    world = World()
    client = waiting(world)
    publish(world)
    message, _ = handed(client)
    world.disconnect(client)
    again = world.resume(client)
    assert states(world) == (1, 0, 0)
    again.consume("q")
    back = again.messages()[0]
    assert (back.id, back.attempt, back.marked) == (message.id, 1, False)
    world.check()


def test_what_a_resume_names_goes_on() -> None:
    world = World()
    client = waiting(world)
    publish(world)
    message, _ = handed(client)
    world.disconnect(client)
    again = world.resume(client, [message])
    assert states(world) == (0, 0, 1)
    assert again.settle("ack", message)["results"] == [{"lost": 0}]
    world.check()


def test_a_resume_that_does_not_name_all_gives_nothing_back() -> None:
    world = World()
    client = waiting(world)
    publish(world)
    message, _ = handed(client)
    world.disconnect(client)
    again = world.resume(client, runs=[(0, 0, 0, 1)])
    assert again.pop("welcome")["lost"] == 0
    assert states(world) == (0, 0, 1)
    assert again.settle("ack", message)["results"] == [{"lost": 0}]


def test_a_crash_after_the_hand_out_charges_nothing_and_the_session_goes_on_with_it() -> None:
    world = World()
    client = waiting(world)
    publish(world)
    message, _ = handed(client)
    world.sync()
    world.restart()
    again = world.resume(client, [message])
    assert states(world) == (0, 0, 1)
    assert again.settle("ack", message)["results"] == [{"lost": 0}]
    world.check()
