"""Typed bodies, over both clients: what is published is what an annotation makes of it, or nothing is sent."""

from __future__ import annotations

import dataclasses
import pathlib
import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal
from ipaddress import IPv4Address
from typing import Any
from uuid import UUID

import msgspec
import pydantic
import pytest
from kinds_of_bodies import KINDS, DataEmail, DataLine, Mood, Point

from minibroker.worker.calling import with_arguments
from minibroker.worker.declared import takes_of

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def handled(message: Any, wanted: Any) -> Any:
    """Return what a worker's handler, annotated with `wanted`, is called with."""

    def handler(body: Any) -> Any:
        return body

    handler.__annotations__["body"] = wanted
    return with_arguments(handler, takes_of(handler))(message)


def typed(broker: Any, queue: Any, kind: Any) -> Any:
    """Return the queue of this test, given the type of its bodies."""
    return broker.queue(queue.name, kind)


@pytest.mark.parametrize("read", KINDS)
@pytest.mark.parametrize("written", KINDS)
async def test_what_one_kind_of_type_publishes_each_kind_reads(
    broker: Any, queue: Any, written: str, read: str
) -> None:
    published, wanted = KINDS[written], KINDS[read]
    # A TypedDict is a dict: only the queue can say what its values are.
    target = typed(broker, queue, published.email) if written == "typeddict" else queue
    await target.publish(published.made())
    await target.publish_many([published.made()])
    first, second = await queue.receive(2, wait=5)
    for message in (first, second):
        got = handled(message, wanted.email)
        assert type(got) is type(wanted.made())
        assert got == wanted.made()
        await message.ack()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_queue_with_a_type_gives_back_what_was_published(
    broker: Any, queue: Any, kind: str
) -> None:
    emails = typed(broker, queue, KINDS[kind].email)
    await emails.publish(KINDS[kind].made())
    await emails.publish_many([KINDS[kind].made()])
    [message] = await emails.receive(wait=5)
    assert message.body == KINDS[kind].made()
    await message.ack()
    async with emails.consume() as messages:
        async for message in messages:
            assert message.body == KINDS[kind].made()
            await message.ack(confirmed=True)
            break


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (list[DataLine], [DataLine("tea", Decimal("1.5"))]),
        (dict[str, DataLine], {"a": DataLine("tea", Decimal("1.5"))}),
        (Point, Point(1, NOW)),
        (datetime, NOW),
        (UUID, UUID(int=3)),
        (Mood, Mood.GLAD),
        (tuple[int, UUID], (1, UUID(int=3))),
        (frozenset[int], frozenset({1, 2})),
        (dict[UUID, Decimal], {UUID(int=1): Decimal("0.1")}),
        (bytes, b"\xff"),
        (dict, {"a": (1, b"x")}),
        (str, "text"),
    ],
    ids=str,
)
async def test_a_type_out_of_others_does_too(broker: Any, queue: Any, kind: Any, body: Any) -> None:
    await typed(broker, queue, kind).publish(body)
    [message] = await typed(broker, queue, kind).receive(wait=5)
    arrived = {"a": [1, b"x"]} if kind is dict else body
    assert message.body == arrived
    assert type(message.body) is type(arrived)


async def test_objects_in_a_plain_list_need_no_type_of_the_queue(queue: Any) -> None:
    await queue.publish({"emails": [KINDS["dataclass"].made()], "count": 1})
    [message] = await queue.receive(wait=5)
    assert message.body["count"] == 1
    assert msgspec.convert(message.body["emails"][0]["at"], datetime).year == 2026


class Server(pydantic.BaseModel):
    """What only pydantic writes and reads, and names that differ from those on the wire."""

    model_config = pydantic.ConfigDict(populate_by_name=False)

    address: IPv4Address
    path: pathlib.PurePosixPath
    sender: str = pydantic.Field(alias="from")
    home: pydantic.HttpUrl

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def shown(self) -> str:
        """Not part of what is sent."""
        return f"{self.sender} at {self.address}"


async def test_what_only_pydantic_knows_comes_back_too(queue: Any) -> None:
    fields = {"address": "10.0.0.1", "path": "/tmp", "from": "bob", "home": "https://example.com/"}
    server = Server.model_validate(fields)
    await queue.publish(server)
    [message] = await queue.receive(wait=5)
    assert message.body == fields
    assert handled(message, Server) == server


@dataclasses.dataclass
class Picture:
    """Holds what no body can."""

    path: pathlib.Path


@dataclasses.dataclass
class Album:
    """A picture deep within."""

    pictures: dict[str, list[Picture]]


class Login(pydantic.BaseModel):
    """Pydantic writes stars for it."""

    password: pydantic.SecretStr


class Renamed(pydantic.BaseModel):
    """Written under one name, read under another."""

    to: str = pydantic.Field(validation_alias="recipient")


