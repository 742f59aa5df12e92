"""Promises about sessions that come, go and come back: what they keep and what they lose."""

from __future__ import annotations

import pytest
from core_client import Client, Delivered, settle_part
from harness import World

from minibroker import limits
from minibrokerd.core.inputs import Resume


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
    world.restart(clean=False)  # the BEGIN was in the open batch
    other = world.hello("other")
    other.consume("q", prefetch=5)
    assert other.messages() == []  # 1 s for those who come back
    again = world.resume(one, [first])
    assert again.pop("welcome")["lost_runs"] == []
    world.sync()
    world.advance(1_008)
    assert bodies(other.messages()) == [b"b", b"c"]
    late = world.resume(two, [second])
    assert late.pop("welcome")["lost_runs"] == [second.run]
    again.settle("ack", first, third)
    world.sync()
    assert again.answer(sequence=2)["lost_runs"] == [third.run]


@pytest.mark.parametrize("clean", [True, False])
def test_after_an_unclean_start_nothing_old_is_handed_out_for_one_second(clean: bool) -> None:
    world = World()
    world.hello().publish("q", b"a")
    world.restart(clean=clean)
    client = world.hello()
    client.consume("q")
    assert bodies(client.messages()) == ([b"a"] if clean else [])
    world.advance(999)
    assert bodies(client.messages()) == []
    world.advance(9)
    assert bodies(client.messages()) == ([] if clean else [b"a"])


@pytest.mark.parametrize("down_ms", [0, 59_000, 61_000])
def test_a_clean_stop_with_consumers_is_followed_by_the_same_second(down_ms: int) -> None:
    """They began some of what they had when the server had stopped reading, and say so when they resume."""
    world = World()
    client = world.hello()
    client.publish("q", b"a", b"b")
    client.settle("ack", client.receive_all("q", 1)[0])
    client.consume("q")
    world.restart(wall_ms=down_ms)
    other = world.hello()
    other.consume("q")
    assert bodies(other.messages()) == ([] if down_ms < limits.SESSION_KEPT_MS else [b"b"])
    world.advance(1_008)
    assert bodies(other.messages()) == ([b"b"] if down_ms < limits.SESSION_KEPT_MS else [])


def test_a_session_lives_a_minute_without_a_connection() -> None:
    world, one, _ = two_clients()
    world.disconnect(one)
    world.advance(limits.SESSION_KEPT_MS - 1)
    again = world.resume(one)
    assert again.pop("welcome")["known"] is True
    world.disconnect(again)
    world.advance(limits.SESSION_KEPT_MS + 8)
    assert world.resume(one).pop("welcome")["known"] is False


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
