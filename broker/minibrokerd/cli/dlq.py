"""`minibroker dlq`: dead messages, why they died, and back to work with them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import click

import minibroker
from minibroker import limits
from minibroker.peek import Peeked
from minibrokerd import exits
from minibrokerd.cli.options import client_options, option
from minibrokerd.cli.peeking import age_of, as_map, body_of, pages
from minibrokerd.cli.printing import fail, print_json, print_table, progress, say
from minibrokerd.cli.queues import purge_queue
from minibrokerd.cli.talking import dlq_of, message_id, talk
from minibrokerd.cli.values import text_of

REDRIVE_STEP: Final = 10_000  # messages in one request, so that progress can be shown
MOST_IDS: Final = limits.MAX_RUNS_PER_FRAME
HEADS: Final = ("id", "attempts", "cause", "error", "dead for", "body")


@click.group()
def dlq() -> None:
    """Dead messages: what failed too often or was rejected. QUEUE is the queue they come from."""


@dlq.command("list")
@click.argument("queue")
@option("--count", type=click.IntRange(min=1), default=100, help="Most messages to show.")
@client_options
def list_(queue: str, count: int, url: str, as_json: bool) -> None:
    """Show the dead messages of QUEUE with their last error."""

    async def work(broker: minibroker.Broker) -> None:
        dead = [message async for message in _dead(broker, queue, count)]
        if as_json:
            for message in dead:
                print_json(as_map(message))
        else:
            print_table(HEADS, map(_row, dead), f"{dlq_of(queue)} is empty", ("error", "body"))

    talk(url, work)


@dlq.command()
@click.argument("queue")
@click.argument("id_", metavar="ID")
@client_options
def show(queue: str, id_: str, url: str, as_json: bool) -> None:
    """Show one dead message of QUEUE, and its attempts."""
    wanted = message_id(id_)

    async def work(broker: minibroker.Broker) -> None:
        async for message in _dead(broker, queue):
            if message.id == wanted:
                if as_json:
                    print_json(as_map(message))
                else:
                    _print_message(message)
                return
        fail(
            f"{dlq_of(queue)} has no message {wanted}; `minibroker dlq list` shows those it has",
            exits.REFUSED,
        )

    talk(url, work)


@dlq.command()
@click.argument("queue")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@client_options
def redrive(queue: str, ids: Sequence[str], url: str, as_json: bool) -> None:
    """Send dead messages of QUEUE back to it: these IDs, or all."""
    wanted = [message_id(text) for text in ids]
    if len(wanted) > MOST_IDS:
        raise click.UsageError(f"at most {MOST_IDS:,} ids at a time; leave them out to redrive all")

    async def work(broker: minibroker.Broker) -> None:
        dead = broker.queue(dlq_of(queue))
        moved = await (dead.redrive(wanted) if wanted else _redrive_all(broker, queue))
        if as_json:
            print_json({"redriven": moved})
        else:
            say(f"redriven {moved:,}")
        if moved < len(wanted):
            fail(
                f"{len(wanted) - moved} of the {len(wanted)} ids are not in {dlq_of(queue)}; "
                "`minibroker dlq list` shows those it has",
                exits.REFUSED,
            )

    talk(url, work)


@dlq.command()
@click.argument("queue")
@option("--yes", is_flag=True, help="Do not ask.")
@client_options
def purge(queue: str, yes: bool, url: str, as_json: bool) -> None:
    """Remove every dead message of QUEUE."""
    purge_queue(dlq_of(queue), yes, url, as_json)


async def _redrive_all(broker: minibroker.Broker, queue: str) -> int:
    """Send back what is there now: what dies again meanwhile is left for the next call."""
    name = dlq_of(queue)
    dead = broker.queue(name)
    left = (await _counters(broker, queue)).get("ready", 0)
    moved = 0
    with progress(f"redriving {name}", left, prints=False) as advance:
        while left > 0:
            step = await dead.redrive(count=min(left, REDRIVE_STEP))
            if not step:
                break
            moved += step
            left -= step
            advance(step)
    return moved


async def _dead(broker: minibroker.Broker, queue: str, count: int = 2**53) -> AsyncIterator[Peeked]:
    """Yield dead messages; none if the queue never had one. UnknownQueue if there is no such queue."""
    if await _counters(broker, queue):
        async for message in pages(broker, dlq_of(queue), count):
            yield message


async def _counters(broker: minibroker.Broker, queue: str) -> dict[str, int]:
    """Return the counters of the DLQ, none if no message ever died. UnknownQueue if there is no such queue."""
    counters: dict[str, int] | None = (await broker.stats())["queues"].get(dlq_of(queue))
    if counters is None:
        await broker.queue(queue).settings()  # raises if the queue itself is not known either
    return counters or {}


def _row(message: Peeked) -> Sequence[object]:
    last = message.history[-1] if message.history else {}
    return (
        message.id,
        sum(message.attempts.values()),
        last.get("cause", ""),
        _error(last),
        age_of(last["ended_unix_ms"]) if last else "",
        text_of(body_of(message)),
    )


def _error(attempt: dict[str, Any]) -> str:
    return ": ".join(filter(None, (attempt.get("error_class"), attempt.get("error_text"))))


def _print_message(message: Peeked) -> None:
    info = as_map(message)
    attempts = ", ".join(f"{count} {cause}" for cause, count in info["attempts"].items() if count)
    rows = [
        ("id", info["id"]),
        ("key", info["key"]),
        ("published", _when(info["published_unix_ms"])),
        ("attempts", attempts or "none"),
        ("redriven", f"{info['redriven']} times"),
        ("headers", text_of(info["headers"]) if info["headers"] else ""),
        ("body", text_of(info["body"])),
    ]
    for name, value in rows:
        if value:
            say(f"{name:<10} {value}")
    say()
    print_table(
        ("started", "took", "client", "cause", "error"),
        map(_attempt, message.history),
        "no history",
        prose=True,
    )
    if dropped := message.info.get("history_dropped"):
        say(f"({dropped} attempts between the first and the last are not kept)")


def _attempt(entry: dict[str, Any]) -> Sequence[object]:
    took_ms = entry["ended_unix_ms"] - entry["started_unix_ms"]
    return (
        _when(entry["started_unix_ms"]) if entry["started_unix_ms"] else "never",
        f"{took_ms / 1_000:.3f} s" if entry["started_unix_ms"] else "",
        entry["client"],
        entry["cause"],
        _error(entry),
    )


def _when(unix_ms: int) -> str:
    return datetime.fromtimestamp(unix_ms / 1_000, UTC).isoformat(" ", "milliseconds")[:-6] + " UTC"
