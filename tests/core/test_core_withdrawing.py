"""Promises about requests that nobody waits for any more, and about answers that were lost on their way."""

from __future__ import annotations

import pytest
from core_client import Client
from harness import World

from minibroker.contract import limits

WATCHED = {"ready", "begun", "released", "expired", "worker_lost", "broker_lost", "dead_lettered"}


def asked(client: Client, queue: str, number: int, **fields: int) -> None:
    """Send a receive under a number of the test's choice."""
    part = {"op": "receive", "queue": queue, "count": 10, **fields}
    client.send(client.frame([part], request=number))


def withdraw(client: Client, number: int) -> None:
    answer = client.request({"op": "withdraw", "withdrawn": number})
    assert answer["value"] == {}


def counters(world: World, queue: str = "q") -> dict[str, int]:
    numbers = world.queue(queue).statistics()
    return {name: value for name, value in numbers.items() if value and name in WATCHED}


def test_a_receive_that_waits_ends_without_an_answer() -> None:
    world = World()
    one, two = world.hello("one"), world.hello("two")
    one.requests = 1_000
    asked(one, "q", 7, wait_ms=60_000)
    withdraw(one, 7)
    assert world.queue("q").group.consumer_count == 0
    two.publish("q", b"a")
    assert [m.body for m in two.receive_all("q")] == [b"a"]
    world.advance(120_000)
    assert [frame["op"] for frame in one.inbox] == []


def test_an_answer_that_nobody_took_goes_back_as_if_it_had_never_been_handed_out() -> None:
    world = World()
    one, two = world.hello("one"), world.hello("two")
    one.requests = 1_000
    one.set("q", max_attempts=1)
    one.publish("q", b"a", b"b", keys=["k", ""])
    for _ in range(3):
        asked(one, "q", 7)
        withdraw(one, 7)
        assert set(world.states("q").values()) == {"READY"}
    world.check()
    got = two.receive_all("q")
    assert [(m.body, m.attempt, m.marked) for m in got] == [(b"a", 1, False), (b"b", 1, False)]
    world.advance(120_000)  # the lease of the withdrawn one is on no clock
    assert "released" not in counters(world)


def test_a_withdrawal_may_come_twice_and_may_name_what_is_not_known() -> None:
    world = World()
    one = world.hello("one")
    one.publish("q", b"a")
    one.requests = 1_000
    asked(one, "q", 7)
    withdraw(one, 7)
    withdraw(one, 7)
    withdraw(one, 2**32 - 1)
    assert counters(world) == {"ready": 1}


def test_no_answer_follows_the_reply_to_its_withdrawal() -> None:
    world = World(auto_sync=False)
    one = world.hello("one")
    one.publish("q", b"a")
    world.sync()
    one.requests = 1_000
    asked(one, "q", 7)
    one.send(one.frame([{"op": "withdraw", "withdrawn": 7}], request=8))
    world.sync()
    ops = [frame["op"] for frame in one.inbox if frame["op"] != "confirm"]
    assert ops == ["deliver", "reply"]


def test_what_was_settled_of_an_answer_stays_settled() -> None:
    world = World()
    one = world.hello("one")
    one.publish("q", b"a", b"b", b"c")
    one.requests = 1_000
    asked(one, "q", 7)
    a, b, _ = one.messages()
    one.settle("ack", a)
    one.settle("nack", b, delay_ms=1_000)
    withdraw(one, 7)
    assert sorted(world.states("q").values()) == ["DELAYED", "READY"]
    world.check()


def test_a_settlement_under_a_withdrawn_answer_is_lost() -> None:
    world = World()
    one = world.hello("one")
    one.publish("q", b"a")
    one.requests = 1_000
    asked(one, "q", 7)
    (message,) = one.messages()
    withdraw(one, 7)
    assert one.settle("ack", message)["results"] == [{"lost": 1}]
    assert world.resume(one, [message]).pop("welcome")["lost_runs"] == [message.run]
    assert list(world.states("q").values()) == ["READY"]


def test_an_opening_consume_ends_and_gives_everything_back() -> None:
    world = World()
    one, two = world.hello("one"), world.hello("two")
    one.publish("q", *[b"x"] * 100)
    one.requests = 1_000
    part = {"op": "consume", "queue": "q", "consumer": 3, "prefetch": 100}
    one.send(one.frame([part], request=7))
    assert world.queue("q").group.held == 100
    withdraw(one, 7)
    assert world.queue("q").group.consumer_count == 0
    got = two.receive_all("q")
    assert len(got) == 100
    assert not any(m.marked for m in got)
    world.check()


def test_a_number_that_was_used_again_means_its_newest_request() -> None:
    world = World()
    one = world.hello("one")
    one.publish("q", b"a")
    part = {"op": "consume", "queue": "other", "consumer": 3, "prefetch": 1}
    one.send(one.frame([part], request=7))
    asked(one, "q", 8)
    for number in (7, 8):  # both were answered, or the client could not use the numbers again
        one.send(one.frame([{"op": "stats", "queue": "q"}], request=number))
    one.requests = 1_000
    withdraw(one, 7)
    withdraw(one, 8)
    assert world.queue("other").group.consumer_count == 1
    assert list(world.states("q").values()) == ["BEGUN"]


