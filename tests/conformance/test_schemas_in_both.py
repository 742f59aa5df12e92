"""Schemas over both clients, on a server and on a broker in process."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from typing import Any

import pytest

import minibroker

ORDER = {"type": "object", "required": ["id"], "properties": {"id": {"type": "integer"}}}


@dataclass
class Address:
    """Where somebody lives."""

    zip: int


@dataclass
class Person:
    """Somebody."""

    name: str
    address: Address


async def test_a_schema_is_set_shown_and_taken_away(broker: Any, queue: Any) -> None:
    await queue.set_schema(ORDER)
    assert await queue.schema() == ORDER
    await queue.publish({"id": 1})
    with pytest.raises(minibroker.SchemaMismatch, match=r"\$\.id: the value is not"):
        await queue.publish({"id": "x"})
    await queue.set_schema(None)
    assert await queue.schema() is None
    await queue.publish({"id": "x"})


async def test_a_type_is_a_schema(broker: Any, queue: Any) -> None:
    """Of typed queues the client checks it, before anything is sent; the server checks all others."""
    await queue.set_schema(Person)
    assert (await queue.schema())["$ref"] == "#/$defs/Person"
    typed = broker.queue(queue.name, Person)
    await typed.publish(Person("Ann", Address(12345)))
    with pytest.raises(minibroker.SchemaMismatch, match=r"\$\.address\.zip: "):
        await queue.publish({"name": "Ann", "address": {"zip": "12345"}})
    with pytest.raises(TypeError):
        await typed.publish({"name": "Ann", "address": {"zip": "12345"}})
    (message,) = await typed.receive()
    assert message.body == Person("Ann", Address(12345))
    await message.ack()


async def test_one_that_does_not_fit_takes_no_other_along(broker: Any, queue: Any) -> None:
    """Publishes of one turn leave in one frame; only the caller whose body it was hears of it."""
    await queue.set_schema(ORDER)
    calls = [queue.publish({"id": "x" if n == 3 else n}) for n in range(8)]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert [isinstance(each, minibroker.SchemaMismatch) for each in outcomes] == [
        n == 3 for n in range(8)
    ]


async def test_of_many_the_first_that_does_not_fit_is_named(broker: Any, queue: Any) -> None:
    await queue.set_schema(ORDER)
    with pytest.raises(minibroker.SchemaMismatch, match=r"bodies\[2\]: \$: "):
        await queue.publish_many([{"id": 0}, {"id": 1}, {}, {"id": 3}])
    assert await queue.receive(wait=0) == [], "none of them"


async def test_a_step_whose_follow_up_does_not_fit_does_nothing(broker: Any, queue: Any) -> None:
    await queue.set_schema(ORDER)
    await queue.publish({"id": 1})
    (message,) = await queue.receive()
    with pytest.raises(minibroker.SchemaMismatch):
        async with message.step() as step:
            step.publish(queue.name, {"id": "x"})
    await message.ack()  # it is held still


async def test_an_exchange_refuses_what_one_queue_does(broker: Any, queue: Any) -> None:
    exchange = broker.exchange(queue.name)
    await exchange.declare("fanout")
    await exchange.bind(queue.name)
    await queue.set_schema(ORDER)
    with pytest.raises(minibroker.SchemaMismatch):
        await exchange.publish({"id": "x"})
    routed = await exchange.publish({"id": 1})
    assert list(routed.ids) == [queue.name]
    await exchange.delete()


async def test_what_is_no_schema_is_refused(broker: Any, queue: Any) -> None:
    for wrong, error in (
        ({"type": "nonsense"}, minibroker.BadValue),
        ({"$ref": "http://example.com"}, minibroker.BadValue),
        ({"a": {1, 2}}, TypeError),
        (5, TypeError),
        ({"title": "x" * 12_288}, minibroker.TooLarge),
    ):
        with pytest.raises(error):
            await queue.set_schema(wrong)


async def test_the_client_checks_a_schema_before_anything_is_sent(broker: Any, queue: Any) -> None:
    """Where the server has none; the place begins the text, and of several bodies the first that does not fit."""
    checked = broker.queue(queue.name, minibroker.JsonSchema(ORDER))
    await checked.publish({"id": 1})
    with pytest.raises(
        minibroker.SchemaMismatch, match=r"^\$\.id: the value is not .* nothing was sent$"
    ):
        await checked.publish({"id": "x"})
    with pytest.raises(minibroker.SchemaMismatch, match=r"^\$: the body is bytes"):
        await checked.publish(b"1")
    with pytest.raises(minibroker.SchemaMismatch, match=r"^bodies\[1\]: \$: "):
        await checked.publish_many([{"id": 2}, {}])
    await queue.publish({"id": "whatever"})
    found = await checked.receive(9)
    assert [each.body for each in found] == [{"id": 1}, {"id": "whatever"}]


def test_what_is_no_schema_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="no JSON Schema"):
        minibroker.JsonSchema({"type": "nonsense"})
    monkeypatch.setitem(sys.modules, "jsonschema_rs", None)
    with pytest.raises(ImportError, match=r"minibroker\[schema\]"):
        minibroker.JsonSchema(ORDER)
