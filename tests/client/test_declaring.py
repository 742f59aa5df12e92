"""What leaves for a declaration, and when; and which publishes share a frame when they have terms of their own."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from fake_server import FakeServer
from steps import until

import minibroker
import minibroker.sync
from support.broker import BrokerServer


async def test_declarations_go_first_on_a_new_connection(
    server: FakeServer, broker: minibroker.Broker
) -> None:
    """Before the frames that are sent again: a server that lost the queue would make it with defaults."""
    emails = broker.queue("emails", max_attempts=3)
    async with emails.consume():
        await emails.publish(b"confirmed")
        server.withhold = True
        late = asyncio.create_task(emails.publish(b"unanswered"))
        await until(lambda: len(server.outcomes) == 2)
        server.withhold, seen = False, len(server.headers)
        server.links[-1].fail(ConnectionResetError("gone"))
        await late
    asked = [part["op"] for header in server.headers[seen:] for part in header["parts"]]
    assert asked[:4] == ["resume", "queue_declare", "publish", "consume"]


async def test_a_queue_that_is_asked_for_again_and_again_is_declared_once(
    server: FakeServer, broker: minibroker.Broker
) -> None:
    """As in a request handler."""
    for _ in range(3):
        await broker.queue("emails", max_attempts=3).publish(b"body")
    assert len(server.parts("queue_declare")) == 1


async def test_a_server_that_does_not_know_declarations_is_asked_no_more(
    server: FakeServer, broker: minibroker.Broker
) -> None:
    """One of an older release ends the connection for it: what is published meanwhile arrives all the same."""

    def refuse(header: dict[str, Any]) -> dict[str, Any] | None:
        if header["parts"][0]["op"] != "queue_declare":
            return None
        return {"code": "protocol_error", "text": "there is no queue_declare"}

    server.refuse = refuse  # type: ignore[method-assign, assignment]
    emails = broker.queue("emails", max_attempts=3)
    await emails.publish(b"body")
    server.links[-1].fail(ConnectionResetError("gone"))
    await emails.publish(b"body")
    assert len(server.parts("queue_declare")) == 1


async def test_publishes_of_one_turn_with_other_terms_leave_in_other_frames_in_their_order(
    server: FakeServer, broker: minibroker.Broker
) -> None:
    """An open frame is not filled past one that came later: messages of a key keep their order."""
    queue = broker.queue("q")
    terms: list[dict[str, Any]] = [{}, {}, {"lease": 60}, {"lease": 60}, {"max_attempts": 2}, {}]
    terms += [{"priority": 0}, {"priority": 9}, {"ttl": 5}]
    await asyncio.gather(*[queue.publish(b"%d" % at, key="k", **t) for at, t in enumerate(terms)])
    parts = server.parts("publish")
    names = ("max_attempts", "lease_ms", "priority", "ttl_ms")
    told = [(part["count"], {name: part[name] for name in names if name in part}) for part in parts]
    own = [{}, {"lease_ms": 60_000}, {"max_attempts": 2}, {}, {"priority": 9}, {"ttl_ms": 5_000}]
    assert told == list(zip((2, 2, 1, 2, 1, 1), own, strict=True))


def test_a_declaration_at_module_level_opens_no_connection_and_holds_in_a_child(
    tmp_path: Path,
) -> None:
    """A blocking broker before a fork, as gunicorn's `preload`: each child declares on a connection of its own."""
    server = BrokerServer(tmp_path / "data")
    broker = minibroker.sync.connect(server.url, lazy=True)
    emails = broker.queue("emails", max_attempts=3)
    assert broker._driver.link is None
    child = os.fork()
    if not child:
        code = 1
        try:
            emails.publish(b"of the child")
            code = int(emails.settings()["max_attempts"]) - 3
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    emails.publish(b"of the parent")
    assert (emails.settings()["max_attempts"], emails.differs) == (3, {})
    broker.close()
    server.close()


@pytest.mark.parametrize("kept", [True, False])
async def test_a_queue_that_was_gone_when_the_connection_came_back_is_told(
    server: FakeServer, broker: minibroker.Broker, caplog: pytest.LogCaptureFixture, kept: bool
) -> None:
    """Its bindings are not there: whoever waits for what they bring would wait for ever."""
    replies = broker.queue("replies", delete_unused_ms=60_000)
    await replies.publish(b"1")
    if not kept:
        server.declared.clear()
    server.links[-1].fail(ConnectionResetError("gone"))
    await replies.publish(b"2")
    told = [record for record in caplog.records if "made anew" in record.getMessage()]
    assert [record.levelname for record in told] == ["WARNING"] * (not kept)
