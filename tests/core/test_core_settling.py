"""Promises about attempts and settlements: what is charged, and what comes back where."""

from __future__ import annotations

import pytest
from core_client import Client, Delivered, settle_part
from harness import World

from minibrokerd.core.model.records import MoveMeta, decode


def world_with(*bodies: bytes, **settings: int | str) -> tuple[World, Client]:
    world = World()
    client = world.hello("worker")
    client.set("q", **settings)
    client.publish("q", *bodies)
    return world, client


def only(messages: list[Delivered]) -> Delivered:
    (message,) = messages
    return message


def history(client: Client, queue: str = "q") -> list[dict[str, object]]:
    (entry,) = client.peek(queue)
    found: list[dict[str, object]] = entry["history"]
    return found


# -- attempts -----------------------------------------------------------------------------------


def test_begin_starts_the_lease_and_its_end_is_charged_as_expired() -> None:
    world, client = world_with(b"a", lease_ms=1_000)
    client.consume("q")
    first = only(client.messages())
    world.advance(10_000)  # held: on no clock
    client.begin(first)
    world.advance(999)
    assert client.messages() == []
    world.advance(9)
    assert client.messages() == []  # it may stand still: not before it has spoken
    assert client.request({"op": "ping"})["op"] == "pong"
    second = only(client.messages())
    assert (second.attempt, second.marked) == (2, True)
    assert second.token > first.token
    entry = only_entry(client)
    assert (entry["cause"], entry["token"]) == ("expired", first.token)
    assert client.settle("ack", first)["lost_runs"] == [first.run]
    assert client.settle("ack", second)["results"] == [{"lost": 0}]


def only_entry(client: Client) -> dict[str, object]:
    (entry,) = history(client)
    return entry


def test_a_lease_that_ends_without_its_session_is_worker_lost() -> None:
    world, client = world_with(b"a", lease_ms=1_000)
    world.advance(120_000)
    client.receive_all("q")
    world.disconnect(client)
    world.advance(1_008)
    other = world.hello()
    assert only_entry(other)["cause"] == "worker_lost"
    assert only(other.receive_all("q")).attempt == 2


@pytest.mark.parametrize("clean", [True, False])
def test_a_recovered_lease_that_ends_in_the_first_minute_is_broker_lost_and_uncharged(
    clean: bool,
) -> None:
    world, client = world_with(b"a", lease_ms=200_000)
    client.receive_all("q")
    world.restart(clean=clean, wall_ms=10**9)
    other = world.hello()
    world.advance(60_000 - 1)
    assert list(world.states("q").values()) == ["BEGUN"]
    world.advance(9)
    assert only_entry(other)["cause"] == "broker_lost"
    assert only(other.receive_all("q")).attempt == 1


def test_a_lease_begun_after_the_start_is_charged_in_the_first_minute_too() -> None:
    world, client = world_with(b"a", lease_ms=100, max_attempts=2)
    world.restart(clean=False)
    world.advance(1_000)
    for attempt in (1, 2):
        client = world.hello()
        assert only(client.receive_all("q")).attempt == attempt
        world.disconnect(client)
        world.advance(108)
    assert [e["cause"] for e in history(world.hello(), "q.dlq")] == ["worker_lost", "worker_lost"]


def test_a_recovered_lease_has_what_remained_or_a_minute() -> None:
    world, client = world_with(b"long", b"short", lease_ms=500_000)
    client.receive("q", lease_ms=500_000)
    client.receive("q", lease_ms=2_000)
    world.advance(1_000)
    world.restart(clean=False, wall_ms=100_000)
    world.advance(2_000 - 1)
    assert list(world.states("q").values()) == ["BEGUN", "BEGUN"]
    world.advance(9)
    assert sorted(world.states("q").values()) == ["BEGUN", "READY"]
    world.advance(399_000 - 2_008 - 1)
    assert "BEGUN" in world.states("q").values()
    world.advance(9)
    assert "BEGUN" not in world.states("q").values()


