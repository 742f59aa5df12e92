"""`minibroker connections` and `minibroker who`: what the HTTP port knows of clients and of what they hold."""

from __future__ import annotations

import time
from typing import Any, Final
from urllib.parse import quote

import click

from minibroker.contract.confirms import MessageId
from minibrokerd.cli.http_api import HttpApi, Refused, asking, http_option
from minibrokerd.cli.options import Id, json_option, option, timeout_option
from minibrokerd.cli.printing import fail, note, print_json, print_table, say
from minibrokerd.process import exits
from minibrokerd.text.counts import count_text
from minibrokerd.text.units import duration_text

PAGE: Final = 500  # rows that are asked for at a time


@click.command()
@http_option
@timeout_option
@json_option
def connections(http: str, as_json: bool) -> None:
    """Show who is connected from where, and what each holds; those that hold most first."""
    with asking(http) as api:
        found = api.get("sessions", count=PAGE)
    if as_json:
        print_json(found)
        return
    rows = [
        (
            each["client"],
            ", ".join(each["peers"]) or "away",
            ", ".join(sorted({work["queue"] for work in each["consumers"]})) or "-",
            each["holds"],
            each["begun"],
            ago(each["oldest_begun_unix_ms"]),
        )
        for each in found["sessions"]
    ]
    heads = ("client", "from", "consumes", "holds", "begun", "longest")
    print_table(heads, rows, "nobody is connected", heads[:3])
    if found["total"] > len(rows):
        note(f"{count_text(found['total'], 'client')}; those that hold most are shown")


@click.command()
@click.argument("id", type=Id(), metavar="ID")
@option("--queue", help="Look in this queue alone.")
@http_option
@timeout_option
@json_option
def who(id: MessageId, queue: str | None, http: str, as_json: bool) -> None:
    """Show who holds the message ID, since when and until when, or the state that it is in."""
    with asking(http) as api:
        found = _find(api, id, queue)
    if found is None:
        fail(
            f"no message {id} waits or is held in {queue or 'any queue'}; `minibroker explain {id}` says what "
            "became of it, if it ever was",
            exits.REFUSED,
            "unknown_message",
        )
    name, message = found
    holder = message["holder"]
    if as_json:
        print_json(
            {
                "queue": name,
                "id": message["id"],
                "state": message["state"].lower(),
                "holder": holder,
            }
        )
    elif holder is None:
        say(f"{message['id']} in {name} is {message['state'].lower()}; nobody has it")
    else:
        say(
            f"{message['id']} in {name} is {holder['state'].lower()} by {holder['client']} "
            f"({holder['peer'] or 'away'}), {_lease(holder)}"
        )


def _find(api: HttpApi, id: MessageId, queue: str | None) -> tuple[str, Any] | None:
    try:
        if queue:
            return queue, api.get(f"queues/{quote(queue, safe='')}/messages/{id}")
        found = api.get(f"messages/{id}")
    except Refused as error:
        if error.status == 404:
            return None
        raise
    return found["queue"], found["message"]


def _lease(holder: Any) -> str:
    lease = duration_text(holder["lease_ms"])
    if not holder["since_unix_ms"]:
        return f"not begun; its lease of {lease} has not started"
    until_ms = holder["lease_until_unix_ms"]
    left = f"{duration_text(max(until_ms - time.time_ns() // 1_000_000, 0) // 1_000 * 1_000)} left"
    runs = f"its lease of {lease} ends at {clock_text(until_ms)} ({left})" if until_ms else ""
    return f"begun {ago(holder['since_unix_ms'])} ago" + (f"; {runs}" if runs else "")


def clock_text(unix_ms: int) -> str:
    """Return a time of today as the clock here shows it."""
    return time.strftime("%H:%M:%S", time.localtime(unix_ms / 1_000))


def ago(unix_ms: int) -> str:
    """Return how long ago that was, in whole seconds."""
    return duration_text(max(round(time.time()) - unix_ms // 1_000, 0) * 1_000) if unix_ms else "-"
