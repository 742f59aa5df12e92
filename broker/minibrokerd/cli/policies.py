"""`minibroker policy`: settings of queues by patterns of their names, and limits that nobody lifts."""

from __future__ import annotations

import json
from typing import Any, Final, TextIO

import click

import minibroker
from minibrokerd.cli.completing import complete_policy, complete_setting
from minibrokerd.cli.group import Group
from minibrokerd.cli.options import client_options, option
from minibrokerd.cli.printing import fail, print_json, print_table, say
from minibrokerd.cli.queues import change, setting_text
from minibrokerd.cli.talking import talk
from minibrokerd.process import exits

HEADS: Final = ("policy", "kind", "priority", "pattern", "settings")
# Of a line of an export, with their types.
FIELDS: Final[dict[str, type]] = {
    "policy": str,
    "kind": str,
    "priority": int,
    "pattern": str,
    "settings": dict,
}
name_argument = click.argument("name", shell_complete=complete_policy)
operator_option = option(
    "--operator", is_flag=True, help="A limit, which nobody lifts; they have names of their own."
)


@click.group(cls=Group)
def policy() -> None:
    """Give settings to queues by patterns of their names, and limits: set, list, show, delete and carry them."""


@policy.command("set")
@name_argument
@click.argument("pattern")
@click.argument(
    "settings",
    nargs=-1,
    required=True,
    metavar="SETTING=VALUE...",
    shell_complete=complete_setting,
)
@option(
    "--priority",
    type=click.IntRange(0),
    default=0,
    help="Of several that fit and say the same setting, the highest says it.",
)
@operator_option
@client_options
def set_(
    name: str,
    pattern: str,
    settings: tuple[str, ...],
    priority: int,
    operator: bool,
    url: str,
    as_json: bool,
) -> None:
    """Give all queues whose names fit PATTERN these settings, now and later; or change the policy NAME.

    In PATTERN * is any characters; one that ends with .dlq is about dead-letter queues, and no other one is. What
    somebody chose for a queue goes before policies; not so with --operator: no queue gets more than that.

    \b
    minibroker policy set short-lived 'tmp.*' message_ttl_ms=1h
    minibroker policy set bounded '*' max_messages=1000000 --operator
    """
    changes: dict[str, Any] = dict(map(change, settings))

    async def work(broker: minibroker.Broker) -> None:
        found = await broker.policies.set(
            name, pattern, priority=priority, operator=operator, **changes
        )
        if as_json:
            print_json(_told(found))
        else:
            most = "at most " if operator else ""
            say(f"queues called {pattern} have {most}{_settings_of(found)}")

    talk(url, work)


@policy.command("list")
@client_options
def list_(url: str, as_json: bool) -> None:
    """List the policies, and the limits."""

    async def work(broker: minibroker.Broker) -> None:
        found = await broker.policies.list()
        if as_json:
            for each in found:
                print_json(_told(each))
            return
        rows = (
            (
                each.name,
                f"{_kind(each)}, set aside" if each.set_aside else _kind(each),
                each.priority,
                each.pattern,
                _settings_of(each),
            )
            for each in found
        )
        print_table(HEADS, rows, "no policies yet", ("policy", "pattern", "settings"), fold=True)

    talk(url, work)


@policy.command()
@name_argument
@operator_option
@client_options
def show(name: str, operator: bool, url: str, as_json: bool) -> None:
    """Show the policy NAME."""

    async def work(broker: minibroker.Broker) -> None:
        found = await broker.policies.list()
        for each in found:
            if (each.name, each.operator) == (name, operator):
                break
        else:
            fail(_unknown(name, operator), exits.REFUSED)
        if as_json:
            print_json(_told(each))
            return
        rows = [("kind", _kind(each)), ("pattern", each.pattern), ("priority", each.priority)]
        rows += [(name, setting_text(name, value)) for name, value in each.settings.items()]
        if each.set_aside:
            rows.append(("set aside", f"it holds for no queue: {each.set_aside}"))
        print_table(("field", "value"), rows, "", prose=True)

    talk(url, work)


@policy.command()
@name_argument
@operator_option
@client_options
def delete(name: str, operator: bool, url: str, as_json: bool) -> None:
    """Delete the policy NAME: queues have what the others say, or the defaults."""

    async def work(broker: minibroker.Broker) -> None:
        if not await broker.policies.delete(name, operator=operator):
            fail(_unknown(name, operator), exits.REFUSED)
        if as_json:
            print_json({"deleted": name})
        else:
            say(f"deleted {name}")

    talk(url, work)


@policy.command("export")
@client_options
def export_policies(url: str, as_json: bool) -> None:
    """Write policies and limits as lines that `minibroker policy import` takes.

    \b
    minibroker policy export > policies.json
    """

    async def work(broker: minibroker.Broker) -> None:
        for each in await broker.policies.list():
            print_json({name: _told(each)[name] for name in FIELDS})

    talk(url, work)


@policy.command("import")
@click.argument("file", type=click.File("r", encoding="utf-8"), default="-")
@client_options
def import_policies(file: TextIO, url: str, as_json: bool) -> None:
    """Make the policies and limits of FILE, or of standard input, as `export` wrote them.

    One that is there under a name of the file becomes as the file says; the others stay.
    """
    found = [_read(number, text) for number, text in enumerate(file, 1) if text.strip()]

    async def work(broker: minibroker.Broker) -> None:
        for each in found:
            await broker.policies.set(
                each["policy"],
                each["pattern"],
                priority=each["priority"],
                operator=each["kind"] == "limit",
                **each["settings"],
            )
        if as_json:
            print_json({"policies": len(found)})
        else:
            say(f"policies and limits that are there now: {len(found):,}")

    talk(url, work)


def _read(number: int, text: str) -> dict[str, Any]:
    """Return the policy of a line; nothing was made yet if it is none."""
    try:
        found: dict[str, Any] = json.loads(text)
        good = all(isinstance(found[name], kind) for name, kind in FIELDS.items())
        good = good and found["kind"] in ("policy", "limit")
    except (ValueError, LookupError, TypeError):
        good = False
    if not good:
        fail(
            f"line {number} is no policy as `minibroker policy export` writes it; nothing was made",
            exits.USAGE,
        )
    return found


def _unknown(name: str, operator: bool) -> str:
    kind = "limit" if operator else "policy"
    return f"there is no {kind} {name}; `minibroker policy list` shows those that there are"


def _kind(policy: minibroker.Policy) -> str:
    return "limit" if policy.operator else "policy"


def _settings_of(policy: minibroker.Policy) -> str:
    return " ".join(f"{name}={setting_text(name, v)}" for name, v in policy.settings.items())


def _told(policy: minibroker.Policy) -> dict[str, Any]:
    return {
        "policy": policy.name,
        "kind": _kind(policy),
        "priority": policy.priority,
        "pattern": policy.pattern,
        "settings": policy.settings,
        "set_aside": policy.set_aside or None,
    }
