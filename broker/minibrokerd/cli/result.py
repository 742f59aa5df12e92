"""`minibroker result`: what a message came to; if that is nothing, how it ended, or where it is."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, NoReturn

import click

import minibroker
from minibroker.contract.confirms import MessageId
from minibroker.contract.errors import MessageFailed, NotAllowed, Timeout, UnknownMessage
from minibroker.contract.reasons import ENDED
from minibrokerd.cli.completing import complete_queue
from minibrokerd.cli.options import Id, client_options, option
from minibrokerd.cli.printing import fail, note, print_json, say_line
from minibrokerd.cli.ranges import Duration
from minibrokerd.cli.talking import talk
from minibrokerd.process import exits
from minibrokerd.text.values import text_of

NOTHING_KEPT = (
    "what it came to is not kept: its queue kept no results (result_ms), or that time is over"
)


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
    Ends with 1 if the message ended without a result, or nothing is known of it; with 4 if it waits or runs still.
    """

    async def work(broker: minibroker.Broker) -> None:
        asked = broker.queue(queue) if queue else broker
        found = await _came_to(asked, id, wait, tells=not as_json)
        if as_json:
            print_json({"id": str(id), "result": found})
        else:
            say_line(text_of(found))

    talk(url, work)


TIMEOUT_S = 30.0  # for the answer itself


async def _came_to(asked: Any, id: MessageId, wait: float, *, tells: bool) -> Any:
    """Return what a message came to, within `wait` seconds if something may still come; else end the command."""

    async def look(seconds: float) -> Any:
        tell = _show if tells else None
        return await asked.result(id, on_progress=tell, wait=seconds, timeout=seconds + TIMEOUT_S)

    said, found = "", None
    for seconds in (0.0, wait) if wait else (0.0,):
        try:
            return await look(seconds)
        except Timeout as error:
            said = str(error)
        with suppress(NotAllowed):  # a token to publish with may ask for results alone
            found = await asked.explain(id)
            said = str(found)
        if found is not None and found.state == ENDED:
            with suppress(Timeout):  # it ended between the two questions
                return await look(0.0)
            _ended(found)
    return fail(said, exits.NOT_YET, Timeout.code)


def _ended(found: minibroker.Explanation) -> NoReturn:
    if found.reason == "unknown":
        fail(f"{found.says}: {found.id}", exits.REFUSED, UnknownMessage.code)
    fail(
        f"message {found.id} has ended: {found.says}; {NOTHING_KEPT}",
        exits.REFUSED,
        MessageFailed.code,
    )


def _show(progress: minibroker.Progress) -> None:
    note(f"{progress.share:.0%} {progress.note}".rstrip())
