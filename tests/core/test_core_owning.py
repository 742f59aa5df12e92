"""protocol.md, 5.19: a queue that belongs to a session is for that alone, and ends with it; given names."""

from __future__ import annotations

from typing import Any

import pytest
from core_client import Client
from harness import World

from minibroker.contract.limits import GIVEN_NAMES, SESSION_KEPT_MS
from minibroker.contract.wire import pack_runs
from minibrokerd.access.rights import Grant, Right
from minibrokerd.core.verbs.operations import OPERATIONS


def declare(client: Client, queue: str = "", **settings: int | str) -> Any:
    """Declare an exclusive queue; return what was answered."""
    part = {"op": "queue_declare", "queue": queue, "exclusive": 1, "settings": settings}
    return client.request(part)


def own(client: Client, queue: str = "", **settings: int | str) -> str:
    """Declare an exclusive queue; return its name."""
    name: str = declare(client, queue, **settings)["value"]["queue"]
    return name


def bound(client: Client, queue: str) -> None:
    """Bind a queue to the exchange `e`."""
    client.request({"op": "exchange_set", "name": "e", "type": "fanout", "unroutable": "drop"})
    client.request({"op": "bind", "exchange": "e", "queue": queue})


def bindings(client: Client) -> list[str]:
    """Return the queues that `e` leads to."""
    answer = client.request({"op": "bindings", "exchange": "e"})
    return [each["queue"] for each in answer["value"]["bindings"]]


ALONE: dict[str, dict[str, Any]] = {
    "consume": {"consumer": 1, "prefetch": 1},
    "receive": {"count": 1},
    "retime": {"runs": 1},
    "cancel_messages": {"state": "READY"},
    "redrive": {"runs": 0},
    "redrive_start": {},
    "redrive_stop": {},
    "move": {"target": "other"},
    "purge": {},
    "queue_set": {"settings": {}},
    "queue_declare": {"settings": {}},
    "queue_delete": {"force": 1},
    "key_set": {"key": "k", "weight": 2},
    "schema_set": {"schema": b"false"},
    "log_group_set": {"group": "g"},
    "log_group_seek": {"group": "g", "start": "next"},
    "bind": {"exchange": "e"},
    "unbind": {"exchange": "e"},
}


def test_every_operation_that_is_for_the_owner_alone_is_tried() -> None:
    """The table of operations, and the one above."""
    assert {row.op for row in OPERATIONS.values() if row.owned} == set(ALONE)


@pytest.mark.parametrize("op", ALONE)
@pytest.mark.parametrize("which", ["mine", "mine.dlq"])
def test_others_are_refused(op: str, which: str) -> None:
    """By a code of its own, and a text that names the owner; of its dead-letter queue, too."""
    world = World()
    owner, other = world.hello("owner"), world.hello("other")
    own(owner, "mine")
    bound(owner, "mine")
    owner.publish("mine", b"1")
    columns = pack_runs([(0, 1, 0, 1)]) if op == "retime" else b""
    answer = other.request({"op": op, "queue": which, **ALONE[op]}, columns)
    assert (answer["op"], answer["code"], answer["retryable"]) == (
        "error",
        "exclusive_queue",
        False,
    )
    assert "'mine'" in answer["text"]
    assert "owner" in answer["text"]
    assert owner.stats("mine")["ready"] == 1
    assert bindings(other) == ["mine"]


def test_others_publish_and_look() -> None:
    """That is what it is for, and who cannot see it cannot explain it."""
    world = World()
    owner, other = world.hello("owner"), world.hello("other")
    own(owner, "mine")
    assert other.publish("mine", b"1")["op"] == "confirm"
    assert [each["body"] for each in other.peek("mine")] == [b"1"]
    said: Any = other.stats("mine")
    assert (said["ready"], said["exclusive"]) == (1, "owner")
    shown = other.request({"op": "queue_show", "queue": "mine"})["value"]
    assert shown["exclusive"] == "owner"
    assert other.explain((1, 0))["reason"] == "no_consumer"
    assert [message.body for message in owner.receive_all("mine")] == [b"1"]


