"""`minibroker check`: is the broker well? A line and an exit code as the plug-ins of monitoring systems have them.

The API of those plug-ins (Nagios, Icinga, Naemon, Sensu, checkmk) has exit codes of its own, 0 to 3, so a wrong
flag ends with 3 here and not with 2, which would wake somebody up.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NoReturn

import click

from minibrokerd.cli.http_api import Away, HttpApi, Refused, http_option
from minibrokerd.cli.options import json_option, option, timeout_option
from minibrokerd.cli.printing import print_json, say_line, wants_json
from minibrokerd.cli.ranges import Duration
from minibrokerd.monitoring.checks import (
    CHECKS,
    Bounds,
    Check,
    Level,
    level_of,
    parse_bounds,
    value_text,
)
from minibrokerd.monitoring.history import KEPT_S
from minibrokerd.monitoring.watch import WINDOW_S
from minibrokerd.text.counts import count_text
from minibrokerd.text.units import duration_text

NAMED_QUEUES: Final = 3  # in the line


class Plugin(click.Command):
    """A command whose wrong flags are UNKNOWN, in a line on standard output as any other result."""

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        """Read the words; wrong ones are UNKNOWN. click.Command."""
        try:
            return super().make_context(info_name, args, parent, **extra)
        except click.UsageError as error:
            _end(Level.UNKNOWN, error.format_message())

    def invoke(self, ctx: click.Context) -> Any:
        """Run it; what it finds wrong in its flags is UNKNOWN. click.Command."""
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            _end(Level.UNKNOWN, error.format_message())


class _BoundsOf(click.ParamType):  # type: ignore[type-arg]  # it takes none in older releases
    """The bounds of one check."""

    name = "warning,critical"

    def __init__(self, check: Check) -> None:
        self._check = check

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Bounds:
        """Return the bounds; click.ParamType."""
        if isinstance(value, Bounds):
            return value
        try:
            return parse_bounds(self._check, str(value))
        except (ValueError, OverflowError) as error:
            self.fail(str(error), param, ctx)


def bounds_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add a flag for the bounds of each check."""
    for check in reversed(list(CHECKS.values())):
        meaning = check.meaning[0].upper() + check.meaning[1:]
        function = option(
            f"--{check.name}",
            type=_BoundsOf(check),
            default=check.bounds,
            metavar="WARNING,CRITICAL",
            help=f"{meaning}.",
        )(function)
    return function


@dataclass(frozen=True, slots=True)
class Found:
    """One check with what was found."""

    check: Check
    bounds: Bounds
    reading: Mapping[str, Any]
    level: Level

    @property
    def text(self) -> str:
        """What it says in the line: `oldest-ready 7m (mail 7m)`."""
        reading = self.reading
        said = f"{self.check.name} {value_text(self.check, reading['value'])}"
        named = list(reading["queues"].items())
        if named and reading["value"]:
            show = partial(value_text, self.check)
            names = [f"{name} {show(value)}" for name, value in named[:NAMED_QUEUES]]
            said += f" ({', '.join(names)}{', ...' if len(named) > NAMED_QUEUES else ''})"
        return f"{said}: {reading['trouble']}" if reading["trouble"] else said

    @property
    def perfdata(self) -> str:
        """It as the monitoring plug-in API has numbers: `label=value[unit];warning;critical;minimum`."""
        end = ":" if self.check.falls else ""
        bounds = [
            "" if bound is None else f"{bound:.10g}{end}"
            for bound in (self.bounds.warning, self.bounds.critical)
        ]
        value = f"{self.reading['value']:.10g}{self.check.unit.value}"
        return f"{self.check.label}={value};{';'.join(bounds)};0"

    def as_json(self) -> dict[str, Any]:
        """Return it as a value of the JSON document."""
        return {
            "level": self.level.name.lower(),
            "value": self.reading["value"],
            "unit": self.check.unit.value,
            "warning": self.bounds.warning,
            "critical": self.bounds.critical,
            "queues": self.reading["queues"],
            "since_unix_ms": self.reading["since_unix_ms"],
            "trouble": self.reading["trouble"],
        }


