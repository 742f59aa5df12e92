"""protocol.md, section 5.18: a queue takes what fits its schema, and to find that out has a bound."""

from __future__ import annotations

import json
import sys
from typing import Any

import msgpack
import pytest
from core_client import Client
from harness import World

from minibroker.contract import limits, wire
from minibroker.contract.settings import default_settings
from minibrokerd.core.model import schemas
from minibrokerd.core.verbs import typing_bodies

ADDRESSES = {
    "type": "object",
    "required": ["address"],
    "properties": {
        "address": {"type": "object", "properties": {"zip": {"type": "integer"}}},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 3}},
    },
}
FITS: dict[str, Any] = {"address": {"zip": 12345}, "tags": ["a"]}


def set_schema(client: Client, schema: Any, queue: str = "q") -> Any:
    """Give a queue a schema."""
    text = schema if isinstance(schema, bytes) else json.dumps(schema).encode()
    return client.request({"op": "schema_set", "queue": queue, "schema": text})


def publish(client: Client, *bodies: Any, queue: str = "q", **fields: Any) -> Any:
    """Publish values, each with headers before it."""
    packed = [msgpack.packb(body) for body in bodies]
    lengths = b"".join(
        (2).to_bytes(4, "little") + len(each).to_bytes(4, "little") for each in packed
    )
    part = {"op": "publish", "queue": queue, "count": len(bodies), "encoding": 1} | fields
    return client.sequenced([part], b"", lengths, b"".join(b"\x81\x00" + each for each in packed))


def shown(client: Client, queue: str = "q") -> bytes:
    """Return the schema of a queue."""
    return bytes(client.request({"op": "schema_show", "queue": queue})["value"]["schema"])


def ready(world: World) -> int:
    """Return how many messages the queue has."""
    return len(world.states("q"))


@pytest.mark.parametrize("restarts", [False, True])
def test_what_fits_is_stored_and_nothing_else(*, restarts: bool) -> None:
    world = World()
    client = world.hello()
    assert set_schema(client, ADDRESSES)["op"] == "reply"
    if restarts:
        world.restart()
        client = world.hello()
    assert json.loads(shown(client)) == ADDRESSES
    assert publish(client, FITS)["op"] == "confirm"
    answer = publish(client, {"address": {"zip": "secret"}})
    assert (answer["code"], answer["retryable"]) == ("schema_mismatch", False)
    assert answer["text"].startswith('$.address.zip: the value is not of type "integer"')
    assert "secret" not in answer["text"]
    assert publish(client, {}, queue="other")["op"] == "confirm"
    assert ready(world) == 1


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({}, "$: "),
        ([1], "$: "),
        ({"address": 5}, "$.address: "),
        (FITS | {"tags": ["a", "b", "long"]}, "$.tags[2]: "),
        (FITS | {"tags": [b"x"]}, "$: "),
    ],
)
def test_the_refusal_names_the_place(body: Any, place: str) -> None:
    world = World()
    client = world.hello()
    set_schema(client, ADDRESSES)
    answer = publish(client, body)
    assert (answer["code"], answer["text"][: len(place)]) == ("schema_mismatch", place)
    answer = publish(client, FITS, FITS, body, FITS)
    assert answer["text"].startswith(f"bodies[2]: {place}")
    assert ready(world) == 0, "nothing of the frame"


def test_bytes_fit_no_schema_and_what_is_no_value_neither() -> None:
    world = World()
    client = world.hello()
    set_schema(client, True)
    assert client.publish("q", b"1")["code"] == "schema_mismatch"
    part = {"op": "publish", "queue": "q", "count": 1, "encoding": 1}
    answer = client.sequenced([part], b"", b"\0\0\0\0\1\0\0\0", b"\xc1")
    assert answer["code"] == "schema_mismatch"
    mixed = part | {"count": 2, "columns": ["encoding"]}
    answer = client.sequenced([mixed], b"\1\0", b"\0\0\0\0\1\0\0\0" * 2, b"\1\1")
    assert answer["text"].startswith("bodies[1]: $: the body is bytes")


def test_a_body_that_is_too_long_is_not_checked() -> None:
    world = World()
    client = world.hello()
    set_schema(client, True)
    assert publish(client, "x" * 65_533)["op"] == "confirm"
    assert publish(client, "x" * 65_534)["code"] == "too_large"


