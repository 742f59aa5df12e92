"""Promises about keys of a queue that limits them: strict order over retries, or so many at once."""

from __future__ import annotations

from typing import Any

import pytest
from core_client import Client, Delivered
from harness import World

from minibrokerd.core.model import keys


def keyed(concurrency: int, **settings: Any) -> tuple[World, Client]:
    """Return a world whose `q` lets so many messages of a key be in work."""
    world = World()
    client = world.hello("w")
    client.set("q", key_concurrency=concurrency, retry_jitter_percent=0, **settings)
    return world, client


def bodies(messages: list[Delivered]) -> list[bytes]:
    return [message.body for message in messages]


def publish(client: Client, key: str, *texts: bytes) -> None:
    client.publish("q", *texts, keys=[key] * len(texts))


def test_one_at_a_time_in_order() -> None:
    world, client = keyed(1)
    publish(client, "a", b"a1", b"a2", b"a3")
    client.consume("q", 10)
    for text in (b"a1", b"a2", b"a3"):
        (message,) = client.messages()
        assert message.body == text
        client.settle("ack", message)
    assert world.queue("q").count() == 0
    assert not len(world.queue("q").group.keys or ()), "a key without work is forgotten"


def test_others_and_those_without_a_key_go_on() -> None:
    _world, client = keyed(1)
    publish(client, "a", b"a1", b"a2")
    publish(client, "b", b"b1", b"b2")
    client.publish("q", b"x", b"y")
    assert sorted(bodies(client.receive_all("q"))) == [b"a1", b"b1", b"x", b"y"]
    assert client.receive_all("q") == []


@pytest.mark.parametrize("most", [2, 3])
def test_n_at_once(most: int) -> None:
    _world, client = keyed(most)
    publish(client, "a", *[b"%d" % i for i in range(5)])
    got = client.receive_all("q")
    assert bodies(got) == [b"%d" % i for i in range(most)]
    client.settle("ack", got[1])
    assert bodies(client.receive_all("q")) == [b"%d" % most]
    assert client.receive_all("q") == []


def test_a_key_waits_for_the_retry_of_its_first_and_is_not_charged() -> None:
    world, client = keyed(1, retry_delay_ms=5_000)
    publish(client, "a", b"a1", b"a2")
    client.consume("q", 10)
    (first,) = client.messages()
    client.settle("nack", first)
    world.advance(4_900)
    assert client.messages() == []
    world.advance(200)
    (again,) = client.messages()
    assert (again.body, again.attempt) == (b"a1", 2)
    client.settle("ack", again)
    (second,) = client.messages()
    assert (second.body, second.attempt) == (b"a2", 1)


def test_a_retry_without_delay_goes_before_the_others_of_its_key() -> None:
    """Its place by time is behind them."""
    world, client = keyed(1)
    publish(client, "a", b"a1", b"a2")
    world.advance(1_000)
    (first,) = client.receive_all("q")
    client.settle("nack", first, delay_ms=0)
    assert bodies(client.receive_all("q")) == [b"a1"]


def test_several_at_once_do_not_wait_for_a_retry() -> None:
    _world, client = keyed(2, retry_delay_ms=5_000)
    publish(client, "a", b"a1", b"a2", b"a3")
    first, _ = client.receive_all("q")
    client.settle("nack", first)
    assert bodies(client.receive_all("q")) == [b"a3"]


@pytest.mark.parametrize("how", ["release", "lease", "gone", "release twice"])
def test_what_is_given_back_stays_first(how: str) -> None:
    world, client = keyed(1, lease_ms=1_000)
    publish(client, "a", b"a1", b"a2")
    client.consume("q", 10)
    (message,) = client.messages()
    if how == "lease":
        client.begin(message)
        world.advance(1_100)
        client.request({"op": "ping"})  # it was silent
    elif how == "gone":
        world.disconnect(client)
        client = world.hello()
        client.consume("q", 10)
    else:
        client.settle("release", message)
    if how == "release twice":
        client.settle("release", *client.messages())
        assert client.messages() == []
        world.advance(1_100)
    assert bodies(client.messages()) == [b"a1"]


