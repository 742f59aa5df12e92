"""`minibroker cancel`: messages end that nobody wants done any more, those that workers have, too."""

from __future__ import annotations

from collections.abc import Sequence

import click

import minibroker
from minibroker.contract import limits
from minibroker.contract.confirms import MessageId
from minibroker.session.address import masked
from minibrokerd.cli.options import client_options, ids_argument, option, queue_argument
from minibrokerd.cli.printing import fail, print_json, say
from minibrokerd.cli.queues import confirm
from minibrokerd.cli.talking import talk
from minibrokerd.process import exits
from minibrokerd.text.counts import count_text


@click.command()
@queue_argument()
@ids_argument(required=False)
@option("--key", help="All messages of this key.")
@option(
    "--state",
    type=click.Choice(["ready", "delayed", "held", "begun"]),
    help="All messages in this state.",
)
@option("--client", help="All messages that a client of this name has.")
@option("--yes", is_flag=True, help="Do not ask.")
@client_options
def cancel(
    queue: str,
    ids: Sequence[MessageId],
    key: str | None,
    state: str | None,
    client: str | None,
    yes: bool,
    url: str,
    as_json: bool,
) -> None:
    """Cancel messages of QUEUE: these IDs, or all of a key, in a state, or with a client.

    Those that wait never run. Workers that have one are told, and stop; what they say of it no longer counts.
    """
    if bool(ids) == bool(key or state or client):
        raise click.UsageError("Name IDs, or some of --key, --state and --client.")
    which = f"{len(ids)} of the messages" if ids else "all such messages"
    confirm(f"Cancel {which} of {queue} at {masked(url)}?", yes)

    async def work(broker: minibroker.Broker) -> None:
        wanted, ended = list(dict.fromkeys(ids)), 0
        if not ids:
            asked = broker.queue(queue)
            ended = await asked.cancel(key=key, state=state or "", client=client or "")
        for at in range(0, len(wanted), limits.MAX_RUNS_PER_FRAME):
            some = wanted[at : at + limits.MAX_RUNS_PER_FRAME]
            ended += await broker.queue(queue).cancel(some)
        if as_json:
            print_json({"cancelled": ended})
        else:
            say(f"cancelled {ended:,}")
        if ended < len(wanted):
            fail(f"{count_text(len(wanted) - ended, 'id')} not in {queue}", exits.REFUSED)

    talk(url, work)