@click.command(cls=Plugin)
@option(
    "--queue",
    "queues",
    multiple=True,
    help="Judge this queue alone, or those whose name fits, like 'mail*'; may be given more than once.",
)
@option("--skip", multiple=True, help="Do not judge this queue, or those whose name fits.")
@option(
    "--window",
    type=Duration(10_000, round(KEPT_S) * 1_000),
    default=duration_text(WINDOW_S * 1_000),
    help="Time that dead letters and syncs are counted in; the broker remembers it.",
)
@bounds_options
@http_option
@timeout_option
@json_option
def check(
    queues: tuple[str, ...],
    skip: tuple[str, ...],
    window: float,
    http: str,
    as_json: bool,
    **bounds: Bounds,
) -> None:
    """Say whether the broker is well, as a plug-in of a monitoring system: one line with perfdata.

    Exit code 0: OK. 1: a number has reached its WARNING. 2: one has reached its CRITICAL, or the broker is not
    there. 3: not known, as with wrong flags. Either bound may be left empty; 'off' judges nothing.
    """
    for pattern in (*queues, *skip):
        if "," in pattern:
            raise click.UsageError(f"{pattern!r} is no name of a queue, nor a pattern of names.")
    try:
        said = HttpApi(http).get(
            "readings", window=round(window), queues=",".join(queues), skip=",".join(skip)
        )
    except Away as error:
        _end(Level.CRITICAL, str(error))
    except Refused as error:
        _end(
            Level.CRITICAL if error.status >= 500 else Level.UNKNOWN,
            f"{http} refused: {error}",
        )
    if not isinstance(said, dict) or not said.keys() >= {"readings", "queues", "phase", "version"}:
        _end(Level.UNKNOWN, f"what answers at {http} is no broker")
    if queues and not said["queues"] and said["phase"] not in ("standby", "recovering"):
        _end(Level.UNKNOWN, f"{_name(http, said)}: no queue fits {', '.join(queues)}")
    judged = judge(said["readings"], bounds)
    level = max((each.level for each in judged), default=Level.OK)
    if as_json:
        print_json({"level": level.name.lower(), "address": http, **_document(said, judged)})
    else:
        say_line(line(level, _name(http, said), said, judged))
    sys.exit(int(level))


def judge(readings: list[Any], bounds: Mapping[str, Bounds]) -> list[Found]:
    """Return what was found, in the order of the table; of what the broker does not know, nothing."""
    made = []
    for reading in readings:
        row = CHECKS.get(reading["check"])  # a newer broker may know more
        if row is None or (mine := bounds[row.label]) == Bounds():
            continue
        level = level_of(row, mine, reading["value"])
        if reading["trouble"]:
            level = Level.CRITICAL
        made.append(Found(row, mine, reading, level))
    order = list(CHECKS)
    return sorted(made, key=lambda each: order.index(each.check.name))


def _name(http: str, said: Mapping[str, Any]) -> str:
    """Return which broker was asked: where, and of which version."""
    return f"{http.removeprefix('http://').replace('|', '/')} ({said['version']})"


def line(level: Level, name: str, said: Mapping[str, Any], judged: list[Found]) -> str:
    """Return the line: which broker, then what is wrong, the worst first, or what there is; then perfdata."""
    wrong = sorted((each for each in judged if each.level), key=lambda each: -each.level)
    shown = wrong or [each for each in judged if each.check.of_queues]
    parts = [
        f"{each.text} [{each.level.name}]" if wrong and each.level != level else each.text
        for each in shown
    ]
    if said["phase"] != "ready":
        done = f" {said['recovered_percent']} %" if said["phase"] == "recovering" else ""
        parts.insert(0, said["phase"] + done)
    text = "; ".join(parts) or f"{said['phase']}, {count_text(said['queues'], 'queue')}"
    perfdata = " ".join(each.perfdata for each in judged)
    return f"MINIBROKER {level.name} - {name}: {text} | {perfdata}"


def _document(said: Mapping[str, Any], judged: list[Found]) -> dict[str, Any]:
    kept = ("version", "phase", "recovered_percent", "now_unix_ms", "queues", "window_s")
    return {
        "text": "; ".join(each.text for each in judged if each.level),
        **{name: said[name] for name in kept},
        "checks": {each.check.name: each.as_json() for each in judged},
    }


def _end(level: Level, text: str) -> NoReturn:
    """End without numbers."""
    if wants_json():
        print_json({"level": level.name.lower(), "text": text, "checks": {}})
    else:
        say_line(f"MINIBROKER {level.name} - {' '.join(text.split()).replace('|', '/')}")
    sys.exit(int(level))
