"""Promises about sessions that come, go and come back: what they keep and what they lose."""

from __future__ import annotations

import pytest
from core_client import Client, Delivered, settle_part
from harness import World

from minibroker.contract import limits, wire
from minibrokerd.core.model import walks
from minibrokerd.core.model.effects import ReadBack
from minibrokerd.core.model.inputs import Disconnected, Hello, Resume, Tick
from minibrokerd.core.model.lanes import Lanes
from minibrokerd.core.verbs import farewells, logins


def bodies(messages: list[Delivered]) -> list[bytes]:
    return [message.body for message in messages]


def two_clients() -> tuple[World, Client, Client]:
    world = World()
    return world, world.hello("one"), world.hello("two")


def test_resume_keeps_what_is_begun_and_drops_what_is_not() -> None:
    world, one, two = two_clients()
    one.publish("q", b"a", b"b", b"c")
    one.consume("q", prefetch=3)
    first, second, third = one.messages()
    one.begin(first)
    again = world.resume(one, [first])
    assert one.closed
    assert again.pop("welcome")["lost_runs"] == []
    two.consume("q", prefetch=5)
    got = two.messages()
    assert bodies(got) == [b"b", b"c"]
    assert all(m.marked for m in got)
    assert again.settle("ack", first)["results"] == [{"lost": 0}]
    assert again.settle("ack", second, third)["lost_runs"] == [second.run, third.run]


def test_resume_begins_what_its_client_began_just_before_the_connection_was_lost() -> None:
    world, one, two = two_clients()
    one.publish("q", b"a", b"b")
    one.consume("q", prefetch=2)
    first, _ = one.messages()
    world.disconnect(one)
    again = world.resume(one, [first])
    assert again.pop("welcome")["lost_runs"] == []
    assert list(world.states("q").values()) == ["READY", "BEGUN"]
    two.consume("q", prefetch=5)
    assert bodies(two.messages()) == [b"b"]
    assert again.settle("ack", first)["results"] == [{"lost": 0}]


def test_resume_names_as_lost_what_was_handed_out_since() -> None:
    world, one, two = two_clients()
    one.publish("q", b"a", b"b")
    one.consume("q", prefetch=2)
    first, second = one.messages()
    world.disconnect(one)
    two.consume("q", prefetch=1)
    (mine,) = two.messages()
    again = world.resume(one, [first, second])
    assert again.pop("welcome")["lost_runs"] == [first.run]
    assert two.settle("ack", mine)["results"] == [{"lost": 0}]
    # What was handed out since and came back is lost too: its token is not the newest any more.
    third = world.resume(again, [second])
    assert third.pop("welcome")["lost_runs"] == []


def test_resume_does_not_give_back_what_ended_under_its_token() -> None:
    world, one, _ = two_clients()
    one.publish("q", b"expired", b"failed", b"released")
    one.consume("q", prefetch=3, lease_ms=100)
    expired, failed, released = one.messages()
    one.begin(expired, released)
    one.cancel()
    one.settle("release", released)
    world.advance(108)
    one.consume("q", prefetch=2, consumer=2)
    again = one.messages()
    one.settle("nack", again[0], delay_ms=0)
    world.disconnect(one)
    lost = [expired, failed, released, again[0]]
    resumed = world.resume(one, lost)
    assert sorted(resumed.pop("welcome")["lost_runs"]) == sorted(m.run for m in lost)


def test_another_sessions_token_gives_nothing_in_a_resume() -> None:
    world, one, two = two_clients()
    one.publish("q", *[b"x"] * 4)
    one.consume("q", prefetch=2)
    first, second = one.messages()
    one.begin(first)
    invented = (first.token, 1, 3, 1)  # a message that waits, under a token that never held it
    future = (first.token + 2**60, 1, 3, 1)
    again = world.resume(two, [first, second], runs=[invented, future])
    assert sorted(again.pop("welcome")["lost_runs"]) == sorted(
        [first.run, second.run, invented, future]
    )
    assert one.settle("ack", first)["results"] == [{"lost": 0}]


