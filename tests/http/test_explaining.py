"""Why a message is not running: over HTTP, on its page, and by `minibroker explain`."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from commands_here import here
from http_broker import HttpBroker

import minibroker
import minibroker.sync
from minibrokerd.process import exits


async def test_over_http_and_on_the_page_of_the_message(http_broker: HttpBroker) -> None:
    """While it waits, while it is worked on, and after its end, which the page says in words."""

    def get(path: str) -> Any:
        return http_broker.client.get(path)

    async with minibroker.connect(http_broker.server.url, name="the worker") as connection:
        mail = connection.queue("mail")
        id = (await mail.publish("a")).id
        one = f"/api/v1/queues/mail/messages/{id}/explain"
        found = (await asyncio.to_thread(get, one)).json()
        assert (found["state"], found["reason"], found["queue"]) == ("READY", "no_consumer", "mail")
        assert "Goes on with: a worker for mail" in (await asyncio.to_thread(get, page(id))).text
        (message,) = await mail.receive()
        found = (await asyncio.to_thread(get, f"/api/v1/messages/{id}/explain")).json()
        assert (found["reason"], found["by"]) == ("running", "the worker")
        assert found["until_unix_ms"] > found["since_unix_ms"] > 0
        assert "the worker works on it since" in (await asyncio.to_thread(get, page(id))).text
        await message.ack(confirmed=True)
        gone = await asyncio.to_thread(get, page(id))
        assert (gone.status_code, "the worker acked it" in gone.text) == (404, True)
        nowhere = await asyncio.to_thread(get, f"/api/v1/queues/nowhere/messages/{id}/explain")
        assert (nowhere.status_code, nowhere.json()["code"]) == (404, "unknown_queue")


def page(id: minibroker.MessageId) -> str:
    """Return the path of the page of a message of `mail`."""
    return f"/queues/mail/messages/{id}"


def test_by_the_command(http_broker: HttpBroker) -> None:
    """A sentence, or JSON; without a queue, and with one."""
    with minibroker.sync.connect(http_broker.server.url) as connection:
        id = str(connection.queue("mail").publish("a", delay=60).id)
    text = explained(http_broker, id).stdout
    assert text.startswith(f"message {id} of mail is DELAYED: it is delayed until "), text
    found = json.loads(explained(http_broker, id, "mail", "--json").stdout)
    assert (found["state"], found["reason"], found["since_unix_ms"]) == ("delayed", "delayed", None)
    assert found["until_unix_ms"] > 0
    refused = explained(http_broker, id, "nowhere")
    assert (refused.returncode, "there is no queue" in refused.stderr) == (exits.REFUSED, True)


def explained(http_broker: HttpBroker, *words: str) -> Any:
    """Run the command against the broker, over its own protocol."""
    return here({"MINIBROKER_URL": http_broker.server.url}, "explain", *words)
