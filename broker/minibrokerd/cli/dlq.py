"""`minibroker dlq`: dead messages, why they died, and back to work with them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict
from typing import Any, Final

import click

import minibroker
from minibroker.contract import limits
from minibroker.contract.confirms import MessageId
from minibroker.session.address import masked
from minibroker.session.dead import ErrorGroup, Where
from minibroker.session.peek import Peeked, Peeks
from minibrokerd.cli.completing import complete_dead_id, complete_source
from minibrokerd.cli.dead_filter import where_option
from minibrokerd.cli.dead_queue import counters_of, dlq_of
from minibrokerd.cli.dead_redrive import begin, status, stop
from minibrokerd.cli.dead_requeue import requeue
from minibrokerd.cli.group import Group
from minibrokerd.cli.options import client_options, ids_argument, option, queue_argument
from minibrokerd.cli.peeking import (
    age_of,
    body_of,
    cursor_of,
    error_of,
    pages,
    print_messages,
    show_messages,
)
from minibrokerd.cli.printing import fail, note, print_json, print_table, progress, say
from minibrokerd.cli.queues import STATES, confirm, print_purged
from minibrokerd.cli.talking import talk
from minibrokerd.process import exits
from minibrokerd.text.counts import count_text
from minibrokerd.text.values import text_of

REDRIVE_STEP: Final = 10_000  # messages in one request, so that progress can be shown
MOST_IDS: Final = limits.MAX_RUNS_PER_FRAME
GROUP_HEADS: Final = ("count", "cause", "error", "place", "first", "last", "example", "group")
HEADS: Final = ("id", "attempts", "cause", "error", "dead for", "body")


@click.group(cls=Group)
def dlq() -> None:
    """Dead messages: what failed too often or was rejected. QUEUE is the queue they come from."""


dlq.add_command(status)
dlq.add_command(stop)
dlq.add_command(requeue)


@dlq.command("list")
@queue_argument(complete_source)
@option("--count", type=click.IntRange(min=1), default=100, help="Most messages to show.")
@option(
    "--after",
    metavar="CURSOR",
    callback=lambda _, __, value: cursor_of(value),
    help="Go on behind a list that was shown before, which names its CURSOR.",
)
@client_options
def list_(queue: str, count: int, after: bytes, url: str, as_json: bool) -> None:
    """Show the dead messages of QUEUE with their last error."""

    async def work(broker: minibroker.Broker) -> None:
        dead = _dead(broker, queue, count, after)
        empty = f"{dlq_of(queue)} is empty"
        await print_messages(dead, as_json, _row, HEADS, empty, ("error", "body"))

    talk(url, work)


@dlq.command()
@queue_argument(complete_source)
@ids_argument(complete_dead_id)
@client_options
def show(queue: str, ids: Sequence[MessageId], url: str, as_json: bool) -> None:
    """Show dead messages of QUEUE, and their attempts."""

    async def work(broker: minibroker.Broker) -> None:
        if await counters_of(broker, queue) is None:
            fail(f"{dlq_of(queue)} is empty: no message of {queue} ever died", exits.REFUSED)
        await show_messages(broker, dlq_of(queue), ids, as_json)

    talk(url, work)


@dlq.command()
@queue_argument(complete_source)
@where_option
@option("--count", type=click.IntRange(min=1), default=100, help="Most groups to show.")
@client_options
def groups(queue: str, where: Where | None, count: int, url: str, as_json: bool) -> None:
    """Show what the dead messages of QUEUE died of: how many, where in the code, since when, and one of them."""

    async def work(broker: minibroker.Broker) -> None:
        known = await counters_of(broker, queue) is not None
        found = await broker.queue(dlq_of(queue)).error_groups(where=where) if known else []
        if as_json:
            for group in found[:count]:
                print_json(_group_json(group))
            return
        rows = ([*map(str, _group_row(group))] for group in found[:count])
        empty = f"no such message is in {dlq_of(queue)}" if where else f"{dlq_of(queue)} is empty"
        print_table(GROUP_HEADS, rows, empty, ("error",))
        if len(found) > count:
            note(f"and {count_text(len(found) - count, 'smaller group')}; --count shows more")

    talk(url, work)


@dlq.command()
@queue_argument(complete_source)
@ids_argument(complete_dead_id, required=False)
@where_option
@option(
    "--rate",
    type=click.IntRange(0, limits.MAX_REDRIVE_RATE),
    default=0,
    help="Most messages a second; 0: as fast as it goes.",
)
@option(
    "--canary",
    type=click.IntRange(0, limits.MAX_CANARY),
    default=0,
    help="So many go first; the others only when these have ended and none of them died again.",
)
@option("--detach", is_flag=True, help="With --rate or --canary: do not wait until it has ended.")
@client_options
def redrive(
    queue: str,
    ids: Sequence[MessageId],
    where: Where | None,
    rate: int,
    canary: int,
    detach: bool,
    url: str,
    as_json: bool,
) -> None:
    """Send dead messages of QUEUE back to it: these IDs, those of a filter, or all that wait.

    Those that a consumer of the dead-letter queue has are left, and told. With --rate or --canary the server does
    it by itself, over restarts, too: `dlq status` shows it, and `dlq stop` ends it.
    """
    by_itself = bool(rate or canary or detach)
    if by_itself and len(ids) > limits.MAX_REDRIVE_IDS:
        raise click.UsageError(f"with --rate or --canary at most {limits.MAX_REDRIVE_IDS} ids")
    if len(ids) > MOST_IDS:
        raise click.UsageError(f"at most {MOST_IDS:,} ids at a time; leave them out to redrive all")
    if ids and where is not None:
        raise click.UsageError("Name IDs, or say which ones with --where.")

    async def work(broker: minibroker.Broker) -> None:
        if by_itself:
            each = list(dict.fromkeys(ids))
            await begin(broker, queue, each, where, rate, canary, detach=detach, as_json=as_json)
            return
        counters = await counters_of(broker, queue)
        dead = broker.queue(dlq_of(queue))
        if counters is None:
            moved = 0
        elif where is not None:
            moved = await dead.redrive(where=where)
        else:
            moved = await (dead.redrive(ids) if ids else _redrive_all(broker, queue))
            counters = await counters_of(broker, queue)
        states = {state: (counters or {}).get(state, 0) for state in STATES}
        left = {s: count for s, count in states.items() if count and not (ids or where)}
        if as_json:
            print_json({"redriven": moved} | ({"left": left} if left else {}))
        else:
            others = ", ".join(f"{count:,} {state}" for state, count in left.items())
            say(f"redriven {moved:,}" + (f"; left in {dlq_of(queue)}: {others}" if left else ""))
        if moved < len(ids):
            fail(
                f"left: {len(ids) - moved} of the {count_text(len(ids), 'id')}, which {dlq_of(queue)} has not, or "
                "a consumer has; `minibroker dlq list` shows those it has",
                exits.REFUSED,
            )

    talk(url, work)


@dlq.command()
@queue_argument(complete_source)
@option("--yes", is_flag=True, help="Do not ask.")
@client_options
def purge(queue: str, yes: bool, url: str, as_json: bool) -> None:
    """Remove every dead message of QUEUE, in every state."""
    confirm(f"Remove every message of {dlq_of(queue)} at {masked(url)}?", yes)

    async def work(broker: minibroker.Broker) -> None:
        known = await counters_of(broker, queue) is not None
        print_purged(await broker.queue(dlq_of(queue)).purge() if known else 0, as_json)

    talk(url, work)


async def _redrive_all(broker: minibroker.Broker, queue: str) -> int:
    """Send back what is there now: what dies again meanwhile is left for the next call."""
    name = dlq_of(queue)
    dead = broker.queue(name)
    counters = await counters_of(broker, queue) or {}
    left = counters.get("ready", 0) + counters.get("delayed", 0)
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


async def _dead(
    broker: minibroker.Broker, queue: str, count: int, after: bytes
) -> AsyncIterator[Peeks]:
    """Yield pages of dead messages; none if the queue never had one. UnknownQueue if there is no such queue."""
    if await counters_of(broker, queue) is not None:
        async for page in pages(broker, dlq_of(queue), count, after=after):
            yield page


def _group_row(group: ErrorGroup) -> Sequence[Any]:
    error = ": ".join(filter(None, (group.error_class, group.text)))
    first, last = (age_of(round(each.timestamp() * 1_000)) for each in (group.first, group.last))
    return group.count, group.cause, error, group.place, first, last, group.example, group.group


def _group_json(group: ErrorGroup) -> dict[str, Any]:
    times = {"first": group.first.isoformat(), "last": group.last.isoformat()}
    return asdict(group) | times | {"example": str(group.example)}


def _row(message: Peeked) -> Sequence[Any]:
    last = message.history[-1] if message.history else {}
    return (
        message.id,
        sum(message.attempts.values()),
        last.get("cause", ""),
        error_of(last),
        age_of(last["ended_unix_ms"]) if last else "",
        text_of(body_of(message)),
    )