LOOP: list[Any] = []
LOOP.append(LOOP)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (NOW, 'send its isoformat(); or give the queue the type of its bodies, `broker.queue("emails", Email)`'),
        ({"a": [1, {"at": NOW}]}, "msgspec.Struct or pydantic model that has it in a field - at `$.a[1].at`"),
        ({"id": UUID(int=1)}, "send its str()"),
        ([Mood.SAD], "send its value"),
        ({1, 2}, "send a list"),
        ({"a": {1: 2}}, "the key 1, which is no str; send its str() - at `$.a`"),
        (Album({"a": [Picture(pathlib.Path("/"))]}), "PosixPath cannot be sent: a body may hold None, bool"),
        (Album({"a": [Picture(pathlib.Path("/"))]}), " - at `$.pictures.a[0].path`"),
        (DataLine("tea", "cheap"), "the body does not fit DataLine: Invalid decimal string - at `$.price`"),  # type: ignore[arg-type]
        (Login(password="x"), "a secret is not written by pydantic"),  # type: ignore[arg-type]
        (Renamed(recipient="bob"),  # type: ignore[call-arg]
         "does not fit Renamed: Field required - at `recipient`, and no worker could"),
        (object(), "builtins.object cannot be sent: a body may hold None"),
        (LOOP, "nested too deeply, or holds itself"),
        ({"a": 2**64}, "64-bit int"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)  # fmt: skip
async def test_what_cannot_be_sent_says_what_to_do_and_nothing_is_sent(
    queue: Any, body: Any, said: str
) -> None:
    with pytest.raises(TypeError) as refused:
        await queue.publish(body)
    assert said in str(refused.value)
    with pytest.raises(TypeError) as refused:
        await queue.publish_many([b"good", {"good": 1}, body, b"good"])
    assert str(refused.value).startswith("bodies[2]: ")
    assert said in str(refused.value)
    await queue.publish(b"next")  # the connection goes on, and nothing stands before this
    assert [each.body for each in await queue.peek()] == [b"next"]


@pytest.mark.parametrize(
    ("kind", "body", "said"),
    [
        (DataEmail, {"to": "bob"}, "does not fit DataEmail: Object missing required field `at`"),
        (DataEmail, b"raw", "does not fit DataEmail: Expected `object`, got `bytes`"),
        (KINDS["typeddict"].email, {"to": 3}, "does not fit DictEmail"),
        (list[int], [1, "2"], "does not fit list[int]: Expected `int`, got `str` - at `$[1]`"),
        (dict, {"at": NOW}, "its isoformat()"),
    ],
    ids=str,
)
async def test_a_body_of_another_type_is_refused_where_it_is_published(
    broker: Any, queue: Any, kind: Any, body: Any, said: str
) -> None:
    emails = typed(broker, queue, kind)
    with pytest.raises(TypeError) as refused:
        await emails.publish(body)
    assert said in str(refused.value)
    with pytest.raises(TypeError) as refused:
        await emails.publish_many([body])
    assert str(refused.value).startswith("bodies[0]: ")
    await queue.publish(b"next")
    assert [each.body for each in await queue.peek()] == [b"next"]


async def test_a_body_that_does_not_fit_the_queue_is_dead_at_once(broker: Any, queue: Any) -> None:
    await queue.publish({"what": "tea", "price": "dear"})
    [message] = await typed(broker, queue, DataLine).receive(wait=5)
    async with message.process():
        assert message.raw
        assert message.body
    [dead] = await broker.queue(f"{queue.name}.dlq").peek()
    assert "does not fit DataLine: Invalid decimal string" in dead.history[0]["error_text"]


@pytest.mark.parametrize(
    "kind", [complex, dict[str, complex], object()], ids=["class", "inside", "no type"]
)
async def test_a_type_that_no_body_can_be_is_refused(broker: Any, kind: Any) -> None:
    with pytest.raises(TypeError, match="no body can become"):
        broker.queue("emails", kind)


ALONE = """
import sys
for name in ("pydantic", "pydantic_core", "attr"):
    sys.modules[name] = None
import dataclasses, datetime, decimal
import minibroker.sync

@dataclasses.dataclass
class Line:
    price: decimal.Decimal
    at: datetime.datetime

line = Line(decimal.Decimal("1.5"), datetime.datetime.now())
with minibroker.sync.connect("memory://") as broker:
    broker.queue("lines").publish(line)
    [message] = broker.queue("lines", Line).receive()
    assert message.body == line
    try:
        broker.queue("lines").publish(object())
    except TypeError as error:
        print(error)
"""


def test_without_pydantic_nothing_else_is_missed() -> None:
    run = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True, check=False)
    assert "builtins.object cannot be sent" in run.stdout, run.stderr
