"""`minibroker dlq requeue`: a dead message is published again, as it is or changed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

import minibroker
from minibroker.contract.confirms import MessageId
from minibroker.session.requeueing import SAME
from minibrokerd.cli.completing import complete_dead_id, complete_source
from minibrokerd.cli.dead_queue import dlq_of
from minibrokerd.cli.making import Made, create_option
from minibrokerd.cli.options import Id, client_options, option, queue_argument
from minibrokerd.cli.printing import print_json, say_line
from minibrokerd.cli.publish import decoded, headers_given
from minibrokerd.cli.talking import talk


@click.command()
@queue_argument(complete_source)
@click.argument("id", type=Id(), metavar="ID", shell_complete=complete_dead_id)
@click.argument("body", required=False)
@option(
    "--file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="This file is the body.",
)
@option(
    "--as",
    "body_type",
    type=click.Choice(["bytes", "json"]),
    default="bytes",
    help="bytes: the body as it stands. json: the value that it spells.",
)
@option(
    "--header", "headers", multiple=True, metavar="NAME=VALUE", help="Headers instead; repeatable."
)
@option("--key", help="Key instead.")
@option("--to", help="Queue that gets it, if not the one in which it died.")
@create_option
@client_options
def requeue(
    queue: str,
    id: MessageId,
    body: str | None,
    file: Path | None,
    body_type: str,
    headers: tuple[str, ...],
    key: str | None,
    to: str | None,
    url: str,
    as_json: bool,
) -> None:
    """Publish the dead message ID of QUEUE again, with BODY if given; the original stays where it is.

    What is not given is as in the original. The new one has its id in the header minibroker-original.
    """
    if body is not None and file is not None:
        raise click.UsageError("give BODY or --file, not both")
    new: Any = SAME
    if body is not None or file is not None:
        raw = os.fsencode(body) if body is not None else (file or Path()).read_bytes()
        values, wrong = decoded([raw], body_type, 0)
        if wrong is not None:
            raise wrong
        (new,) = values
    own = headers_given(headers) if headers else None

    async def work(broker: minibroker.Broker) -> None:
        dead = broker.queue(dlq_of(queue))
        made = await Made.look(broker, to) if to is not None else Made()
        confirm = await dead.requeue(id, new, headers=own, key=key, queue=to)
        made.tell()
        if as_json:
            print_json({"id": str(confirm.id), "durability": confirm.durability})
        else:
            say_line(f"{confirm.id} {confirm.durability}")

    talk(url, work)