def test_the_last_attempt_moves_the_message_to_the_dlq_in_one_record_with_its_history() -> None:
    world, client = world_with(b"a", max_attempts=3, retry_delay_ms=0, lease_ms=1_000)
    first = only(client.receive_all("q"))
    client.settle("nack", first, error=("ValueError", "no"))
    world.advance(10)
    client.receive_all("q")
    world.advance(1_008)
    third = only(client.receive_all("q"))
    client.settle("nack", third, delay_ms=0, error=("KeyError", "x"))
    moves = [r for batch in world.log for r in batch.records if isinstance(decode(r), MoveMeta)]
    assert len(moves) == 1
    assert world.states("q") == {}
    assert world.states("q.dlq") == {first.id: "READY"}
    for _ in range(2):
        got = history(world.hello(), "q.dlq")
        assert [(e["cause"], e["error_class"], e["error_text"]) for e in got] == [
            ("failed", "ValueError", "no"),
            ("expired", "", ""),
            ("failed", "KeyError", "x"),
        ]
        assert {e["client"] for e in got} == {"worker"}
        world.restart(clean=False)


def test_a_reject_dead_letters_at_once_even_what_is_only_held() -> None:
    world, client = world_with(b"a", b"b", b"c")
    client.consume("q", prefetch=3)
    messages = client.messages()
    client.begin(messages[1])
    client.settle("reject", *messages[:2], error=("Bad", "never"))
    assert sorted(world.states("q.dlq")) == [m.id for m in messages[:2]]
    assert client.settle("ack", messages[2])["results"] == [{"lost": 0}]
    assert client.stats("q")["dead_lettered"] == 2


def test_a_dlq_has_no_dlq_and_no_limit_of_attempts() -> None:
    world, client = world_with(b"a", max_attempts=1)
    client.settle("reject", only(client.receive_all("q")))
    for attempt in range(1, 8):
        dead = only(client.receive_all("q.dlq"))
        assert dead.attempt == attempt + 1
        op = "nack" if attempt % 2 else "reject"
        client.settle(op, dead)
        world.advance(400_000)
    assert list(world.store.queues) == ["q", "q.dlq"]


def test_a_lower_max_attempts_and_a_full_dlq_do_not_charge_a_broker_lost_lease() -> None:
    world, client = world_with(b"a", b"b", lease_ms=200_000, retry_delay_ms=0)
    client.settle("reject", only(client.receive_all("q", 1)))
    client.set("q.dlq", max_messages=1)
    client.settle("nack", only(client.receive_all("q", 1)), delay_ms=0)
    assert only(client.receive_all("q", 1)).attempt == 2
    client.set("q", max_attempts=1)
    world.restart(clean=False, wall_ms=10**9)
    world.advance(60_008)
    assert len(world.states("q")) == 1
    assert world.hello().peek("q")[0]["attempts"] == {"failed": 1, "expired": 0, "worker_lost": 0}


# -- nack ---------------------------------------------------------------------------------------


def test_the_retry_delay_doubles_up_to_its_cap() -> None:
    world, client = world_with(b"a", max_attempts=100, retry_cap_ms=6_000, retry_jitter_percent=0)
    for delay_ms in (1_000, 2_000, 4_000, 6_000, 6_000):
        client.settle("nack", only(client.receive_all("q")))
        world.advance(delay_ms - 1)
        assert client.receive_all("q") == []
        world.advance(9)


@pytest.mark.parametrize(
    ("jitter", "delay_ms"), [(-1.0, 800), (0.0, 1_000), (0.5, 1_100), (1.0, 1_200)]
)
def test_the_retry_delay_varies_by_the_jitter_of_its_frame(jitter: float, delay_ms: int) -> None:
    world, client = world_with(b"a")
    message = only(client.receive_all("q"))
    world.jitter = jitter
    client.settle("nack", message)
    world.advance(delay_ms - 1)
    assert list(world.states("q").values()) == ["DELAYED"]
    world.advance(8)
    assert list(world.states("q").values()) == ["READY"]


def test_a_nack_goes_to_the_end_of_its_lane_by_its_new_instant() -> None:
    world, client = world_with(b"a")
    client.receive_all("q")
    world.advance(10)
    client.publish("q", b"b")
    client.consume("q", consumer=2)
    world.restart()
    world.advance(1_008)  # the holder of the first one may come back
    client = world.hello()
    client.consume("q")
    world.disconnect(client)
    client = world.hello()
    first = only(client.receive_all("q", 1))
    assert first.body == b"b"
    world.advance(10)
    client.publish("q", b"c")
    world.advance(10)
    client.settle("nack", first, delay_ms=0)
    assert [m.body for m in client.receive_all("q")] == [b"c", b"b"]