@pytest.mark.parametrize("crash", ["none", "clean", "synced"])
@pytest.mark.parametrize("again", ["asked", "withdrawn"])
def test_a_lost_answer_costs_nothing(crash: str, again: str) -> None:
    """A receive that is asked again after a resume has what its first answer had, also over a restart."""
    world = World()
    one = world.hello("one")
    one.set("q", max_attempts=2)
    one.publish("q", b"a", b"b")
    one.requests = 1_000
    asked(one, "q", 7)
    for _ in range(5):
        one.inbox.clear()  # lost on its way
        world.disconnect(one)
        if crash != "none":
            world.restart(clean=crash == "clean")
        one = world.resume(one)
        one.requests = 1_000
        one.pop("welcome")
        if again == "withdrawn":
            withdraw(one, 7)
            assert set(world.states("q").values()) == {"READY"}
        world.advance(limits.RESUME_WAIT_MS)
        asked(one, "q", 7)
        world.check()
    (answer,) = [frame for frame in one.inbox if frame["op"] == "deliver"]
    assert [(m.body, m.attempt, m.marked) for m in answer["messages"]] == [
        (b"a", 1, False),
        (b"b", 1, False),
    ]
    assert counters(world) == {"begun": 2}


def test_a_copied_lease_still_names_its_request() -> None:
    """Copying forward writes the lease anew: a start after it knows the answer all the same."""
    world = World()
    one = world.hello("one")
    one.publish("q", b"a")
    asked(one, "q", 7)
    world.sync()
    world.free(world.core.synced)
    one.inbox.clear()
    world.restart(clean=False)
    one = world.resume(one)
    one.pop("welcome")
    one.requests = 1_000
    withdraw(one, 7)
    assert list(world.states("q").values()) == ["READY"]


def test_an_answer_of_which_a_resume_names_something_is_not_put_back() -> None:
    world = World()
    one = world.hello("one")
    one.publish("q", b"a", b"b")
    asked(one, "q", 7)
    messages = one.messages()
    world.disconnect(one)
    one = world.resume(one, messages[:1])
    one.pop("welcome")
    asked(one, "q", 7, wait_ms=10)
    assert list(world.states("q").values()) == ["BEGUN", "BEGUN"]


def test_a_connection_has_no_more_consumers_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_CONSUMERS_PER_CONNECTION", 3)
    world = World()
    one = world.hello("one")
    for number in range(3):
        assert one.consume("q", consumer=number)["op"] == "reply"
    refused = one.consume("never-made", consumer=9)
    assert (refused["code"], refused["retryable"]) == ("limit_reached", False)
    assert "never-made" not in world.store.queues
    assert one.consume("q", consumer=2, prefetch=5)["op"] == "reply"  # that one is there
    one.cancel(0)
    assert one.consume("q", consumer=9)["op"] == "reply"


def test_a_connection_has_no_more_waiting_receives_than_the_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "MAX_RECEIVES_PER_CONNECTION", 3)
    world = World()
    one = world.hello("one")
    for _ in range(3):
        assert one.receive("q", wait_ms=1_000) is None
    assert one.receive("q", wait_ms=1_000)["code"] == "limit_reached"
    world.advance(1_008)
    assert one.receive("q", wait_ms=1_000) is None


def test_a_receive_asked_again_is_answered_when_its_first_answer_is_back_for_certain() -> None:
    """Whoever has the second answer uses the number no more: after a crash the first would be held for nobody."""
    world = World()
    one = world.hello("one")
    one.publish("q", b"a")
    one.requests = 1_000
    asked(one, "q", 7, count=1)
    world.advance(2_000)  # its lease is written
    world.disconnect(one)
    world.hello("two").publish("q", b"c", b"b", priority=9)
    again = world.resume(one)
    (other,) = again.receive_all("q", 1)  # it is known again as one that takes from the queue
    world.auto_sync = False
    asked(again, "q", 7, count=1)
    assert [frame["op"] for frame in again.inbox] == ["welcome"]
    world.sync()
    (message,) = again.messages()
    assert message.body == b"b", "what went back rests on its record by itself"
    world.restart(clean=False)
    world.auto_sync = True
    back = world.resume(again, [other, message])
    assert set(world.store.deliveries) == {other.token, message.token}
    assert back.settle("ack", message)["results"] == [{"lost": 0}]


def test_a_withdrawal_that_comes_again_is_answered_when_the_first_one_is_safe() -> None:
    """Its client forgets it with the reply: after a crash the answer would be begun for nobody."""
    world = World()
    one = world.hello("one")
    one.publish("q", b"a")
    one.requests = 1_000
    asked(one, "q", 7)
    world.advance(2_000)  # its lease is written
    world.auto_sync = False
    one.send(one.frame([{"op": "withdraw", "withdrawn": 7}], request=8))
    world.disconnect(one)
    again = world.resume(one)
    again.send(again.frame([{"op": "withdraw", "withdrawn": 7}], request=8))
    assert again.answer(request=8) is None
    world.sync()
    assert again.answer(request=8)["value"] == {}
    world.restart(clean=False)
    assert world.states("q") == {(1, 0): "READY"}


@pytest.mark.parametrize("ended_by", ["its lease", "a purge", "a deletion"])
def test_a_withdrawal_of_what_has_ended_is_answered_when_that_is_safe(ended_by: str) -> None:
    """A crash that loses the end of it begins the answer again, and its client asks for it no more."""
    world = World(auto_sync=False)
    one, other = world.hello("one"), world.hello("other")
    one.publish("q", b"a")
    world.sync()
    one.requests = 1_000
    asked(one, "q", 7)
    world.sync()
    world.disconnect(one)
    again = world.resume(one)
    again.pop("welcome")
    if ended_by == "its lease":
        world.advance(60_000)
    elif ended_by == "a purge":
        other.send(other.frame([{"op": "purge", "queue": "q"}], request=5))
    else:
        part = {"op": "queue_delete", "queue": "q", "force": 1}
        other.send(other.frame([part], request=5))
    world.run_jobs()
    again.send(again.frame([{"op": "withdraw", "withdrawn": 7}], request=8))
    assert again.inbox == []
    world.sync()
    assert [frame["op"] for frame in again.inbox] == ["reply"]
    world.check()
