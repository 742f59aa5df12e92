"""`minibroker config`: what `serve` would run with here, and where each value comes from."""

from __future__ import annotations

import os
from typing import Any, Final

import click
from click.core import ParameterSource

from minibroker.session.address import passed_over
from minibrokerd.cli.config_file import FILE, NOT_IN_FILES
from minibrokerd.cli.options import json_option
from minibrokerd.cli.printing import note, print_json, print_table
from minibrokerd.cli.ranges import Duration, Size
from minibrokerd.cli.serve import serve
from minibrokerd.process import memory_limit
from minibrokerd.text.units import duration_text, size_text

SOURCES: Final = {
    ParameterSource.COMMANDLINE: "command line",
    ParameterSource.ENVIRONMENT: "environment",
    ParameterSource.DEFAULT: "default",
}


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("flags", nargs=-1, type=click.UNPROCESSED, metavar="[SERVE FLAGS]...")
@json_option
@click.pass_context
def config(context: click.Context, flags: tuple[str, ...], as_json: bool) -> None:
    """Show the configuration that `serve` would run with.

    It comes from the SERVE FLAGS given here, from the environment, and from the file of --config, in this order.
    Nothing is started.
    """
    assert context.parent is not None
    if warning := passed_over(os.environ):
        note(f"minibroker: {warning}")
    with serve.make_context("serve", list(flags), parent=context.parent) as made:
        options = [each for each in serve.params if isinstance(each, click.Option)]
        rows = [_row(made, each) for each in options if each.name not in NOT_IN_FILES]
    if as_json:
        print_json({row["name"]: row for row in rows})
        return
    heads = ("flag", "value", "from", "variable")
    cells = ([row["flag"], _text(row["value"]), row["from"], row["variable"]] for row in rows)
    print_table(heads, cells, "")


def _row(made: click.Context, option: click.Option) -> dict[str, Any]:
    assert option.name is not None
    source = made.get_parameter_source(option.name)
    assert source is not None
    value, origin = made.params[option.name], SOURCES.get(source, source.name.lower())
    if source is ParameterSource.DEFAULT_MAP:
        origin = str(made.meta[FILE])
    if option.name == "memory_limit" and value is None:
        limit = memory_limit.of_option(None)
        value, origin = limit.bytes, f"default: a share of {limit.origin}"
    return {
        "name": option.name,
        "flag": option.opts[0],
        "value": _value(option, value),
        "from": origin,
        "variable": option.envvar,
    }


def _value(option: click.Option, value: Any) -> str | bool | list[str] | None:
    """Return a value as it is typed: with its unit, as true or false; None: nobody said one."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, tuple):
        return [str(each) for each in value]
    if isinstance(option.type, Size):
        return size_text(value)
    return duration_text(value * 1_000) if isinstance(option.type, Duration) else str(value)


def _text(value: str | bool | list[str] | None) -> str:
    """Return it as one word, or as a list is given in a variable; `-`: there is none."""
    if isinstance(value, bool):
        return str(value).lower()
    return (" ".join(value) if isinstance(value, list) else value) or "-"