def test_the_owner_declares_it_again_over_a_new_connection() -> None:
    """As a program does at each reconnect; what is there belongs to nobody else."""
    world = World()
    owner = world.hello("owner")
    assert declare(owner, "mine")["value"]["created"]
    owner.publish("mine", b"1")
    world.disconnect(owner)
    back = world.resume(owner)
    answer = declare(back, "mine")["value"]
    assert (answer["created"], answer["exclusive"], answer["queue"]) == (False, "owner", "mine")
    assert [message.body for message in back.receive_all("mine")] == [b"1"]
    back.publish("all", b"1")
    assert declare(back, "all")["code"] == "exclusive_queue"
    assert declare(back, "all.dlq")["code"] == "bad_value"
    assert declare(back, "none.dlq")["code"] == "bad_value"


@pytest.mark.parametrize("how", ["goodbye", "lost", "restart", "crash"])
def test_it_ends_with_its_session(how: str) -> None:
    """With its messages, in work or not, its dead-letter queue and its bindings; and nothing else ends."""
    world = World()
    owner, other = world.hello("owner"), world.hello("other")
    name = own(owner, max_attempts=1)
    other.publish("not-mine", b"1")
    bound(owner, name)
    bound(other, "not-mine")
    owner.publish(name, b"1", b"2", b"3")
    owner.settle("reject", *owner.receive_all(name, 1))
    begun = owner.receive_all(name, 1)
    assert len(begun) == 1
    owner.consume(name, prefetch=10)
    if how == "goodbye":
        owner.send(owner.frame([{"op": "goodbye"}]))
        world.run_jobs()
    else:
        world.sync()
        if how == "lost":
            world.disconnect(owner)
        else:
            world.restart(clean=how == "restart", waits=True)
            other = world.hello("other")
        world.advance(SESSION_KEPT_MS - 1_000)
        assert name in other.queue_names()
        world.advance(2_000)
    assert set(other.queue_names()) == {"not-mine"}
    assert bindings(other) == ["not-mine"]
    assert not world.store.owners.session_of
    assert other.publish(name, b"4")["code"] == "unknown_queue"
    world.check()
    world.restart()
    assert set(world.hello().queue_names()) == {"not-mine"}
    assert not world.store.owners.session_of


@pytest.mark.parametrize("clean", [True, False])
def test_a_session_that_comes_back_after_a_restart_goes_on_with_its_queue(clean: bool) -> None:
    """Its messages are there, and it is for that session alone as before."""
    world = World()
    owner = world.hello("owner")
    name = own(owner)
    owner.publish(name, b"1")
    world.sync()
    world.restart(clean=clean, waits=True)
    world.advance(SESSION_KEPT_MS - 1_000)
    back = world.resume(owner)
    world.advance(10 * SESSION_KEPT_MS)
    assert world.hello("other").receive(name)["code"] == "exclusive_queue"
    assert [message.body for message in back.receive_all(name)] == [b"1"]
    world.disconnect(back)
    world.advance(20 * SESSION_KEPT_MS)
    assert name not in world.hello().queue_names()


def test_a_session_that_has_nothing_else_is_kept_for_its_queue_and_ends_with_it() -> None:
    """No lease, and no answer that it could ask for again."""
    world = World()
    owner = world.hello("owner")
    name = own(owner)
    world.disconnect(owner)
    world.advance(SESSION_KEPT_MS - 1_000)
    assert name in world.hello().queue_names()
    world.advance(2_000)
    assert name not in world.hello().queue_names()


def test_a_session_that_is_only_attached_keeps_its_queue() -> None:
    """The thread beside a loop that stands still shows that the client lives."""
    world = World()
    owner = world.hello("owner")
    name = own(owner)
    world.attach(owner)
    world.disconnect(owner)
    world.advance(3 * SESSION_KEPT_MS)
    assert name in world.hello().queue_names()


