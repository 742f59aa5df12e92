"""`minibroker schedule`: jobs that the server publishes by a calendar."""

from __future__ import annotations

import os
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import click

import minibroker
from minibroker.contract.schedule_commands import MISFIRES
from minibroker.contract.settings import UNIQUE_MODES
from minibroker.session.schedule_wishes import Schedule
from minibrokerd.cli.completing import complete_schedule
from minibrokerd.cli.group import Group
from minibrokerd.cli.making import Made, create_option
from minibrokerd.cli.options import client_options, option, queue_argument
from minibrokerd.cli.printing import fail, print_json, print_table, say, say_line
from minibrokerd.cli.publish import check_unique, decoded, headers_given
from minibrokerd.cli.ranges import Duration
from minibrokerd.cli.selecting import matches, pattern_argument
from minibrokerd.cli.talking import talk
from minibrokerd.process import exits
from minibrokerd.text.values import text_of

HEADS = ("schedule", "queue", "cron", "zone", "next", "last", "state")
name_argument = click.argument("name", shell_complete=complete_schedule)


@click.group(cls=Group)
def schedule() -> None:
    """Have jobs published by a calendar: add, list, show, delete, pause, resume and run schedules."""


@schedule.command()
@name_argument
@click.argument("cron")
@queue_argument()
@click.argument("body", required=False, default="")
@option("--zone", default="UTC", help="Time zone of CRON, like Europe/Berlin.")
@option(
    "--misfire",
    type=click.Choice(MISFIRES),
    default="once",
    help="What becomes of times that passed while the server was down. once: a job for the last of them. "
    "skip: too, if it is not more than a minute ago. all: a job for each.",
)
@option(
    "--as",
    "body_type",
    type=click.Choice(["bytes", "json"]),
    default="bytes",
    help="bytes: the body as it stands. json: the value that it spells, as a Python program would publish it.",
)
@option("--header", "headers", multiple=True, metavar="NAME=VALUE", help="A header; repeatable.")
@option("--key", default="", help="Key of the messages.")
@option("--delay", type=Duration(), default="0s", help="Hand them out this much later.")
@option("--unique-key", help="No job while one of this key has not ended.")
@option(
    "--unique",
    type=click.Choice(UNIQUE_MODES),
    default=UNIQUE_MODES[0],
    help="What becomes of a job whose key is held, as for `publish`.",
)
@create_option
@client_options
def add(
    name: str,
    cron: str,
    queue: str,
    body: str,
    zone: str,
    misfire: str,
    body_type: str,
    headers: tuple[str, ...],
    key: str,
    delay: float,
    unique_key: str | None,
    unique: str,
    url: str,
    as_json: bool,
) -> None:
    """Publish BODY to QUEUE whenever CRON is due; or change the schedule NAME.

    CRON has five fields: minute, hour, day of month, month, weekday; six with seconds first; or is @hourly,
    @daily, @weekly, @monthly or @yearly.

    \b
    minibroker schedule add nightly "0 3 * * *" reports --zone Europe/Berlin
    """
    check_unique(unique_key, unique)
    bodies, wrong = decoded([os.fsencode(body)], body_type, 0)
    if wrong is not None:
        raise wrong

    async def work(broker: minibroker.Broker) -> None:
        made = await Made.look(broker, queue)
        found = await broker.schedules.set(
            name,
            cron,
            queue,
            bodies[0],
            zone=zone,
            misfire=misfire,
            headers=headers_given(headers),
            key=key,
            delay=delay,
            unique_key=unique_key,
            unique=unique,
        )
        made.tell()
        _print_next(found, as_json)

    talk(url, work)


@schedule.command("list")
@pattern_argument
@client_options
def list_(queue: str, url: str, as_json: bool) -> None:
    """List the schedules; or those whose name fits PATTERN, like 'night*'."""

    async def work(broker: minibroker.Broker) -> None:
        found = [each for each in await broker.schedules.list() if matches(each.name, queue)]
        if as_json:
            for each in found:
                print_json(_told(each))
            return
        rows = (
            (
                each.name,
                each.queue,
                each.cron,
                each.zone,
                _time(each, each.next),
                _time(each, each.last),
                _state(each),
            )
            for each in found
        )
        print_table(HEADS, rows, f"no schedule is called {queue}" if queue else "no schedules yet")

    talk(url, work)


