"""protocol.md 5.20, `log_group_seek` with a key: of what has ended, only messages of that key come again."""

from __future__ import annotations

from typing import Any

import pytest
from core_client import Client
from harness import World

from minibroker.contract import limits
from minibrokerd.core.model.retained import OFFSET_BITS


def asked(client: Client, op: str, **fields: Any) -> Any:
    """Return the value that a request is answered with, or the error."""
    answer = client.request({"op": op, **fields})
    return answer.get("value", answer)


def begun() -> tuple[World, Client]:
    """Return a log of 30 messages of three keys, published one by one and together, and a group of it."""
    world = World()
    client = world.hello()
    client.set("log", kind="log")
    for number in range(15):
        client.publish("log", b"%d" % number, key="abc"[number % 3])
    numbers = range(15, 30)
    client.publish("log", *(b"%d" % n for n in numbers), keys=["abc"[n % 3] for n in numbers])
    asked(client, "log_group_set", queue="log", group="g")
    return world, client


def taken(client: Client, most: int = 100) -> list[int]:
    """Take what is there in the group, and ack it; return the offsets in order."""
    messages = client.receive_all("log@g", most)
    if messages:
        client.settle("ack", *messages)
    return sorted(message.sequence & (1 << OFFSET_BITS) - 1 for message in messages)


def test_all_had_ended() -> None:
    """Messages of the key come again from the start on, and then what is new, of every key."""
    world, client = begun()
    assert taken(client) == list(range(30))
    answer = asked(client, "log_group_seek", queue="log", group="g", start="offset", at=10, key="b")
    assert answer["only_key"] == "b"
    assert taken(client) == [n for n in range(10, 30) if n % 3 == 1]
    client.publish("log", b"new", key="c")
    assert taken(client) == [30]
    assert asked(client, "log_show", queue="log")["groups"][0]["only_key"] == ""
    world.restart()
    client = world.hello()
    client.publish("log", b"newer", key="a")
    assert len(taken(client)) == 1
    world.check()


def test_what_had_not_ended_comes_as_it_would_have() -> None:
    """Of every key; also over a restart in between."""
    world, client = begun()
    some = client.receive_all("log@g", 20)
    client.settle("ack", *[each for each in some if each.sequence != 12])
    asked(client, "log_group_seek", queue="log", group="g", key="c")
    world.restart()
    client = world.hello()
    world.advance(60_000)
    assert taken(client) == [n for n in range(12) if n % 3 == 2] + list(range(12, 30))
    world.check()


def test_a_start_behind_what_had_not_ended_skips_none_of_it() -> None:
    """Neither an offset nor a time does."""
    for start in ({"start": "next"}, {"start": "time", "at": 2**52}):
        world, client = begun()
        client.settle("ack", *client.receive_all("log@g", 20))
        asked(client, "log_group_seek", queue="log", group="g", key="a", **start)
        assert taken(client) == list(range(20, 30)), start
        world.check()


def test_one_at_a_time() -> None:
    """While a replay of one key is under way another one is refused; one of all is not."""
    _, client = begun()
    client.settle("ack", *client.receive_all("log@g", 30))
    asked(client, "pause", queue="log@g")
    asked(client, "log_group_seek", queue="log", group="g", key="a")
    refusal = asked(client, "log_group_seek", queue="log", group="g", key="b")
    assert refusal["code"] == "busy"
    asked(client, "log_group_seek", queue="log", group="g")
    asked(client, "unpause", queue="log@g")
    assert taken(client) == list(range(30))


@pytest.mark.parametrize("key", ["nobody's", "a"])
def test_a_key_that_nothing_has(key: str) -> None:
    """The group goes on where it was."""
    _, client = begun()
    assert taken(client) == list(range(30))
    asked(client, "log_group_seek", queue="log", group="g", key=key)
    assert taken(client) == ([n for n in range(30) if n % 3 == 0] if key == "a" else [])
    client.publish("log", b"new")
    assert taken(client) == [30]


def test_what_came_back_of_an_older_position_holds_nothing_up() -> None:
    """A dead message of before a move is redriven: what comes again is of the key all the same."""
    world, client = begun()
    client.set("log@g", max_attempts=1)
    got = client.receive_all("log@g", 30)
    client.settle("nack", *[each for each in got if each.sequence == 3])
    client.settle("ack", *[each for each in got if each.sequence != 3])
    asked(client, "log_group_seek", queue="log", group="g", start="next")
    client.redrive("log@g.dlq", count=1)
    world.run_jobs()
    assert client.stats("log@g")["ready"] == 1
    asked(client, "log_group_seek", queue="log", group="g", key="b")
    assert taken(client) == [n for n in range(30) if n % 3 == 1]


def test_groups_of_a_log_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is there is answered; another one is refused until one is gone."""
    monkeypatch.setattr(limits, "MAX_GROUPS_OF_LOG", 2)
    _, client = begun()
    more = {"op": "log_group_set", "queue": "log", "group": "h"}
    assert client.request(more)["op"] == "reply"
    refusal = client.request(more | {"group": "i"})
    assert (refusal["code"], refusal["retryable"]) == ("limit_reached", False)
    assert client.request(more)["op"] == "reply"
    client.request({"op": "queue_delete", "queue": "log@g", "force": 1})
    assert client.request(more | {"group": "i"})["op"] == "reply"
