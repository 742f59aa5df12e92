"""protocol.md 5.12: a queue whose attempts fail hands nothing out, then tries one message at a time."""

from __future__ import annotations

from typing import Any

import pytest
from core_client import Client
from harness import World

from minibrokerd.core.model.kept import CIRCUIT

SECOND_MS = 1_000
OPEN_MS = 30_000
SETTINGS: dict[str, int] = {
    "circuit_failures_percent": 50,
    "circuit_attempts": 4,
    "circuit_window_ms": 10_000,
    "circuit_open_ms": OPEN_MS,
    "retry_delay_ms": 0,
    "max_attempts": 3,
}


def closed(count: int = 20, **settings: int) -> tuple[World, Client]:
    """Return a world with a queue that has a circuit, and so many messages."""
    world = World()
    client = world.hello("worker")
    client.set("q", **SETTINGS | settings)
    client.publish("q", *[b"x"] * count)
    return world, client


def end(client: Client, op: str, count: int = 1) -> int:
    """Receive and end so many messages; return how many there were."""
    got = client.receive_all("q", count)
    if got:
        more = {"error": ("ConnectionError", "no answer")} if op != "ack" else {}
        client.settle(op, *got, **more)
    return len(got)


def circuit(client: Client) -> dict[str, Any]:
    """Return what `stats` says of the circuit."""
    answer = client.request({"op": "stats", "queue": "q"})
    said: dict[str, Any] = answer["value"]["queues"]["q"]["circuit"]
    return said


def opened() -> tuple[World, Client]:
    """Return a world whose circuit has just opened: two of four attempts failed."""
    world, client = closed(40)
    end(client, "ack", 2)
    end(client, "nack")
    assert circuit(client)["state"] == "closed"
    end(client, "nack")
    assert circuit(client)["state"] == "open"
    return world, client


def test_it_opens_at_the_share_and_says_why() -> None:
    world, client = opened()
    said = circuit(client)
    assert said["why"] == "2 of 4 attempts failed, the last one with ConnectionError"
    assert said["since_unix_ms"] == world.unix_ms
    assert said["until_unix_ms"] == world.unix_ms + OPEN_MS
    assert client.receive_all("q") == []
    why = client.explain((1, 5))
    assert (why["reason"], why["by"]) == ("circuit_open", said["why"])
    assert why["until_unix_ms"] == said["until_unix_ms"]


def test_too_few_or_too_old_failures_open_nothing() -> None:
    world, client = closed()
    end(client, "nack", 3)
    world.advance(21 * SECOND_MS)
    end(client, "nack", 1)
    assert circuit(client)["state"] == "closed"


def test_rejects_are_no_failures_of_what_is_called() -> None:
    _, client = closed()
    end(client, "reject", 10)
    assert circuit(client)["state"] == "closed"


def test_rejects_make_no_share_of_failures_smaller() -> None:
    """They say nothing of what is called, good or bad."""
    _, client = closed()
    end(client, "reject", 6)
    end(client, "nack", 3)
    assert circuit(client)["state"] == "closed"
    end(client, "nack")
    assert circuit(client)["why"] == "4 of 4 attempts failed, the last one with ConnectionError"


def test_what_is_tried_and_rejected_leaves_it_to_the_next() -> None:
    """Nothing is known of what it calls: neither open for as long again, nor closed."""
    world, client = opened()
    world.advance(OPEN_MS + SECOND_MS)
    for _ in range(3):
        assert end(client, "reject", 10) == 1
        assert circuit(client)["state"] == "probing"
    assert client.stats("q.dlq")["ready"] == 3
    assert end(client, "ack", 10) == 1
    assert circuit(client)["state"] == "closed"


def test_one_message_is_tried_and_its_ack_closes_it() -> None:
    world, client = opened()
    world.advance(OPEN_MS - SECOND_MS)
    assert client.receive_all("q") == []
    world.advance(2 * SECOND_MS)
    assert circuit(client)["state"] == "probing"
    (tried,) = client.receive_all("q", 10)
    assert client.receive_all("q") == [], "one at a time"
    assert client.explain((1, 10))["reason"] == "circuit_probing"
    client.settle("ack", tried)
    assert circuit(client)["state"] == "closed"
    assert len(client.receive_all("q", 10)) == 10


def test_a_failure_of_what_was_tried_opens_it_again_and_charges_nobody() -> None:
    """However long the outage is: nothing dies of it."""
    world, client = opened()
    since = circuit(client)["since_unix_ms"]
    for _ in range(10):
        world.advance(OPEN_MS + SECOND_MS)
        assert end(client, "nack", 10) == 1
        assert circuit(client)["state"] == "open"
    said = circuit(client)
    assert said["why"] == "the message that was tried failed, with ConnectionError"
    assert said["since_unix_ms"] == since
    attempts = [sum(each.get("attempts", {}).values()) for each in client.peek("q")]
    assert sum(attempts) == 2, "those before it opened"
    assert client.stats("q")["dead_lettered"] == 0


