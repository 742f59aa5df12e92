"""`minibroker explain`: why a message is not running, and what would let it go on."""

from __future__ import annotations

from datetime import datetime

import click

import minibroker
from minibroker.contract.confirms import MessageId
from minibrokerd.cli.completing import complete_queue
from minibrokerd.cli.options import Id, client_options
from minibrokerd.cli.printing import print_json, say
from minibrokerd.cli.talking import talk


@click.command()
@click.argument("id", type=Id(), metavar="ID")
@click.argument("queue", required=False, shell_complete=complete_queue)
@client_options
def explain(id: MessageId, queue: str | None, url: str, as_json: bool) -> None:
    """Explain why the message ID is not running, since when, and what would let it go on.

    It is looked for where it was published and in all other queues; QUEUE is where to look first.
    """

    async def work(broker: minibroker.Broker) -> None:
        asked = broker.queue(queue) if queue else broker
        found = await asked.explain(id)
        if not as_json:
            say(str(found))
            return
        print_json(
            {
                "id": str(found.id),
                "queue": found.queue,
                "state": found.state.lower(),
                "reason": found.reason,
                "since_unix_ms": _unix_ms(found.since),
                "until_unix_ms": _unix_ms(found.until),
                "by": found.by,
                "says": found.says,
                "release": found.release,
                "text": str(found),
            }
        )

    talk(url, work)


def _unix_ms(time: datetime | None) -> int | None:
    return None if time is None else round(time.timestamp() * 1_000)
