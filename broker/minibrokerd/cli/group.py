"""A group of commands whose help cuts no description."""

from __future__ import annotations

from typing import Final

import click

WHOLE: Final = 1_000  # letters of a description, which is the first sentence of a command's help


class Group(click.Group):
    """click's own cuts each description to what is left of one line; here it goes on in the next one."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands and their descriptions; click.Group."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, each.get_short_help_str(WHOLE)) for name, each in commands if each]
            )
