"""`minibroker exchange export` and `import`: exchanges with their bindings as lines, for another broker.

A line is one exchange, as `exchange show --json` prints it; an import may be repeated, and takes nothing away.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any, Final, TextIO

import click

import minibroker
from minibrokerd.cli.completing import complete_exchange
from minibrokerd.cli.making import Made, create_option
from minibrokerd.cli.options import client_options
from minibrokerd.cli.printing import fail, print_json, say
from minibrokerd.cli.selecting import matches
from minibrokerd.cli.talking import talk
from minibrokerd.process import exits
from minibrokerd.text.counts import count_text

TEXTS: Final = ("exchange", "type", "unroutable")


@click.command("export")
@click.argument(
    "pattern", default="", metavar="[EXCHANGE|PATTERN]", shell_complete=complete_exchange
)
@client_options
def export_exchanges(pattern: str, url: str, as_json: bool) -> None:
    """Write exchanges and their bindings as lines that `minibroker exchange import` takes.

    \b
    minibroker exchange export > exchanges.json

    All of them, or those whose name fits PATTERN. The messages of queues are those of `minibroker export`.
    """

    async def work(broker: minibroker.Broker) -> None:
        for each in await broker.exchanges():
            if matches(each.name, pattern):
                bindings = await broker.exchange(each.name).bindings()
                print_json(told(each) | {"bindings": [told_of(one) for one in bindings]})

    talk(url, work)


@click.command("import")
@click.argument("file", type=click.File("r", encoding="utf-8"), default="-")
@create_option
@client_options
def import_exchanges(file: TextIO, url: str, as_json: bool) -> None:
    """Make the exchanges and bindings of FILE, or of standard input, as `export` wrote them.

    What is there stays; an exchange of another type is refused. Queues are made, with the settings that a queue
    has by default, if they are not there: set them first where they should have others.
    """
    found = [_read(number, text) for number, text in enumerate(file, 1) if text.strip()]

    async def work(broker: minibroker.Broker) -> None:
        bound = {one["queue"]: None for each in found for one in each["bindings"] if one["queue"]}
        made = {name: await Made.look(broker, name) for name in bound}
        for each in found:  # all of them before one is the alternate of another, or bound to it
            await broker.exchange(each["exchange"]).declare(each["type"])
        counted: Counter[str] = Counter(exchanges=len(found))
        for each in found:
            exchange = broker.exchange(each["exchange"])
            alternate = each.get("alternate") or ""
            await exchange.declare(each["type"], unroutable=each["unroutable"], alternate=alternate)
            for one in each["bindings"]:
                to = one["queue"] or broker.exchange(one["exchange"])
                counted["bindings"] += await exchange.bind(to, one["pattern"])
                if one["queue"]:
                    made[one["queue"]].tell()
        if as_json:
            print_json(dict(counted))
        else:
            new = count_text(counted["bindings"], "new binding")
            say(f"there now: {count_text(counted['exchanges'], 'exchange')}, with {new}")

    talk(url, work)


def told(exchange: minibroker.ExchangeInfo) -> dict[str, Any]:
    """Return what is written of an exchange beside its bindings and its counts."""
    return {
        "exchange": exchange.name,
        "type": exchange.type,
        "unroutable": exchange.unroutable,
        "alternate": exchange.alternate or None,
    }


def told_of(binding: minibroker.Binding) -> dict[str, Any]:
    """Return what is written of a binding."""
    return {
        "queue": binding.queue or None,
        "exchange": binding.target or None,
        "pattern": binding.pattern,
    }


def _read(number: int, text: str) -> dict[str, Any]:
    """Return the exchange of a line; nothing was made yet if it is none."""
    try:
        found: dict[str, Any] = json.loads(text)
        good = all(isinstance(found[name], str) for name in TEXTS) and all(
            bool(one["queue"]) != bool(one["exchange"]) and isinstance(one["pattern"], str)
            for one in found["bindings"]
        )
    except (ValueError, LookupError, TypeError):
        good = False
    if not good:
        fail(
            f"line {number} is no exchange as `minibroker exchange export` writes it; nothing was made",
            exits.USAGE,
        )
    return found