def test_what_was_begun_before_it_opened_is_not_charged_and_decides_nothing() -> None:
    world, client = closed()
    early = client.receive_all("q", 3)
    end(client, "nack", 4)
    assert circuit(client)["state"] == "open"
    client.settle("nack", early[0], error=("E", "e"))
    assert client.stats("q")["failed"] == 5
    assert sum(sum(each.get("attempts", {}).values()) for each in client.peek("q")) == 4
    world.advance(OPEN_MS + SECOND_MS)
    client.settle("ack", early[1])
    assert circuit(client)["state"] == "probing", "it was not the one that was tried"
    client.settle("nack", early[2], error=("E", "e"))
    assert circuit(client)["state"] == "probing"


def test_what_is_tried_and_given_back_is_tried_again() -> None:
    world, client = opened()
    world.advance(OPEN_MS + SECOND_MS)
    (tried,) = client.receive_all("q")
    client.settle("release", tried)
    assert len(client.receive_all("q", 10)) == 1


@pytest.mark.parametrize("prefetch", [1, 10])
def test_consumers_get_one_at_a_time(prefetch: int) -> None:
    world, _ = opened()
    workers = [world.hello("worker") for _ in range(2)]
    for worker in workers:
        worker.consume("q", prefetch)
    world.advance(OPEN_MS + SECOND_MS)
    got = [message for worker in workers for message in worker.messages()]
    assert len(got) == 1
    first = got[0].token in world.store.connections[workers[0].connection].tokens
    owner = workers[0] if first else workers[1]
    owner.settle("ack", *got)
    assert sum(len(worker.messages()) for worker in workers) == 2 * prefetch


@pytest.mark.parametrize("how", ["clean", "crash", "forwarded", "digests"])
def test_a_restart_leaves_it_as_it_was(how: str) -> None:
    world, client = opened()
    before = circuit(client)
    if how in ("forwarded", "digests"):
        world.free(world.core.synced)
        world.digests = how == "digests"
    world.advance(10 * SECOND_MS)
    world.restart(clean=how != "crash")
    client = world.hello("worker")
    world.advance(2 * SECOND_MS)
    said = circuit(client)
    assert (said["state"], said["why"], said["since_unix_ms"]) == (
        "open",
        before["why"],
        before["since_unix_ms"],
    )
    assert abs(said["until_unix_ms"] - before["until_unix_ms"]) <= 10
    world.advance(20 * SECOND_MS)
    assert circuit(client)["state"] == "probing"
    world.restart(clean=how != "crash")
    client = world.hello("worker")
    world.advance(2 * SECOND_MS)
    assert end(client, "ack", 10) == 1
    assert circuit(client)["state"] == "closed"
    world.restart(clean=False)
    world.advance(2 * SECOND_MS)
    client = world.hello()
    assert circuit(client)["state"] == "closed"
    world.check()


def test_other_settings_close_it_and_a_queue_without_has_none() -> None:
    world, client = opened()
    client.set("q", circuit_failures_percent=0)
    assert len(client.receive_all("q", 5)) == 5
    answer = client.request({"op": "stats", "queue": "q"})
    assert "circuit" not in answer["value"]["queues"]["q"]
    assert not list(world.store.kept.of(CIRCUIT))
    world.advance(OPEN_MS + SECOND_MS)
    world.check()


def test_a_deleted_queue_takes_its_circuit_along() -> None:
    world, client = opened()
    client.delete("q", force=True)
    world.advance(OPEN_MS + SECOND_MS)
    world.restart(clean=False)
    assert not list(world.store.kept.of(CIRCUIT))


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("how", ["nack", "lease"])
def test_what_failed_uncharged_keeps_the_place_of_its_key(how: str, restart: bool) -> None:
    """Where one message of a key is in work at a time, the next one waits for the retry of the first."""
    world, client = closed(1, circuit_attempts=1, key_concurrency=1, retry_delay_ms=2 * OPEN_MS)
    (opens,) = client.receive_all("q")
    client.publish("q", b"1", b"2", key="k")
    client.settle("nack", opens, error=("E", "e"))
    world.advance(OPEN_MS + SECOND_MS)
    (first,) = client.receive_all("q", lease_ms=SECOND_MS)
    assert first.body == b"1"
    if how == "nack":
        client.settle("nack", first, error=("E", "e"))
    world.advance(2 * SECOND_MS)
    assert circuit(client)["state"] == "open"
    if restart:
        world.restart(clean=True)
        client = world.hello("worker")
    world.advance(OPEN_MS + SECOND_MS)
    found = [message.body for message in client.receive_all("q")]
    assert found == ([b"x"] if how == "nack" else [b"1"])
