"""protocol.md, 5.17, `active_consumers`: one consumer at a time, and then the next."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from core_client import Client, Delivered
from harness import TICK_MS, World
from test_core_recalling import accept, give_back

from minibroker.contract import limits

LEASE_MS = 1_000


def made(*, count: int = 0) -> tuple[World, Client, Client]:
    """Return a world and two consumers of a queue with one active consumer, the first of them active."""
    world = World()
    first, second = world.hello("first"), world.hello("second")
    first.set("q", active_consumers="one", retry_delay_ms=0)
    first.consume("q", prefetch=4, lease_ms=LEASE_MS)
    second.consume("q", prefetch=4, lease_ms=LEASE_MS)
    if count:
        first.publish("q", *[b"%d" % number for number in range(count)])
    return world, first, second


def bodies(messages: list[Delivered]) -> list[int]:
    """Return the numbers that messages carry."""
    return [int(message.body) for message in messages]


def active(client: Client) -> Any:
    """Return who has the turn, as `stats` says it."""
    said: Any = client.stats("q")
    return said["active"].get("client")


def test_the_first_one_gets_everything_in_order() -> None:
    """The others wait, whatever credit they have."""
    world, first, second = made(count=10)
    got = []
    while messages := first.messages():
        got += bodies(messages)
        first.begin(*messages)
        first.settle("ack", *messages)
        world.check()
    assert got == list(range(10))
    assert second.messages() == []
    assert first.stats("q")["consumers"] == 2
    assert active(first) == "first"
    said: Any = first.stats("q")
    assert said["active"]["waiting"] == 1


@pytest.mark.parametrize("way", ["cancel", "goodbye", "lost"])
def test_the_next_takes_over_where_the_first_one_left(way: str) -> None:
    """What it held goes back first, in its order; an event says who has the turn."""
    world, first, second = made(count=6)
    messages = first.messages()
    first.begin(messages[0])
    first.settle("ack", messages[0])
    if way == "cancel":
        first.cancel()
    elif way == "goodbye":
        first.send(first.frame([{"op": "goodbye"}]))
    else:
        world.disconnect(first)
    world.run_jobs()
    got: list[int] = []
    while messages := second.messages():
        got += bodies(messages)
        second.begin(*messages)
        second.settle("ack", *messages)
    assert got == [1, 2, 3, 4, 5]
    assert active(second) == "second"
    world.check()


def test_nobody_gets_anything_before_what_the_first_one_began_has_ended() -> None:
    """Settled by its session on a new connection, or its lease over: two never have messages at once."""
    world, first, second = made(count=6)
    messages = first.messages()
    first.begin(messages[0])
    world.disconnect(first)
    assert second.messages() == []
    why = second.explain((1, 1))
    assert (why["reason"], why["by"]) == ("not_active", "first")
    back = world.resume(first, [messages[0]])
    back.consume("q", prefetch=4)
    assert second.messages() == back.messages() == []
    back.settle("ack", messages[0])
    assert bodies(second.messages()) == [1, 2, 3, 4]
    assert back.messages() == []
    world.check()


def test_a_lease_that_ends_passes_the_turn() -> None:
    """Of a worker that is gone, and its message is first."""
    world, first, second = made(count=6)
    messages = first.messages()
    first.begin(messages[0])
    world.disconnect(first)
    world.advance(LEASE_MS + 100)
    assert bodies(second.messages())[:1] == [0]
    world.check()


def test_one_that_stands_still_loses_its_turn() -> None:
    """It has a connection, and let a lease end in silence; when it speaks again, it is the last on the bench."""
    world, first, second = made(count=6)
    messages = first.messages()
    first.begin(*messages)
    world.advance(LEASE_MS + 100)
    got = second.messages()
    assert bodies(got)[:1] == [0]
    first.request({"op": "ping"})
    world.check()
    second.begin(*got)
    second.settle("ack", *got)
    assert first.settle("ack", messages[0])["lost_runs"] == [messages[0].run]
    assert first.messages() == []
    while got := second.messages():
        second.begin(*got)
        second.settle("ack", *got)
    world.disconnect(second)
    first.publish("q", b"6")
    assert bodies(first.messages()) == [6]
    world.check()


def test_what_one_that_stands_still_holds_is_its_own_until_it_gives_it_back() -> None:
    """It is asked, for only its client knows what it has begun; else it has it until its connection ends."""
    world, first, second = made(count=6)
    accept(first)
    messages = first.messages()
    first.begin(messages[0])
    world.advance(LEASE_MS + 100)
    assert second.messages() == []
    (frame,) = first.inbox
    assert (frame["op"], frame["queue"]) == ("recall", "q")
    first.inbox.clear()
    give_back(first, messages[1:3])
    assert second.messages() == []
    world.disconnect(first)
    got: list[int] = []
    while messages := second.messages():
        got += bodies(messages)
        second.begin(*messages)
        second.settle("ack", *messages)
    assert got == list(range(6))
    world.check()


def test_one_that_stands_still_keeps_the_turn_while_nobody_else_is_there() -> None:
    """There is nobody to give it to."""
    world, first, second = made(count=1)
    world.disconnect(second)
    (message,) = first.messages()
    first.begin(message)
    world.advance(LEASE_MS + 100)
    first.request({"op": "ping"})
    assert bodies(first.messages()) == [0]


def be_silent(world: World, client: Client) -> None:
    client.consume("other", consumer=2, lease_ms=LEASE_MS)
    client.publish("other", b"it stands still with this")
    client.begin(*client.messages())
    world.advance(LEASE_MS + 100)


def be_paused(world: World, client: Client) -> None:
    client.request({"op": "pause", "client": "second"})


def speak(client: Client) -> None:
    client.request({"op": "ping"})


def be_unpaused(client: Client) -> None:
    client.request({"op": "unpause", "client": "second"})


@pytest.mark.parametrize(("stand_still", "go_on"), [(be_silent, speak), (be_paused, be_unpaused)])
def test_one_that_stood_still_on_the_bench_has_the_turn_when_it_goes_on(
    stand_still: Callable[[World, Client], None], go_on: Callable[[Client], None]
) -> None:
    """Nobody else is there, and nothing else happens in the queue."""
    world, first, second = made()
    stand_still(world, second)
    second.inbox.clear()
    first.cancel()
    first.publish("q", b"0", b"1")
    assert second.messages() == []
    go_on(second)
    assert [bodies([each]) for each in second.messages() if each.queue == "q"] == [[0], [1]]
    world.check()


def test_a_paused_client_passes_the_turn() -> None:
    """An operator paused it; what it works on ends first."""
    world, first, second = made(count=3)
    accept(first)
    messages = first.messages()
    first.begin(messages[0])
    second.request({"op": "pause", "client": "first"})
    assert "recall" in [frame["op"] for frame in first.inbox]
    give_back(first, messages[1:])
    assert second.messages() == []
    first.settle("ack", messages[0])
    assert bodies(second.messages()) == [1, 2]
    world.check()


def test_a_consumer_that_wants_nothing_passes_the_turn() -> None:
    """It says so by a prefetch of 0, and has the turn again when it is its turn."""
    world, first, second = made(count=2)
    messages = first.messages()
    first.begin(*messages)
    first.consume("q", prefetch=0)
    first.settle("ack", *messages)
    first.publish("q", b"2")
    assert bodies(second.messages()) == [2]
    assert first.messages() == []
    world.check()


def test_a_receive_is_a_consumer_until_what_it_got_has_ended() -> None:
    """Also another receive of the same session waits; one that waits for nothing is told so at once."""
    world = World()
    first, second = world.hello("first"), world.hello("second")
    first.set("q", active_consumers="one")
    first.publish("q", b"0", b"1", b"2")
    (got,) = first.receive_all("q", 1)
    assert second.receive_all("q", 1) == []
    assert first.receive_all("q", 1) == []
    assert second.receive("q", 1, wait_ms=60_000) is None
    first.settle("ack", got)
    assert bodies(second.messages()) == [1]
    world.check()


def test_a_receive_that_waits_in_vain_leaves_the_bench() -> None:
    """Its wait ends with nothing, as that of any."""
    world, first, _ = made(count=1)
    assert first.receive("q", 1, wait_ms=500) is None
    world.advance(700)
    assert any(frame.get("count") == 0 for frame in first.inbox)
    assert first.stats("q")["consumers"] == 2
    world.check()


def test_the_setting_holds_for_consumers_that_are_there() -> None:
    """To one: what two have is worked off first. To all: who waits gets something at once."""
    world = World()
    first, second = world.hello("first"), world.hello("second")
    first.consume("q", prefetch=1)
    second.consume("q", prefetch=1)
    first.publish("q", *[b"%d" % number for number in range(6)])
    (one,), (two,) = first.messages(), second.messages()
    first.set("q", active_consumers="one")
    first.settle("ack", one)
    assert first.messages() == []
    second.settle("ack", two)
    got = first.messages() or second.messages()
    assert bodies(got) == [2]
    first.set("q", active_consumers="all")
    assert len(first.messages() + second.messages()) == 1
    world.check()


def test_a_purge_lets_the_next_one_have_the_turn() -> None:
    """What the first one had begun has ended with it."""
    world, first, second = made(count=1)
    (message,) = first.messages()
    first.begin(message)
    world.disconnect(first)
    second.purge("q")
    world.run_jobs()
    second.publish("q", b"7")
    assert bodies(second.messages()) == [7]


def test_after_a_restart_the_first_that_comes_has_the_turn() -> None:
    """And what was at work at the end of the old server is waited for."""
    world, first, _ = made(count=3)
    messages = first.messages()
    first.begin(messages[0])
    world.sync()
    world.restart(clean=False)
    other = world.hello("other")
    other.consume("q", prefetch=4)
    assert other.messages() == []
    world.advance(120_000)
    assert bodies(other.messages()) == [0, 1, 2]
    world.check()


def test_an_event_says_who_takes_over() -> None:
    """Once for each time."""
    world, first, _ = made()
    notes = []
    route = world._route

    def noting(effects: Any) -> None:
        notes.extend(effects.notes)
        route(effects)

    world._route = noting  # type: ignore[method-assign]
    world.disconnect(first)
    world.run_jobs()
    said = [dict(note.fields) for note in notes if note.event == "consumer_active"]
    assert [(each["queue"], each["client"], each["after"]) for each in said] == [
        ("q", "second", "first")
    ]


def lost_by(client: Client) -> list[Any]:
    """Return what the welcome of a resume says is lost."""
    runs: list[Any] = client.pop("welcome")["lost_runs"]
    return runs


def test_who_comes_back_goes_on_with_nothing_while_another_one_has_the_turn() -> None:
    """The connection was lost with the begins; what waits still is lost to him like what was handed out since."""
    world, first, second = made(count=6)
    second.consume("q", prefetch=2, lease_ms=LEASE_MS)
    messages = first.messages()
    world.disconnect(first)
    got = second.messages()
    assert bodies(got) == [0, 1]
    back = world.resume(first, messages)
    assert sorted(lost_by(back)) == sorted(message.run for message in messages)
    second.begin(*got)
    second.settle("ack", *got)
    assert bodies(second.messages()) == [2, 3]
    assert back.settle("ack", messages[2])["lost_runs"] == [messages[2].run]
    world.check()


def test_who_comes_back_waits_for_one_that_has_the_turn_and_nothing_at_hand() -> None:
    """What is published next is for that one."""
    world, first, second = made(count=1)
    messages = first.messages()
    world.flow(second, paused=True)
    world.disconnect(first)
    assert active(second) == "second"
    back = world.resume(first, messages)
    assert lost_by(back) == [messages[0].run]
    world.flow(second, paused=False)
    assert bodies(second.messages()) == [0]
    world.check()


def test_who_comes_back_waits_for_what_a_receive_was_answered_with() -> None:
    """That has the turn until it has ended, though no consumer stands for it any more."""
    world, first, second = made(count=6)
    second.cancel()
    second.receive("q", 1, wait_ms=60_000)
    messages = first.messages()
    world.disconnect(first)
    (got,) = second.messages()
    back = world.resume(first, messages[1:])
    assert lost_by(back) == [message.run for message in messages[1:]]
    second.settle("ack", got)
    back.consume("q", prefetch=4)
    assert bodies(back.messages()) == [1, 2, 3, 4]
    world.check()


def test_who_comes_back_before_anybody_has_the_turn_goes_on() -> None:
    """Nobody else gets anything before that has ended, and then it has ended for good."""
    world, first, second = made(count=3)
    second.cancel()
    messages = first.messages()
    world.disconnect(first)
    back = world.resume(first, messages[1:])
    assert lost_by(back) == []
    second.consume("q", prefetch=4)
    assert second.messages() == []
    assert second.explain((1, 1))["by"] == "first"
    back.settle("ack", *messages[1:])
    assert bodies(second.messages()) == [0]
    world.check()


@pytest.mark.parametrize("is_late", [False, True])
def test_after_a_restart_who_is_late_does_not_go_on_beside_the_next(is_late: bool) -> None:
    """What he had begun stands in no record; in time it is his, for a start waits for him."""
    world, first, _ = made(count=6)
    messages = first.messages()
    world.restart(clean=False, waits=True)
    other = world.hello("other")
    other.consume("q", prefetch=2)
    assert other.messages() == []
    if is_late:
        world.advance(limits.RESUME_WAIT_MS + TICK_MS)
        assert bodies(other.messages()) == [0, 1]
    back = world.resume(first, messages[2:])
    assert len(lost_by(back)) == (2 if is_late else 0)
    if not is_late:
        world.advance(limits.RESUME_WAIT_MS + TICK_MS)
        assert other.messages() == []
        back.settle("ack", *messages[2:])
        assert bodies(other.messages()) == [0, 1]
    world.check()


def test_the_next_one_gets_nothing_before_the_end_of_what_was_at_work_is_safe() -> None:
    """Else a crash gives the first one its message back, while the next one works on another."""
    world = World(auto_sync=False)
    first, second = world.hello("first"), world.hello("second")
    first.publish("q", b"0", b"1")
    first.set("q", active_consumers="one")
    for each in (first, second):
        each.consume("q", prefetch=1)
    world.sync()
    messages = first.messages()
    first.begin(*messages)
    world.sync()
    first.cancel()
    first.settle("ack", *messages)
    assert active_in(world) == "second"
    assert second.messages() == []
    world.sync()
    assert bodies(second.messages()) == [1]
    world.check()


def test_one_that_takes_turn_after_turn_waits_for_no_sync() -> None:
    """What it had ended itself it knows."""
    world = World(auto_sync=False)
    client = world.hello()
    client.publish("q", b"0", b"1")
    client.set("q", active_consumers="one")
    client.consume("q", prefetch=0)
    world.sync()
    (message,) = client.receive_all("q", 1)
    client.settle("ack", message)
    assert bodies(client.receive_all("q", 1)) == [1]


def active_in(world: World) -> str:
    """Return who has the turn; an answer would have to wait."""
    single = world.queue("q").group.single
    assert single is not None
    return single.client
