"""`minibroker queues`, `queue show|set|delete` and `purge`: what queues there are, and how they behave."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, Final

import click

import minibroker
from minibroker.limits import DLQ_SUFFIX
from minibroker.settings import SETTINGS, Settings
from minibrokerd.cli.options import client_options, option
from minibrokerd.cli.printing import print_json, print_table, say, shown
from minibrokerd.cli.talking import talk

STATES: Final = ("ready", "delayed", "held", "begun")
HEADS: Final = ("queue", "messages", *STATES, "dead", "consumers")


@click.command()
@client_options
def queues(url: str, as_json: bool) -> None:
    """List the queues, with their messages by state.

    \b
    ready    wait for a consumer
    delayed  wait for their time: a delay, or a retry
    held     delivered ahead to a consumer, not begun
    begun    a handler works on them
    dead     in the dead-letter queue of this queue, and not in its `messages`
    """

    async def work(broker: minibroker.Broker) -> None:
        rows = list(_overview((await broker.stats())["queues"]))
        if as_json:
            for row in rows:
                print_json(dict(zip(HEADS, row, strict=True)))
        else:
            print_table(HEADS, rows, "no queues yet")

    talk(url, work)


def _overview(counters: dict[str, dict[str, int]]) -> Iterable[list[Any]]:
    for name, row in sorted(counters.items()):
        if not name.endswith(DLQ_SUFFIX):
            dead = counters.get(name + DLQ_SUFFIX, {})
            states = [row[state] for state in STATES]
            yield [
                name,
                sum(states),
                *states,
                sum(dead.get(s, 0) for s in STATES),
                row["consumers"],
            ]


@click.group()
def queue() -> None:
    """Show, change, make or delete one queue."""


@queue.command()
@click.argument("name")
@client_options
def show(name: str, url: str, as_json: bool) -> None:
    """Show the settings of queue NAME."""

    async def work(broker: minibroker.Broker) -> None:
        _print_settings(await broker.queue(name).settings(), as_json)

    talk(url, work)


@queue.command("set")
@click.argument("name")
@click.argument("settings", nargs=-1, metavar="SETTING=VALUE...")
@client_options
def set_(name: str, settings: tuple[str, ...], url: str, as_json: bool) -> None:
    """Change settings of queue NAME; make it if there is none.

    Settings that are not named stay as they are.

    The settings are those that `queue show` lists, for example `lease_ms=60000 max_attempts=3`.
    """
    changes = dict(map(_change, settings))

    async def work(broker: minibroker.Broker) -> None:
        _print_settings(await broker.queue(name).set(**changes), as_json)

    talk(url, work)


@queue.command()
@click.argument("name")
@option("--force", is_flag=True, help="Delete it with the messages that it and its DLQ have.")
@client_options
def delete(name: str, force: bool, url: str, as_json: bool) -> None:
    """Delete queue NAME and its DLQ. It must be empty, unless --force, and have no consumers."""

    async def work(broker: minibroker.Broker) -> None:
        ended = await broker.queue(name).delete(force=force)
        if as_json:
            print_json({"deleted": name, "purged": ended})
        else:
            say(f"deleted {name}, and {ended:,} messages with it")

    talk(url, work)


@click.command()
@click.argument("name", metavar="QUEUE")
@option("--yes", is_flag=True, help="Do not ask.")
@client_options
def purge(name: str, yes: bool, url: str, as_json: bool) -> None:
    """Remove every message of QUEUE, those that workers hold too."""
    purge_queue(name, yes, url, as_json)


def purge_queue(name: str, yes: bool, url: str, as_json: bool) -> None:
    """Ask, then end every message of a queue, and print how many."""
    if not yes:
        click.confirm(
            f"Remove every message of {shown(name, sys.stderr)} at {url}? They cannot be brought back",
            abort=True,
            err=True,
        )

    async def work(broker: minibroker.Broker) -> None:
        ended = await broker.queue(name).purge()
        if as_json:
            print_json({"purged": ended})
        else:
            say(f"purged {ended:,}")

    talk(url, work)


def _print_settings(settings: Settings, as_json: bool) -> None:
    if as_json:
        print_json(settings)
        return
    rows = [
        (name, str(settings[name]), str(row.default), row.meaning) for name, row in SETTINGS.items()
    ]
    print_table(("setting", "value", "default", "meaning"), rows, "", prose=True)


def _change(pair: str) -> tuple[str, int | str]:
    name, equals, value = pair.partition("=")
    row = SETTINGS.get(name)
    if row is None or not equals:
        raise click.BadParameter(
            f"{pair!r} is not SETTING=VALUE; the settings are {', '.join(SETTINGS)}"
        )
    if row.choices:
        return name, value
    try:
        return name, int(value)
    except ValueError as error:
        raise click.BadParameter(f"{name} must be an integer, not {value!r}") from error
