"""protocol.md, 4.3: after a start a queue waits for the sessions that took from it, and for nobody else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from core_client import Client, Delivered
from harness import World

from minibroker.contract import limits
from minibrokerd.core.model.effects import Effects
from minibrokerd.core.model.inputs import Space
from minibrokerd.core.model.kept import TAKING
from minibrokerd.core.model.records import StateMeta
from minibrokerd.core.model.wheel import TICK_MS
from minibrokerd.core.verbs import takers


def bodies(messages: list[Delivered]) -> list[bytes]:
    """Return the bodies, as text would be too long to compare."""
    return [message.body for message in messages]


def consuming(world: World, *queues: str, prefetch: int = 1) -> Client:
    """Return a client that consumes, and has got something of each queue."""
    client = world.hello("worker")
    for number, queue in enumerate(queues, 1):
        client.consume(queue, prefetch=prefetch, consumer=number)
    world.sync()
    return client


def full(*queues: str, auto_sync: bool = True) -> World:
    """Return a world with three messages in each queue; who published them said goodbye."""
    world = World(auto_sync=auto_sync)
    client = world.hello("publisher")
    for queue in queues:
        client.publish(queue, b"1", b"2", b"3")
    world.sync()
    goodbye(client)
    world.sync()
    return world


def goodbye(client: Client) -> None:
    """Leave in good order."""
    client.send(client.frame([{"op": "goodbye"}]))


def entries(world: World) -> list[Any]:
    """Return what the log would tell the next start."""
    return list(world.store.kept.of(TAKING))


@pytest.mark.parametrize("late_ms", [0, 2_000, limits.RESUME_WAIT_MS - 1])
def test_what_was_begun_just_before_a_crash_is_its_clients_when_it_comes_back_late(
    late_ms: int,
) -> None:
    """The begin is in no record: if somebody else got it, it would run twice, and a settlement would be lost."""
    world = full("q", auto_sync=False)
    one = consuming(world, "q", prefetch=2)
    first, second = one.messages()
    one.begin(first, second)
    world.restart(clean=False, waits=True)
    other = consuming(world, "q", prefetch=9)
    world.advance(late_ms)
    world.sync()
    assert other.messages() == []
    again = world.resume(one, [first, second])
    world.sync()
    assert again.pop("welcome")["lost_runs"] == []
    assert bodies(other.messages()) == [b"3"], "all are back"
    again.settle("ack", first, second)
    world.sync()
    assert again.answer(sequence=again.sequence)["lost_runs"] == []


@pytest.mark.parametrize("clean", [True, False])
def test_it_is_waited_for_until_the_bound_and_no_longer(clean: bool) -> None:
    world = full("q")
    one = consuming(world, "q")
    (message,) = one.messages()
    world.restart(clean=clean, waits=True)
    other = consuming(world, "q")
    world.advance(limits.RESUME_WAIT_MS - TICK_MS)
    assert other.messages() == []
    world.advance(2 * TICK_MS)
    assert bodies(other.messages()) == [b"1"]
    assert world.resume(one, [message]).pop("welcome")["lost_runs"] == [message.run]
    assert not world.store.absent


def _nobody(world: World) -> None:
    pass


def _said_goodbye(world: World) -> None:
    goodbye(consuming(world, "q"))


def _gone(world: World) -> None:
    world.disconnect(consuming(world, "q"))


def _only_asked(world: World) -> None:
    client = world.hello()
    assert client.receive("empty")["count"] == 0


def _of_another(world: World) -> None:
    consuming(world, "other")


def _published(world: World) -> None:
    world.hello().publish("other", b"x")


def _in_memory(world: World) -> None:
    world.hello().set("mem", durability="memory")
    consuming(world, "mem")


@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize(
    "before", [_nobody, _said_goodbye, _gone, _only_asked, _of_another, _published, _in_memory]
)
def test_what_nobody_can_have_begun_waits_for_nobody(
    before: Callable[[World], None], clean: bool
) -> None:
    world = full("q", "other", "empty")
    drained = consuming(world, "empty", prefetch=9)
    drained.settle("ack", *drained.messages())
    before(world)
    world.restart(clean=clean, waits=True)
    assert bodies(consuming(world, "q").messages()) == [b"1"]


def test_a_queue_goes_on_when_all_of_its_own_are_back_and_before_others() -> None:
    world = full("a", "b")
    of_a, of_both = consuming(world, "a"), consuming(world, "a", "b")
    world.restart(clean=False, waits=True)
    watcher = consuming(world, "a", "b")
    assert watcher.messages() == []
    again = world.resume(of_both)
    assert bodies(watcher.messages()) == [b"1"], "of b: for a somebody else is missing"
    world.resume(of_a)
    assert bodies(watcher.messages()) == [b"1"]
    assert world.store.hold_until_ms == 0
    goodbye(again)


def test_one_that_takes_from_very_many_queues_has_all_of_them_wait() -> None:
    names = [f"q{number}" for number in range(takers.MOST_QUEUES + 1)]
    world = full("a", "b", *names)
    many, of_a = consuming(world, *names), consuming(world, "a")
    assert len(entries(world)) == 2
    world.restart(clean=False, waits=True)
    watcher = consuming(world, "a", "b")
    assert watcher.messages() == []
    world.resume(many)
    assert [message.queue for message in watcher.messages()] == ["b"]
    world.resume(of_a)
    assert [message.queue for message in watcher.messages()] == ["a"]


def test_nothing_else_is_held_up_meanwhile() -> None:
    """Publishes, looks and signs of life are answered; a receive waits, and is not told that there is nothing."""
    world = full("q")
    consuming(world, "q")
    world.restart(clean=False, waits=True)
    client = world.hello()
    assert client.publish("q", b"4")["op"] == "confirm"
    assert client.stats("q")["ready"] == 4
    assert client.request({"op": "ping"})["op"] == "pong"
    assert client.receive("q") is None
    world.advance(limits.RESUME_WAIT_MS + 200)
    assert client.answer(request=client.requests)["count"] == 1


def test_a_first_delivery_leaves_when_its_session_is_known_and_the_next_ones_rest_on_nothing() -> (
    None
):
    world = full("q", auto_sync=False)
    client = world.hello()
    client.receive("q")
    assert client.answer(request=client.requests) is None
    world.sync()
    assert client.answer(request=client.requests)["count"] == 1
    assert client.receive("q")["count"] == 1
    client.consume("q")
    assert len(client.messages()) == 1


def test_a_session_is_one_record_however_much_it_takes_and_comes_back() -> None:
    world = full("q")
    one = consuming(world, "q")
    for _ in range(3):
        world.restart(clean=False, waits=True)
        one = world.resume(one)
        one.consume("q")
        one.settle("ack", one.messages()[0])
    assert len(entries(world)) == 1
    says = [record.says for batch in world.log for record in batch.records]
    states = [each for each in says if isinstance(each, StateMeta) and each.kind == TAKING.number]
    assert len(states) == 1


def test_who_never_came_back_is_forgotten_over_the_next_start_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also who took from queues that were empty at the start, for whom nothing waits."""
    monkeypatch.setattr(takers, "STEP_SESSIONS", 2)
    world = full("q")
    for _ in range(3):
        consuming(world, "q", "empty")
        consuming(world, "empty")
    there = consuming(world, "q")
    world.restart(clean=False, waits=True)
    world.resume(there)
    assert len(entries(world)) == 7
    world.advance(limits.RESUME_WAIT_MS + TICK_MS)
    world.run_jobs()
    assert [entry.key for entry in entries(world)] == [(there.session,)]
    world.restart(clean=False, waits=True)
    assert len(world.store.absent) == 1


