"""`minibroker read`: the messages of a retained log, without a group. Nothing is changed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

import click

import minibroker
from minibrokerd.cli.completing import complete_log
from minibrokerd.cli.log_groups import START_HELP
from minibrokerd.cli.options import client_options, option
from minibrokerd.cli.peeking import body_fields, body_of, headers_of
from minibrokerd.cli.printing import note, print_json, print_text
from minibrokerd.cli.queues import STATES
from minibrokerd.cli.ranges import Start
from minibrokerd.cli.talking import talk
from minibrokerd.text.counts import count_text
from minibrokerd.text.values import text_of

FOLLOW_S: Final = 60.0  # one request waits so long
ARRIVES_S: Final = 0.1  # likewise, for what was published and is on its way into the files


@click.command()
@click.argument("log", shell_complete=complete_log)
@option("--from", "start", type=Start(), default="first", help=f"Where to start: {START_HELP}")
@option("--follow", is_flag=True, help="Then wait for more, until Ctrl-C.")
@option("--count", type=click.IntRange(min=1), help="Stop after so many.")
@client_options
def read(log: str, start: Any, follow: bool, count: int | None, url: str, as_json: bool) -> None:
    """Print the messages of the retained log LOG, without a group: nothing is changed.

    Without --follow it ends behind what the log had when it began. With --json each line has the offset, key,
    headers and time of a message, too.

    \b
    minibroker read events --from 2h --follow
    """

    async def work(broker: minibroker.Broker) -> None:
        left = count
        async for page in log_pages(broker, log, start, follow=follow):
            if page.damaged:
                note(
                    f"damaged before offset {page.next}: up to {count_text(page.damaged, 'message')}"
                )
            shown = page[:left]
            for message in shown:
                _print(message, as_json)
            if left is not None:
                left -= len(shown)
                if not left:
                    return

    talk(url, work)


async def log_pages(
    broker: minibroker.Broker, log: str, start: Any, *, follow: bool = False
) -> AsyncIterator[minibroker.LogPage]:
    """Yield the pages of a log from a place on: up to what it had when this began, or for ever."""
    asked, at = broker.log(log), start
    until = None if follow else (await asked.show()).next_offset
    while until is None or not isinstance(at, int) or at < until:
        page = await asked.read(at, wait=FOLLOW_S if follow else ARRIVES_S)
        if until is not None:
            page[:] = [each for each in page if each.offset < until]
        yield page
        at = page.next
        # Offsets have gaps: behind the last message, too.
        if not follow and at >= page.stop and not await _is_coming(broker.queue(log)):
            return


async def _is_coming(queue: minibroker.Queue[Any]) -> bool:
    """Return whether messages were published that are not in the files yet."""
    row = (await queue.stats())["queues"][queue.name]
    return any(row[state] for state in STATES)


def _print(message: minibroker.LogMessage[Any], as_json: bool) -> None:
    if not as_json:
        print_text(text_of(body_of(message)))
        return
    about = {
        "offset": message.offset,
        "key": message.key,
        "published": message.published_at.isoformat(timespec="milliseconds"),
    }
    print_json({**about, "headers": headers_of(message), **body_fields(message)})
