"""`minibroker queues`, `queue show|set|delete` and `purge`: what queues there are, and how they behave."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, BinaryIO, Final

import click

import minibroker
from minibroker.contract.limits import DLQ_SUFFIX
from minibroker.contract.settings import SETTINGS, Settings
from minibroker.session.address import masked
from minibrokerd.cli.completing import complete_setting
from minibrokerd.cli.group import Group
from minibrokerd.cli.making import Made, create_option
from minibrokerd.cli.nearest import nearest
from minibrokerd.cli.options import client_options, option, queue_argument
from minibrokerd.cli.printing import note, print_json, print_table, say, say_line, shown
from minibrokerd.cli.ranges import Duration
from minibrokerd.cli.selecting import list_options, matches, pattern_argument, selected
from minibrokerd.cli.talking import talk
from minibrokerd.text.counts import count_text
from minibrokerd.text.units import duration_text, parse_bytes, parse_ms, size_text

DEFAULT: Final = "default"  # where a setting comes from that nobody said anything of
STATES: Final = ("ready", "delayed", "held", "begun")
GROUP_SHOWN: Final = ("count", "p50", "p95")  # of the times of a group of keys
HEADS: Final = ("queue", "messages", *STATES, "dead", "consumers")


@click.command()
@pattern_argument
@list_options(HEADS[1:])
@client_options
def queues(queue: str, sort: str, count: int | None, url: str, as_json: bool) -> None:
    """List the queues, with their messages by state; or those whose name fits PATTERN, like 'mail*'.

    \b
    ready    wait for a consumer
    delayed  wait for their time: a delay, or a retry
    held     delivered ahead to a consumer, not begun
    begun    a handler works on them
    dead     in the dead-letter queue of this queue, and not in its `messages`

    The messages of a retained log are those that it keeps; its groups are queues of their own.
    """

    async def work(broker: minibroker.Broker) -> None:
        rows = selected(_overview((await broker.stats())["queues"], queue), sort, count)
        if as_json:
            for row in rows:
                print_json(row)
        else:
            empty = f"no queue is called {queue}" if queue else "no queues yet"
            cells = ([row[head] for head in HEADS] for row in rows)
            print_table(HEADS, cells, empty, ("queue",), fold=True)

    talk(url, work)


def _overview(counters: dict[str, dict[str, int]], pattern: str) -> Iterable[dict[str, Any]]:
    for name, row in counters.items():
        if not name.endswith(DLQ_SUFFIX) and matches(name, pattern):
            dead = counters.get(name + DLQ_SUFFIX, {})
            states = {state: row[state] for state in STATES}
            yield {
                "queue": name,
                "messages": sum(states.values()) + _archived(row),
                **states,
                "dead": sum(dead.get(state, 0) for state in STATES),
                "consumers": row["consumers"],
            }


def _archived(counters: Mapping[str, Any]) -> int:
    """Return how many messages of a retained log are in its files; 0: it is a work queue."""
    return int(counters.get("offsets", {}).get("messages", 0))


class _QueueCommands(Group):
    """Those of this module, and `move`, which is imported when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*super().list_commands(ctx), "move"]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name != "move":
            return super().get_command(ctx, cmd_name)
        from minibrokerd.cli.messages import move_queue

        return move_queue


@click.group(cls=_QueueCommands)
def queue() -> None:
    """Show, change, make, move or delete one queue."""