def test_a_frame_that_is_too_long_is_not_checked() -> None:
    """All of it is checked in one step, in which nobody else is served."""
    world = World()
    client = world.hello()
    set_schema(client, True)
    assert publish(client, *["x" * 60_000] * 17)["op"] == "confirm"
    assert publish(client, *["x" * 60_000] * 18)["code"] == "too_large"
    assert ready(world) == 17


def test_all_or_nothing_over_the_queues_of_an_exchange() -> None:
    world = World()
    client = world.hello()
    client.request({"op": "exchange_set", "name": "e", "type": "fanout"})
    for queue in ("any", "q"):
        client.request({"op": "bind", "exchange": "e", "queue": queue})
    set_schema(client, ADDRESSES)
    part = {"op": "route", "exchange": "e", "count": 1, "encoding": 1}
    answer = client.sequenced([part], b"", b"\0\0\0\0\1\0\0\0", b"\x05")
    assert answer["code"] == "schema_mismatch"
    assert not world.states("any")
    body = msgpack.packb(FITS)
    lengths = bytes(4) + len(body).to_bytes(4, "little")
    assert client.sequenced([part], b"", lengths, body)["op"] == "confirm"


def test_the_job_of_a_schedule_waits_while_it_does_not_fit() -> None:
    world = World()
    client = world.hello()
    set_schema(client, ADDRESSES)
    fields = {"op": "schedule_set", "name": "s", "cron": "* * * * *", "queue": "q", "terms": {}}
    columns = wire.pack_strings([b"", msgpack.packb(5)])
    assert client.request(fields | {"encoding": 1}, columns)["op"] == "reply"
    world.advance(120_000)
    assert ready(world) == 0
    (found,) = client.request({"op": "schedules"})["value"]["schedules"]
    assert "schema" in found["waits"]


def test_a_schema_ends_with_its_queue() -> None:
    world = World()
    client = world.hello()
    set_schema(client, ADDRESSES)
    client.request({"op": "queue_delete", "queue": "q"})
    assert publish(client, 5)["op"] == "confirm"
    assert not world.store.schemas.by_queue
    world.restart()
    assert not world.store.schemas.by_queue
    assert publish(world.hello(), 5)["op"] == "confirm"


def test_a_queue_may_take_anything_again() -> None:
    world = World()
    client = world.hello()
    set_schema(client, ADDRESSES)
    assert set_schema(client, b"")["op"] == "reply"
    assert shown(client) == b""
    world.restart()
    assert publish(world.hello(), 5)["op"] == "confirm"


def test_a_schema_is_copied_out_of_the_oldest_segment() -> None:
    world = World()
    client = world.hello()
    set_schema(client, ADDRESSES)
    publish(client, FITS)
    world.free(world.store.synced)
    world.restart()
    assert publish(world.hello(), 5)["code"] == "schema_mismatch"


def refs(count: int, wide: int) -> dict[str, Any]:
    """Return a schema of `count` definitions, each of which refers `wide` times to the next one."""
    definitions: dict[str, Any] = {
        f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * wide} for n in range(count)
    }
    return {"$ref": "#/$defs/d0", "$defs": definitions | {f"d{count}": {"type": "object"}}}


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        (b"{", "no JSON"),
        (b"[]", "an object"),
        ({"type": "nonsense"}, "no JSON Schema"),
        ({"$ref": "http://example.com/s"}, "does not begin with #/"),
        ({"$ref": "#"}, "does not begin with #/"),
        ({"$ref": "#/$defs/none"}, "leads to nothing"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"items": {"$ref": "#/$defs/a"}}}}, "itself"),
        ({"$schema": "http://example.com/s"}, "$schema is"),
        ({"$dynamicRef": "#a"}, "$dynamicRef"),
        ({"properties": {"a": {"$id": "http://example.com/s"}}}, "$id"),
        ({"properties": {"a": {"$anchor": "x"}, "b": {"$ref": "#x"}}}, "does not begin with #/"),
        ({"pattern": "(a+)+\\1"}, "no JSON Schema"),
        ({"pattern": "(?=a)"}, "no JSON Schema"),
        ({"pattern": "(a{1000}){1000}"}, "no JSON Schema"),
        (refs(20, 2), "more than 1000 parts"),
        ({"patternProperties": {f"x{n}": {} for n in range(34)}}, "more than 1000 parts"),
        ({"allOf": [{"pattern": f"x{n}"} for n in range(34)]}, "more than 1000 parts"),
        # Its parser gives up, or, from Python 3.12 on, leaves that to the bound on depth.
        (b'{"a": ' * 1_500 + b"1" + b"}" * 1_500, "no schema for 'q'"),
        (b'{"not": ' * 101 + b"{}" + b"}" * 101, "more than 100 deep"),
    ],
)
def test_what_is_no_schema_or_has_no_bound_is_refused(schema: Any, text: str) -> None:
    world = World()
    client = world.hello()
    answer = set_schema(client, schema)
    assert (answer.get("code"), text in answer["text"]) == ("bad_value", True), answer
    assert not world.store.queues, "nothing was made"


