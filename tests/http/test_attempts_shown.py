"""The attempt that runs, as its handler counts it: in a list, of one message, in the API and on the page."""

from __future__ import annotations

import json
from typing import Any

from commands_here import here
from http_broker import HttpBroker

import minibroker.sync


def printed(broker: HttpBroker, *words: str) -> str:
    """Return what a command prints that asks the port for clients."""
    done = here({"MINIBROKER_URL": broker.server.url}, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def seen(broker: HttpBroker, id: str) -> dict[str, Any]:
    """Return what each place shows as the number of attempts of a message of `mail`."""
    table = [line.split() for line in printed(broker, "peek", "mail").splitlines()]
    (row,) = (row for row in table if row[0] == id)
    (line,) = printed(broker, "message", "show", "mail", id, "--json").splitlines()
    page = broker.client.get(f"/queues/mail/messages/{id}").text
    listed = broker.client.get("/queues/mail").text.partition(f"/messages/{id}")[2]
    return {
        "peek": row[2],
        "json": json.loads(line)["attempt"],
        "api": broker.client.get(f"/api/v1/queues/mail/messages/{id}").json()["attempt"],
        "page": page.partition("<dt>Attempts</dt><dd>")[2].partition("</dd>")[0],
        "list": listed.partition('<td class="wide">')[2].partition("</td>")[0],
    }


def test_one_that_runs_has_the_number_that_its_handler_sees(http_broker: HttpBroker) -> None:
    """The first is 1, not 0; what is held, or waits again, has what it was charged."""
    with minibroker.sync.connect(http_broker.server.url) as connection:
        mail = connection.queue("mail", retry_delay_ms=0)
        id = str(mail.publish("a").id)
        waits = {"peek": "0", "json": None, "api": 0, "page": "0", "list": "0"}
        assert seen(http_broker, id) == waits
        for number, ended in ((1, ""), (2, "1 failed")):
            (message,) = mail.receive()
            assert message.attempt == number
            said = f"number {number} runs"
            assert seen(http_broker, id) == {
                "peek": str(number),
                "json": number,
                "api": number,
                "page": ", ".join(filter(None, (str(number), said, ended))),
                "list": str(number),
            }
            text = printed(http_broker, "message", "show", "mail", id)
            assert "attempts   " + ", ".join(filter(None, (ended, said))) in text
            message.nack(delay=0, confirmed=True)
        after = {"peek": "2", "json": None, "api": 0, "page": "2, 2 failed", "list": "2"}
        assert seen(http_broker, id) == after