@queue.command()
@queue_argument()
@option(
    "--origins", is_flag=True, help="With --json: each with its value, and where that comes from."
)
@client_options
def show(queue: str, origins: bool, url: str, as_json: bool) -> None:
    """Show the settings of QUEUE, who is active where one consumer is, and what circuits are not closed.

    Each setting with where it comes from: chosen (set or declared), a policy, a limit, or the default.
    """

    async def work(broker: minibroker.Broker) -> None:
        settings = await broker.queue(queue).settings()
        come = await broker.queue(queue).origins()
        if as_json and origins:
            rows = settings.items()
            print_json(
                {name: {"value": value, "origin": come.get(name, DEFAULT)} for name, value in rows}
            )
        else:
            _print_settings(settings, come, as_json)
        if not as_json:
            found = (await broker.queue(queue).stats())["queues"].get(queue, {})
            _say_circuit(found.get("circuit"))
            _say_active(found.get("active"))
            _say_owner(found.get("exclusive"))
            _say_keys(queue, found.get("key_circuits"))
            _say_offsets(queue, found.get("offsets"))
            _say_group(found.get("group_of"))

    talk(url, work)


def _say_circuit(circuit: Mapping[str, Any] | None) -> None:
    """Tell of a circuit that is not closed."""
    if circuit is None or circuit["state"] == "closed":
        return
    since, until = circuit["since_unix_ms"], circuit["until_unix_ms"]
    tried = f"at {_when(until)} one message is tried" if until else "one is tried now"
    say()
    say(f"the circuit is {circuit['state']} since {_when(since)}: {circuit['why']}; {tried}")


def _say_active(active: Mapping[str, Any] | None) -> None:
    """Tell who has the turn in a queue with one active consumer."""
    if active is None:
        return
    who = "nobody is active"
    if "client" in active:
        name = active["client"] or "a client without a name"
        who = f"{name} is active since {_when(active['since_unix_ms'])}"
    say()
    say(f"{who}; waiting for that: {active['waiting']}")


def _say_owner(client: str | None) -> None:
    """Tell to whose session an exclusive queue belongs."""
    if client is not None:
        say()
        say(
            f"it belongs to the session of {client or 'a client without a name'}, and ends with that"
        )


def _say_keys(queue: str, found: Mapping[str, int] | None) -> None:
    """Tell how many keys have a circuit that is not closed."""
    if found is not None and found["open"]:
        say()
        say(f"keys with an open circuit: {found['open']}; `minibroker key list {queue}` says which")


def _say_offsets(queue: str, found: Mapping[str, int] | None) -> None:
    """Tell what a retained log has."""
    if found is None:
        return
    say()
    offsets = f", offsets {found['first']} to {found['stop'] - 1}" if found["messages"] else ""
    say(
        f"it has {count_text(found['messages'], 'message')} in {count_text(found['bytes'], 'byte')}{offsets}"
    )
    say(f"the next offset is {found['next']}")
    say(
        f"groups that read it: {found['groups']}; `minibroker group list {queue}` says where they are"
    )


def _say_group(found: Mapping[str, Any] | None) -> None:
    """Tell where a group is."""
    if found is not None:
        say()
        at, lag = found["position"], found["lag"]
        say(
            f"a group of the log {found['log']}, at offset {at}, with {count_text(lag, 'message')} behind"
        )


def _when(unix_ms: int) -> str:
    return datetime.fromtimestamp(unix_ms / 1_000, UTC).isoformat(" ", "seconds")[:-6] + " UTC"


@queue.command()
@queue_argument()
@option(
    "--target", type=Duration(1), default="5m", help="Time within which what waits is to be done."
)
@client_options
def times(queue: str, target: float, url: str, as_json: bool) -> None:
    """Show how long messages of QUEUE wait and run, and how many handlers would be enough.

    Of the last one to two minutes. `handlers`: the mean run, times publishes a second and backlog / --target.
    """

    async def work(broker: minibroker.Broker) -> None:
        found = asdict(await broker.queue(queue).times(target=target))
        if as_json:
            print_json(found)
            return
        groups = found.pop("groups")
        flat = [(name, value) for name, value in found.items() if not isinstance(value, dict)]
        for kind in ("waits", "runs"):
            flat += [(f"{kind} {name}", value) for name, value in found[kind].items()]
        rows = [(name, _number(value)) for name, value in flat]
        print_table(("what", "number"), rows, "")
        if groups:
            say()
            heads = [f"{kind} {name}" for kind in ("waits", "runs") for name in GROUP_SHOWN]
            print_table(("group", *heads), map(_group_row, groups), "")

    talk(url, work)


