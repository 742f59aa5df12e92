"""`minibroker exchange`: where messages go that are published with a routing key."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import click

import minibroker
from minibroker.contract.exchange_commands import (
    DIRECT,
    EXCHANGE_TYPES,
    HEADERS,
    REFUSE,
    TOPIC,
    UNROUTABLE,
)
from minibrokerd.cli.completing import complete_exchange, complete_queue
from minibrokerd.cli.group import Group
from minibrokerd.cli.making import Made, create_option
from minibrokerd.cli.options import client_options, option
from minibrokerd.cli.printing import fail, print_json, print_table, say
from minibrokerd.cli.selecting import matches
from minibrokerd.cli.talking import talk
from minibrokerd.cli.topology import export_exchanges, import_exchanges, told, told_of
from minibrokerd.process import exits

HEADS = ("exchange", "type", "unroutable", "alternate", "bindings", "routed", "dropped", "refused")
# What a binding takes, of the types of which nearly each has to say it.
PATTERNS = {
    DIRECT: "the routing key that it takes ('' for messages without one)",
    TOPIC: "words with * and # between dots, like 'kern.*' ('#' for all, '' for messages without a routing key)",
    HEADERS: "'all' or 'any', and then NAME=VALUE or NAME",
}
name_argument = click.argument("name", shell_complete=complete_exchange)


def binding_arguments(function: Any) -> Any:
    """Add what names a binding: EXCHANGE, QUEUE, PATTERN and `--exchange`."""
    to_exchange = option(
        "--exchange", "to_exchange", is_flag=True, help="QUEUE is the name of another exchange."
    )
    pattern = click.argument("pattern", required=False)
    queue = click.argument("queue", shell_complete=complete_queue)
    return click.argument("name", metavar="EXCHANGE", shell_complete=complete_exchange)(
        queue(pattern(to_exchange(function)))
    )


@click.group(cls=Group)
def exchange() -> None:
    """Route messages by a routing key: set, list, show, bind, unbind, delete, export and import exchanges."""


exchange.add_command(export_exchanges)
exchange.add_command(import_exchanges)


@exchange.command("set")
@name_argument
@option(
    "--type",
    "type_",
    type=click.Choice(EXCHANGE_TYPES),
    required=True,
    help="direct: bindings of the same key. topic: words with * and #. fanout: all. headers: by pairs. "
    "hash: one queue for each key.",
)
@option(
    "--unroutable",
    type=click.Choice(UNROUTABLE),
    help="What becomes of a message that no binding takes; refuse of a new exchange.",
)
@option("--alternate", help="The exchange that is asked before that; '': none.")
@client_options
def set_(
    name: str, type_: str, unroutable: str | None, alternate: str | None, url: str, as_json: bool
) -> None:
    """Make the exchange NAME, or change what it does with what no binding takes; what is not said stays.

    \b
    minibroker exchange set logs --type topic
    """

    async def work(broker: minibroker.Broker) -> None:
        found = await broker.exchange(name).declare(
            type_, unroutable=unroutable, alternate=alternate
        )
        if as_json:
            print_json(_told(found))
        else:
            then = f", else asks {found.alternate}" if found.alternate else ""
            unrouted = "drops" if found.unroutable != REFUSE else "refuses"
            say(f"{name} is of type {found.type}{then}, else {unrouted}")

    talk(url, work)


@exchange.command("list")
@click.argument(
    "pattern", default="", metavar="[EXCHANGE|PATTERN]", shell_complete=complete_exchange
)
@client_options
def list_(pattern: str, url: str, as_json: bool) -> None:
    """List the exchanges; or those whose name fits PATTERN, like 'log*'."""

    async def work(broker: minibroker.Broker) -> None:
        found = [each for each in await broker.exchanges() if matches(each.name, pattern)]
        if as_json:
            for each in found:
                print_json(_told(each))
            return
        rows = (
            (
                each.name,
                each.type,
                each.unroutable,
                each.alternate or "-",
                each.bindings,
                each.routed,
                each.unroutable_count,
                each.refused_count,
            )
            for each in found
        )
        empty = f"no exchange is called {pattern}" if pattern else "no exchanges yet"
        print_table(HEADS, rows, empty, ("exchange", "alternate"), fold=True)

    talk(url, work)


@exchange.command()
@name_argument
@client_options
def show(name: str, url: str, as_json: bool) -> None:
    """Show the exchange NAME, with its bindings."""

    async def work(broker: minibroker.Broker) -> None:
        asked = broker.exchange(name)
        found, bindings = await asked.show(), await asked.bindings()
        if as_json:
            print_json(_told(found) | {"bindings": [told_of(each) for each in bindings]})
            return
        rows = [
            ("type", found.type),
            ("unroutable", found.unroutable),
            ("alternate", found.alternate or "-"),
            ("routed", found.routed),
            ("dropped", found.unroutable_count),
            ("refused", found.refused_count),
        ]
        print_table(("field", "value"), rows, "", prose=True)
        say()
        leads = [
            ("queue" if each.queue else "exchange", each.queue or each.target, each.pattern or "-")
            for each in bindings
        ]
        print_table(
            ("to", "name", "pattern"), leads, "no bindings yet", ("name", "pattern"), prose=True
        )

    talk(url, work)


@exchange.command()
@binding_arguments
@create_option
@client_options
def bind(
    name: str, queue: str, pattern: str | None, to_exchange: bool, url: str, as_json: bool
) -> None:
    """Let EXCHANGE lead to QUEUE, which is made if it is not there.

    PATTERN is a routing key (direct), words with * and # between dots (topic), "all" or "any" and then NAME=VALUE
    or NAME (headers), a weight (hash; 1 if not said), nothing (fanout).

    \b
    minibroker exchange bind logs errors '*.error'
    """

    async def work(broker: minibroker.Broker) -> None:
        exchange = broker.exchange(name)
        if pattern is None:
            what = PATTERNS.get((await exchange.show()).type)
            if what is not None:
                fail(f"a binding of {name} needs a PATTERN: {what}", exits.USAGE)
        made = Made()
        if not to_exchange:
            await _check_is_queue(broker, queue)
            made = await Made.look(broker, queue)
        to = broker.exchange(queue) if to_exchange else queue
        is_new = await exchange.bind(to, pattern or "")
        made.tell()
        if as_json:
            print_json({"created": is_new})
        else:
            say(f"{name} leads to {queue}" if is_new else f"{name} led to {queue} already")

    talk(url, work)


@exchange.command()
@binding_arguments
@client_options
def unbind(
    name: str, queue: str, pattern: str | None, to_exchange: bool, url: str, as_json: bool
) -> None:
    """End the binding of EXCHANGE to QUEUE with this PATTERN; what it led there stays."""

    async def work(broker: minibroker.Broker) -> None:
        to = broker.exchange(queue) if to_exchange else queue
        if not await broker.exchange(name).unbind(to, pattern or ""):
            said = f" with the pattern {pattern}" if pattern else ""
            text = f"{name} has no binding to {queue}{said}; `minibroker exchange show` shows them"
            fail(text, exits.REFUSED)
        if as_json:
            print_json({"deleted": queue})
        else:
            say(f"{name} leads to {queue} no more" + f" with {pattern}" * bool(pattern))

    talk(url, work)


async def _check_is_queue(broker: minibroker.Broker, name: str) -> None:
    """Fail where a queue is about to be made that has the name of an exchange: that one was meant."""
    with suppress(minibroker.UnknownQueue):
        await broker.queue(name).stats()
        return
    with suppress(minibroker.UnknownExchange):
        await broker.exchange(name).show()
        fail(
            f"{name} is an exchange, and there is no queue of that name: say --exchange to lead to it, or make "
            f"the queue first (`minibroker queue set {name}`)",
            exits.USAGE,
        )


@exchange.command()
@name_argument
@client_options
def delete(name: str, url: str, as_json: bool) -> None:
    """Delete the exchange NAME, its bindings and those that lead to it; queues stay."""

    async def work(broker: minibroker.Broker) -> None:
        if not await broker.exchange(name).delete():
            text = f"there is no exchange {name}; `minibroker exchange list` shows those that there are"
            fail(text, exits.REFUSED, "unknown_exchange")
        if as_json:
            print_json({"deleted": name})
        else:
            say(f"deleted {name}")

    talk(url, work)


def _told(exchange: minibroker.ExchangeInfo) -> dict[str, Any]:
    return told(exchange) | {
        "bindings": exchange.bindings,
        "routed": exchange.routed,
        "dropped": exchange.unroutable_count,
        "refused": exchange.refused_count,
    }