@pytest.mark.parametrize("column", [b"x", b"\xff" * 24, b"\xff" * 12 + b"\xff" * 8 + b"\2\0\0\0"])
def test_a_resume_whose_runs_make_no_sense_ends_its_connection_only(column: bytes) -> None:
    world, one, two = two_clients()
    old = world.resume(two)
    bad = world._client("bad")
    world.apply(Resume(bad.connection, two.session, "bad", memoryview(column)))
    assert bad.closed
    assert bad.inbox[-1]["code"] == "protocol_error"
    assert not old.closed
    assert one.publish("q", b"a")["op"] == "confirm"


def test_a_lost_begin_record_is_honoured_in_a_resume_after_a_crash() -> None:
    world = World(auto_sync=False)
    one, two = world.hello("one"), world.hello("two")
    one.publish("q", b"a", b"b", b"c")
    world.sync()
    one.consume("q", prefetch=3)
    world.sync()
    first, second, third = one.messages()
    one.begin(first, second)
    two.consume("q")
    world.restart(clean=False, waits=True)  # the BEGIN was in the open batch
    other = world.hello("other")
    other.consume("q", prefetch=5)
    assert other.messages() == []  # not before those who had some are back
    again = world.resume(one, [first])
    assert again.pop("welcome")["lost_runs"] == []
    world.sync()
    world.advance(limits.RESUME_WAIT_MS + 8)
    assert bodies(other.messages()) == [b"b", b"c"]
    late = world.resume(two, [second])
    assert late.pop("welcome")["lost_runs"] == [second.run]
    again.settle("ack", first, third)
    world.sync()
    assert again.answer(sequence=2)["lost_runs"] == [third.run]


def test_a_session_with_a_lease_lives_a_minute_without_a_connection() -> None:
    world, one, other = two_clients()
    other.publish("q", b"a")
    one.receive_all("q", lease_ms=10)
    world.disconnect(one)
    world.advance(limits.SESSION_KEPT_MS - 1)
    again = world.resume(one)
    assert again.pop("welcome")["known"] is True
    again.receive_all("q", lease_ms=10)
    world.disconnect(again)
    world.advance(limits.SESSION_KEPT_MS + 8)
    assert world.resume(one).pop("welcome")["known"] is False


def test_a_session_with_nothing_to_remember_ends_with_its_connection() -> None:
    world = World()
    for _ in range(100):
        client = world.hello()
        world.attach(client)
        for connection in list(world.clients):
            world.disconnect(connection)
    assert world.store.sessions == {}
    assert world.core.next_deadline_ms() is None


@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize("digests", [True, False])
def test_a_session_that_ended_does_not_come_back_with_a_start(clean: bool, digests: bool) -> None:
    world = World()
    world.digests = digests
    for _ in range(20):
        client = world.hello()
        client.publish("q", b"a")
        client.send(client.frame([{"op": "goodbye"}]))
    stays = world.hello()
    stays.publish("q", b"b")
    world.restart(clean=clean)
    assert list(world.store.sessions) == [stays.session]
    assert world.queue("q").group.lanes.ready == 21


@pytest.mark.parametrize("first", ["resume", "attach"])
@pytest.mark.parametrize("restart", [False, True])
def test_a_frame_whose_outcome_was_forgotten_is_not_stored_again(first: str, restart: bool) -> None:
    world = World()
    one = world.hello()
    one.publish("q", b"a")
    world.disconnect(one)
    world.advance(limits.FRAME_OUTCOME_MS + limits.SESSION_KEPT_MS)
    assert world.store.sessions == {}
    if restart:
        world.restart()
    if first == "attach":
        world.attach(one)
    again = world.resume(one)
    assert again.pop("welcome")["known"] is False
    assert again.resend(1, one)["code"] == "outcome_unknown"
    assert again.publish("q", b"b")["op"] == "confirm"  # it came after what was forgotten
    assert again.resend(2)["op"] == "confirm"
    assert world.queue("q").group.lanes.ready == 2


