"""`minibroker group`: the groups that read a retained log, each with a position of its own."""

from __future__ import annotations

from typing import Any, Final

import click

import minibroker
from minibroker.contract.limits import DLQ_SUFFIX, GROUP_MARK
from minibroker.session.address import masked
from minibrokerd.cli.completing import complete_group, complete_log
from minibrokerd.cli.group import Group
from minibrokerd.cli.options import client_options, option
from minibrokerd.cli.printing import fail, print_json, print_table, say
from minibrokerd.cli.queues import STATES, confirm
from minibrokerd.cli.ranges import Start
from minibrokerd.cli.talking import talk
from minibrokerd.process import exits
from minibrokerd.text.counts import count_text

HEADS: Final = ("group", "position", "lag", "waiting", "begun", "dead", "seeks")
START_HELP: Final = (
    "first (all that is kept), last (from the newest message on), next (what comes from now), an offset, or a "
    "time: 2h (ago), or 2030-01-31T09:00+01:00."
)
log_argument = click.argument("log", shell_complete=complete_log)
group_argument = click.argument("name", metavar="GROUP", shell_complete=complete_group)


@click.group(cls=Group)
def group() -> None:
    """Let groups read a retained log, each on its own: set, list, show, seek and delete them.

    A group GROUP of the log LOG is the queue LOG@GROUP: it is consumed, peeked at and set as any other.
    """


@group.command("set")
@log_argument
@group_argument
@option("--start", type=Start(), default="first", help=f"Where a new group starts: {START_HELP}")
@client_options
def set_(log: str, name: str, start: Any, url: str, as_json: bool) -> None:
    """Make the group GROUP of LOG; one that is there stays where it is.

    \b
    minibroker group set events audit --start first
    """

    async def work(broker: minibroker.Broker) -> None:
        _tell(await broker.log(log).declare_group(name, start), as_json)

    talk(url, work)


@group.command()
@log_argument
@group_argument
@option("--start", type=Start(), required=True, help=f"Where it goes on: {START_HELP}")
@option("--key", metavar="TEXT", help="Of what has ended, only messages of this key come again.")
@client_options
def seek(log: str, name: str, start: Any, key: str | None, url: str, as_json: bool) -> None:
    """Move GROUP of LOG to another place: replay, or skip.

    What it has not ended yet ends there, also what workers have: they are told. Its dead letters stay.

    With --key, from the first message that it had not ended on everything comes again, of every key (at
    least once).

    \b
    minibroker group seek events audit --start 2h
    """

    async def work(broker: minibroker.Broker) -> None:
        _tell(await broker.log(log).seek(name, start, key=key), as_json)

    talk(url, work)


@group.command("list")
@log_argument
@client_options
def list_(log: str, url: str, as_json: bool) -> None:
    """List the groups of LOG: where they are, and how far behind."""

    async def work(broker: minibroker.Broker) -> None:
        found = [await _told(broker, each) for each in (await broker.log(log).show()).groups]
        if as_json:
            for each in found:
                print_json(each)
            return
        print_groups(found, f"{log} has no groups yet")

    talk(url, work)


@group.command()
@log_argument
@group_argument
@client_options
def show(log: str, name: str, url: str, as_json: bool) -> None:
    """Show GROUP of LOG. `minibroker queue show LOG@GROUP` has its settings."""

    async def work(broker: minibroker.Broker) -> None:
        for each in (await broker.log(log).show()).groups:
            if each.name == name:
                break
        else:
            fail(_unknown(log, name), exits.REFUSED, "unknown_queue")
        told = await _told(broker, each)
        if as_json:
            print_json(told)
        else:
            print_table(("field", "value"), told.items(), "", prose=True)

    talk(url, work)


@group.command()
@log_argument
@group_argument
@option("--yes", is_flag=True, help="Do not ask.")
@client_options
def delete(log: str, name: str, yes: bool, url: str, as_json: bool) -> None:
    """Delete GROUP of LOG with its position and its dead letters; the log keeps its messages."""
    confirm(f"Delete the group {name} of {log} with its dead letters at {masked(url)}?", yes)

    async def work(broker: minibroker.Broker) -> None:
        ended = await broker.queue(log + GROUP_MARK + name).delete(force=True)
        if as_json:
            print_json({"deleted": log + GROUP_MARK + name, "purged": ended})
        else:
            say(f"deleted {log}{GROUP_MARK}{name}")

    talk(url, work)


def print_groups(found: list[dict[str, Any]], empty: str) -> None:
    """Print groups as a table."""
    rows = ([each[head] for head in HEADS] for each in found)
    print_table(HEADS, rows, empty, HEADS[:1], fold=True)


async def told_of(broker: minibroker.Broker, log: str) -> list[dict[str, Any]]:
    """Return all that is known of the groups of a log."""
    return [await _told(broker, each) for each in (await broker.log(log).show()).groups]


async def _told(broker: minibroker.Broker, group: minibroker.GroupInfo) -> dict[str, Any]:
    return {
        "group": group.name,
        "queue": group.queue,
        "position": group.position,
        "lag": group.lag,
        "waiting": group.waiting,
        "begun": group.begun,
        "dead": await _dead(broker, group.queue + DLQ_SUFFIX),
        "seeks": group.seeks,
    }


async def _dead(broker: minibroker.Broker, name: str) -> int:
    try:
        row = (await broker.queue(name).stats())["queues"].get(name, {})
    except minibroker.UnknownQueue:  # nothing has died yet
        return 0
    return sum(row.get(state, 0) for state in STATES)


def _tell(group: minibroker.GroupInfo, as_json: bool) -> None:
    if as_json:
        print_json({"queue": group.queue, "position": group.position, "lag": group.lag})
    else:
        say(
            f"{group.queue} goes on at offset {group.position}, with {count_text(group.lag, 'message')} behind"
        )


def _unknown(log: str, name: str) -> str:
    return (
        f"the log {log} has no group {name}; `minibroker group list {log}` shows those that it has"
    )