def test_a_second_crash_in_the_wait_is_waited_for_again() -> None:
    """Also by one whose thread was back, and is gone, before its loop came."""
    world = full("q")
    one = consuming(world, "q")
    world.restart(clean=False, waits=True)
    world.disconnect(world.attach(one))
    world.restart(clean=False, waits=True)
    other = consuming(world, "q")
    assert other.messages() == []
    world.resume(one)
    assert len(other.messages()) == 1


def test_what_is_begun_again_in_a_resume_is_known_to_the_next_crash() -> None:
    """Its connection had ended before the first one, and its consumers are not there again."""
    world = full("q", auto_sync=False)
    one = consuming(world, "q")
    (message,) = one.messages()
    world.restart(clean=False, waits=True)
    back = world.resume(one)
    world.disconnect(back)
    world.sync()
    assert entries(world) == []
    world.resume(one, [message])
    world.close_batch()
    world.restart(clean=False, lose_unsynced=False, waits=True)
    assert consuming(world, "q").messages() == []


def test_a_queue_that_is_no_longer_in_memory_has_its_consumers_known() -> None:
    world = World()
    client = world.hello()
    client.set("q", durability="memory")
    one = consuming(world, "q")
    assert entries(world) == []
    client.set("q", durability="sync")
    assert len(entries(world)) == 1
    client.publish("q", b"1")
    assert bodies(one.messages()) == [b"1"]
    world.restart(clean=False, waits=True)
    assert consuming(world, "q").messages() == []


