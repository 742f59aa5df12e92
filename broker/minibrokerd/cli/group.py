"""A group of commands whose help cuts no description, and that says which commands it has instead of one."""

from __future__ import annotations

from typing import Final

import click

from minibrokerd.cli.nearest import nearest

MOST_NAMED: Final = 15  # commands of a group that are said where none is near
WHOLE: Final = 1_000  # letters of a description, which is the first sentence of a command's help


class Group(click.Group):
    """click's own cuts each description to what is left of one line; here it goes on in the next one."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the words name; one that there is not is told beside those it may mean."""
        names = self.list_commands(ctx)
        if args and not args[0].startswith("-") and args[0] not in names:
            near = nearest(args[0], names)
            meant = f" Did you mean {near!r}?" if near else ""
            if not near and len(names) <= MOST_NAMED:
                meant = f" There are {', '.join(names)}."
            ctx.fail(f"No such command {args[0]!r}.{meant}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands and their descriptions; click.Group."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, each.get_short_help_str(WHOLE)) for name, each in commands if each]
            )
