"""The configuration file of `serve`: a table in TOML of the flags, which environment and command line go before.

# minibroker.toml
data-dir = "/var/lib/minibroker"
port = 7272
memory-limit = "2G"
log-level = "info"
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from minibrokerd.cli.nearest import nearest
from minibrokerd.cli.options import shared_option

FILE: Final = "minibroker.file"  # in the context of a command: the path of its file
NOT_IN_FILES: Final = frozenset({"config", "check_config"})  # they are about the file
Function = TypeVar("Function", bound=Callable[..., Any])


def config_options(function: Function) -> Function:
    """Add `--config` and `--check-config` to `serve`."""
    config = shared_option(
        "--config",
        type=click.Path(dir_okay=False, path_type=Path),
        is_eager=True,  # the other flags take from it what is said nowhere else
        expose_value=False,
        callback=_take_file,
        help="TOML file that sets flags, as `port = 7272`. Environment and command line go before it.",
    )
    check = shared_option(
        "--check-config",
        is_flag=True,
        help="Check flags, environment and file, say what is wrong, and start nothing.",
    )
    return config(check(function))


def _take_file(context: click.Context, parameter: click.Parameter, path: Path | None) -> None:
    if path is not None:
        context.meta[FILE] = path
        context.default_map = {**(context.default_map or {}), **read(path, context)}


def read(path: Path, context: click.Context) -> dict[str, Any]:
    """Return what a file sets, by the names of the parameters of the command.

    Raises:
        click.UsageError: it cannot be read, is not TOML, or sets what there is not, or to what it cannot be.
    """
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise click.UsageError(f"the file of --config cannot be read: {error}") from error
    except ValueError as error:  # not UTF-8, or not TOML: the text says where
        raise click.UsageError(f"{path} is no TOML: {error}") from error
    known: Mapping[str, click.Parameter] = {
        option.name: option
        for option in context.command.params
        if isinstance(option, click.Option) and option.name and option.name not in NOT_IN_FILES
    }
    values: dict[str, Any] = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name not in known:
            near = nearest(name, known).replace("_", "-")
            meant = f" Did you mean {near!r}?" if near else ""
            raise click.UsageError(f"{path}: there is no flag --{key.replace('_', '-')}.{meant}")
        if name in values:
            raise click.UsageError(f"{path}: {key!r} stands twice, once with _ and once with -")
        values[name] = _checked(path, key, value, known[name], context)
    return values


def _checked(
    path: Path, key: str, value: Any, option: click.Parameter, context: click.Context
) -> Any:
    assert isinstance(option, click.Option)
    kind = "true or false" if option.is_flag else "a list" if option.multiple else "one value"
    fits = {
        "true or false": isinstance(value, bool),
        "a list": isinstance(value, list),
        "one value": isinstance(value, str | int | float) and not isinstance(value, bool),
    }
    if not fits[kind]:
        raise click.UsageError(f"{path}: {key!r} is {value!r}; it takes {kind}")
    if not option.is_flag:
        value = [str(each) for each in value] if option.multiple else str(value)
    try:
        option.type_cast_value(context, value)
    except click.BadParameter as error:
        raise click.UsageError(f"{path}: {key!r}: {error.message}") from error
    return value
