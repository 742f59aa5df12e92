"""Promises about changes of state: each row of the table happens, and counts, timers and credit are right then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from core_client import Client
from harness import World

from minibrokerd.core.model import transitions
from minibrokerd.core.model.deliveries import Consumer, Delivery
from minibrokerd.core.model.messages import BEGUN, DELAYED, HELD, READY, Item, State
from minibrokerd.core.model.transitions import ROWS, change

LEASE_MS = 60_000
Key = tuple[State | None, State | None]
Story = Callable[[World, Client], None]


def held(world: World, client: Client, *, begin: bool = False) -> list[Any]:
    """Return three messages that a consumer holds, or has begun."""
    client.publish("q", b"a", b"b", b"c")
    client.consume("q", prefetch=3, lease_ms=LEASE_MS)
    messages = client.messages()
    if begin:
        client.begin(*messages)
    return messages


def delayed(world: World, client: Client) -> None:
    client.publish("q", b"x", delay_ms=5_000)


def due(world: World, client: Client) -> None:
    delayed(world, client)
    world.advance(6_000)


def retimed(world: World, client: Client) -> None:
    delayed(world, client)
    (info,) = client.peek("q")
    client.retime("q", (info["origin"], info["sequence"]), 9_000)


def redriven(world: World, client: Client) -> None:
    client.settle("reject", *held(world, client))
    client.cancel()
    client.redrive("q.dlq")


def taken_back(world: World, client: Client) -> None:
    """What a crash has lost is begun, but its client goes on with it."""
    client.take_from("q")
    client.publish("q", b"x")
    world.auto_sync = False
    begun = client.receive_all("q")
    world.restart(clean=False)
    world.auto_sync = True
    world.resume(client, begun)


def found_by_a_start(world: World, client: Client) -> None:
    client.publish("q", b"x")
    client.receive_all("q")
    world.restart()


def released_once(world: World, client: Client) -> None:
    client.settle("release", held(world, client)[1])


def released_twice(world: World, client: Client) -> None:
    first, *_ = held(world, client)
    client.settle("release", first)
    client.settle("release", *client.messages())


def given_back(world: World, client: Client) -> None:
    released = held(world, client, begin=True)[:2]
    client.settle("release", *released)
    world.check()
    world.advance(LEASE_MS // 2)


def failed(world: World, client: Client) -> None:
    client.settle("nack", *held(world, client, begin=True)[:2], delay_ms=5_000)


def rejected(world: World, client: Client) -> None:
    client.settle("reject", held(world, client, begin=True)[0])


def acked_unbegun(world: World, client: Client) -> None:
    client.settle("ack", held(world, client)[1])


STORIES: dict[Key, Story] = {
    (None, READY): redriven,
    (None, DELAYED): delayed,
    (None, HELD): taken_back,
    (None, BEGUN): found_by_a_start,
    (DELAYED, READY): due,
    (DELAYED, None): retimed,
    (HELD, READY): released_once,
    (HELD, DELAYED): released_twice,
    (HELD, None): acked_unbegun,
    (BEGUN, READY): given_back,
    (BEGUN, DELAYED): failed,
    (BEGUN, None): rejected,
}


class Watched(dict[Key, transitions.Row]):
    """A table that notes which rows are asked for."""

    def __init__(self) -> None:
        super().__init__(ROWS)
        self.asked: set[Key] = set()

    def __getitem__(self, key: Key) -> transitions.Row:
        self.asked.add(key)
        return super().__getitem__(key)


@pytest.mark.parametrize(
    "key",
    STORIES,
    ids=[" to ".join(each.name if each is not None else "-" for each in key) for key in STORIES],
)
def test_what_a_row_does_is_what_there_is_then(key: Key, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched()
    monkeypatch.setattr(transitions, "ROWS", watched)
    world = World()
    STORIES[key](world, world.hello())
    world.check()
    assert key in watched.asked


def test_each_row_has_a_story_but_those_that_only_the_fast_path_does() -> None:
    assert set(ROWS) - set(STORIES) == {(READY, HELD), (HELD, BEGUN)}


# -- the fast path ------------------------------------------------------------------------------


class Scene:
    """A queue of three messages, and a consumer that can take two of them."""

    def __init__(self) -> None:
        self.world = World()
        client = self.world.hello()
        client.publish("q", b"a", b"b", b"c")
        self.group = self.world.queue("q").group
        self.consumer = Consumer(client.connection, client.session, 1, 1, 2, 1_000)
        self.delivery = Delivery(1, 1, 1, client.session, client.connection, self.consumer, 1_000)

    def taken(self, most: int) -> list[Item]:
        return self.group.lanes.take(most, 2**30)

    def seen(self) -> tuple[object, ...]:
        """Return all that a row may count."""
        group, consumer = self.group, self.consumer
        singles = self.delivery.singles.values()
        return (
            (group.lanes.ready, group.delayed_count, group.held, group.begun),
            (consumer.outstanding, consumer.waiting, group.dirty),
            [(each.state, each.timer is not None and each.timer.armed) for each in singles],
            self.world.store.wheel.next_deadline_ms(),
        )


def deliver(scene: Scene, *, fast: bool) -> None:
    items = scene.taken(2)
    if fast:
        for item in items:
            scene.delivery.add(item)
        transitions.deliver(scene.group, scene.consumer, 2)
    else:
        change(scene.world.store, scene.group, items, READY, HELD, scene.delivery)


def end(scene: Scene, *, fast: bool) -> None:
    deliver(scene, fast=True)
    (span,) = scene.delivery.spans.values()
    scene.delivery.spans.clear()
    store, group = scene.world.store, scene.group
    if fast:
        transitions.end_held(store, group, scene.delivery, [span], 2)
    else:
        change(store, group, [span], HELD, None, scene.delivery)


def begin(scene: Scene, *, fast: bool) -> None:
    deliver(scene, fast=True)
    messages = scene.delivery.all_singles()
    store, group = scene.world.store, scene.group
    if fast:
        transitions.begin(store, group, scene.delivery, messages)
    else:
        until_ms = store.now_ms + scene.delivery.lease_ms
        change(store, group, messages, HELD, BEGUN, scene.delivery, until_ms=until_ms)


def end_begun(scene: Scene, *, fast: bool) -> None:
    begin(scene, fast=True)
    message = scene.delivery.singles.pop(0)
    store, group = scene.world.store, scene.group
    if fast:
        transitions.end_begun(store, group, scene.delivery, [message])
    else:
        change(store, group, [message], BEGUN, None, scene.delivery)
    assert message.timer is None


def begin_together(scene: Scene, *, fast: bool) -> None:
    if not fast:
        begin(scene, fast=False)
        return
    deliver(scene, fast=True)
    spans = list(scene.delivery.spans.values())
    scene.delivery.spans.clear()
    transitions.begin_together(scene.world.store, scene.group, scene.delivery, spans, 2)


def end_together(scene: Scene, *, fast: bool) -> None:
    begin_together(scene, fast=True)
    store, group, delivery = scene.world.store, scene.group, scene.delivery
    if fast:
        begun = list(delivery.begun.values())
        delivery.begun.clear()
        transitions.end_together(store, group, delivery, begun)
    else:
        messages = list(delivery.singles.values())
        delivery.alone.clear()
        change(store, group, messages, BEGUN, None, delivery)


def enter(scene: Scene, *, fast: bool) -> None:
    (span,) = scene.taken(3)
    if fast:
        scene.group.enter(span)  # type: ignore[arg-type]
    else:
        change(scene.world.store, scene.group, [span], None, READY)
        scene.group.dirty = False  # who enters spans touches the group once for all of them


@pytest.mark.parametrize(
    "does", [enter, deliver, end, begin, end_begun, begin_together, end_together]
)
def test_the_fast_path_does_what_its_row_says(does: Callable[..., None]) -> None:
    fast, by_the_table = Scene(), Scene()
    does(fast, fast=True)
    does(by_the_table, fast=False)
    assert fast.seen() == by_the_table.seen()
