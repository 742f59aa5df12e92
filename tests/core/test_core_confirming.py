"""protocol.md, frame `confirm`: settlements that rest on one batch share an answer, if their client knows that."""

from __future__ import annotations

from typing import Any

import pytest
from core_client import Client, Delivered
from harness import World


def consuming(*, accepts: bool = True, messages: int = 6) -> tuple[World, Client, list[Delivered]]:
    """Return a client that holds messages, in a world that syncs when it is told."""
    world = World(auto_sync=False)
    client = world.hello("worker")
    if accepts:
        client.send(client.frame([{"op": "accept", "through": 1}]))
    client.publish("q", *[b"x"] * messages)
    world.sync()
    client.consume("q", messages)
    world.sync()
    held = client.messages()
    client.inbox.clear()
    return world, client, held


def confirms(client: Client) -> list[tuple[int, int | None, list[Any]]]:
    """Return (sequence, through, results) of each confirm that came, counted from the first settlement."""
    found = [frame for frame in client.inbox if frame["op"] == "confirm"]
    client.inbox.clear()
    return [
        (
            frame["sequence"] - 1,
            frame["through"] - 1 if "through" in frame else None,
            frame["results"],
        )
        for frame in found
    ]


def test_settlements_of_one_batch_have_one_answer() -> None:
    world, client, held = consuming()
    for op, message in zip(("ack", "nack", "ack"), held, strict=False):
        client.settle(op, message)
    assert confirms(client) == []
    world.sync()
    assert confirms(client) == [(1, 3, [])]


def test_those_of_the_next_batch_have_another_one() -> None:
    world, client, held = consuming()
    client.settle("ack", held[0])
    client.settle("ack", held[1])
    world.close_batch()
    client.settle("ack", held[2])
    world.sync()
    assert confirms(client) == [(1, 2, []), (3, None, [{"lost": 0}])]
    client.settle("ack", held[3])
    world.sync()
    assert confirms(client) == [(4, None, [{"lost": 0}])]


def test_who_has_not_said_that_he_knows_it_gets_each_answer() -> None:
    world, client, held = consuming(accepts=False)
    client.settle("ack", held[0])
    client.settle("ack", held[1])
    world.sync()
    assert confirms(client) == [(1, None, [{"lost": 0}]), (2, None, [{"lost": 0}])]


def test_what_is_lost_is_said_in_an_answer_of_its_own() -> None:
    world, client, held = consuming()
    for message in (*held[:2], held[0], *held[2:4]):
        client.settle("ack", message)
    world.sync()
    lost = (3, None, [{"lost": 1}])
    assert sorted(confirms(client)) == [(1, 2, []), lost, (4, 5, [])]


def test_a_publish_has_an_answer_of_its_own() -> None:
    """Also a step that publishes: its results say under which ids."""
    world, client, held = consuming()
    client.settle("ack", held[0])
    client.publish("q", b"y")
    client.settle("ack", held[1])
    client.settle("ack", held[2])
    world.sync()
    first, published, rest = confirms(client)
    assert (first, rest) == ((1, None, [{"lost": 0}]), (3, 4, []))
    assert published[:2] == (2, None)
    assert published[2][0]["first"] == len(held)


def test_answers_of_two_clients_are_apart() -> None:
    world, client, held = consuming()
    other = world.hello("other")
    other.send(other.frame([{"op": "accept", "through": 1}]))
    other.publish("r", b"x")
    world.sync()
    other.consume("r", 1)
    world.sync()
    (theirs,) = other.messages()
    other.inbox.clear()
    client.settle("ack", held[0])
    other.settle("ack", theirs)
    client.settle("ack", held[1])
    world.sync()
    assert confirms(client) == [(1, 2, [])]
    assert confirms(other) == [(1, None, [{"lost": 0}])]


@pytest.mark.parametrize("sequence", [2, 3, 4])
def test_a_frame_that_comes_again_is_answered_alone(sequence: int) -> None:
    """While the first answer waits, and behind it."""
    world, client, held = consuming()
    for message in held[:3]:
        client.settle("ack", message)
    client.send(client.sent[sequence])
    world.sync()
    alone = (sequence - 1, None, [{"lost": 0}])
    assert confirms(client) == [(1, 3, []), alone]
    client.send(client.sent[sequence])
    client.settle("ack", held[3])
    client.settle("ack", held[4])
    world.sync()
    assert confirms(client) == [alone, (4, 5, [])]
