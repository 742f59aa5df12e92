"""`minibroker completion`: the script that teaches a shell our commands and flags."""

from __future__ import annotations

from typing import Final

import click
from click.shell_completion import get_completion_class

from minibrokerd.cli.options import PREFIX

NO_SPACE: Final = "[[ ${#COMPREPLY[@]} -gt 0 && ${COMPREPLY[0]} == *= ]] && compopt -o nospace"


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
    script = found(context.find_root().command, {}, "minibroker", f"_{PREFIX}_COMPLETE").source()
    if shell == "bash":  # what ends in an equals sign goes on with a value, not with a space
        script = script.replace("    return 0\n", f"    {NO_SPACE}\n    return 0\n")
    click.echo(script)
