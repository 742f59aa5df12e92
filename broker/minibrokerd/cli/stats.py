"""`minibroker stats`: messages by state and what happened to them, once or again and again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Final

import click

import minibroker
from minibroker.metrics import METRICS
from minibrokerd.cli.layout import fit
from minibrokerd.cli.options import client_options, option
from minibrokerd.cli.printing import print_json, print_table
from minibrokerd.cli.talking import talk
from minibrokerd.cli.units import Duration
from minibrokerd.cli.watching import watching

# What a terminal of 80 columns has room for, beside a name of 20.
WATCHED: Final = ("ready", "begun", "consumers")
RATES: Final = ("published", "acked", "failed")
LONGEST_NAME: Final = 20
GAUGES: Final = tuple(row.name for row in METRICS.values() if row.shown and not row.counter)
COUNTERS: Final = tuple(row.name for row in METRICS.values() if row.shown and row.counter)
EMPTY: Final = "no queues yet"


@click.command()
@click.argument("queue", default="")
@option("--watch", is_flag=True, help="Show it again and again, with rates, until Ctrl-C.")
@option("--interval", type=Duration(100), default="1s", help="Time between two looks.")
@client_options
def stats(queue: str, watch: bool, interval: float, url: str, as_json: bool) -> None:
    """Show messages by state, and counters since the server started."""

    async def work(broker: minibroker.Broker) -> None:
        if watch:
            await _watch(broker, queue, interval, as_json)
        elif as_json:
            print_json(await _ask(broker, queue))
        else:
            names = (*GAUGES, *COUNTERS)
            print_table(("queue", *names), _rows(await _ask(broker, queue), names), EMPTY)

    talk(url, work)


async def _ask(broker: minibroker.Broker, queue: str) -> dict[str, Any]:
    return await (broker.queue(queue).stats() if queue else broker.stats())


def _rows(value: dict[str, Any], names: Sequence[str]) -> list[list[Any]]:
    return [[name, *(row[each] for each in names)] for name, row in sorted(value["queues"].items())]


async def _watch(broker: minibroker.Broker, queue: str, interval: float, as_json: bool) -> None:
    before: dict[str, Any] = {}
    before_s = 0.0
    heads = ("queue", *WATCHED, *(f"{name}/s" for name in RATES))
    with watching() as show:
        while True:
            value = await _ask(broker, queue)
            now_s = time.monotonic()
            if as_json:
                print_json(value)
            else:
                rows = _rows(value, WATCHED)
                for row in rows:
                    row += rates(before.get(row[0]), value["queues"][row[0]], now_s - before_s)
                    row[0] = fit(row[0], LONGEST_NAME, "...")
                show(heads, rows, EMPTY)
            before, before_s = value["queues"], now_s
            await asyncio.sleep(interval)


def rates(before: dict[str, int] | None, now: dict[str, int], seconds: float) -> list[int]:
    """Return how much each counter of `RATES` grew a second; 0 at the first look.

    Counters start at zero with the server, and with a queue that is made again.
    """
    if before is None:
        return [0] * len(RATES)
    if any(now[name] < before[name] for name in RATES):
        before = dict.fromkeys(RATES, 0)
    return [round((now[name] - before[name]) / seconds) for name in RATES]
