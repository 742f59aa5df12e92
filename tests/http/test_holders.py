"""Who consumes a queue and who has its messages, and all queues in pages: what `minibroker top` asks for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from types import SimpleNamespace
from typing import Any

from http_broker import TOKEN, HttpBroker

import minibroker
from minibroker.contract.settings import default_settings
from minibrokerd.bodies.store import BodyStore
from minibrokerd.core.model.state import Store
from minibrokerd.http.survey import Survey, listed, rows_of
from support.processes import look_until

PATH = "/api/v1/queues/mail/holders"


async def test_who_has_messages_of_a_queue(http_broker: HttpBroker) -> None:
    """Held and begun, of consumers and of what was received; those that have most come first."""
    at = http_broker.server.url
    found: list[Any] = []

    def told(*wanted: tuple[str, int, int, int, int]) -> None:
        """Wait until the API says so: client, consumers, prefetch, held, begun."""

        def look() -> bool:
            names = ("client", "consumers", "prefetch", "held", "begun")
            found[:] = http_broker.client.get(PATH).json()["holders"]
            return [tuple(each[name] for name in names) for each in found] == list(wanted)

        look_until(look, http_broker.server.process, f"{wanted}")

    async with (
        minibroker.connect(at, name="consumes") as one,
        minibroker.connect(at, name="receives") as two,
    ):
        await one.queue("other").publish(b"x")
        await one.queue("mail").publish_many([b"x"] * 10)
        *received, third, fourth = await two.queue("mail").receive(4)
        for failed in (third, fourth):  # those with a history are held one by one
            await failed.nack(delay=0, confirmed=True)
        await two.queue("other").receive()  # of another queue: not counted
        async with one.queue("mail").consume(prefetch=8) as messages, two.queue("other").consume():
            async for begun in messages:
                message = begun
                break
            await asyncio.to_thread(told, ("consumes", 1, 8, 7, 1), ("receives", 0, 0, 0, 2))
            assert found[0]["peer"].startswith("127.0.0.1:")
            assert found[0]["oldest_begun_id"] == str(message.id)
            assert found[0]["oldest_begun_unix_ms"] > 0
            assert http_broker.client.get(PATH + "?count=1").json()["total"] == 2
            for each in received:
                await each.ack(confirmed=True)
            await message.ack(confirmed=True)
            await asyncio.to_thread(told, ("consumes", 1, 8, 7, 0))
            assert (found[0]["oldest_begun_unix_ms"], found[0]["oldest_begun_id"]) == (0, "")
    assert http_broker.client.get("/api/v1/queues/nowhere/holders").status_code == 404


async def test_pages_of_queues_go_on_behind_one_that_has_gone(http_broker: HttpBroker) -> None:
    """Every other queue is in one page, and none in two, though the last one of a page is deleted."""
    async with minibroker.connect(http_broker.server.url) as broker:
        for name in "dbeac":
            await broker.queue(name).publish(b"x")

    def page(after: str, **query: str) -> tuple[list[str], str]:
        said = http_broker.client.get(
            "/api/v1/queues", params={"count": 2, "after": after, **query}
        ).json()
        return [row["name"] for row in said["queues"]], said["next"]

    assert page("") == (["a", "b"], "b")
    headers = {"authorization": f"Bearer {TOKEN}"}
    gone = http_broker.client.delete("/api/v1/queues/b?force=1", headers=headers)
    assert gone.status_code == 200, gone.text
    assert page("b") == (["c", "d"], "d")
    async with minibroker.connect(http_broker.server.url) as broker:
        await broker.queue("da").publish(b"x")
    assert page("d") == (["da", "e"], "")
    assert page("b", dlqs="0", match="[de]") == (["d", "e"], "")
    assert page("", sort="ready") == (["a", "c"], "1:c")
    assert page("1:c", sort="published") == (["d", "da"], "1:da")


async def test_the_loop_turns_while_many_queues_are_told_of() -> None:
    """Rows are told of in steps; so are names looked at, and numbers to sort by."""
    store = Store(BodyStore(), auto_create=True)
    for number in range(2_000):
        store.create_queue(f"queue-{number % 7}-{number}", default_settings())
    looks_at: Any = SimpleNamespace(store=store)
    survey, turns = Survey(looks_at, can_change=bool), [0]
    subject: Any = SimpleNamespace(
        store=store, survey=survey, engine=SimpleNamespace(clock=SimpleNamespace(now_ms=int))
    )

    async def turned(work: Awaitable[Any]) -> tuple[Any, int]:
        """Return what came of it, and how often something else had its turn."""
        before, task = turns[0], asyncio.ensure_future(count())
        value = await work
        task.cancel()
        return value, turns[0] - before

    async def count() -> None:
        while True:
            turns[0] += 1
            await asyncio.sleep(0)

    every: Any = {"match": "", "after": "", "count": 2_000, "dlqs": True, "sort": "name"}
    (queues, total, _), _ = await turned(listed(subject, **every))
    assert [queue.name for queue in queues] == sorted(store.queues)
    rows, steps = await turned(rows_of(subject, queues[:1_000]))
    assert (total, len(rows), steps >= 10) == (2_000, 1_000, True)
    (few, total, _), steps = await turned(listed(subject, **{**every, "match": "queue-3"}))
    assert (len(few), steps >= 2) == (total, True)
    (few, *_), steps = await turned(listed(subject, **{**every, "sort": "ready", "count": 3}))
    assert (len(few), steps >= 20) == (3, True)