def _group_row(group: Mapping[str, Any]) -> list[str]:
    shown = [group[kind][name] for kind in ("waits", "runs") for name in GROUP_SHOWN]
    return [group["group"] or "(no key)", *map(_number, shown)]


def _number(value: float | int | None) -> str:
    if value is None:
        return "not known"
    return f"{value:,.3f}" if isinstance(value, float) else f"{value:,}"


@queue.command("set")
@queue_argument()
@click.argument("settings", nargs=-1, metavar="SETTING=VALUE...", shell_complete=complete_setting)
@option(
    "--schema",
    type=click.File("rb"),
    help="File with the JSON Schema that bodies must fit from now on; - is standard input.",
)
@option("--no-schema", is_flag=True, help="Let it take any bodies again.")
@option(
    "--unset",
    multiple=True,
    metavar="SETTING",
    help="As if nobody had chosen it: policies or the default say it.",
)
@create_option
@client_options
def set_(
    queue: str,
    settings: tuple[str, ...],
    schema: BinaryIO | None,
    no_schema: bool,
    unset: tuple[str, ...],
    url: str,
    as_json: bool,
) -> None:
    """Change settings of QUEUE; make it, and say so, if there is none.

    Settings that are not named stay as they are, and so does its schema.

    The settings are those that `queue show` lists, for example `lease_ms=1m max_attempts=3`. Those that end in _ms
    are durations: a plain number is one of milliseconds, and others have a unit; those that end in _bytes are
    sizes, like 512MiB. `kind=log` makes a retained log: `minibroker group set` lets groups read it.
    """
    changes = dict(map(change, settings))
    if schema is not None and no_schema:
        raise click.UsageError("--schema and --no-schema say different things")
    wanted = None if schema is None else _read_schema(schema)

    async def work(broker: minibroker.Broker) -> None:
        asked = broker.queue(queue)
        made = await Made.look(broker, queue)
        found = await asked.set(unset=unset, **changes)
        made.tell()
        if wanted is not None or no_schema:
            await asked.set_schema(wanted)
        _print_settings(found, await asked.origins() if not as_json else {}, as_json)

    talk(url, work)


def _read_schema(file: BinaryIO) -> Any:
    try:
        found = json.load(file)
    except (ValueError, RecursionError) as error:
        raise click.BadParameter(f"{file.name} is no JSON: {error}") from error
    if not isinstance(found, dict | bool):
        raise click.BadParameter(f"{file.name} has no JSON Schema, which is an object")
    return found


@queue.command("schema")
@queue_argument()
@client_options
def show_schema(queue: str, url: str, as_json: bool) -> None:
    """Show the JSON Schema that bodies of QUEUE must fit; `queue set --schema FILE` gives it one."""

    async def work(broker: minibroker.Broker) -> None:
        found = await broker.queue(queue).schema()
        if as_json:
            print_json(found)
        elif found is None:
            say(f"{queue} takes any bodies")
        else:
            for line in json.dumps(found, indent=2).splitlines():
                say_line(line)

    talk(url, work)


@queue.command()
@queue_argument()
@option("--yes", is_flag=True, help="Do not ask.")
@click.option("--force", is_flag=True, hidden=True, help="What --yes was called in 0.1.0.")
@client_options
def delete(queue: str, yes: bool, force: bool, url: str, as_json: bool) -> None:
    """Delete QUEUE and its DLQ, which have no consumers. Asks first, if they have messages."""
    with_messages = yes or force
    messages = 0

    async def work(broker: minibroker.Broker) -> None:
        nonlocal messages
        try:
            ended = await broker.queue(queue).delete(force=with_messages)
        except minibroker.QueueInUse:
            messages = 0 if with_messages else await _messages_of(broker, queue)
            if not messages:  # it has consumers
                raise
        else:
            if as_json:
                print_json({"deleted": queue, "purged": ended})
            else:
                say(f"deleted {queue}, and {count_text(ended, 'message')} with it")

    talk(url, work)
    if messages:
        confirm(f"Delete {queue} with its {count_text(messages, 'message')} at {masked(url)}?", yes)
        with_messages = True
        talk(url, work)


