"""The group of all commands. A command's module is imported when the command is used: a short one starts fast."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from importlib import import_module
from keyword import iskeyword
from typing import Any, Final

import click

from minibrokerd import __version__
from minibrokerd.cli import streams
from minibrokerd.cli.endings import ending
from minibrokerd.cli.group import Group
from minibrokerd.cli.options import PREFIX
from minibrokerd.process import exits

# In the order of `--help`: the name and the module whose attribute of that name is the command.
COMMANDS: Final[Mapping[str, str]] = {
    "serve": "serve",
    "ping": "ping",
    "publish": "publish",
    "consume": "consume",
    "worker": "worker",
    "queues": "queues",
    "queue": "queues",
    "stats": "stats",
    "top": "top",
    "peek": "peeking",
    "message": "messages",
    "explain": "explaining",
    "result": "result",
    "retime": "retiming",
    "cancel": "cancelling",
    "schedule": "schedule",
    "exchange": "exchanges",
    "policy": "policies",
    "group": "log_groups",
    "read": "log_reading",
    "pause": "pausing",
    "resume": "pausing",
    "pauses": "pausing",
    "key": "keys",
    "check": "check",
    "cluster": "cluster",
    "events": "happening",
    "connections": "looking",
    "who": "looking",
    "export": "exporting",
    "import": "importing",
    "bridge": "bridge",
    "purge": "queues",
    "dlq": "dlq",
    "token": "token",
    "bench": "bench",
    "log": "log",
    "backup": "backup",
    "restore": "backup",
    "config": "config",
    "completion": "completion",
    "exits": "exit_codes",
}

EPILOG: Final = "`minibroker exits` lists the exit codes."


class _Commands(Group):
    """Looks commands up in the table, and imports what is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            sys.exit(exits.INTERRUPTED)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = COMMANDS.get(cmd_name)
        if module is None:
            return None
        name = cmd_name + "_" * iskeyword(cmd_name)
        found = getattr(import_module(f"minibrokerd.cli.{module}"), name)
        assert isinstance(found, click.Command)
        return found

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the command line of this process; click.Command."""
        run = partial(super().main, args, prog_name, complete_var, standalone_mode=False, **extra)
        if not standalone_mode:
            return run()
        streams.prepare()
        return ending(run)


@click.group(
    cls=_Commands,
    epilog=EPILOG,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "auto_envvar_prefix": PREFIX,
        "max_content_width": 110,
    },
)
@click.version_option(__version__, prog_name="minibroker")
def main() -> None:
    """A work-queue broker for background jobs: nothing that was confirmed is ever lost."""
