"""protocol.md, section 7, `delete_unused_ms`: a temporary queue ends when nobody uses it, and not before."""

from __future__ import annotations

import pytest
from core_client import Client
from harness import World

PERIOD_MS = 60_000


def made(world: World) -> Client:
    """Return a client; the queue `reply` is temporary."""
    client = world.hello()
    client.set("reply", delete_unused_ms=PERIOD_MS)
    return client


def is_there(client: Client, queue: str = "reply") -> bool:
    """Whether there is such a queue."""
    answer = client.request({"op": "queue_show", "queue": queue})
    return bool(answer["op"] == "reply")


def test_a_queue_that_nobody_uses_ends_with_what_is_in_it() -> None:
    """Between once and twice its time behind its last use; its DLQ and its bindings, too."""
    world = World()
    client = made(world)
    client.request({"op": "exchange_set", "name": "e", "type": "fanout"})
    client.request({"op": "bind", "exchange": "e", "queue": "reply"})
    client.publish("reply", b"1")
    client.settle("reject", *client.receive_all("reply"))
    client.publish("reply", b"2")
    world.advance(PERIOD_MS - 100)
    assert is_there(client)
    world.advance(PERIOD_MS + 200)
    assert not is_there(client)
    assert not is_there(client, "reply.dlq")
    assert client.request({"op": "bindings", "exchange": "e"})["value"] == {"bindings": []}
    world.restart()
    assert not is_there(world.hello())


@pytest.mark.parametrize("use", ["consume", "receive", "hold", "publish", "take", "consume dead"])
def test_a_queue_that_is_used_stays(use: str) -> None:
    """Whatever kind of use it is: for as long as it goes on, and its time behind it."""
    world = World()
    client = made(world)
    client.publish("reply", *[b"x"] * 20)
    if use == "consume":
        client.consume("reply", prefetch=0)
    elif use == "consume dead":
        client.settle("reject", *client.receive_all("reply", 1))
        client.consume("reply.dlq", prefetch=0)
    elif use == "receive":
        client.settle("ack", *client.receive_all("reply"))
        assert client.receive("reply", 1, wait_ms=10 * PERIOD_MS) is None
    elif use == "hold":
        held = client.receive_all("reply", lease_ms=20 * PERIOD_MS)
    for _ in range(5):
        world.advance(PERIOD_MS - 1_000)
        if use == "publish":
            client.publish("reply", b"y")
        elif use == "take":
            client.settle("ack", *client.receive_all("reply", 1))
        assert is_there(client), use
    if use == "hold":
        client.settle("ack", *held)
    world.disconnect(client)
    world.advance(2 * PERIOD_MS + 1_000)
    client = world.hello()
    world.advance(40_000)
    assert not is_there(client), use


@pytest.mark.parametrize("look", ["receive", "declare", "bind"])
def test_who_looks_again_and_again_uses_it(look: str) -> None:
    """As a program that asks every now and then, or starts anew; and that gets nothing."""
    world = World()
    client = made(world)
    client.request({"op": "exchange_set", "name": "e", "type": "fanout"})
    for _ in range(5):
        world.advance(PERIOD_MS - 1_000)
        if look == "receive":
            assert client.receive_all("reply") == []
        elif look == "declare":
            settings = {"delete_unused_ms": PERIOD_MS}
            client.request({"op": "queue_declare", "queue": "reply", "settings": settings})
        else:
            client.request({"op": "bind", "exchange": "e", "queue": "reply"})
        assert is_there(client), look
    world.advance(2 * PERIOD_MS + 200)
    assert not is_there(client)


def test_its_time_begins_when_the_last_one_goes() -> None:
    """Also where he went just before it was looked at again."""
    world = World()
    client = made(world)
    client.consume("reply", prefetch=0)
    world.advance(3 * PERIOD_MS - 1_000)
    world.disconnect(client)
    world.advance(PERIOD_MS - 2_000)
    assert is_there(world.hello())


def test_a_declaration_makes_no_queue_temporary_that_is_there() -> None:
    """What was confirmed there would end with it; the other settings are taken."""
    world = World()
    client = world.hello()
    client.publish("orders", b"1")
    settings = {"delete_unused_ms": PERIOD_MS, "max_attempts": 7}
    answer = client.request({"op": "queue_declare", "queue": "orders", "settings": settings})
    got = answer["value"]["settings"]
    assert (got["delete_unused_ms"], got["max_attempts"]) == (0, 7)
    world.advance(5 * PERIOD_MS)
    assert client.stats("orders")["ready"] == 1


