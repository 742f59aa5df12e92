"""`minibroker publish`: one body, a file, or the lines of standard input."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Final

import click

import minibroker
from minibrokerd.cli.options import client_options, option
from minibrokerd.cli.printing import note, print_json, progress, say
from minibrokerd.cli.talking import talk
from minibrokerd.cli.units import Duration

BATCH: Final = 500  # one frame; its ids are printed as soon as it is confirmed


@click.command()
@click.argument("queue")
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
@client_options
def publish(
    queue: str,
    body: str | None,
    file: Path | None,
    lines: bool,
    body_type: str,
    headers: tuple[str, ...],
    key: str,
    delay: float,
    url: str,
    as_json: bool,
) -> None:
    """Publish BODY, a file, or each line of standard input.

    Prints the id and the durability of each message, once it is as safe as that says.
    """
    if body is not None and file is not None:
        raise click.UsageError("give BODY or --file, not both")
    if lines and file is None:
        raise click.UsageError("--lines needs --file; standard input is read by lines anyway")
    bodies = _decoded(_bodies(body, file, lines), body_type)
    settings: dict[str, Any] = {"headers": _headers(headers), "key": key, "delay": delay}

    async def work(broker: minibroker.Broker) -> None:
        with progress(f"publishing to {queue}", None, prints=True) as advance:
            while batch := list(islice(bodies, BATCH)):
                try:
                    confirms = await broker.queue(queue).publish_many(batch, **settings)
                except (
                    TypeError
                ) as error:  # a number or a text that JSON can spell and msgpack cannot
                    raise click.BadParameter(str(error), param_hint="--as json") from error
                advance(len(batch))
                _print_ids(confirms, as_json)

    talk(url, work)


def _print_ids(confirms: Iterable[minibroker.Confirm], as_json: bool) -> None:
    for confirm in confirms:
        if as_json:
            print_json({"id": str(confirm.id), "durability": confirm.durability})
        else:
            say(f"{confirm.id} {confirm.durability}")


def _bodies(body: str | None, file: Path | None, lines: bool) -> Iterator[bytes]:
    if body is not None:
        yield os.fsencode(body)  # the bytes as they were typed, UTF-8 or not
    elif file is None:
        if sys.stdin.isatty():
            note("each line is a message; end with Ctrl-D")
        yield from _lines(sys.stdin.buffer)
    elif lines:
        with file.open("rb") as stream:
            yield from _lines(stream)
    else:
        yield file.read_bytes()


def _lines(stream: BinaryIO) -> Iterator[bytes]:
    return (line.rstrip(b"\n") for line in stream)


def _decoded(bodies: Iterator[bytes], body_type: str) -> Iterator[Any]:
    if body_type == "bytes":
        return bodies
    return (_json_value(number, raw) for number, raw in enumerate(bodies, 1))


def _json_value(number: int, raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise click.BadParameter(
            f"body {number} is not JSON: {error}; those before it were published",
            param_hint="--as json",
        ) from error


def _headers(pairs: Iterable[str]) -> dict[str, str]:
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