@pytest.mark.parametrize("how", ["dead", "cancelled", "moved"])
def test_a_key_goes_on_when_the_one_that_holds_it_is_gone(how: str) -> None:
    _world, client = keyed(1, max_attempts=1 if how == "dead" else 5)
    publish(client, "a", b"a1", b"a2")
    client.consume("q", 10)
    (message,) = client.messages()
    client.settle("nack", message, delay_ms=60_000)
    if how != "dead":
        assert client.messages() == []
    if how == "cancelled":
        client.cancel_messages("q", message.id)
    elif how == "moved":
        client.request({"op": "move", "queue": "q", "target": "other", "runs": 0, "count": 0})
        publish(client, "a", b"a2")
    assert bodies(client.messages()) == [b"a2"]


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("clean", [False, True])
def test_a_key_is_held_over_a_restart(waits: bool, clean: bool) -> None:
    world, client = keyed(1, retry_delay_ms=90_000)
    publish(client, "a", b"a1", b"a2")
    (message,) = client.receive_all("q")
    if waits:
        client.settle("nack", message)
    world.restart(clean=clean)
    world.advance(5_000)
    other = world.hello()
    other.consume("q", 10)
    assert other.messages() == []
    world.advance(90_000)
    assert bodies(other.messages()) == [b"a1"]
    assert other.messages() == []


def test_a_purge_opens_all_keys() -> None:
    world, client = keyed(1)
    publish(client, "a", b"a1", b"a2")
    client.consume("q", 10)
    (message,) = client.messages()
    client.purge("q")
    publish(client, "a", b"a3")
    assert bodies(client.messages()) == [b"a3"]
    client.settle("ack", message)  # which is lost
    world.check()


def test_a_limit_that_is_set_counts_what_is_in_work_already() -> None:
    world, client = keyed(0)
    publish(client, "a", b"a1", b"a2", b"a3", b"a4")
    client.consume("q", 3)
    one, two, three = client.messages()
    client.settle("nack", one, delay_ms=60_000)
    (four,) = client.messages()
    publish(client, "a", b"a5")
    client.set("q", key_concurrency=1)
    for message in (two, three, four):
        client.settle("ack", message)
        assert client.messages() == []  # a1 came back before, and waits
    world.advance(60_100)
    (again,) = client.messages()
    assert again.body == b"a1"
    client.settle("ack", again)
    assert bodies(client.messages()) == [b"a5"]


def test_a_limit_that_is_taken_away_or_raised_lets_all_go_on() -> None:
    _world, client = keyed(1)
    publish(client, "a", b"a1", b"a2", b"a3", b"a4")
    client.consume("q", 10)
    assert bodies(client.messages()) == [b"a1"]
    client.set("q", key_concurrency=2)
    assert bodies(client.messages()) == [b"a2"]
    client.set("q", key_concurrency=0)
    assert bodies(client.messages()) == [b"a3", b"a4"]


def test_another_limit_for_very_many_keys_is_taken_in_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(keys, "STEP_LOOKS", 50)
    world, client = keyed(1)
    names = [f"k{i}" for i in range(300)]
    client.publish("q", *[b"x"] * 900, keys=names * 3)
    client.consume("q", 1_000)
    assert len(client.messages()) == 300
    client.set("q", key_concurrency=2)
    assert world.store.jobs, "it was done at once"
    assert client.messages() == []
    world.run_jobs()
    assert len(client.messages()) == 300


def test_what_can_be_had_of_closed_keys_is_shared() -> None:
    world, client = keyed(1)
    other = world.hello()
    client.consume("q", 100)
    other.consume("q", 100)
    client.publish("q", *[b"x"] * 1_000, keys=[f"k{i % 10}" for i in range(1_000)])
    assert (len(client.messages()), len(other.messages())) == (5, 5)


def test_a_receive_is_told_none_while_all_that_is_ready_is_of_closed_keys() -> None:
    world, client = keyed(1)
    publish(client, "a", b"a1", b"a2")
    client.receive_all("q")
    assert client.receive("q")["messages"] == []
    assert client.receive("q", 1, 300) is None
    world.advance(400)
    assert client.pop("deliver")["messages"] == []


def test_a_message_that_still_runs_in_a_client_keeps_its_key() -> None:
    world, client = keyed(1)
    publish(client, "a", b"a1", b"a2")
    client.consume("q", 10)
    (message,) = client.messages()
    world.restart(clean=False)
    client = world.resume(client, [message])
    assert client.pop("welcome")["lost_runs"] == []
    client.consume("q", 10)
    world.advance(5_000)
    assert client.messages() == []
    client.settle("ack", message)
    assert bodies(client.messages()) == [b"a2"]


def test_a_dead_letter_queue_has_no_such_limit() -> None:
    _world, client = keyed(1)
    assert client.set("q.dlq", key_concurrency=1)["code"] == "bad_value"
    assert client.set("other.dlq", key_concurrency=1)["code"] == "bad_value"
    client.set("q.dlq", key_concurrency=0)