def test_who_came_while_the_disk_was_full_is_known_when_it_is_not() -> None:
    world = full("q")
    world.apply(Space(short=True, pause=False))
    one = consuming(world, "q")
    assert len(one.messages()) == 1, "nothing waits for a record that there is no room for"
    assert entries(world) == []
    world.apply(Space(short=False, pause=False))
    assert [entry.key for entry in entries(world)] == [(one.session,)]


def test_an_operator_is_told_who_is_missing_or_how_long_it_took(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = full("q")
    gone, here = consuming(world, "q"), consuming(world, "q")
    told: list[Any] = []
    route = world._route

    def listen(effects: Effects) -> None:
        told.extend(effects.notes)
        route(effects)

    monkeypatch.setattr(world, "_route", listen)
    world.restart(clean=False, waits=True)
    here = world.resume(here)
    assert told == []
    world.advance(limits.RESUME_WAIT_MS + TICK_MS)
    world.run_jobs()
    assert [(note.event, note.fields["clients"]) for note in told] == [
        ("sessions_missing", "worker")
    ]
    world.restart(clean=False, waits=True)
    world.advance(700)
    world.resume(here)
    assert [(note.event, note.fields["ms"]) for note in told[1:]] == [("sessions_back", 700)]
    assert gone.session not in world.store.sessions


def test_a_stop_lets_nothing_go_though_others_wait() -> None:
    world = full("a", "b")
    one = consuming(world, "a")
    world.restart(clean=False, waits=True)
    world.core.hold()
    other = consuming(world, "a", "b")
    world.resume(one)
    assert other.messages() == []


def test_a_further_queue_holds_back_nothing_of_the_first() -> None:
    """Each queue rests on the batch of its own; or what one consumer gets would pass what another got before."""
    world = full("q", "r", auto_sync=False)
    client = consuming(world, "q")
    assert bodies(client.messages()) == [b"1"]
    client.consume("r", consumer=2)
    assert client.messages() == [], "not before the log knows"
    assert bodies(client.receive_all("q", 1)) == [b"2"]
    world.sync()
    assert bodies(client.messages()) == [b"1"]


def test_what_waits_for_the_first_sync_is_no_more_than_one_burst() -> None:
    """The shell can write nothing of it before, so nothing says stop: all at once, it would be too much."""
    world = World(auto_sync=False)
    publisher = world.hello("publisher")
    for _ in range(4):
        publisher.publish("q", *[bytes(limits.OUTPUT_SOFT_BYTES // 4)] * 4)
        world.sync()
    client = world.hello("worker")
    client.consume("q", prefetch=16)
    for _ in range(20):
        world.advance(TICK_MS)
    assert world.store.queues["q"].group.held <= 5
    for _ in range(20):
        world.sync()
        world.advance(TICK_MS)
    assert len(client.messages()) == 16
