"""protocol.md 5.12, with `circuit_by=key`: a key whose attempts fail gives nothing, and all others go on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from core_client import Client, Delivered
from harness import World

from minibrokerd.core.model import key_circuits
from minibrokerd.core.model.effects import Note
from minibrokerd.core.model.kept import KEY_CIRCUIT
from minibrokerd.core.model.wheel import TICK_MS

SECOND_MS = 1_000
OPEN_MS = 30_000
SETTINGS: dict[str, int | str] = {
    "circuit_by": "key",
    "circuit_failures_percent": 50,
    "circuit_attempts": 2,
    "circuit_window_ms": 10_000,
    "circuit_open_ms": OPEN_MS,
    "retry_delay_ms": 0,
    "max_attempts": 3,
}


def begun(**settings: int | str) -> tuple[World, Client]:
    """Return a world with a queue whose keys have circuits."""
    world = World()
    client = world.hello("worker")
    client.set("q", **SETTINGS | settings)
    return world, client


def fail(client: Client, *messages: Delivered) -> None:
    """Let attempts fail."""
    client.settle("nack", *messages, error=("ConnectionError", "no answer"))


def opened(**settings: int | str) -> tuple[World, Client]:
    """Return a world in which the key `a` is open, with four messages of it and four of `b`."""
    world, client = begun(**settings)
    client.publish("q", b"a0", b"a1", b"a2", b"a3", key="a")
    for _ in range(2):
        fail(client, *client.receive_all("q", 1))
    client.publish("q", b"b0", b"b1", b"b2", b"b3", key="b")
    return world, client


def bodies(client: Client) -> list[bytes]:
    """Receive all that may go, ack it, and return it."""
    found = []
    while got := client.receive_all("q", 10):
        client.settle("ack", *got)
        found += [message.body for message in got]
    return found


def circuit(client: Client, key: str = "a") -> dict[str, Any] | None:
    """Return what `keys` says of the circuit of a key."""
    answer = client.request({"op": "keys", "queue": "q"})
    found = [each for each in answer["value"]["keys"] if each["key"] == key]
    said: dict[str, Any] | None = found[0].get("circuit") if found else None
    return said


def test_one_key_is_open_and_the_others_go_on() -> None:
    world, client = opened()
    assert bodies(client) == [b"b0", b"b1", b"b2", b"b3"]
    said = circuit(client)
    assert said is not None
    until = said["until_unix_ms"]
    assert said == {
        "state": "open",
        "why": "2 of 2 attempts failed, the last one with ConnectionError",
        "since_unix_ms": world.unix_ms,
        "until_unix_ms": until,
    }
    assert 0 <= until - world.unix_ms - OPEN_MS < TICK_MS
    why = client.explain((1, 2))
    assert (why["reason"], why["by"]) == ("key_circuit_open", said["why"])
    assert (why["since_unix_ms"], why["until_unix_ms"]) == (world.unix_ms, until)
    world.check()


def test_too_few_or_too_old_failures_open_nothing() -> None:
    world, client = begun(circuit_attempts=3)
    client.publish("q", *[b"x"] * 4, key="a")
    fail(client, *client.receive_all("q", 2))
    world.advance(12 * SECOND_MS)
    fail(client, *client.receive_all("q", 1))
    assert circuit(client) is None


def test_acks_of_a_key_that_fails_make_its_share_smaller() -> None:
    _, client = begun(circuit_attempts=2)
    client.publish("q", *[b"x"] * 9, key="a")
    one, *others = client.receive_all("q", 5)
    fail(client, one)
    client.settle("ack", *others)
    fail(client, *client.receive_all("q", 2))
    assert circuit(client) is None, "3 of 7"
    fail(client, *client.receive_all("q", 1))
    said = circuit(client)
    assert said is not None
    assert said["why"].startswith("4 of 8 attempts failed")


def test_acks_before_the_first_failure_and_rejects_are_not_counted() -> None:
    _, client = begun()
    client.publish("q", *[b"x"] * 30, key="a")
    client.settle("ack", *client.receive_all("q", 10))
    client.settle("reject", *client.receive_all("q", 10), error=("E", "e"))
    fail(client, *client.receive_all("q", 1))
    assert circuit(client) is None
    fail(client, *client.receive_all("q", 1))
    said = circuit(client)
    assert said is not None
    assert said["why"].startswith("2 of 2")


def test_messages_without_a_key_have_no_circuit() -> None:
    _, client = begun()
    client.publish("q", *[b"x"] * 4)
    fail(client, *client.receive_all("q", 4))
    assert len(client.receive_all("q", 10)) == 4


@pytest.mark.parametrize("most", [0, 1, 2])
def test_one_message_is_tried_and_its_ack_closes_it(most: int) -> None:
    world, client = opened(key_concurrency=most)
    world.advance(OPEN_MS - SECOND_MS)
    assert b"a" not in b"".join(bodies(client))
    world.advance(2 * SECOND_MS)
    said = circuit(client)
    assert said is not None
    assert (said["state"], said["until_unix_ms"]) == ("probing", 0)
    client.publish("q", b"c", key="c")
    tried, other = client.receive_all("q", 10)
    assert (tried.key, other.key) == ("a", "c")
    assert client.receive_all("q") == [], "one at a time"
    assert client.explain((1, 3))["reason"] == "key_circuit_probing"
    client.settle("ack", tried, other)
    assert circuit(client) is None
    assert len(client.receive_all("q", 10)) == (most or 3)
    world.check()


@pytest.mark.parametrize("most", [0, 1])
def test_a_failure_of_what_was_tried_opens_it_again_and_charges_nobody(most: int) -> None:
    world, client = opened(key_concurrency=most)
    bodies(client)
    before = circuit(client)
    assert before is not None
    charged = sum(_attempts(client))
    assert charged == 2
    for _ in range(10):
        world.advance(OPEN_MS + SECOND_MS)
        (tried,) = client.receive_all("q", 10)
        fail(client, tried)
        assert client.receive_all("q", 10) == []
    said = circuit(client)
    assert said is not None
    assert said["why"] == "the message that was tried failed, with ConnectionError"
    assert said["since_unix_ms"] == before["since_unix_ms"]
    assert sum(_attempts(client)) == charged
    assert client.stats("q")["dead_lettered"] == 0


def _attempts(client: Client) -> list[int]:
    return [sum(each.get("attempts", {}).values()) for each in client.peek("q")]


@pytest.mark.parametrize("op", ["ack", "nack"])
def test_what_was_begun_before_it_opened_is_not_charged_and_decides_nothing(op: str) -> None:
    world, client = begun(lease_ms=4 * OPEN_MS)
    client.publish("q", *[b"x"] * 6, key="a")
    early = client.receive_all("q", 2)
    fail(client, *client.receive_all("q", 2))
    charged = sum(_attempts(client))
    more = {"error": ("E", "e")} if op == "nack" else {}
    client.settle(op, early[0], **more)
    assert sum(_attempts(client)) == charged
    world.advance(OPEN_MS + SECOND_MS)
    (tried,) = client.receive_all("q", 10)
    assert client.settle(op, early[1], **more)["results"] == [{"lost": 0}]
    said = circuit(client)
    assert said is not None
    assert said["state"] == "probing"
    assert client.receive_all("q", 10) == []
    client.settle("ack", tried)
    assert circuit(client) is None


@pytest.mark.parametrize("most", [0, 1])
@pytest.mark.parametrize("how", ["release", "reject", "cancel"])
def test_an_end_that_says_nothing_leaves_it_to_the_next(how: str, most: int) -> None:
    world, client = opened(key_concurrency=most)
    bodies(client)
    world.advance(OPEN_MS + SECOND_MS)
    (tried,) = client.receive_all("q", 10)
    if how == "cancel":
        client.cancel_messages("q", tried.id)
    else:
        client.settle(how, tried, **({"error": ("E", "e")} if how == "reject" else {}))
    said = circuit(client)
    assert said is not None
    assert said["state"] == "probing"
    assert len(client.receive_all("q", 10)) == 1
    world.check()


def test_a_message_that_waits_for_its_retry_keeps_an_open_key_closed() -> None:
    """Where the order is strict: the one that is tried next is the one that failed."""
    world, client = begun(
        circuit_attempts=1, key_concurrency=1, retry_delay_ms=2 * OPEN_MS, retry_jitter_percent=0
    )
    client.publish("q", b"a0", b"a1", key="a")
    fail(client, *client.receive_all("q"))
    world.advance(OPEN_MS + SECOND_MS)
    assert client.receive_all("q", 10) == []
    assert client.explain((1, 1))["reason"] == "key_circuit_probing"
    world.advance(2 * OPEN_MS)
    assert [message.body for message in client.receive_all("q", 10)] == [b"a0"]


@pytest.mark.parametrize("prefetch", [1, 10])
def test_consumers_get_one_of_the_key_at_a_time(prefetch: int) -> None:
    world, client = opened()
    bodies(client)
    workers = [world.hello("worker") for _ in range(2)]
    for worker in workers:
        worker.consume("q", prefetch)
    world.advance(OPEN_MS + SECOND_MS)
    got = [(worker, message) for worker in workers for message in worker.messages()]
    ((worker, tried),) = got
    worker.settle("ack", tried)
    found = [message for each in workers for message in each.messages()]
    assert len(found) == min(2 * prefetch, 3)


@pytest.mark.parametrize("how", ["clean", "crash", "forwarded", "digests"])
def test_a_restart_leaves_it_as_it_was(how: str) -> None:
    world, client = opened()
    before = circuit(client)
    assert before is not None
    bodies(client)
    if how in ("forwarded", "digests"):
        world.free(world.core.synced)
        world.digests = how == "digests"
    world.advance(10 * SECOND_MS)
    world.restart(clean=how != "crash")
    client = world.hello("worker")
    world.advance(2 * SECOND_MS)
    said = circuit(client)
    assert said is not None
    assert abs(said.pop("until_unix_ms") - before.pop("until_unix_ms")) <= 10
    assert said == before
    assert client.receive_all("q", 10) == []
    world.advance(20 * SECOND_MS)
    assert len(client.receive_all("q", 10)) == 1
    world.restart(clean=how != "crash")
    client = world.hello("worker")
    world.advance(100 * SECOND_MS)
    assert len(client.receive_all("q", 1)) == 1
    world.check()


def test_a_circuit_that_closed_stays_closed_over_a_restart() -> None:
    world, client = opened()
    bodies(client)
    world.advance(OPEN_MS + SECOND_MS)
    client.settle("ack", *client.receive_all("q", 1))
    world.restart(clean=False)
    client = world.hello("worker")
    world.advance(2 * SECOND_MS)
    assert circuit(client) is None
    assert len(client.receive_all("q", 10)) == 3


@pytest.mark.parametrize("changed", [{"circuit_by": "queue"}, {"circuit_failures_percent": 0}])
def test_other_settings_close_all(changed: dict[str, int | str]) -> None:
    world, client = opened()
    bodies(client)
    client.set("q", **changed)
    assert circuit(client) is None
    assert len(client.receive_all("q", 10)) == 4
    _nothing_is_left(world)


def test_a_resume_of_the_key_closes_it() -> None:
    world, client = opened()
    bodies(client)
    answer = client.request({"op": "key_set", "queue": "q", "key": "a", "pause_ms": 0})
    assert "circuit" not in answer["value"]
    assert len(client.receive_all("q", 10)) == 4
    _nothing_is_left(world)


@pytest.mark.parametrize("restart", [False, True])
def test_a_deleted_queue_takes_its_circuits_along(restart: bool) -> None:
    world, client = opened()
    client.delete("q", force=True)
    if restart:
        world.restart(clean=False)
    world.advance(OPEN_MS + SECOND_MS)
    _nothing_is_left(world)


def _nothing_is_left(world: World) -> None:
    world.advance(30 * SECOND_MS)
    sums = world.store.sums
    assert not list(world.store.kept.of(KEY_CIRCUIT))
    assert (sums.failing_keys, sums.key_circuits, sums.broken) == (0, 0, {})
    world.check()


@pytest.mark.parametrize("most", [0, 1])
def test_a_purge_while_one_is_tried_leaves_it_to_the_next(most: int) -> None:
    world, client = opened(key_concurrency=most)
    bodies(client)
    world.advance(OPEN_MS + SECOND_MS)
    client.receive_all("q", 1)
    client.purge("q")
    client.publish("q", b"x", b"y", key="a")
    assert len(client.receive_all("q", 10)) == 1


def test_what_is_tried_is_still_tried_after_other_settings_of_keys() -> None:
    world, client = opened()
    bodies(client)
    world.advance(OPEN_MS + SECOND_MS)
    (tried,) = client.receive_all("q", 10)
    client.set("q", key_concurrency=5)
    assert client.receive_all("q", 10) == []
    client.settle("ack", tried)
    assert len(client.receive_all("q", 10)) == 3


def test_a_key_costs_memory_only_while_it_fails() -> None:
    world, client = begun(circuit_attempts=3)
    for number in range(50):
        client.publish("q", b"x", key=f"key {number}")
    got = client.receive_all("q", 50)
    keys = world.store.queues["q"].group.keys
    assert keys is not None
    fail(client, *got[:30])
    client.settle("ack", *got[30:])
    assert world.store.sums.failing_keys == 30
    again = client.receive_all("q", 50)
    fail(client, *again[:20])
    client.settle("ack", *again[20:])
    counted = client.request({"op": "stats", "queue": "q"})["value"]["queues"]["q"]
    assert counted["key_circuits"] == {"open": 0, "failing": 30}
    while again := client.receive_all("q", 50):
        client.settle("ack", *again)
    world.advance(11 * SECOND_MS)
    assert len(keys) == 0
    _nothing_is_left(world)


def test_there_are_so_many_failing_keys_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest are known."""
    monkeypatch.setattr(key_circuits, "MOST_FAILING", 10)
    world, client = begun(circuit_attempts=2)
    for number in range(35):
        client.publish("q", b"x", key=f"key {number}")
    fail(client, *client.receive_all("q", 35))
    assert world.store.sums.failing_keys <= 10
    fail(client, *client.receive_all("q", 35)[-2:])
    said = client.request({"op": "keys", "queue": "q"})["value"]["keys"]
    assert [each["key"] for each in said] == ["key 33", "key 34"]