async def _messages_of(broker: minibroker.Broker, queue: str) -> int:
    """Return how many messages a queue and its DLQ have; 0, too, where one of them has consumers."""
    messages = 0
    for name in (queue, queue + DLQ_SUFFIX):
        try:
            counters = (await broker.queue(name).stats())["queues"][name]
        except minibroker.UnknownQueue:
            continue
        if counters["consumers"]:
            return 0
        messages += sum(counters[state] for state in STATES) + _archived(counters)
    return messages


@click.command()
@queue_argument()
@option("--yes", is_flag=True, help="Do not ask.")
@client_options
def purge(queue: str, yes: bool, url: str, as_json: bool) -> None:
    """Remove every message of QUEUE, in every state: those that workers hold too."""
    confirm(f"Remove every message of {queue} at {masked(url)}?", yes)

    async def work(broker: minibroker.Broker) -> None:
        print_purged(await broker.queue(queue).purge(), as_json)

    talk(url, work)


def confirm(question: str, yes: bool) -> None:
    """Ask before messages end; click.Abort if the answer is no."""
    if not yes:
        text = f"{shown(question, sys.stderr)} They cannot be brought back"
        try:
            click.confirm(text, abort=True, err=True)
        except click.Abort:
            if not sys.stdin.isatty():  # nobody has typed the end of the line
                note("")
            raise


def print_purged(ended: int, as_json: bool) -> None:
    """Print how many messages ended."""
    if as_json:
        print_json({"purged": ended})
    else:
        say(f"purged {ended:,}")


def _print_settings(settings: Settings, origins: Mapping[str, str], as_json: bool) -> None:
    if as_json:
        print_json(settings)
        return
    rows = [
        (
            name,
            setting_text(name, settings[name]),
            origins.get(name, DEFAULT),
            setting_text(name, row.default),
            row.meaning,
        )
        for name, row in SETTINGS.items()
    ]
    print_table(("setting", "value", "from", "default", "meaning"), rows, "", prose=True)


def setting_text(name: str, value: int | str) -> str:
    """Return the value of a setting as people write it."""
    if isinstance(value, str):
        return value
    if name.endswith("_bytes") and value:
        return size_text(value)
    return duration_text(value) if name.endswith("_ms") else f"{value}{_sign(name)}"


def _sign(name: str) -> str:
    return "%" if name.endswith("_percent") else ""


def change(pair: str) -> tuple[str, int | str]:
    """Return the name and the value that SETTING=VALUE says; click.BadParameter if it says none."""
    name, equals, value = pair.partition("=")
    row = SETTINGS.get(name)
    if row is None or not equals:
        says = f"{pair!r} is not SETTING=VALUE"
        if equals:
            near = nearest(name, SETTINGS)
            says = f"unknown setting {name!r}{f', did you mean {near}?' if near else ''}"
        raise click.BadParameter(f"{says}; the settings are {', '.join(SETTINGS)}")
    if row.choices:
        return name, value
    try:
        if name.endswith("_ms"):
            return name, _whole_ms(value)
        if name.endswith("_bytes"):
            return name, parse_bytes(value)
        return name, int(value.removesuffix(_sign(name)))
    except ValueError as error:
        has_unit = name.endswith(("_ms", "_bytes"))
        what = str(error) if has_unit else f"must be an integer, not {value!r}"
        raise click.BadParameter(f"{name}: {what}") from error


def _whole_ms(text: str) -> int:
    ms = parse_ms(text, "ms")
    if isinstance(ms, float):
        raise ValueError(f"{text!r} is no whole number of milliseconds")
    return ms
