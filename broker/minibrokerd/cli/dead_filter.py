"""`--where`: which dead messages, as NAME=VALUE."""

from __future__ import annotations

from typing import Any, Final

import click

from minibroker.contract.errors import BadValue
from minibroker.session.dead import Where
from minibrokerd.cli.options import Function, option
from minibrokerd.text.units import parse_ms

# As the command line calls them, and as `Where` does.
NAMES: Final = {
    "class": "error_class",
    "text": "error_text",
    "cause": "cause",
    "group": "group",
    "key": "key",
    "origin": "origin",
    "older": "older",
    "younger": "younger",
}
SPANS: Final = ("older", "younger")


class Condition(click.ParamType):  # type: ignore[type-arg]  # it takes none in older releases
    """One condition on dead messages."""

    name = "condition"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str | float]:
        """Return the name that `Where` has for it, and its value; click.ParamType."""
        if isinstance(value, tuple):
            return value[0], value[1]
        name, equals, text = str(value).partition("=")
        if not equals or not text or name not in NAMES:
            self.fail(f"{value!r} is not NAME=VALUE with one of {', '.join(NAMES)}.", param, ctx)
        if name not in SPANS:
            return NAMES[name], text
        try:
            return NAMES[name], parse_ms(text) / 1_000
        except ValueError as error:
            self.fail(f"{name}: {error}", param, ctx)


def where_option(function: Function) -> Function:
    """Add `--where`, which may be given more than once."""
    return option(
        "--where",
        type=Condition(),
        multiple=True,
        metavar="NAME=VALUE",
        callback=_together,
        help="Only those of which this holds, and all others that are given: class, cause (failed, rejected, "
        "expired, worker_lost), group, key, origin (the queue it was published to), text (a part of the error's), "
        "older or younger (dead for so long, like 10m).",
    )(function)


def _together(
    context: click.Context, parameter: click.Parameter, conditions: tuple[tuple[str, Any], ...]
) -> Where | None:
    given = dict(conditions)
    if len(given) < len(conditions):
        raise click.BadParameter("a name was given twice", context, parameter)
    where = Where(**given) if given else None
    try:
        if where is not None:
            where.fields()
    except BadValue as error:
        raise click.BadParameter(str(error), context, parameter) from error
    return where
