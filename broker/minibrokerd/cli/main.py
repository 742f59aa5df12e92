"""The group of all commands. A command's module is imported when the command is used: a short one starts fast."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import Any, Final

import click

from minibrokerd import __version__, exits
from minibrokerd.cli.options import PREFIX
from minibrokerd.exits import epilog

# In the order of `--help`: the name and the module whose attribute of that name is the command.
COMMANDS: Final[Mapping[str, str]] = {
    "serve": "serve",
    "ping": "ping",
    "publish": "publish",
    "consume": "consume",
    "queues": "queues",
    "queue": "queues",
    "stats": "stats",
    "peek": "peeking",
    "purge": "queues",
    "dlq": "dlq",
    "bench": "bench",
    "log": "log",
    "config": "config",
    "completion": "completion",
}


class _Commands(click.Group):
    """Looks commands up in the table, and imports what is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            near = get_close_matches(args[0], COMMANDS, n=1)
            meant = f" Did you mean {near[0]!r}?" if near else ""
            ctx.fail(f"No such command {args[0]!r}.{meant}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            sys.exit(exits.INTERRUPTED)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = COMMANDS.get(cmd_name)
        if module is None:
            return None
        found = getattr(import_module(f"minibrokerd.cli.{module}"), cmd_name)
        assert isinstance(found, click.Command)
        found.epilog = found.epilog or epilog()
        return found


@click.group(
    cls=_Commands,
    epilog=epilog(),
    context_settings={
        "help_option_names": ["-h", "--help"],
        "auto_envvar_prefix": PREFIX,
        "max_content_width": 110,
    },
)
@click.version_option(__version__, prog_name="minibroker")
def main() -> None:
    """A work-queue broker for background jobs: nothing that was confirmed is ever lost."""
    _hold_streams()


def _hold_streams() -> None:
    """Open what is closed of the standard streams, before any other file is opened.

    Else a segment of the log might get the number of standard error, and events be written into it.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # It takes the lowest free number, which is that of the stream.
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))
