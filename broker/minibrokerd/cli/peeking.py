"""`minibroker peek`: messages as they lie in a queue; nothing is changed."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

import click

import minibroker
from minibroker import limits
from minibroker.errors import BodyError
from minibroker.peek import Peeked
from minibrokerd.cli.options import client_options, option
from minibrokerd.cli.printing import print_json, print_table
from minibrokerd.cli.talking import talk
from minibrokerd.cli.values import text_of

HEADS: Final = ("id", "state", "attempts", "age", "key", "body")


@click.command()
@click.argument("queue")
@option("--count", type=click.IntRange(min=1), default=20, help="Most messages to show.")
@option("--skip", type=click.IntRange(0, 2**53), default=0, help="Messages to pass over first.")
@client_options
def peek(queue: str, count: int, skip: int, url: str, as_json: bool) -> None:
    """Show messages of QUEUE in every state; nothing is changed.

    Those that are ready come first, then delayed, held and begun ones.
    """

    async def work(broker: minibroker.Broker) -> None:
        found = [message async for message in pages(broker, queue, count, skip)]
        if as_json:
            for message in found:
                print_json(as_map(message))
        else:
            print_table(HEADS, map(_row, found), f"{queue} is empty", ("key", "body"))

    talk(url, work)


async def pages(
    broker: minibroker.Broker, queue: str, count: int, skip: int = 0
) -> AsyncIterator[Peeked]:
    """Yield up to `count` messages. One answer has at most about 1 MiB of them, so it asks again."""
    while count > 0:
        page = await broker.queue(queue).peek(min(count, limits.MAX_MESSAGES_PER_FRAME), skip)
        if not page:
            return
        for message in page:
            yield message
        count -= len(page)
        skip += len(page)


def body_of(message: Peeked | minibroker.Message[Any]) -> Any:
    """Return the body, or its bytes if they are not what their encoding says."""
    try:
        return message.body
    except BodyError:
        return message.raw


def headers_of(message: Peeked | minibroker.Message[Any]) -> Any:
    """Return the headers, or None if a client published what cannot be read as such."""
    try:
        return message.headers
    except BodyError:
        return None


def as_map(message: Peeked) -> dict[str, Any]:
    """Return all that is known of a message, for programs."""
    return {
        "id": str(message.id),
        "state": message.info["state"].lower(),
        "key": message.info["key"],
        "published_unix_ms": message.info["published_unix_ms"],
        "attempts": message.attempts,
        "redriven": message.info.get("redriven", 0),
        "history": message.history,
        "headers": headers_of(message),
        "body": body_of(message),
    }


def age_of(unix_ms: int) -> str:
    """Return how long ago that was, in the two largest units."""
    left = max(int(time.time() - unix_ms / 1_000), 0)
    parts: list[str] = []
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")):
        if left >= size or (unit == "s" and not parts):
            parts.append(f"{left // size} {unit}")
            left %= size
    return " ".join(parts[:2])


def _row(message: Peeked) -> Sequence[object]:
    return (
        message.id,
        message.info["state"].lower(),
        sum(message.attempts.values()),
        age_of(message.info["published_unix_ms"]),
        message.info["key"],
        text_of(body_of(message)),
    )
