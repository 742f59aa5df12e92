"""Acks of runs: all of a run ends at once, however many items it is; what is otherwise goes message by message."""

from __future__ import annotations

import pytest
from core_client import Client
from harness import World

from support.counting import calls_of

KINDS = ("keyed", "begun")


def held(count: int, kind: str, size: int = 1_000) -> tuple[World, Client, tuple[int, int, int]]:
    """Return a world in which a client holds so many messages, of keys that took turns or begun one by one.

    They are published in frames of `size`; and the token, the origin and the first sequence.
    """
    world = World()
    client = world.hello("worker")
    sizes = [min(size, count - at) for at in range(0, count, size)]
    for some in sizes:
        bodies = [b"x"] * some
        if kind == "keyed":
            client.publish("q", *bodies, keys=[f"key-{number}" for number in range(some)])
        else:
            client.publish("q", *bodies)
    client.consume("q", prefetch=count)
    messages = client.messages()
    assert len(messages) == count
    if kind == "begun":
        for message in messages:
            client.begin(message)
    first = messages[0]
    assert [each.sequence for each in messages] == [first.sequence + at for at in range(count)]
    return world, client, (first.token, first.origin, first.sequence)


def calls_of_an_ack(count: int, kind: str) -> int:
    """Return how many functions are called when a run of so many is acked."""
    _, client, (token, origin, first) = held(count, kind)
    return calls_of(lambda: client.settle_runs("ack", "q", [(token, origin, first, count)]))


@pytest.mark.parametrize("kind", KINDS)
def test_a_message_more_in_a_run_is_a_call_more_at_the_most(kind: str) -> None:
    """It was 12 for each message that was begun, and 13 for one with a key."""
    more = calls_of_an_ack(110, kind) - calls_of_an_ack(10, kind)
    assert more <= 100


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_over_several_publishes_leaves_nothing(kind: str) -> None:
    world, client, run = held(10, kind, size=3)
    assert client.settle_runs("ack", "q", [(*run, 10)])["results"] == [{"lost": 0}]
    queue = world.queue("q")
    assert (queue.log_bytes, queue.group.held, queue.group.begun) == (0, 0, 0)
    assert queue.group.counters["acked"] == 10
    assert not queue.group.deliveries
    world.check()


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_lost_of_a_run_is_named_and_the_rest_ends(kind: str) -> None:
    world, client, (token, origin, first) = held(10, kind)
    client.settle_runs("ack", "q", [(token, origin, first + 4, 1)])
    answer = client.settle_runs("ack", "q", [(token, origin, first, 12)])
    assert answer["lost_runs"] == [(token, origin, first + 4, 1), (token, origin, first + 10, 2)]
    assert world.queue("q").group.counters["acked"] == 10
    world.check()


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_ends_in_the_middle_of_what_is_held(kind: str) -> None:
    world, client, (token, origin, first) = held(10, kind)
    client.settle_runs("ack", "q", [(token, origin, first + 2, 5)])
    left = {entry["sequence"] for entry in client.peek("q")}
    assert left == {first, first + 1, *range(first + 7, first + 10)}
    world.check()


def test_a_run_of_held_and_begun_messages_ends() -> None:
    world, client, (token, origin, first) = held(10, "keyed")
    client.settle_runs("begin", "q", [(token, origin, first + 3, 2)])
    client.settle_runs("ack", "q", [(token, origin, first, 10)])
    assert world.queue("q").group.counters["acked"] == 10
    world.check()
