"""What a client meets at the edges: cold messages, full queues, older logs, queues that are not there yet."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from harness import World

from minibroker.contract import limits, settings
from minibroker.contract.settings import default_settings
from minibrokerd.core.durable import paging
from minibrokerd.core.model import queues
from minibrokerd.core.model.effects import ReadBack
from minibrokerd.core.model.inputs import Flow, Loaded, Space
from minibrokerd.core.model.records import RECORD_TYPES, decode, encode
from minibrokerd.core.model.sums import Sums
from minibrokerd.log.seam import Record

# How many fields the records of the first release had: a later one may only append fields that have a default.
FIRST_FIELDS = dict(enumerate((4, 2, 15, 8, 8, 7, 11, 10, 1, 7, 22, 1, 10, 6, 3, 10, 4, 10), 2))


def cold_world(monkeypatch: pytest.MonkeyPatch) -> World:
    """Return a world with 40 messages of which most left memory; reads wait in `world.asked`."""
    monkeypatch.setattr(Sums, "large_bytes", 0)
    monkeypatch.setattr(paging, "AHEAD_MESSAGES", 1)
    world = World()
    client = world.hello()
    for n in range(40):
        client.publish("q", b"%d" % n)
    world.freeze()
    assert world.queue("q").group.lanes.default.cold
    return world


def test_a_receive_without_a_wait_waits_for_what_is_read_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = cold_world(monkeypatch)
    client = world.hello()
    asked: list[ReadBack] = []
    monkeypatch.setattr(world, "_load", asked.append)
    got = client.receive_all("q", 1)
    while asked or len(got) < 40:
        answer = client.receive("q", 5)
        if answer is None:  # on its way: never "none" while messages are ready
            world.advance(300)
            assert not client.answer(request=client.requests)
            (read,) = asked
            asked.clear()
            world._route(
                world.core.apply(Loaded(read, world._read(read)), world.now_ms, world.unix_ms)
            )
            world.sync()
            answer = client.answer(request=client.requests)
        assert answer["count"] > 0
        got += answer["messages"]
    assert [message.body for message in got] == [b"%d" % n for n in range(40)]
    assert client.receive("q")["count"] == 0


@pytest.mark.parametrize("why", ["hold", "space", "output"])
def test_a_receive_without_a_wait_is_not_told_none_while_hand_outs_are_held_back(why: str) -> None:
    world = World()
    client = world.hello()
    client.publish("q", b"a")
    if why == "hold":
        client.take_from("q")
        world.restart(clean=False, waits=True)
        client = world.hello()
    elif why == "space":
        world.apply(Space(True, True))
    else:
        world.apply(Flow(client.connection, True))
    assert client.receive("q") is None
    world.advance(500)
    assert client.answer(request=client.requests) is None
    world.apply(Space(False, False))
    world.apply(Flow(client.connection, False))
    world.advance(limits.RESUME_WAIT_MS)
    assert client.answer(request=client.requests)["count"] == 1


def test_a_queue_takes_no_frame_that_would_make_it_larger_than_its_settings_allow() -> None:
    world = World()
    client = world.hello()
    client.set("q", max_messages=10)
    refused = client.publish("q", *[b"x"] * 11)
    assert (refused["code"], refused["retryable"]) == ("too_large", False)
    assert client.publish("q", *[b"x"] * 4, delays=[0, 0, 9_000, 9_000])["op"] == "confirm"
    assert client.publish("q", *[b"x"] * 7)["code"] == "busy"
    assert client.publish("q", *[b"x"] * 6)["op"] == "confirm"
    assert client.publish("q", b"x")["code"] == "busy"
    assert sum(client.stats("q")[state] for state in ("ready", "delayed")) == 10


def test_a_log_from_before_a_setting_existed_is_read_with_its_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()
    client = world.hello()
    client.set("q", max_attempts=3)
    client.publish("plain", b"a")
    row = replace(settings.SETTINGS["max_messages"], name="later", default=7)
    monkeypatch.setitem(settings.SETTINGS, "later", row)  # type: ignore[arg-type]
    monkeypatch.setattr(queues, "DEFAULTS", settings.default_settings())
    world.restart()
    client = world.hello()
    for name in ("q", "plain"):
        assert world.queue(name).setting("later") == 7
    assert world.queue("q").setting("max_attempts") == 3
    assert client.set("q", later=8)["value"]["settings"]["later"] == 8
    assert client.set("plain", later=9)["value"]["settings"]["later"] == 9
    world.restart()
    assert world.queue("q").setting("later") == 8


@pytest.mark.parametrize("number", RECORD_TYPES)
def test_a_record_of_the_first_release_is_read_without_the_fields_that_came_later(
    number: int,
) -> None:
    meta = RECORD_TYPES[number]
    fields = meta.__struct_fields__
    required = [name for name in fields if name not in _defaults(meta)]
    assert len(required) == FIRST_FIELDS[number], "a new field of a record needs a default"
    assert list(fields[: len(required)]) == required, "new fields stand behind the others"


def _defaults(meta: type) -> set[str]:
    fields, defaults = meta.__struct_fields__, meta.__struct_defaults__  # type: ignore[attr-defined]
    return set(fields[len(fields) - len(defaults) :])


def test_a_return_without_its_newest_field_is_read() -> None:
    values = [1, 1, 5, 9, 100, 0, 200, (1, 0, 0), 0, False, None]
    meta = decode(Record(8, encode(values), b"", 0))
    assert meta.dead is False  # type: ignore[attr-defined]


@pytest.mark.parametrize("how", ["consume", "receive"])
def test_a_dlq_can_be_consumed_before_the_first_dead_letter(how: str) -> None:
    """Its worker may be there before anything failed, and before its source is used: both are made then."""
    world = World()
    worker = world.hello()
    if how == "consume":
        assert worker.consume("q.dlq")["op"] == "reply"
    else:
        worker.receive("q.dlq", wait_ms=60_000)
    assert sorted(world.store.queues) == ["q", "q.dlq"]
    client = world.hello()
    client.set("q", max_attempts=1)
    client.publish("q", b"a")
    client.settle("nack", *client.receive_all("q"))
    assert [message.body for message in worker.messages()] == [b"a"]
    world.restart()
    assert world.queue("q.dlq").home == world.queue("q").number


def test_every_command_agrees_on_a_dlq_that_has_had_no_message() -> None:
    world = World()
    client = world.hello()
    client.set("q", durability="lazy")
    assert client.stats("q.dlq")["ready"] == 0
    assert client.peek("q.dlq") == []
    assert client.purge("q.dlq")["value"]["purged"] == 0
    assert client.redrive("q.dlq")["value"]["redriven"] == 0
    shown = client.request({"op": "queue_show", "queue": "q.dlq"})
    assert shown["value"]["settings"]["durability"] == "lazy"
    assert list(world.store.queues) == ["q"], "looking makes nothing"
    assert client.set("q.dlq", max_messages=5)["value"]["settings"]["max_messages"] == 5
    assert client.request({"op": "queue_show", "queue": "other.dlq"})["code"] == "unknown_queue"
    assert list(world.store.queues) == ["q", "q.dlq"]


def test_the_settings_of_a_dlq_can_be_set_before_anything_is_there() -> None:
    world = World()
    client = world.hello()
    value = client.set("q.dlq", max_messages=5, durability="sync")["value"]
    assert value["settings"]["max_messages"] == 5
    assert (
        client.request({"op": "queue_show", "queue": "q"})["value"]["settings"]
        == default_settings()
    )
    world.restart()
    client = world.hello()
    shown = client.request({"op": "queue_show", "queue": "q.dlq"})
    assert shown["value"]["settings"]["max_messages"] == 5
    client.publish("q", b"dead")
    client.settle("reject", *client.receive_all("q"))
    assert len(client.peek("q.dlq")) == 1


@pytest.mark.parametrize(
    ("name", "settings", "code"),
    [
        ("q.dlq", {"durability": "lazy"}, "bad_value"),
        ("no name.dlq", {}, "bad_name"),
        (".dlq", {}, "bad_name"),
        ("q.dlq.dlq", {}, "bad_name"),
    ],
)
def test_a_dlq_that_cannot_be_set_leaves_no_source(name: str, settings: Any, code: str) -> None:
    world = World()
    assert world.hello().set(name, **settings)["code"] == code
    assert list(world.store.queues) == []


def test_a_dlq_has_no_dlq() -> None:
    world = World()
    client = world.hello()
    client.set("q.dlq")
    assert client.set("q.dlq.dlq")["code"] == "bad_name"
    asked = client.request({"op": "consume", "queue": "q.dlq.dlq", "consumer": 1, "prefetch": 1})
    assert asked["code"] == "bad_name"
    assert list(world.store.queues) == ["q", "q.dlq"]


def test_a_server_makes_no_more_queues_than_it_may() -> None:
    world = World()
    world.store.max_queues = 2
    client = world.hello()
    client.publish("one", b"a")
    client.publish("two", b"a")
    for refused in (
        client.publish("three", b"a"),
        client.consume("three"),
        client.set("three"),
        client.request({"op": "move", "queue": "one", "target": "three"}),
    ):
        assert (refused["code"], refused["retryable"]) == ("limit_reached", False)
    client.settle("reject", *client.receive_all("one"))  # a DLQ is made all the same
    assert client.stats("one.dlq")["ready"] == 1
    client.delete("two", force=True)
    client.delete("one", force=True)
    assert client.publish("three", b"a")["op"] == "confirm"


@pytest.mark.parametrize("op", ["purge", "delete"])
def test_what_is_held_or_begun_ends_with_a_purge_at_once_and_is_freed_in_steps(op: str) -> None:
    world = World()
    client, worker, eager = world.hello(), world.hello(), world.hello()
    for _ in range(3):
        client.publish("q", *[b"old"] * 1_000)
    begun = [worker.receive_all("q", 1)[0] for _ in range(1_500)]
    if op == "purge":
        eager.consume("q", prefetch=1_000)
        held = eager.messages()
        assert len(held) == 1_000
        assert client.purge("q")["value"]["purged"] == 3_000
    else:
        held = []
        assert client.delete("q", force=True)["value"]["purged"] == 3_000
    assert len(world.store.deliveries) > 100, "the others go in the next steps"
    answer = worker.settle_runs("ack", "q", [message.run for message in begun])
    assert answer["results"] == [{"lost": 1_500}]
    if held:
        assert eager.settle("nack", held[0])["results"] == [{"lost": 1}]
        client.publish("q", *[b"new"] * 1_000)
    world.disconnect(worker)
    world.advance(100_000)
    assert {m.body for m in eager.messages()} == ({b"new"} if held else set())
    assert client.stats("q")["begun"] == 0 if held else "q" not in world.store.queues
    world.restart(clean=False, lose_unsynced=False)
    client = world.hello()
    world.advance(2_000)
    assert {info["body"] for info in (client.peek("q") if held else [])} <= {b"new"}
    world.check()