def test_very_many_end_in_steps() -> None:
    """With what is in them, and none of those that take part in the same step is forgotten."""
    world = World()
    owner, other = world.hello("owner"), world.hello("other")
    names = [own(owner, durability="memory") for _ in range(200)]
    for name in names:
        owner.publish(name, *[b"x"] * 50)
    for number, name in enumerate(names):
        owner.consume(name, prefetch=1, consumer=number)
    owner.send(owner.frame([{"op": "goodbye"}]))
    left = len(other.queue_names())
    assert left > 100, "all of them in one step"
    assert world.run_jobs() > 10
    assert other.queue_names() == []
    world.check()


def test_nothing_of_it_is_handed_out_when_its_end_is_decided() -> None:
    """Not even to its owner, if that comes back before the last step."""
    world = World()
    owner = world.hello("owner")
    names = [own(owner) for _ in range(50)]
    for name in names:
        owner.publish(name, b"x")
    owner.send(owner.frame([{"op": "goodbye"}]))
    back = world.resume(owner)
    left = set(back.queue_names()) & set(names)
    assert left, "the test is of the time in between"
    for name in left:
        assert back.receive(name)["code"] in ("exclusive_queue", "unknown_queue")
    world.run_jobs()
    assert back.queue_names() == []


def test_the_server_gives_names_that_nobody_guesses() -> None:
    """Each once, also over a restart; with another secret they are others."""
    world = World()
    client = world.hello()
    names = {own(client) for _ in range(20)}
    world.restart(clean=False)
    client = world.hello()
    names |= {own(client) for _ in range(20)}
    assert len(names) == 40
    assert all(name.startswith(GIVEN_NAMES) and len(name) == 36 for name in names)
    other = World()
    other.store.owners.secret = b"another"
    assert own(other.hello()) not in names


def test_a_token_must_be_for_the_names_that_the_server_gives() -> None:
    """Else it could not use what it made."""
    world = World()
    client = world.hello()
    for pattern, code in (("orders.*", "not_allowed"), ("gen-*", None)):
        grant = Grant("team", "1", frozenset(Right), (pattern,))
        world.store.connections[client.connection].scope = grant
        answer = declare(client)
        assert answer.get("code") == code
    assert len(world.store.queues) == 1


def test_a_queue_without_a_name_must_be_able_to_end() -> None:
    """It is exclusive, or temporary: then it is for everybody who knows its name."""
    world = World()
    client, other = world.hello(), world.hello()
    part = {"op": "queue_declare", "queue": "", "settings": {}}
    assert client.request(part)["code"] == "bad_value"
    answer = client.request(part | {"settings": {"delete_unused_ms": 60_000}})["value"]
    assert "exclusive" not in answer
    assert other.receive(answer["queue"])["count"] == 0
    world.advance(130_000)
    assert client.queue_names() == []


@pytest.mark.parametrize("op", ["publish", "consume", "bind", "queue_set", "queue_declare"])
def test_no_use_of_such_a_name_makes_a_queue(op: str) -> None:
    """A reply to one who has gone makes no queue that nobody reads."""
    world = World()
    client = world.hello()
    name = GIVEN_NAMES + "0" * 32
    if op == "publish":
        answer = client.publish(name, b"1")
    elif op == "consume":
        answer = client.consume(name)
    elif op == "bind":
        client.request({"op": "exchange_set", "name": "e", "type": "fanout"})
        answer = client.request({"op": "bind", "exchange": "e", "queue": name})
    else:
        answer = client.request({"op": op, "queue": name, "settings": {}})
    assert answer["code"] == ("bad_name" if op.startswith("queue_") else "unknown_queue")
    assert client.queue_names() == []


@pytest.mark.parametrize("how", ["delete", "unused"])
def test_its_own_ways_to_end_leave_nothing_behind(how: str) -> None:
    """The owner deletes it, or nobody uses it: it belongs to nobody any more, over a restart, too."""
    world = World()
    owner = world.hello("owner")
    name = own(owner, "mine", delete_unused_ms=10_000)
    if how == "delete":
        owner.delete(name, force=True)
    else:
        world.advance(25_000)
    assert owner.queue_names() == []
    assert not world.store.owners.session_of
    other = world.hello("other")
    assert declare(other, "mine")["value"]["exclusive"] == "other"
    assert other.delete("mine", force=True)["op"] == "reply"
    world.restart()
    assert not world.store.owners.session_of
