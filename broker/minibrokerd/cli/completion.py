"""`minibroker completion`: the script that teaches a shell our commands and flags."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from minibrokerd.cli.options import PREFIX


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script of SHELL: bash, zsh or fish.

    \b
    bash:  eval "$(minibroker completion bash)"     in ~/.bashrc
    zsh:   eval "$(minibroker completion zsh)"      in ~/.zshrc
    fish:  minibroker completion fish > ~/.config/fish/completions/minibroker.fish
    """
    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(context.find_root().command, {}, "minibroker", f"_{PREFIX}_COMPLETE").source())
