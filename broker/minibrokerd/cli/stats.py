"""`minibroker stats`: messages by state and what happened to them, once or again and again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import click

import minibroker
from minibroker.contract.metrics import METRICS
from minibrokerd.cli.options import client_options, option
from minibrokerd.cli.printing import print_json, print_table
from minibrokerd.cli.ranges import Duration
from minibrokerd.cli.selecting import (
    TOTAL,
    is_pattern,
    list_options,
    matches,
    pattern_argument,
    selected,
    total,
)
from minibrokerd.cli.talking import talk
from minibrokerd.cli.watching import watching

# What a terminal of 80 columns has room for, beside a name of 20.
WATCHED: Final = ("ready", "begun", "consumers")
RATES: Final = ("published", "acked", "failed")
GAUGES: Final = tuple(row.name for row in METRICS.values() if row.shown and not row.counter)
COUNTERS: Final = tuple(row.name for row in METRICS.values() if row.shown and row.counter)


@click.command()
@pattern_argument
@list_options(tuple(METRICS))
@option("--watch", is_flag=True, help="Show it again and again, with rates, until Ctrl-C.")
@option("--interval", type=Duration(100), default="1s", help="Time between two looks.")
@client_options
def stats(
    queue: str,
    sort: str,
    count: int | None,
    watch: bool,
    interval: float,
    url: str,
    as_json: bool,
) -> None:
    """Show messages by state, and counters since the server started.

    Of one QUEUE, of those whose name fits PATTERN, like 'mail*', or of all. Dead-letter queues have lines of their
    own. With --json it is one document, each time; it has every counter.
    """

    async def look(broker: minibroker.Broker) -> dict[str, Any]:
        one = queue and not is_pattern(queue)
        value = await (broker.queue(queue).stats() if one else broker.stats())
        found = [
            {"queue": name, **row} for name, row in value["queues"].items() if matches(name, queue)
        ]
        rows = selected(found, sort, count)
        shown = {row["queue"]: value["queues"][row["queue"]] for row in rows}
        whole = total(found)
        whole.pop("number", None)
        return {**value, "queues": shown, "total": {"queues": len(found), **whole}}

    async def work(broker: minibroker.Broker) -> None:
        if watch:
            await _watch(partial(look, broker), interval, _empty(queue), as_json)
            return
        value = await look(broker)
        if as_json:
            print_json(value)
        else:
            heads = ("queue", *GAUGES, *COUNTERS)
            print_table(heads, _cells(value, heads[1:]), _empty(queue), fold=True)

    talk(url, work)


async def _watch(
    look: Callable[[], Awaitable[dict[str, Any]]], interval: float, empty: str, as_json: bool
) -> None:
    before: dict[str, Any] = {}
    before_s = 0.0
    heads = ("queue", *WATCHED, *(f"{name}/s" for name in RATES))
    with watching() as show:
        while True:
            value = await look()
            now_s = time.monotonic()
            now = {**value["queues"], TOTAL: value["total"]}
            if as_json:
                print_json(value)
            else:
                rows = _cells(value, WATCHED)
                for row in rows:
                    row += rates(before.get(row[0]), now[row[0]], now_s - before_s)
                show(heads, rows, empty, heads[:1])
            before, before_s = now, now_s
            await asyncio.sleep(interval)


def _empty(queue: str) -> str:
    return f"no queue is called {queue}" if queue else "no queues yet"


def _cells(value: Mapping[str, Any], names: Sequence[str]) -> list[list[Any]]:
    """Return a row for each queue, and one for all where there is more than one."""
    rows = list(value["queues"].items())
    if value["total"]["queues"] > 1:
        rows.append((TOTAL, value["total"]))
    return [[name, *(row[each] for each in names)] for name, row in rows]


def rates(before: Mapping[str, int] | None, now: Mapping[str, int], seconds: float) -> list[int]:
    """Return how much each counter of `RATES` grew a second; 0 at the first look.

    Counters start at zero with the server, and with a queue that is made again.
    """
    if before is None:
        return [0] * len(RATES)
    if any(now.get(name, 0) < before.get(name, 0) for name in RATES):
        before = dict.fromkeys(RATES, 0)
    return [round((now.get(name, 0) - before.get(name, 0)) / seconds) for name in RATES]
