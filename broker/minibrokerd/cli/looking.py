"""`minibroker connections` and `minibroker who`: what the HTTP port knows of clients and of what they hold."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from typing import Any, Final
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlencode
from urllib.request import ProxyHandler, Request, build_opener

import click

from minibroker.contract.confirms import MessageId
from minibrokerd import exits
from minibrokerd.cli.http_options import DEFAULT, TOKEN_VARIABLE, HostPort
from minibrokerd.cli.options import (
    Id,
    json_option,
    option,
    shared_option,
    timeout_option,
    timeout_s,
)
from minibrokerd.cli.printing import fail, note, print_json, print_table, say
from minibrokerd.cli.units import duration_text

PAGE: Final = 500  # rows that are asked for at a time
http_option = shared_option(
    "--http", type=HostPort(), default=DEFAULT, help="Address of the broker's HTTP port."
)


@click.command()
@http_option
@timeout_option
@json_option
def connections(http: str, as_json: bool) -> None:
    """Show who is connected from where, and what each holds; those that hold most first."""
    found = _get(http, "sessions", count=PAGE)
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
            _ago(each["oldest_begun_unix_ms"]),
        )
        for each in found["sessions"]
    ]
    heads = ("client", "from", "consumes", "holds", "begun", "longest")
    print_table(heads, rows, "nobody is connected", heads[:3])
    if found["total"] > len(rows):
        note(f"{found['total']:,} clients; those that hold most are shown")


@click.command()
@click.argument("id", type=Id(), metavar="ID")
@option("--queue", help="Look in this queue alone; else in one after the other.")
@http_option
@timeout_option
@json_option
def who(id: MessageId, queue: str | None, http: str, as_json: bool) -> None:
    """Show who holds the message ID and since when, or the state that it is in."""
    for name in [queue] if queue else _queues(http):
        found = _get(http, f"queues/{quote(name, safe='')}/messages/{id}", missing=True)
        if found is None:
            continue
        holder = found["holder"]
        if as_json:
            print_json(
                {
                    "queue": name,
                    "id": found["id"],
                    "state": found["state"].lower(),
                    "holder": holder,
                }
            )
        elif holder is None:
            say(f"{found['id']} in {name} is {found['state'].lower()}; nobody has it")
        else:
            since = holder["since_unix_ms"]
            begun = f", begun {_ago(since)} ago" if since else ", not begun"
            say(
                f"{found['id']} in {name} is {holder['state'].lower()} by {holder['client']} "
                f"({holder['peer'] or 'away'}){begun}; its lease is {duration_text(holder['lease_ms'])}"
            )
        return
    fail(f"no message {id} waits or is held in {queue or 'any queue'}", exits.REFUSED)


def _ago(unix_ms: int) -> str:
    return duration_text(max(round(time.time()) - unix_ms // 1_000, 0) * 1_000) if unix_ms else "-"


def _queues(http: str) -> Iterator[str]:
    after = ""
    while True:
        page = _get(http, "queues", count=PAGE, after=after)
        yield from (row["name"] for row in page["queues"])
        after = page["next"]
        if not after:
            return


def _text_of(error: HTTPError) -> str:
    said = error.read(10_000)
    try:
        return str(json.loads(said)["text"])
    except (ValueError, TypeError, KeyError):  # not the API of a broker
        return f"{error.code} {error.reason}"


def _get(http: str, path: str, *, missing: bool = False, **query: Any) -> Any:
    """Return what the API answers; None for a 404 that may be; ends the process with a message otherwise."""
    token = os.environ.get(TOKEN_VARIABLE) or os.environ.get("MINIBROKER_TOKEN", "")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = Request(f"http://{http}/api/v1/{path}?{urlencode(query)}", headers=headers)
    try:
        with build_opener(ProxyHandler({})).open(request, timeout=timeout_s()) as answer:
            return json.load(answer)
    except HTTPError as error:
        if error.code == 404 and missing:
            return None
        fail(f"http://{http} refused: {_text_of(error)}", exits.REFUSED)
    except (URLError, OSError, ValueError) as error:
        fail(
            f"no HTTP port of a broker answers at {http}: {error}. "
            "Give its address with --http or MINIBROKER_HTTP.",
            exits.UNREACHABLE,
        )