@pytest.mark.parametrize("clean", [True, False])
def test_one_that_nobody_uses_behind_a_start_ends(clean: bool) -> None:
    world = World()
    made(world)
    world.restart(clean=clean)
    world.advance(2 * PERIOD_MS + 100)
    assert not is_there(world.hello())


def test_its_time_begins_anew_at_a_start_and_with_its_setting() -> None:
    """A long stop ends nothing; a longer time, or none, holds from then on."""
    world = World()
    client = made(world)
    world.advance(PERIOD_MS - 1_000)
    world.restart(wall_ms=10 * PERIOD_MS)
    client = world.hello()
    world.advance(PERIOD_MS - 1_000)
    assert is_there(client)
    client.set("reply", delete_unused_ms=10 * PERIOD_MS)
    world.advance(5 * PERIOD_MS)
    assert is_there(client)
    client.set("reply", delete_unused_ms=0)
    world.advance(50 * PERIOD_MS)
    assert is_there(client)


def test_a_dead_letter_queue_ends_with_its_source_alone() -> None:
    """It has no such setting of its own."""
    client = made(World())
    answer = client.set("reply.dlq", delete_unused_ms=PERIOD_MS)
    assert answer["code"] == "bad_value"


def gone(world: World) -> Client:
    """Return a client; the queue `reply` was temporary, and ended with two messages."""
    client = made(world)
    client.publish("reply", b"1", b"2")
    world.advance(2 * PERIOD_MS + 1_000)
    assert not is_there(client)
    return client


USES: dict[str, dict[str, object]] = {
    "receive": {"op": "receive", "count": 1},
    "consume": {"op": "consume", "consumer": 1, "prefetch": 1},
    "bind": {"op": "bind", "exchange": "e"},
    "dead": {"op": "receive", "count": 1, "queue": "reply.dlq"},
}


@pytest.mark.parametrize("use", [*USES, "publish"])
@pytest.mark.parametrize("restarts", [False, True])
def test_who_used_a_queue_that_ended_is_told(use: str, restarts: bool) -> None:
    """Made by its use it would have other settings, and no bindings: whoever waits there would get nothing."""
    world = World()
    client = gone(world)
    client.request({"op": "exchange_set", "name": "e", "type": "fanout"})
    if restarts:
        world.restart()
        client = world.hello()
    if use == "publish":
        part = {"op": "publish", "queue": "reply", "count": 1}
        answer = client.sequenced([part], b"", b"\0\0\0\0\1\0\0\0", b"x")
    else:
        answer = client.request({"queue": "reply"} | USES[use])
    assert answer is not None
    assert (answer["op"], answer["code"]) == ("error", "unknown_queue"), answer
    assert "with 2 messages" in answer["text"]
    assert not is_there(client)


@pytest.mark.parametrize("op", ["queue_declare", "queue_set"])
def test_a_declaration_makes_a_queue_that_ended(op: str) -> None:
    """As it was the first time; it is used from then on, and what ended is forgotten, over a restart, too."""
    world = World()
    client = gone(world)
    client.request({"op": op, "queue": "reply", "settings": {"delete_unused_ms": PERIOD_MS}})
    client.publish("reply", b"3")
    assert [each["body"] for each in client.peek("reply")] == [b"3"]
    client.request({"op": "queue_delete", "queue": "reply", "force": 1})
    world.restart()
    client = world.hello()
    client.publish("reply", b"4")  # somebody deleted it: any use makes it
    assert is_there(client)


def test_a_queue_that_ends_by_a_policy_comes_back_by_its_use() -> None:
    """Nobody declared it: it was made by its use, and has the settings of the policy again."""
    world = World()
    client = world.hello()
    settings = {"delete_unused_ms": PERIOD_MS}
    asked = {"op": "policy_set", "name": "p", "pattern": "rep*", "settings": settings}
    assert client.request(asked)["op"] == "reply"
    for _ in range(2):
        client.publish("reply", b"x")
        world.advance(2 * PERIOD_MS + 1_000)
        assert not is_there(client)
        client = world.hello()


def test_the_name_of_a_queue_that_ended_is_known_for_a_week() -> None:
    world = World()
    client = gone(world)
    world.advance(8 * 24 * 3_600_000)
    client = world.hello()
    client.publish("reply", b"x")
    assert is_there(client)
