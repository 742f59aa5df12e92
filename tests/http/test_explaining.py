"""Why a message is not running: over HTTP, on its page, and by `minibroker explain`."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime, timedelta
from typing import Any

from commands_here import here
from http_broker import TOKEN, HttpBroker

import minibroker
import minibroker.sync
from minibrokerd.process import exits

MAY = {"authorization": f"Bearer {TOKEN}"}


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


def test_another_time_over_http_and_by_the_command(http_broker: HttpBroker) -> None:
    """By a delay, a time, or now; what does not wait ends the command with 1, and is a 409."""
    with minibroker.sync.connect(http_broker.server.url) as connection:
        mail = connection.queue("mail")
        ids = [str(mail.publish("a", delay=delay).id) for delay in (60, 30)]
        env = {"MINIBROKER_URL": http_broker.server.url}
        assert due(http_broker) == [ids[1], ids[0]]
        answer = http_broker.client.post(
            f"/api/v1/queues/mail/messages/{ids[0]}/retime", json={"delay_ms": 1_000}, headers=MAY
        )
        assert answer.json() == {"messages": 1}
        assert due(http_broker) == ids
        assert "is DELAYED" in here(env, "retime", ids[0], "2090-01-31T09:00+01:00").stdout
        assert due(http_broker) == [ids[1], ids[0]]
        assert json.loads(here(env, "retime", ids[1], "now", "--json").stdout)["state"] == "ready"
        (line,) = here(env, "peek", "mail", "--due").stdout.splitlines()[1:]
        shown = datetime.strptime(line.split("  ")[1], "%Y-%m-%d %H:%M:%S.%f UTC")
        assert abs(shown - datetime(2090, 1, 31, 8)) <= timedelta(milliseconds=2), (
            line
        )  # of two clocks, each rounded
        (message,) = mail.receive()
        refused = here(env, "retime", ids[1], "5m")
        assert (refused.returncode, "a worker works on it" in refused.stderr) == (
            exits.REFUSED,
            True,
        )
        path = f"/api/v1/queues/mail/messages/{ids[1]}/retime"
        refused_too = http_broker.client.post(path, json={}, headers=MAY)
        assert (refused_too.status_code, refused_too.json()["code"]) == (409, "not_waiting")
        message.ack(confirmed=True)
    assert "acked" in here(env, "retime", ids[1], "5m").stderr
    assert here(env, "retime", ids[1], "soon").returncode == exits.USAGE


def test_cancelled_over_http_and_by_the_command(http_broker: HttpBroker) -> None:
    """One that is worked on, with the button of its page; those of a key; what is not there."""
    with minibroker.sync.connect(http_broker.server.url, name="the worker") as connection:
        mail = connection.queue("mail")
        ids = [str(mail.publish("a", key=key).id) for key in ("x", "x", "y", "y")]
        (message, *_) = mail.receive(1)
        assert f'{{"ids": ["{message.id}"]}}'.replace('"', "&#34;") in page_text(
            http_broker, message.id
        )
        path = "/api/v1/queues/mail/cancel"
        answer = http_broker.client.post(path, json={"client": "the worker"}, headers=MAY)
        assert answer.json() == {"messages": 1}
        assert mail.explain(message.id).by == "http operator"
        env = {"MINIBROKER_URL": http_broker.server.url}
        key = "y" if str(message.id) in ids[:2] else "x"
        assert here(env, "cancel", "mail", "--key", key, "--yes").stdout == "cancelled 2\n"
        (last,) = (
            set(ids) - {str(message.id)} - {id for id in ids if (id in ids[:2]) == (key == "x")}
        )
        assert json.loads(here(env, "cancel", "mail", last, "--yes", "--json").stdout) == {
            "cancelled": 1
        }
        gone = here(env, "cancel", "mail", last, "--yes")
        assert (gone.returncode, "not in mail" in gone.stderr) == (exits.REFUSED, True)
        assert here(env, "cancel", "mail", "--yes").returncode == exits.USAGE
        assert http_broker.client.post(path, json={}, headers=MAY).status_code == 400
        assert http_broker.client.post(path, json={"key": "x"}).status_code in (401, 403)


def page_text(http_broker: HttpBroker, id: minibroker.MessageId) -> str:
    """Return the page of a message of `mail`, as an operator who may change things sees it."""
    client = http_broker.client
    client.post("/sign-in", data={"token": TOKEN}, headers={"origin": http_broker.url})
    text = client.get(page(id)).text
    client.cookies.clear()
    return text


def due(http_broker: HttpBroker) -> list[str]:
    """Return the ids of what is delayed in `mail`, by when it is due."""
    found = http_broker.client.get("/api/v1/queues/mail/messages?order=due").json()
    return [message["id"] for message in found["messages"]]
