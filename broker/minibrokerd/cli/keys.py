"""`minibroker key set|pause|resume|list`: what is set for single keys of a queue."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click

import minibroker
from minibroker.contract.limits import MAX_KEY_WEIGHT
from minibroker.session.key_wishes import KeyCircuit, KeySetting
from minibrokerd.cli.group import Group
from minibrokerd.cli.options import client_options, option, queue_argument
from minibrokerd.cli.printing import print_json, print_table, say
from minibrokerd.cli.ranges import Duration
from minibrokerd.cli.talking import talk

key_argument = click.argument("key", metavar="KEY")


@click.group(cls=Group)
def key() -> None:
    """Give single keys of a queue a weight, or pause them."""


@key.command("set")
@queue_argument()
@key_argument
@option(
    "--weight",
    type=click.IntRange(1, MAX_KEY_WEIGHT),
    required=True,
    metavar="N",
    help="Messages that it gives in its turn, where others give one.",
)
@client_options
def set_weight(queue: str, key: str, weight: int, url: str, as_json: bool) -> None:
    """Give KEY of QUEUE a weight."""

    async def work(broker: minibroker.Broker) -> None:
        _print(await broker.queue(queue).set_key_weight(key, weight), as_json)

    talk(url, work)


@key.command()
@queue_argument()
@key_argument
@option("--for", "for_s", type=Duration(), metavar="DURATION", help="Until then. [default: resume]")
@client_options
def pause(queue: str, key: str, for_s: float | None, url: str, as_json: bool) -> None:
    """Hand out nothing of KEY of QUEUE; what workers have stays theirs."""

    async def work(broker: minibroker.Broker) -> None:
        _print(await broker.queue(queue).pause_key(key, for_s), as_json)

    talk(url, work)


@key.command()
@queue_argument()
@key_argument
@client_options
def resume(queue: str, key: str, url: str, as_json: bool) -> None:
    """Let KEY of QUEUE go on; its circuit closes."""

    async def work(broker: minibroker.Broker) -> None:
        _print(await broker.queue(queue).resume_key(key), as_json)

    talk(url, work)


@key.command("list")
@queue_argument()
@client_options
def list_keys(queue: str, url: str, as_json: bool) -> None:
    """List the keys of QUEUE that have a weight, are paused, or have an open circuit."""

    async def work(broker: minibroker.Broker) -> None:
        found = await broker.queue(queue).keys()
        if as_json:
            for each in found:
                print_json(_told(each))
        else:
            rows = ([each.key, each.weight, _state(each), _by(each)] for each in found)
            empty = "no key has a weight, is paused, or has an open circuit"
            print_table(("key", "weight", "state", "by"), rows, empty)

    talk(url, work)


def _print(setting: KeySetting, as_json: bool) -> None:
    if as_json:
        print_json(_told(setting))
    else:
        say(f"{setting.key}: weight {setting.weight}, {_state(setting)}")


def _state(setting: KeySetting) -> str:
    states, circuit = [], setting.circuit
    if setting.paused:
        states.append("paused" + _until(setting.until))
    if circuit is not None:
        states.append(f"circuit {circuit.state}" + _until(circuit.until))
    return ", ".join(states) or "on"


def _until(time: datetime | None) -> str:
    return "" if time is None else f" until {time.isoformat(timespec='seconds')}"


def _by(setting: KeySetting) -> str:
    """Return who paused a key, and why its circuit is open."""
    why = setting.circuit.why if setting.circuit is not None else ""
    return "; ".join(filter(None, (setting.by, why)))


def _told(setting: KeySetting) -> dict[str, Any]:
    return {
        "key": setting.key,
        "weight": setting.weight,
        "paused": setting.paused,
        "until": setting.until and setting.until.isoformat(),
        "by": setting.by or None,
        "circuit": _circuit(setting.circuit),
    }


def _circuit(circuit: KeyCircuit | None) -> dict[str, Any] | None:
    if circuit is None:
        return None
    return {
        "state": circuit.state,
        "why": circuit.why,
        "since": circuit.since.isoformat(),
        "until": circuit.until and circuit.until.isoformat(),
    }
