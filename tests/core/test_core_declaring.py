"""Promises of `queue_declare`: it makes what is not there, and changes nothing that somebody chose."""

from __future__ import annotations

from typing import Any

import pytest
from core_client import Client
from harness import World

from minibroker.contract.settings import default_settings
from minibrokerd.core.model.records import QueueMeta, decode


def declare(client: Client, queue: str = "q", **settings: int | str) -> Any:
    """Ask for a queue with these settings."""
    return client.request({"op": "queue_declare", "queue": queue, "settings": settings})


def queue_records(world: World) -> list[QueueMeta]:
    """Return the QUEUE records of the log."""
    metas = [decode(record) for batch in world.log for record in batch.records]
    return [meta for meta in metas if isinstance(meta, QueueMeta)]


def test_a_queue_is_made_with_the_settings_asked_for() -> None:
    world = World()
    answer = declare(world.hello(), max_attempts=3, durability="lazy")
    expected = default_settings() | {"max_attempts": 3, "durability": "lazy"}
    assert answer["value"] == {"created": True, "queue": "q", "settings": expected}
    (meta,) = queue_records(world)
    assert meta.settings == expected


def test_of_two_that_race_the_second_is_told_what_there_is() -> None:
    world = World()
    one, other = world.hello(), world.hello()
    assert declare(one, max_attempts=3)["value"]["created"]
    value = declare(other, max_attempts=4)["value"]
    assert (value["created"], value["settings"]["max_attempts"]) == (False, 3)
    assert len(queue_records(world)) == 1, "nothing was written for the second"


def test_the_answer_waits_until_what_it_shows_is_safe() -> None:
    world = World(auto_sync=False)
    one, other = world.hello(), world.hello()
    assert declare(one, max_attempts=3) is None
    assert declare(other, max_attempts=3) is None
    world.sync()
    assert one.answer(request=1)["value"]["created"]
    assert not other.answer(request=1)["value"]["created"]


@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize("queue", ["q", "q.dlq"])
def test_a_queue_that_came_by_its_use_gets_what_is_declared_first(
    queue: str, restarts: bool
) -> None:
    """Whether a worker declares it before somebody publishes is chance."""
    world = World()
    client = world.hello()
    client.publish("q", b"body")
    client.receive("q.dlq")
    declare(client, queue)  # says nothing of its settings
    if restarts:
        world.restart()
        client = world.hello()
    value = declare(client, queue, result_ms=60_000)["value"]
    assert (value["created"], value["settings"]["result_ms"]) == (False, 60_000)
    value = declare(client, queue, result_ms=9_000)["value"]
    assert value["settings"]["result_ms"] == 60_000, "the first one says it"
    world.restart()
    assert declare(world.hello(), queue)["value"]["settings"]["result_ms"] == 60_000


def test_what_waits_already_goes_by_what_is_declared() -> None:
    world = World()
    client = world.hello()
    client.publish("q", b"body")
    declare(client, result_ms=60_000)
    assert client.receive("q")["results"] is True


def test_settings_that_somebody_chose_stay_though_they_are_the_defaults() -> None:
    world = World()
    client = world.hello()
    client.publish("q", b"body")
    client.set("q", result_ms=0)
    world.restart()
    value = declare(world.hello(), result_ms=60_000)["value"]
    assert value["settings"]["result_ms"] == 0


def test_the_declared_durability_is_that_of_the_dead_letters_too() -> None:
    world = World()
    client = world.hello()
    client.receive("q.dlq")
    declare(client, durability="lazy")
    assert declare(client, "q.dlq")["value"]["settings"]["durability"] == "lazy"


def test_declaring_again_over_a_restart_changes_nothing() -> None:
    world = World()
    declare(world.hello(), lease_ms=1_000)
    world.hello().set("q", max_attempts=9)
    world.restart()
    value = declare(world.hello(), lease_ms=1_000)["value"]
    assert (value["created"], value["settings"]["max_attempts"]) == (False, 9)


def test_a_server_that_makes_no_queues_on_use_makes_those_that_are_declared() -> None:
    client = World(auto_create=False).hello()
    assert client.publish("q", b"body")["code"] == "unknown_queue"
    assert declare(client)["value"]["created"]
    assert client.publish("q", b"body")["op"] == "confirm"


@pytest.mark.parametrize(
    ("queue", "settings", "code"),
    [
        ("q", {"colour": 1}, "bad_value"),
        ("q", {"lease_ms": 1}, "bad_value"),
        ("q", {"durability": "never"}, "bad_value"),
        ("no name", {}, "bad_name"),
        ("other.dlq", {}, "bad_name"),
    ],
)
def test_what_is_refused_leaves_no_queue(queue: str, settings: dict[str, Any], code: str) -> None:
    world = World()
    client = world.hello()
    assert declare(client, queue, **settings)["code"] == code
    assert client.queue_names() == []


def test_a_dlq_is_declared_once_its_source_is_there() -> None:
    world = World()
    client = world.hello()
    declare(client, durability="lazy")
    assert declare(client, "q.dlq", durability="sync")["code"] == "bad_value"
    assert client.queue_names() == ["q"], "nothing was made"
    value = declare(client, "q.dlq", max_messages=7)["value"]
    assert (value["created"], value["settings"]["max_messages"]) == (True, 7)
    assert value["settings"]["durability"] == "lazy"
    assert declare(client, "q.dlq", max_messages=8)["value"]["created"] is False