def test_a_frame_that_was_lost_in_a_crash_is_stored_once() -> None:
    """A server that starts knows the session no more, but nothing of it was applied that it forgot."""
    world = World(auto_sync=False)
    one = world.hello()
    assert one.publish("q", b"a") is None
    world.restart(clean=False)
    again = world.resume(one)
    assert again.pop("welcome")["known"] is False
    again.resend(1, one)
    world.sync()
    assert again.answer(sequence=1) is not None
    assert world.queue("q").group.lanes.ready == 1


def test_there_are_no_more_sessions_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_SESSIONS", 3)
    world = World()
    clients = [world.hello() for _ in range(3)]
    turned_away = world._client("one too many")
    world.apply(Hello(turned_away.connection, "one too many"))
    assert turned_away.closed
    refused = turned_away.pop("error")
    assert (refused["code"], refused["retryable"]) == ("limit_reached", True)
    assert len(world.store.connections) == len(world.store.sessions) == 3
    world.disconnect(clients[0])
    last = world.hello()
    last.publish("q", b"a")
    world.disconnect(last)  # it may come back, and counts
    turned_away = world._client("one too many again")
    world.apply(Hello(turned_away.connection, "one too many again"))
    assert turned_away.pop("error")["code"] == "limit_reached"


def test_a_welcome_that_names_a_loss_rests_on_what_caused_it() -> None:
    world = World(auto_sync=False)
    one, two = world.hello("one"), world.hello("two")
    one.publish("q", b"a")
    world.sync()
    one.consume("q")
    world.sync()
    (message,) = one.messages()
    one.begin(message)
    world.sync()
    two.purge("q")
    again = world.resume(one, [message])
    assert again.inbox == []
    world.sync()
    assert again.pop("welcome")["lost_runs"] == [message.run]


def test_what_a_stuck_client_gave_back_goes_to_others_until_it_speaks_again() -> None:
    """protocol.md, section 4: a release over the attached connection says that the loop stands still."""
    world, one, two = two_clients()
    one.publish("q", b"a", b"b")
    one.consume("q", prefetch=2)
    held = one.messages()
    attached = world.attach(one)
    attached.request(*settle_part("release", "q", [message.run for message in held]))
    assert one.messages() == []
    two.consume("q", prefetch=1)
    assert bodies(two.messages()) == [b"a"]
    one.request({"op": "ping"})
    assert bodies(one.messages()) == [b"b"]


def test_a_connection_that_had_very_much_is_taken_apart_in_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """10,000 receives and consumers leave their lines, and what they held goes back, some at a time."""
    monkeypatch.setattr(farewells, "STEP_LOOKS", 100)
    world, one, other = two_clients()
    other.set("free")
    for _ in range(5):
        other.publish("q", *[b"x"] * 100, keys=[f"key-{at}" for at in range(100)])
    other.consume("q", prefetch=1)
    for number in range(300):
        one.consume("q", prefetch=1, consumer=number)
        assert one.receive("free", wait_ms=1_000) is None
    last = world.queue("q").group.held
    world.apply(Disconnected(one.connection))
    world.now_ms += 2_000  # the wait of a receive that is still to leave may end meanwhile
    steps = 0
    while world.store.jobs:
        held = world.queue("q").group.held
        assert last - held <= 101
        last = held
        world.apply(Tick())
        steps += 1
    assert steps >= 5
    assert (world.queue("free").group.consumer_count, world.queue("q").group.consumer_count) == (
        0,
        1,
    )
    assert world.queue("free").group.consumers is None
    assert world.queue("q").group.held == 1
    world.check()


