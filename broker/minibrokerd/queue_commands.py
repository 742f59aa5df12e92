"""The commands that talk to a running broker: publish, consume, stats, dlq list, dlq redrive.

They use the client library as any application does. Each failure ends in one message that names the
address tried, the cause and the next step, and in an exit code of the table in cli.py.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import click

import minibroker
from minibroker import limits
from minibroker.confirms import MessageId
from minibroker.errors import ERRORS, ConnectionLost, MinibrokerError
from minibrokerd.printing import print_json, print_table, text_of

EXIT_REFUSED = 1
EXIT_UNREACHABLE = 69
PUBLISH_BATCH = 500
CONNECT_S = 3.0  # somebody waits in front of it
LONGEST_TEXT = 60  # characters of a body or an error in a table
DEFAULT_URL = f"minibroker://127.0.0.1:{limits.DEFAULT_PORT}"
STATS_HEADS = (
    "queue",
    "ready",
    "delayed",
    "held",
    "begun",
    "consumers",
    "published",
    "acked",
    "failed",
    "dead_lettered",
)

Function = TypeVar("Function", bound=Callable[..., Any])


def _options(function: Function) -> Function:
    url = click.option(
        "--url",
        envvar="MINIBROKER_URL",
        default=DEFAULT_URL,
        show_default=True,
        show_envvar=True,
        help="Address of the broker.",
    )
    as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON value a line.")
    return url(as_json(function))


def talk(url: str, work: Callable[[minibroker.Broker], Awaitable[None]]) -> None:
    """Connect, do `work`, leave; end the process with a message and a code if it fails."""
    try:
        asyncio.run(_connected(url, work))
    except (ConnectionLost, OSError) as error:
        cause = str(error).partition(";")[0]  # what follows is advice for programs
        _fail(
            f"cannot reach a broker at {url}: {cause}. Is `minibroker serve` running there? "
            "Give another address with --url or MINIBROKER_URL.",
            EXIT_UNREACHABLE,
        )
    except MinibrokerError as error:
        row = ERRORS.get(error.code)
        advice = f" {row.advice}" if row else ""
        _fail(f"{url} refused: {error} ({error.code}).{advice}", EXIT_REFUSED)


async def _connected(url: str, work: Callable[[minibroker.Broker], Awaitable[None]]) -> None:
    async with minibroker.connect(url, connect_timeout=CONNECT_S) as broker:
        await work(broker)


def _fail(text: str, code: int) -> None:
    click.echo(f"minibroker: {text}", err=True)
    sys.exit(code)


@click.command()
@click.argument("queue")
@click.argument("body", required=False)
@click.option("--key", default="", help="Key of the messages.")
@click.option("--delay", type=click.FloatRange(0), default=0.0, help="Seconds to wait first.")
@_options
def publish(queue: str, body: str | None, key: str, delay: float, url: str, as_json: bool) -> None:
    """Publish BODY, or each line of standard input, as bytes; print the ids."""
    bodies = [body.encode()] if body is not None else _lines()

    async def work(broker: minibroker.Broker) -> None:
        for at in range(0, len(bodies), PUBLISH_BATCH):
            batch = bodies[at : at + PUBLISH_BATCH]
            for confirm in await broker.queue(queue).publish_many(batch, key=key, delay=delay):
                if as_json:
                    print_json({"id": str(confirm.id), "durability": confirm.durability})
                else:
                    click.echo(f"{confirm.id} {confirm.durability}")

    talk(url, work)


def _lines() -> list[bytes]:
    return [line.rstrip(b"\n") for line in sys.stdin.buffer]


@click.command()
@click.argument("queue")
@click.option("--count", type=click.IntRange(min=1), help="Stop after so many.")
@click.option("--ack", is_flag=True, help="End the messages; without it they go back in the end.")
@_options
def consume(queue: str, count: int | None, ack: bool, url: str, as_json: bool) -> None:
    """Print messages as they come, until --count or Ctrl-C."""

    async def work(broker: minibroker.Broker) -> None:
        await _print_messages(broker.queue(queue), count, ack, as_json)

    try:
        talk(url, work)
    except KeyboardInterrupt:
        click.echo(err=True)


async def _print_messages(queue: Any, count: int | None, ack: bool, as_json: bool) -> None:
    # Without --ack everything shown stays with us until the end, so the prefetch bounds what is shown.
    prefetch = min(count or 1_000, limits.MAX_PREFETCH) if not ack else min(count or 32, 32)
    shown = []
    try:
        async with queue.consume(prefetch=prefetch) as messages:
            async for message in messages:
                _print_message(message, as_json)
                shown.append(message)
                if ack:
                    await shown.pop().ack()
                count = count and count - 1
                if count == 0:
                    break
    finally:
        # After the consumer ended: a message given back before could come straight back to it.
        for message in shown:
            await message.release()


def _print_message(message: Any, as_json: bool) -> None:
    if as_json:
        about = {"id": str(message.id), "attempt": message.attempt, "headers": message.headers}
        print_json({**about, "body": message.body})
    else:
        click.echo(text_of(message.body))


@click.command()
@click.argument("queue", default="")
@_options
def stats(queue: str, url: str, as_json: bool) -> None:
    """Show the messages of each queue by state, and what happened since the broker started."""

    async def work(broker: minibroker.Broker) -> None:
        value: dict[str, Any] = await (broker.queue(queue).stats() if queue else broker.stats())
        if as_json:
            print_json(value)
            return
        rows = sorted(value["queues"].items())
        print_table(
            STATS_HEADS,
            (
                [name, *(counters.get(head, 0) for head in STATS_HEADS[1:])]
                for name, counters in rows
            ),
            "no queues yet",
        )

    talk(url, work)


@click.group()
def dlq() -> None:
    """Dead messages: what failed too often or was rejected."""


@dlq.command("list")
@click.argument("queue")
@click.option("--count", type=click.IntRange(1, limits.MAX_MESSAGES_PER_FRAME), default=100)
@_options
def list_dead(queue: str, count: int, url: str, as_json: bool) -> None:
    """Show the dead messages of QUEUE with their last error."""

    async def work(broker: minibroker.Broker) -> None:
        dead = await broker.queue(dlq_of(queue)).peek(count=count)
        if as_json:
            for message in dead:
                print_json(_as_map(message))
        else:
            print_table(
                ("id", "attempts", "cause", "error", "body"),
                map(_row, dead),
                f"{dlq_of(queue)} is empty",
            )

    talk(url, work)


@dlq.command()
@click.argument("queue")
@click.argument("ids", nargs=-1)
@_options
def redrive(queue: str, ids: Sequence[str], url: str, as_json: bool) -> None:
    """Send the dead messages of QUEUE back to it: those with these IDS, or all."""
    wanted = [_parsed(text) for text in ids]

    async def work(broker: minibroker.Broker) -> None:
        moved = await broker.queue(dlq_of(queue)).redrive(wanted or None)
        if as_json:
            print_json({"redriven": moved})
        else:
            click.echo(f"redriven {moved}")

    talk(url, work)


def dlq_of(queue: str) -> str:
    """Return the name of the dead-letter queue of `queue`, which may be one already."""
    return queue if queue.endswith(limits.DLQ_SUFFIX) else queue + limits.DLQ_SUFFIX


def _parsed(text: str) -> MessageId:
    try:
        return MessageId.parse(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is no message id; `dlq list` shows them") from error


def _row(message: Any) -> Sequence[object]:
    last = message.history[-1] if message.history else {}
    error = ": ".join(filter(None, (last.get("error_class"), last.get("error_text"))))
    attempts = sum(message.attempts.values())
    return (message.id, attempts, last.get("cause", ""), _cut(error), _cut(text_of(message.body)))


def _as_map(message: Any) -> dict[str, Any]:
    return {
        "id": str(message.id),
        "attempts": message.attempts,
        "history": message.history,
        "body": message.body,
    }


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 3] + "..."
