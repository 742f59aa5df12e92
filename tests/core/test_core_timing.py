"""protocol.md, `times`: how long messages of a queue wait and run, and how many handlers would be enough."""

from __future__ import annotations

from typing import Any

import pytest
from core_client import Client
from harness import World

from minibrokerd.core.model.times import WINDOW_MS, p95_of

SECOND_MS = 1_000


def times(client: Client, queue: str = "q", **fields: int) -> dict[str, Any]:
    """Return the times of a queue."""
    answer = client.request({"op": "times", "queue": queue, **fields})
    value: dict[str, Any] = answer.get("value", answer)
    return value


def test_waits_and_runs_of_each_queue_are_its_own() -> None:
    """Waits of those that were begun; runs of all attempts, failed ones, too."""
    world = World()
    client = world.hello()
    client.set("q", retry_delay_ms=0)
    client.publish("q", *[b"x"] * 4)
    client.publish("other", b"x")
    world.advance(2 * SECOND_MS)
    got = client.receive_all("q", 3)
    world.advance(8 * SECOND_MS)
    client.settle("ack", *got[:2])
    client.settle("nack", got[2])
    said = times(client)
    assert said["waits"] | {"count": 3, "total_ms": 6_000} == said["waits"]
    assert said["runs"] | {"count": 3, "total_ms": 24_000} == said["runs"]
    assert {said["runs"][share] for share in ("p50", "p95", "p99")} == {8_000}, (
        "all of them ran so long"
    )
    assert said["waits"]["p99"] == 2_000
    assert (said["backlog"], said["at_work"], said["oldest_ready_ms"]) == (2, 0, 10_000)
    other = times(client, "other")
    assert (other["waits"]["count"], other["runs"]["count"]) == (0, 0)
    assert "handlers" not in other, "nobody knows how long its runs take"
    assert times(client, "nothing")["code"] == "unknown_queue"


def test_shares_of_times_stay_within_what_came() -> None:
    """One of 8.2 s is none of 15 s, though it is counted with those; also over both windows, and in the list."""
    world = World()
    client = world.hello()
    client.publish("q", *[b"x"] * 3)
    for ms in (8_200, 9_000, 60_000):
        got = client.receive_all("q", 1, lease_ms=120_000)
        world.advance(ms)
        client.settle("ack", *got)
    runs = times(client)["runs"]
    assert 8_200 <= runs["p50"] <= 16_384
    assert 32_768 <= runs["p95"] <= runs["p99"] <= 60_000
    group = world.store.queues["q"].group
    assert p95_of(group.times, world.store.now_ms)[1] == runs["p95"]


@pytest.mark.parametrize("target_s", [60, 6, 600])
def test_so_many_handlers_would_be_enough(target_s: int) -> None:
    """A run takes 2 s, 10 messages come a second, 899 wait: 2 x (10 + 899 / target)."""
    world = World()
    client = world.hello()
    client.publish("q", *[b"x"] * 899)
    for _ in range(100):  # what came at once is out of the windows by the end
        client.publish("q", *[b"x"] * 20)
        got = client.receive_all("q", 20)
        world.advance(2 * SECOND_MS)
        client.settle("ack", *got)
    said = times(client, target_ms=target_s * SECOND_MS)
    assert said["backlog"] == 899
    assert said["published"] * SECOND_MS / said["window_ms"] == pytest.approx(10, rel=0.03)
    assert said["handlers"] == pytest.approx(2 * (10 + 899 / target_s), abs=1.7)


def test_what_is_older_than_two_minutes_is_forgotten() -> None:
    world = World()
    client = world.hello()
    client.publish("q", b"x")
    client.settle("ack", *client.receive_all("q"))
    world.advance(WINDOW_MS - SECOND_MS)
    assert times(client)["runs"]["count"] == 1
    world.advance(WINDOW_MS - SECOND_MS)
    assert times(client)["runs"]["count"] == 1
    world.advance(2 * WINDOW_MS)
    said = times(client)
    assert (said["runs"]["count"], said["waits"]["count"], said["published"]) == (0, 0, 0)


def test_the_time_in_which_consumers_have_nothing() -> None:
    """Half of it: one has something for 5 of 10 seconds, and one does not yet."""
    world = World()
    client = world.hello()
    client.consume("q", 2)
    world.advance(2 * SECOND_MS)
    client.publish("q", b"x")
    world.advance(1 * SECOND_MS)
    client.publish("q", b"x")  # to one that has something
    messages = client.messages()
    world.advance(2 * SECOND_MS)
    client.settle("ack", messages[0])
    world.advance(2 * SECOND_MS)
    client.settle("ack", messages[1])
    world.advance(3 * SECOND_MS)
    said = times(client)
    assert (said["consumers"], said["consumers_ms"], said["idle_ms"]) == (1, 10_000, 5_000)
