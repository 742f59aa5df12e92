"""The options of the commands. Each can be set by an environment variable instead, which `--help` names.

What several commands share has one variable for all of them (`MINIBROKER_URL`), and so have the flags of `serve`
(`MINIBROKER_PORT`). Every other flag has one of its command: `consume --count` is `MINIBROKER_CONSUME_COUNT`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from minibroker.contract.confirms import MessageId
from minibroker.session.address import URL_VARIABLE, default_url, is_service_link, passed_over
from minibrokerd.cli.completing import complete_id, complete_queue
from minibrokerd.cli.printing import note
from minibrokerd.cli.ranges import Duration

PREFIX: Final = "MINIBROKER"
TIMEOUT: Final = "minibroker.timeout"  # in the context of a command


class FiniteRange(click.FloatRange):
    """A number in a range; `nan` and `inf`, which Python reads as numbers, too, are refused."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the number; click.ParamType."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is no finite number.", param, ctx)
        return number


Function = TypeVar("Function", bound=Callable[..., Any])


class _Flag(click.Option):
    """Its variable has the name of the flag; click's has that of the argument, and `for` and `type` can be none.

    One with the argument's name, as help named it in 0.1.0, is read where this one is not set.
    """

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        """Return the variable's value; click.Option."""
        self._name_variable(ctx)
        return super().resolve_envvar_value(ctx)

    def get_help_extra(self, ctx: click.Context) -> Any:
        """Return what help says behind the text; click.Option."""
        self._name_variable(ctx)
        return super().get_help_extra(ctx)

    def _name_variable(self, ctx: click.Context) -> None:
        if not self.envvar and self.allow_from_autoenv and ctx.auto_envvar_prefix is not None:
            flag = max(self.opts, key=len).lstrip("-")
            self.envvar = f"{ctx.auto_envvar_prefix}_{flag}".replace("-", "_").upper()


def option(*names: str, **attributes: Any) -> Callable[[Function], Function]:
    """Return a click option whose help shows its default and its environment variable."""
    shown = {"cls": _Flag, "show_default": True, "show_envvar": True}
    return click.option(*names, **{**shown, **attributes})


def shared_option(name: str, *more: str, **attributes: Any) -> Callable[[Function], Function]:
    """Return an option with the variable `MINIBROKER_NAME`, whichever command it belongs to."""
    flag = name.partition("/")[0]  # of a pair like --this/--no-this
    variable = PREFIX + "_" + flag.lstrip("-").replace("-", "_").upper()
    return option(name, *more, envvar=variable, **attributes)


def data_dir_option(function: Function) -> Function:
    """Add `--data-dir` to a command."""
    return shared_option(
        "--data-dir",
        type=click.Path(file_okay=False, path_type=Path),
        default=Path("data"),
        help="Where the log is kept; serve makes it if missing, and locks it, but not with --log.",
    )(function)


def log_options(more: str = "") -> Callable[[Function], Function]:
    """Return `--log-format` and `--log-level`, for a command that runs on; `more`: what its events are."""
    format_option = shared_option(
        "--log-format",
        type=click.Choice(["text", "json"]),
        default="text",
        help="How events are written to standard error.",
    )
    level_option = shared_option(
        "--log-level",
        type=click.Choice(["debug", "info", "warning", "error"]),
        default="info",
        help=f"The least important events that are written{more}.",
    )
    return lambda function: format_option(level_option(function))


def json_option(function: Function) -> Function:
    """Add `--json` to a command."""
    return shared_option(
        "--json", "as_json", is_flag=True, help="Print JSON, one value a line, for programs."
    )(function)


def url_option(function: Function) -> Function:
    """Add `--url` to a command."""
    return shared_option(
        "--url",
        default=_default_url,
        show_default="where `serve` would listen here, by MINIBROKER_HOST and MINIBROKER_PORT",
        help="Address of the server, like minibroker://127.0.0.1:7272; of brokers of which one leads: minibroker://a,b,c.",
    )(function)


def _default_url() -> str:
    try:
        url = default_url(os.environ)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--url") from error
    if not os.environ.get(URL_VARIABLE) and (warning := passed_over(os.environ)):
        note(f"minibroker: {warning}")
    return url


class PortOption(click.Option):
    """The port of `serve`; its variable may hold what an orchestrator set for a service of that name."""

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        """Return the variable's value, unless it is not meant for us; click.Parameter."""
        return None if is_service_link(os.environ) else super().resolve_envvar_value(ctx)


def timeout_option(function: Function) -> Function:
    """Add `--timeout`, which is not handed to the command but to those who talk to the server for it."""
    return shared_option(
        "--timeout",
        type=Duration(1),
        default="30s",
        expose_value=False,
        callback=keep_as(TIMEOUT),
        help="How long the server may take for an answer.",
    )(function)


def keep_as(key: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    """Return the callback of an option whose value is kept in `meta` of the context, under this key."""

    def keep(context: click.Context, parameter: click.Parameter, value: Any) -> None:
        context.meta[key] = value

    return keep


def timeout_s(default: float = 30.0) -> float:
    """Return the `--timeout` of the command that runs, in seconds."""
    context = click.get_current_context(silent=True)
    return default if context is None else float(context.meta.get(TIMEOUT, default))


def client_options(function: Function) -> Function:
    """Add what every command has that talks to a server: `--url`, `--timeout` and `--json`."""
    return url_option(timeout_option(json_option(function)))


def queue_argument(complete: Any = complete_queue) -> Callable[[Function], Function]:
    """Return what adds the argument QUEUE."""
    return click.argument("queue", shell_complete=complete)


def ids_argument(
    complete: Any = complete_id, *, required: bool = True
) -> Callable[[Function], Function]:
    """Return what adds the argument ID, which may be given more than once."""
    metavar = "ID..." if required else "[ID]..."
    return click.argument(
        "ids", nargs=-1, required=required, type=Id(), metavar=metavar, shell_complete=complete
    )


class Id(click.ParamType):  # type: ignore[type-arg]  # it takes none in older releases
    """The id of a message, as lists print it."""

    name = "id"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> MessageId:
        """Return the id; click.ParamType."""
        if isinstance(value, MessageId):
            return value
        try:
            return MessageId.parse(str(value))
        except ValueError:
            self.fail(
                f"{value!r} is no message id; `peek` and `dlq list` show them, like 1-42",
                param,
                ctx,
            )