@pytest.mark.parametrize(
    "schema",
    [
        True,
        {},
        {"$schema": "http://json-schema.org/draft-07/schema#"},
        refs(20, 1),
        {"properties": {"$ref": {"type": "string"}, "id": {"type": "integer"}}},
        {"$id": "http://example.com/s", "$ref": "#/$defs/a~1b", "$defs": {"a/b": True}},
    ],
)
def test_what_has_a_bound_is_taken(schema: Any) -> None:
    client = World().hello()
    assert set_schema(client, schema)["op"] == "reply"
    assert publish(client, {"id": 5})["op"] == "confirm"


def test_so_many_queues_have_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(typing_bodies, "MAX_SCHEMAS", 2)
    client = World().hello()
    for queue in ("a", "b"):
        assert set_schema(client, True, queue)["op"] == "reply"
    assert set_schema(client, True, "c")["code"] == "limit_reached"
    assert set_schema(client, False, "a")["op"] == "reply", "another one"
    set_schema(client, b"", "b")
    assert set_schema(client, True, "c")["op"] == "reply"


def test_a_schema_has_so_many_bytes() -> None:
    client = World().hello()
    text = json.dumps({"title": "x" * (limits.MAX_SCHEMA_BYTES - 13)}).encode()
    assert len(text) == limits.MAX_SCHEMA_BYTES
    assert set_schema(client, text)["op"] == "reply"


def test_a_dead_letter_queue_has_none() -> None:
    client = World().hello()
    client.request({"op": "queue_set", "queue": "q", "settings": default_settings()})
    assert set_schema(client, {}, "q.dlq")["code"] == "bad_name"


def test_without_the_library_nothing_is_let_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said when a schema is set; a queue that has one takes nothing then."""
    world = World()
    set_schema(world.hello(), ADDRESSES)
    monkeypatch.setitem(sys.modules, "jsonschema_rs", None)
    world.restart()
    client = world.hello()
    assert "minibroker[schema]" in publish(client, FITS)["text"]
    assert "minibroker[schema]" in set_schema(client, {}, "other")["text"]
    assert publish(client, 5, queue="another")["op"] == "confirm"
    assert json.loads(shown(client)) == ADDRESSES
    set_schema(client, b"")
    assert publish(client, 5)["op"] == "confirm"


def test_a_schema_that_is_not_understood_any_more_ends_no_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The library became stricter: publishes to its queue are refused with why, until another one is set."""
    world = World()
    client = world.hello()
    set_schema(client, ADDRESSES)

    def stricter(*_: object) -> None:
        raise ValueError("zip is no type")

    with monkeypatch.context() as newer:
        newer.setattr(schemas, "understood", stricter)
        world.restart()
    world.run_jobs()
    (note,) = [each for each in world.notes if each.event == "schema_set_aside"]
    assert (note.is_warning, note.fields) == (True, {"queue": "q", "text": "zip is no type"})
    client = world.hello()
    assert json.loads(shown(client)) == ADDRESSES
    answer = publish(client, FITS)
    assert answer["code"] == "bad_value"
    assert "not understood any more, set another one: zip is no type" in answer["text"]
    assert publish(client, FITS, queue="other")["op"] == "confirm"
    assert set_schema(client, ADDRESSES | {"title": "new"})["op"] == "reply"
    assert publish(client, FITS)["op"] == "confirm"