@pytest.mark.parametrize("op", ["cancel", "withdraw"])
def test_a_consumer_that_had_very_much_gives_it_back_in_steps(
    op: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(farewells, "STEP_LOOKS", 100)
    world, one, other = two_clients()
    other.set("q")
    one.consume("q", prefetch=400, consumer=1)
    opened = one.requests
    for _ in range(4):
        other.publish("q", *[b"x"] * 100, keys=[f"key-{at}" for at in range(100)])
    one.consume("q", prefetch=100, consumer=2)
    other.publish("q", *[b"x"] * 100)
    assert world.queue("q").group.held == 500
    if op == "cancel":
        one.cancel(1)
    else:
        one.request({"op": "withdraw", "withdrawn": opened})
    last, steps = 500, 0
    while world.store.jobs:
        assert last - world.queue("q").group.held <= 101
        last = world.queue("q").group.held
        world.apply(Tick())
        steps += 1
    assert steps >= 3
    assert (world.queue("q").group.held, world.queue("q").group.consumer_count) == (100, 1)
    world.check()


def test_a_resume_takes_back_by_look_ups_and_walks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its cost must not grow with what waits: of a storm of resumes each would pass over the whole queue."""
    world, one, other = two_clients()
    for _ in range(3):
        other.publish("q", *[b"x"] * 1_000)
    one.consume("q", prefetch=10)
    messages = one.messages()
    other.publish("q", *[b"k"] * 10, keys=["key"] * 10)
    world.disconnect(one)
    monkeypatch.setattr(
        Lanes, "items", lambda self: pytest.fail("everything that is ready was walked")
    )
    again = world.resume(one, messages)
    assert again.pop("welcome")["lost_runs"] == []
    monkeypatch.undo()
    assert list(world.states("q").values()).count("BEGUN") == 10
    world.check()


def begun_before_a_crash() -> tuple[World, Client, list[Delivered]]:
    """A client with three messages, two of them begun by a record that a crash lost; all have left memory."""
    world = World(auto_sync=False, segment_batches=1)
    world.digests = True
    one = world.hello("one")
    one.publish("q", b"a", b"b", b"c")
    world.sync()
    one.consume("q", prefetch=3)
    world.sync()
    messages = one.messages()
    one.publish(
        "other", b"x"
    )  # so that the messages stand in a segment of which a start reads a digest
    world.sync()
    one.begin(*messages[:2])
    world.restart(clean=False)
    assert world.queue("q").group.lanes.default.cold
    return world, one, messages


def test_a_resume_takes_back_what_left_memory() -> None:
    world, one, messages = begun_before_a_crash()
    again = world.resume(one, messages[:2])
    assert again.pop("welcome")["lost_runs"] == []
    assert sorted(world.states("q").values()) == ["BEGUN", "BEGUN", "READY"]
    again.settle("ack", *messages[:2])
    world.sync()
    assert again.answer(sequence=again.sequence)["lost_runs"] == []
    other = world.hello("other")
    other.consume("q", prefetch=5)
    world.advance(limits.RESUME_WAIT_MS + 8)
    world.sync()
    assert bodies(other.messages()) == [b"c"]
    world.check()


def test_a_client_that_goes_while_its_messages_are_read_back_finds_them_when_it_comes_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world, one, messages = begun_before_a_crash()
    waiting: list[ReadBack] = []
    monkeypatch.setattr(world, "_load", waiting.append)
    gone = world.resume(one, messages[:2])
    assert gone.inbox == []
    assert len(waiting) == 1
    world.disconnect(gone)
    monkeypatch.undo()
    world._load(waiting[0])
    world.run_jobs()
    assert list(world.states("q").values()) == ["READY"] * 3
    again = world.resume(one, messages[:2])
    assert again.pop("welcome")["lost_runs"] == []
    assert sorted(world.states("q").values()) == ["BEGUN", "BEGUN", "READY"]
    world.check()


def test_a_resume_that_names_very_many_takes_them_back_in_steps() -> None:
    world, one, other = two_clients()
    for _ in range(5):
        other.publish("q", *[b"x"] * 1_000)
    one.consume("q", prefetch=5_000)
    messages = one.messages()
    assert len(messages) == 5_000
    world.disconnect(one)
    again = world._client("one")
    column = memoryview(wire.pack_runs([message.run for message in messages]))
    world.apply(Resume(again.connection, one.session, "one", column))
    steps = 1
    while not again.inbox:
        before = world.queue("q").group.begun
        world.run_job()
        steps += 1
        assert world.queue("q").group.begun - before <= walks.LOOKS // logins.TAKE_BACK_LOOKS + 1
    assert steps >= 10
    assert again.pop("welcome")["lost_runs"] == []
    world.check()