def test_there_are_so_many_open_keys_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    world, client = begun(circuit_attempts=1)
    monkeypatch.setattr(key_circuits, "KEY_CIRCUIT", replace(KEY_CIRCUIT, most=10))
    for number in range(15):
        client.publish("q", b"x", key=f"key {number}")
    fail(client, *client.receive_all("q", 15))
    said = client.request({"op": "keys", "queue": "q"})["value"]["keys"]
    assert [each["key"] for each in said] == [f"key {number}" for number in range(5, 15)]
    assert world.store.sums.key_circuits == 10
    assert [message.key for message in client.receive_all("q", 30)] == [
        f"key {n}" for n in range(5)
    ]
    world.check()


def test_the_operator_hears_of_all_keys_at_once() -> None:
    world, client = begun(circuit_attempts=1)
    notes: list[Note] = []
    apply = world.core.apply

    def noting(*args: Any) -> Any:
        effects = apply(*args)
        notes.extend(effects.notes)
        return effects

    world.core.apply = noting  # type: ignore[method-assign,assignment]
    for number in range(5):
        client.publish("q", b"x", key=f"key {number}")
    fail(client, *client.receive_all("q", 5))
    client.request({"op": "key_set", "queue": "q", "key": "key 4", "pause_ms": 0})
    assert [note.event for note in notes] == ["key_changed"]
    world.advance(11 * SECOND_MS)
    (note,) = [note for note in notes if note.event == "key_circuits"]
    assert note.fields == {
        "queue": "q",
        "opened": 5,
        "closed": 1,
        "open": 4,
        "key": "key 3",
        "text": "1 of 1 attempts failed, the last one with ConnectionError",
    }


def test_keys_that_failed_are_counted_once_in_both_halves_of_the_window() -> None:
    """Of 10 s: those of the first half are forgotten before those of the second; an open key is none of them."""
    world, client = begun(circuit_attempts=3, max_attempts=9)

    def failing() -> int:
        counted = client.request({"op": "stats", "queue": "q"})["value"]["queues"]["q"]
        assert counted["key_circuits"]["failing"] <= world.store.sums.failing_keys
        return int(counted["key_circuits"]["failing"])

    for key in "abc":
        client.publish("q", b"x", key=key)
    fail(client, *client.receive_all("q"))
    assert failing() == 3
    world.advance(6 * SECOND_MS)
    got = client.receive_all("q")
    fail(client, *[message for message in got if message.key != "c"])
    assert failing() == 3
    world.advance(5 * SECOND_MS)
    assert failing() == 2
    fail(client, *[message for message in client.receive_all("q") if message.key == "a"])
    assert (failing(), circuit(client) is None) == (2, True)
    fail(client, *[message for message in client.receive_all("q") if message.key == "a"])
    assert (failing(), circuit(client) is None) == (1, False)
    world.advance(11 * SECOND_MS)
    assert failing() == world.store.sums.failing_keys == 0