@schedule.command()
@name_argument
@client_options
def show(name: str, url: str, as_json: bool) -> None:
    """Show the schedule NAME, with its job."""

    async def work(broker: minibroker.Broker) -> None:
        found = await broker.schedules.show(name)
        if as_json:
            print_json(_told(found))
            return
        rows = [
            ("queue", found.queue),
            ("cron", found.cron),
            ("zone", found.zone),
            ("misfire", found.misfire),
            ("next", _time(found, found.next)),
            ("last", _time(found, found.last)),
            ("state", _state(found)),
            *found.terms.items(),
            *((f"header {header}", value) for header, value in found.headers.items()),
            ("body", text_of(found.body)),
        ]
        print_table(("field", "value"), rows, "", prose=True)

    talk(url, work)


@schedule.command()
@name_argument
@client_options
def delete(name: str, url: str, as_json: bool) -> None:
    """Delete the schedule NAME; what it published stays."""

    async def work(broker: minibroker.Broker) -> None:
        if not await broker.schedules.delete(name):
            text = f"there is no schedule {name}; `minibroker schedule list` shows those that there are"
            fail(text, exits.REFUSED, "unknown_schedule")
        if as_json:
            print_json({"deleted": name})
        else:
            say(f"deleted {name}")

    talk(url, work)


@schedule.command()
@name_argument
@client_options
def pause(name: str, url: str, as_json: bool) -> None:
    """Let the schedule NAME publish nothing until `resume`."""

    async def work(broker: minibroker.Broker) -> None:
        _print_next(await broker.schedules.pause(name), as_json)

    talk(url, work)


@schedule.command()
@name_argument
@client_options
def resume(name: str, url: str, as_json: bool) -> None:
    """Let the schedule NAME go on with its next time; those that passed meanwhile are left out."""

    async def work(broker: minibroker.Broker) -> None:
        _print_next(await broker.schedules.resume(name), as_json)

    talk(url, work)


@schedule.command()
@name_argument
@client_options
def run(name: str, url: str, as_json: bool) -> None:
    """Publish the job of the schedule NAME now, beside its times."""

    async def work(broker: minibroker.Broker) -> None:
        confirm = await broker.schedules.run(name)
        if as_json:
            print_json({"id": str(confirm.id), "durability": confirm.durability})
        else:
            say_line(f"{confirm.id} {confirm.durability}" + " duplicate" * confirm.duplicate)

    talk(url, work)


def _print_next(schedule: Schedule, as_json: bool) -> None:
    if as_json:
        print_json(_told(schedule))
    elif schedule.paused:
        say(f"{schedule.name} is paused")
    else:
        say(f"{schedule.name} is due next at {_time(schedule, schedule.next)}")


def _time(schedule: Schedule, at: datetime | None) -> str:
    """Return an instant as its zone has it, or in UTC where this machine does not know that one."""
    if at is None:
        return "-"
    try:
        zone = ZoneInfo(schedule.zone)
    except (LookupError, ValueError, OSError):
        return at.isoformat()
    return at.astimezone(zone).isoformat()


def _state(schedule: Schedule) -> str:
    if schedule.paused:
        return "paused"
    return f"waits: {schedule.waits}" if schedule.waits else "on"


def _told(schedule: Schedule) -> dict[str, Any]:
    return {
        "schedule": schedule.name,
        "queue": schedule.queue,
        "cron": schedule.cron,
        "zone": schedule.zone,
        "misfire": schedule.misfire,
        "paused": schedule.paused,
        "next": schedule.next and schedule.next.isoformat(),
        "last": schedule.last and schedule.last.isoformat(),
        "waits": schedule.waits or None,
        **schedule.terms,
        "headers": schedule.headers,
        "body": schedule.body,
    }
