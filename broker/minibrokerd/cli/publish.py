"""`minibroker publish`: one body, a file, or the lines of standard input."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Final

import click

import minibroker
from minibroker.contract import limits
from minibroker.contract.settings import UNIQUE_MODES
from minibrokerd.cli.completing import complete_exchange, complete_queue
from minibrokerd.cli.making import Made, create_option
from minibrokerd.cli.options import client_options, option
from minibrokerd.cli.printing import fail, note, print_json, progress, say_line
from minibrokerd.cli.ranges import Duration
from minibrokerd.cli.reading import LineTooLong
from minibrokerd.cli.reading import lines as lines_of
from minibrokerd.cli.talking import talk
from minibrokerd.cli.trace_variables import headers_of
from minibrokerd.process import exits

BATCH: Final = 500  # one frame; its ids are printed as soon as it is confirmed


@click.command()
@click.argument("queue", required=False, shell_complete=complete_queue)
@click.argument("body", required=False)
@option(
    "--file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Publish this file as one message; with --lines each of its lines.",
)
@option("--lines", is_flag=True, help="Each line of --file is a message.")
@option(
    "--as",
    "body_type",
    type=click.Choice(["bytes", "json"]),
    default="bytes",
    help="bytes: the body as it stands. json: the value that it spells, as a Python program would publish it.",
)
@option("--header", "headers", multiple=True, metavar="NAME=VALUE", help="A header; repeatable.")
@option("--key", default="", help="Key of the messages.")
@option("--delay", type=Duration(), default="0s", help="Hand them out this much later.")
@option(
    "--priority",
    type=click.IntRange(0, limits.MAX_PRIORITY),
    default=0,
    help="Hand them out before those of a lower one.",
)
@option(
    "--unique-key", default="", help="Unique key: one message of it at a time, until that ends."
)
@option(
    "--unique",
    type=click.Choice(UNIQUE_MODES),
    default=UNIQUE_MODES[0],
    help="While one of its key is there. drop: not stored. replace: instead of the one that waits. "
    "keep-latest: the same, at the time of that one.",
)
@option(
    "--dedupe-id",
    default="",
    help="Not stored if one with this id was, within the window; for one message.",
)
@option(
    "--ttl",
    type=Duration(1),
    help="Drop them, or let them die (on_expired of the queue), if they have not begun so long after.",
)
@option(
    "--exchange",
    help="Publish to this exchange instead of QUEUE; what stands first then is BODY.",
    shell_complete=complete_exchange,
)
@option("--routing-key", default="", help="What the bindings of --exchange look at.")
@create_option
@client_options
def publish(
    queue: str | None,
    body: str | None,
    file: Path | None,
    lines: bool,
    body_type: str,
    headers: tuple[str, ...],
    key: str,
    delay: float,
    priority: int,
    unique_key: str,
    unique: str,
    dedupe_id: str,
    ttl: float | None,
    exchange: str | None,
    routing_key: str,
    url: str,
    as_json: bool,
) -> None:
    """Publish BODY, a file, or each line of standard input.

    Prints the id and the durability of each message, once it is as safe as that says. Lines are published as they
    come: a slow pipe need not end first. The last one needs no newline. Where TRACEPARENT is set, the messages
    carry it as their header traceparent, with TRACESTATE and BAGGAGE.

    \b
    minibroker publish emails '{"to": "bob@example.com"}' --as json
    minibroker publish --exchange logs --routing-key kern.error "disk full"
    """
    name, body = _where(queue, body, exchange, routing_key, names=bool(unique_key or dedupe_id))
    check_unique(unique_key, unique)
    _check_file(body, file, lines, dedupe_id)
    own = headers_of(os.environ) | headers_given(headers)
    settings: dict[str, Any] = {"headers": own, "key": key, "delay": delay, "priority": priority}
    settings["ttl"] = ttl
    if exchange is None:
        settings |= {"unique": unique} | ({"dedupe_ids": [dedupe_id]} if dedupe_id else {})
    else:
        settings |= {"routing_key": routing_key, "match": headers_given(headers)}

    async def work(broker: minibroker.Broker) -> None:
        done = 0
        made = Made() if exchange is not None else await Made.look(broker, name)
        try:
            with progress(f"publishing to {name}", None, prints=True) as advance:
                async for batch in _batches(body, file, lines):
                    bodies, wrong = decoded(batch, body_type, done)
                    keys = {"unique_keys": [unique_key] * len(bodies)} if unique_key else {}
                    to = broker.queue(name) if exchange is None else broker.exchange(name)
                    confirms = await _publish(to, bodies, settings | keys)
                    done += len(bodies)
                    advance(len(bodies))
                    made.tell()
                    _print_ids(confirms, as_json)
                    if wrong is not None:
                        raise wrong
        except BaseException as error:
            if done and not isinstance(error, asyncio.CancelledError | BrokenPipeError):
                note(f"minibroker: published before this: {done:,}")
            raise

    try:
        talk(url, work)
    except LineTooLong as error:
        fail(f"{error}; publish a reference instead", exits.USAGE)


def _where(
    queue: str | None, body: str | None, exchange: str | None, routing_key: str, *, names: bool
) -> tuple[str, str | None]:
    """Return the queue or exchange, and the body; `names`: messages have a unique key, or a dedupe id."""
    if exchange is None:
        if queue is None:
            raise click.UsageError("Missing argument 'QUEUE'.")
        if routing_key:
            raise click.UsageError("--routing-key needs --exchange")
        return queue, body
    if body is not None:
        raise click.UsageError("give QUEUE or --exchange, not both")
    if names:
        raise click.UsageError(
            "what is published to an exchange has no --unique-key, and no --dedupe-id"
        )
    return exchange, queue


def check_unique(unique_key: str | None, unique: str) -> None:
    """Check that it is not said what becomes of a message whose key is held, where it has none."""
    if unique != UNIQUE_MODES[0] and not unique_key:
        raise click.UsageError(f"--unique {unique} needs --unique-key")


def _check_file(body: str | None, file: Path | None, lines: bool, dedupe_id: str) -> None:
    if body is not None and file is not None:
        raise click.UsageError("give BODY or --file, not both")
    if dedupe_id and (lines or (body is None and file is None)):
        raise click.UsageError(
            "--dedupe-id is of one message; give BODY, or --file without --lines"
        )
    if lines and file is None:
        raise click.UsageError("--lines needs --file; standard input is read by lines anyway")


async def _publish(
    to: minibroker.Queue[Any] | minibroker.Exchange,
    bodies: Sequence[Any],
    settings: Mapping[str, Any],
) -> Sequence[minibroker.Confirm | minibroker.Routed]:
    try:
        return await to.publish_many(bodies, **settings)
    except TypeError as error:  # a number or a text that JSON can spell and msgpack cannot
        raise click.BadParameter(str(error), param_hint="--as json") from error


def _print_ids(confirms: Iterable[minibroker.Confirm | minibroker.Routed], as_json: bool) -> None:
    for confirm in confirms:
        if isinstance(confirm, minibroker.Routed):
            _print_routed(confirm, as_json)
            continue
        more: dict[str, Any] = {"duplicate": True} if confirm.duplicate else {}
        if confirm.replaced is not None:
            more["replaced"] = str(confirm.replaced)
        if as_json:
            print_json({"id": str(confirm.id), "durability": confirm.durability, **more})
        else:
            said = " duplicate" if confirm.duplicate else ""
            said += f" replaced {confirm.replaced}" if confirm.replaced is not None else ""
            say_line(f"{confirm.id} {confirm.durability}{said}")


def _print_routed(routed: minibroker.Routed, as_json: bool) -> None:
    ids = {name: str(id) for name, id in routed.ids.items()}
    if as_json:
        print_json({"ids": ids, "durability": routed.durability})
    elif ids:
        say_line(" ".join(f"{name}={id}" for name, id in ids.items()) + f" {routed.durability}")
    else:
        say_line("dropped")


async def _batches(
    body: str | None, file: Path | None, by_line: bool
) -> AsyncIterator[Sequence[bytes]]:
    """Yield the bodies as they come, those of one frame together."""
    if body is not None:
        yield [os.fsencode(body)]  # the bytes as they were typed, UTF-8 or not
    elif file is not None and not by_line:
        yield [file.read_bytes()]  # noqa: ASYNC240  # nothing else runs here that could wait for it
    else:
        if file is None and sys.stdin.isatty():
            note("each line is a message; end with Ctrl-D")
        with file.open("rb") if file is not None else nullcontext(sys.stdin.buffer) as stream:
            async for found in lines_of(stream.fileno(), limits.MAX_MESSAGE_BYTES):
                for at in range(0, len(found), BATCH):
                    yield found[at : at + BATCH]


def decoded(
    batch: Sequence[bytes], body_type: str, before: int
) -> tuple[Sequence[Any], click.BadParameter | None]:
    """Return the bodies as values, up to the first that is none, and what is wrong with that."""
    if body_type == "bytes":
        return batch, None
    values: list[Any] = []
    for raw in batch:
        try:
            values.append(json.loads(raw))
        except (ValueError, RecursionError) as error:
            text = f"body {before + len(values) + 1} is not JSON: {error}"
            return values, click.BadParameter(text, param_hint="--as json")
    return values, None


def headers_given(pairs: Iterable[str]) -> dict[str, str]:
    """Return headers given as NAME=VALUE; click.BadParameter says which one is not."""
    headers = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (name and equals):
            raise click.BadParameter(f"{pair!r} is not NAME=VALUE", param_hint="--header")
        headers[name] = value
        try:
            pair.encode()
        except UnicodeEncodeError as error:
            raise click.BadParameter(f"{pair!r} is not UTF-8", param_hint="--header") from error
    return headers
