"""`minibroker retime`: a message that waits is ready at another time."""

from __future__ import annotations

from datetime import datetime

import click

import minibroker
from minibroker.contract.confirms import MessageId
from minibroker.contract.reasons import ENDED
from minibrokerd.cli.completing import complete_queue
from minibrokerd.cli.options import Id, client_options
from minibrokerd.cli.printing import fail, print_json, say
from minibrokerd.cli.ranges import When
from minibrokerd.cli.talking import talk
from minibrokerd.process import exits


@click.command()
@click.argument("id", type=Id(), metavar="ID")
@click.argument("when", type=When(), metavar="WHEN")
@click.argument("queue", required=False, shell_complete=complete_queue)
@client_options
def retime(
    id: MessageId, when: float | datetime, queue: str | None, url: str, as_json: bool
) -> None:
    """Let the message ID, which waits, be ready at WHEN: `now`, `5m` from now on, or 2030-01-31T09:00+01:00.

    A date without a zone is one of this machine. QUEUE is where the message is; it is looked for, if not given.
    """

    async def work(broker: minibroker.Broker) -> None:
        found = await broker.explain(id)
        name = queue or found.queue
        if not queue and found.state == ENDED:
            fail(str(found), exits.REFUSED)
        asked = broker.queue(name)
        if isinstance(when, datetime):
            await asked.reschedule(id, at=when)
        else:
            await asked.reschedule(id, delay=when)
        after = await asked.explain(id)
        if as_json:
            print_json({"id": str(id), "queue": after.queue, "state": after.state.lower()})
        else:
            say(str(after))

    talk(url, work)