@pytest.mark.parametrize("delay_ms", [0, 1, 5_000, 2**53])
def test_a_nack_with_its_own_delay_comes_back_after_it(delay_ms: int) -> None:
    world, client = world_with(b"a")
    client.settle("nack", only(client.receive_all("q")), delay_ms=delay_ms)
    if delay_ms:
        world.advance(delay_ms - 1)
        assert client.receive_all("q") == []
        world.advance(9)
    again = only(client.receive_all("q"))
    assert (again.attempt, again.marked) == (2, False)


# -- release and extend -------------------------------------------------------------------------


@pytest.mark.parametrize("begun", [True, False])
def test_a_release_goes_to_its_place_uncharged_and_after_a_second_from_the_second_on(
    begun: bool,
) -> None:
    world, client = world_with(b"a", b"b")
    client.consume("q", prefetch=1, consumer=7)
    first = only(client.messages())
    client.cancel(7)
    first = only(client.receive_all("q", 1)) if begun else first
    if not begun:
        client.consume("q", consumer=8)
        first = only(client.messages())
        client.consume("q", consumer=8, prefetch=0)
    world.advance(50)
    client.publish("q", b"c")
    assert client.settle("release", first)["results"] == [{"lost": 0}]
    again = only(client.receive_all("q", 1))
    assert (again.body, again.attempt) == (b"a", 1)
    client.settle("release", again)
    assert only(client.receive_all("q", 1)).body == b"b"
    world.advance(999)
    assert list(world.states("q").values()).count("DELAYED") == 1
    world.advance(9)
    assert list(world.states("q").values()).count("DELAYED") == 0


def test_releasing_what_is_only_held_is_confirmed_at_once() -> None:
    world = World(auto_sync=False)
    client = world.hello()
    client.publish("q", b"a", b"b")
    world.sync()
    client.consume("q", prefetch=2)
    world.sync()
    messages = client.messages()
    client.cancel()
    client.consume("q", prefetch=2, consumer=2)
    world.sync()
    messages = client.messages()
    client.consume("q", prefetch=0, consumer=2)
    world.sync()
    assert client.settle("release", *messages)["results"] == [{"lost": 0}]
    assert world.open == []


def test_an_extend_starts_the_lease_anew_from_now() -> None:
    world, client = world_with(b"a", lease_ms=1_000)
    message = only(client.receive_all("q"))
    for _ in range(5):
        world.advance(900)
        assert client.settle("extend", message)["results"] == [{"lost": 0}]
    world.advance(900)
    client.settle("extend", message, lease_ms=10_000)
    world.advance(9_999)
    assert list(world.states("q").values()) == ["BEGUN"]
    world.advance(9)
    assert list(world.states("q").values()) == ["READY"]
    assert client.settle("extend", message)["lost_runs"] == [message.run]


def test_an_extended_lease_survives_a_crash_once_it_is_logged() -> None:
    world, client = world_with(b"a", lease_ms=1_000)
    message = only(client.receive_all("q"))
    client.settle("extend", message, lease_ms=100_000)
    world.restart(clean=False)
    world.advance(99_000)
    assert list(world.states("q").values()) == ["BEGUN"]
    world.advance(1_100)
    assert list(world.states("q").values()) == ["READY"]


def test_an_extend_that_overtakes_its_begin_begins() -> None:
    world, client = world_with(b"a", lease_ms=1_000)
    client.consume("q")
    message = only(client.messages())
    attached = world.attach(client)
    part, columns = settle_part("extend", "q", [message.run])
    attached.send(attached.frame([part], columns, request=1))
    assert attached.answer(request=1)["results"] == [{"lost": 0}]
    assert list(world.states("q").values()) == ["BEGUN"]
    client.begin(message)
    world.advance(1_008)
    assert client.settle("ack", message)["lost_runs"] == [message.run]


def test_a_recovered_lease_that_ends_does_not_wait_for_the_publish_delay_again() -> None:
    world, client = world_with(b"first", lease_ms=1_000)
    client.publish("q", b"late", delay_ms=10**7)
    world.restart(wall_ms=10**7)  # the delay ended while the server was down; log time stood still
    client = world.hello()
    got = client.receive_all("q")
    assert [m.body for m in got] == [b"first", b"late"]
    world.restart(clean=False)
    world.advance(1_016)
    assert list(world.states("q").values()) == ["READY", "READY"]
