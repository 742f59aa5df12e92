"""protocol.md, `times`, with `times_by`: how long messages of groups of keys wait and run."""

from __future__ import annotations

from typing import Any

import pytest
from core_client import Client
from harness import World

from minibrokerd.core.model import key_times
from minibrokerd.core.model.key_times import OTHERS
from minibrokerd.core.model.times import WINDOW_MS

SECOND_MS = 1_000


def groups(client: Client) -> dict[str, Any]:
    """Return the times of each group: how many waited, for how long in all, and the same of runs."""
    value = client.request({"op": "times", "queue": "q"})["value"]
    return {
        each["group"]: tuple(
            each[kind][name] for kind in ("waits", "runs") for name in ("count", "total_ms")
        )
        for each in value["groups"]
    }


def begun(by: str = "before-colon") -> tuple[World, Client]:
    """Return a world whose queue has times by groups."""
    world = World()
    client = world.hello("worker")
    client.set("q", times_by=by, retry_delay_ms=0)
    return world, client


@pytest.mark.parametrize(
    ("by", "names"),
    [
        ("key", {"a:1", "a:2", "b/1", "c.1", "d-1", ""}),
        ("before-colon", {"a", "b/1", "c.1", "d-1", ""}),
        ("before-slash", {"a:1", "a:2", "b", "c.1", "d-1", ""}),
        ("before-dot", {"a:1", "a:2", "b/1", "c", "d-1", ""}),
        ("before-dash", {"a:1", "a:2", "b/1", "c.1", "d", ""}),
    ],
)
def test_a_group_is_named_by_the_key_or_what_is_before_a_letter(by: str, names: set[str]) -> None:
    _, client = begun(by)
    for key in ("a:1", "a:2", "b/1", "c.1", "d-1"):
        client.publish("q", b"x", key=key)
    client.publish("q", b"x")
    client.receive_all("q")
    assert groups(client).keys() == names


def test_each_group_has_its_own_waits_and_runs() -> None:
    """Runs of all attempts, failed ones, too; in one ack with others."""
    world, client = begun()
    client.publish("q", b"x", key="a:1")
    world.advance(SECOND_MS)
    client.publish("q", b"x", key="a:2")
    client.publish("q", b"x", key="b:1")
    world.advance(2 * SECOND_MS)
    got = client.receive_all("q")
    assert groups(client) == {"a": (2, 5_000, 0, 0), "b": (1, 2_000, 0, 0)}
    world.advance(4 * SECOND_MS)
    client.settle("ack", *got)
    assert groups(client) == {"a": (2, 5_000, 2, 8_000), "b": (1, 2_000, 1, 4_000)}
    client.publish("q", b"x", key="b:7")
    (again,) = client.receive_all("q")
    world.advance(SECOND_MS)
    client.settle("nack", again)
    assert groups(client)["b"] == (2, 2_000, 2, 5_000)


def test_what_is_acked_without_a_begin_waited_until_then() -> None:
    """Of spans whose keys take turns, and of one that stays a span."""
    world, client = begun()
    client.publish("q", *[b"x"] * 3, key="a:1")
    client.publish("q", b"x", key="b:1")
    client.consume("q", 10)
    world.advance(2 * SECOND_MS)
    client.settle("ack", *client.messages())
    assert groups(client) == {"a": (3, 6_000, 3, 0), "b": (1, 2_000, 1, 0)}
    world.check()


def test_groups_come_to_what_their_queue_does() -> None:
    world, client = begun()
    for number in range(60):
        client.publish("q", b"x", key=f"{number % 7}:{number}")
        world.advance(300)
        if not number % 3:
            got = client.receive_all("q", 2)
            world.advance(500)
            client.settle("ack" if number % 2 else "nack", *got)
    value = client.request({"op": "times", "queue": "q"})["value"]
    found = groups(client).values()
    assert sum(each[2] for each in found) == value["runs"]["count"]
    assert sum(each[3] for each in found) == value["runs"]["total_ms"]


def test_only_what_came_of_late_is_told_and_all_is_known_since_the_start() -> None:
    world, client = begun()
    client.publish("q", b"x", key="a:1")
    client.settle("ack", *client.receive_all("q"))
    assert list(groups(client)) == ["a"]
    world.advance(3 * WINDOW_MS)
    assert groups(client) == {}
    for _ in range(3):
        client.publish("q", b"x", key="a:1")
        client.settle("ack", *client.receive_all("q"))
        world.advance(WINDOW_MS + 1)
    found = world.store.queues["q"].group.key_times
    assert found is not None
    assert [found.groups["a"].since_start(name).count for name in ("waits", "runs")] == [4, 4]


def test_the_first_groups_have_their_own_and_all_others_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a queue, and of the server; one that is called `others` is among them."""
    monkeypatch.setattr(key_times, "MOST_OF_QUEUE", 3)
    monkeypatch.setattr(key_times, "MOST_OF_SERVER", 4)
    world, client = begun()
    client.set("r", times_by="before-colon")
    for key in (OTHERS, "a", "b", "c", "d", "e", "a"):
        client.publish("q", b"x", key=key)
        client.publish("r", b"x", key=key)
    client.receive_all("q")
    counts = {name: found[0] for name, found in groups(client).items()}
    assert counts == {OTHERS: 3, "a": 2, "b": 1, "c": 1}
    client.receive_all("r")
    key_group = world.store.queues["r"].group.key_times
    assert key_group is not None
    assert set(key_group.groups) == {OTHERS, "a"}
    client.delete("q", force=True)
    assert world.store.sums.key_groups == 1


def test_other_settings_begin_anew_and_none_cost_nothing() -> None:
    world, client = begun()
    client.publish("q", b"x", key="a:1")
    client.receive_all("q")
    client.set("q", times_by="key")
    assert groups(client) == {}
    client.set("q", times_by="queue")
    assert "groups" not in client.request({"op": "times", "queue": "q"})["value"]
    sums = world.store.sums
    assert (sums.key_groups, sums.by_key_group) == (0, {})
    assert world.store.queues["q"].group.key_times is None


def test_they_are_counted_again_after_a_start() -> None:
    world, client = begun()
    world.restart(clean=False)
    client = world.hello("worker")
    world.advance(2 * SECOND_MS)
    client.publish("q", b"x", key="a:1")
    client.receive_all("q")
    assert groups(client) == {"a": (1, 0, 0, 0)}
