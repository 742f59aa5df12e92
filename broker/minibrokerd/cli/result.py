"""`minibroker result`: what a message came to."""

from __future__ import annotations

import click

import minibroker
from minibroker.contract.confirms import MessageId
from minibrokerd.cli.completing import complete_queue
from minibrokerd.cli.options import Id, client_options, option
from minibrokerd.cli.printing import note, print_json, say
from minibrokerd.cli.ranges import Duration
from minibrokerd.cli.talking import talk
from minibrokerd.text.values import text_of


@click.command()
@click.argument("id", type=Id(), metavar="ID")
@click.argument("queue", required=False, shell_complete=complete_queue)
@option(
    "--wait",
    type=Duration(0),
    default="0s",
    help="How long to wait for it, where it is not there yet; its progress is shown meanwhile.",
)
@client_options
def result(id: MessageId, queue: str | None, wait: float, url: str, as_json: bool) -> None:
    """Show what the message ID came to, where its queue or its worker keeps that.

    QUEUE is where it was published, or ended; it is only needed where a token is for one queue.
    Ends with 1 if the message is dead, was cancelled or purged, or has come to nothing yet.
    """

    async def work(broker: minibroker.Broker) -> None:
        asked = broker.queue(queue) if queue else broker
        found = await asked.result(
            id, on_progress=None if as_json else _show, wait=wait, timeout=wait + TIMEOUT_S
        )
        if as_json:
            print_json({"id": str(id), "result": found})
        else:
            say(text_of(found))

    talk(url, work)


TIMEOUT_S = 30.0  # for the answer itself


def _show(progress: minibroker.Progress) -> None:
    note(f"{progress.share:.0%} {progress.note}".rstrip())
